"""Bills: what a merchant redeemed in a day, settled the next morning.

A bill is the lines of `bill_lines` and nothing else, and each line was written together with the
ledger's entry for it. So the sum over all bills is what the ledger says was redeemed, always.
"""
