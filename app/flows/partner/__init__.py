"""Partners: a merchant applies, an operator decides, and the merchant keeps its own house.

    applied ──approve──▶ approved ◀──resume── suspended      by an operator, with a reason;
    approved ──suspend──▶ suspended                          approving needs a contract
    applied, approved, suspended ──close──▶ closed           what is left of the allowance goes back

What a merchant may still redeem is its allowance: the balance of its account in the ledger. A
prepaid one pays in (`fund`); a postpaid one has the limit of its contract, given again as its bills
are paid. All that is locked is locked in everybody's order: the merchant, then balances.
"""
