"""Pay: note that a bill was settled, once; what was on credit may then be redeemed again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.bill.close import date_of
from app.flows.partner.fund import grant
from app.flows.trail import act
from app.store import merchants, settlement
from app.store.settlement import Bill
from app.vault import Vault


class BillError(Exception):
    """The bill cannot be shown, or settled; the code says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def pay(
    tx: Connection, vault: Vault, who: str, code: str, day: int, reference: str, now: datetime
) -> Bill:
    """Note that a merchant's bill of a day was settled by a payment of this reference; the bill.

    Its points under a postpaid contract are granted again as allowance, or taken back if more was
    refunded than redeemed; a closed merchant has none. The same reference again changes nothing.
    Raises BillError BILL_UNKNOWN, BILL_PAID, ALLOWANCE_IN_USE.
    """
    merchant = merchants.lock(tx, code)
    bill = settlement.find(tx, merchant.id, day) if merchant else None
    if merchant is None or bill is None:
        raise BillError("BILL_UNKNOWN", f"{code} has no bill of {date_of(day)}")
    if bill.reference not in (None, reference):
        raise BillError("BILL_PAID", f"this bill was settled before, by {bill.reference}")
    detail = {"date": date_of(day).isoformat(), "reference": reference}
    if bill.reference == reference:
        act(tx, who, "bill.paid_before", code, detail, now)
        return bill
    settlement.pay(tx, merchant.id, day, reference, now)
    points = 0 if merchant.state == "closed" else settlement.on_credit(tx, merchant.id, day)
    if points < 0 and (left := merchants.lock_allowance(tx, merchant.id)) < -points:
        raise BillError(
            "ALLOWANCE_IN_USE",
            f"more was refunded than redeemed: {-points} points are to be taken back and {left} are"
            f" left; settle other bills of {code} first",
        )
    if points:
        granted = grant(tx, vault, merchant.id, points, f"bill {date_of(day)}", now)[0]
        detail |= {"entry_id": granted.id, "points": str(points)}
    act(tx, who, "bill.paid", code, detail, now)
    return bill._replace(reference=reference, paid_at=now)
