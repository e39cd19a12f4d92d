"""What a confirmed order brings: vouchers; shown by residents; used, returned, voided or lapsed.

A voucher is used at most once, by whoever locks its row first. Its code lies sealed under its
resident's own key, to be shown, and as a keyed hash, to be found; nobody here can list codes.
"""
