"""Charges at a till: a resident shows a code, a merchant takes points for it under its own number.

    (nothing) ──charge──▶ succeeded | failed      at once, for most
    (nothing) ──charge──▶ pending                 above a limit: points are held for the resident
    pending ──confirm──▶ succeeded                by the resident, within a minute
    pending ──decline, time out, leave──▶ failed  the points are released
    succeeded ──refund──▶ succeeded               some of it, or all of it
    any ──reverse──▶ reversed                     what had not gone back goes back; failed stays so

The row of a merchant's number decides: who inserts it first has the number, and a reversal that
comes before its charge takes the number away from it. All that is locked is locked in everybody's
order: the resident, the charge, balances.
"""
