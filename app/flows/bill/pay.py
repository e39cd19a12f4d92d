"""Pay: note that a bill was settled, once; a postpaid merchant may then redeem as much again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.bill.close import date_of
from app.flows.trail import act
from app.store import entries, merchants, settlement
from app.store.settlement import Bill
from app.vault import Vault
from ledger.entries import instant
from ledger.errors import Insufficient
from ledger.transfers import fund_merchant


class BillError(Exception):
    """The bill cannot be shown, or settled; the code says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def pay(
    tx: Connection, vault: Vault, who: str, code: str, day: int, reference: str, now: datetime
) -> Bill:
    """Note that a merchant's bill of a day was settled by a payment of this reference; the bill.

    By a postpaid contract its points are granted again as allowance, or taken back if more was
    refunded than redeemed; a closed merchant has none. The same reference again changes nothing.
    Raises BillError BILL_UNKNOWN, BILL_PAID, ALLOWANCE_EXHAUSTED.
    """
    merchant = merchants.lock(tx, code)
    bill = settlement.find(tx, merchant.id, day) if merchant else None
    if merchant is None or bill is None:
        raise BillError("BILL_UNKNOWN", f"{code} has no bill of {date_of(day)}")
    if bill.reference == reference:
        return bill
    if bill.reference is not None:
        raise BillError("BILL_PAID", f"this bill was settled before, by {bill.reference}")
    settlement.pay(tx, merchant.id, day, reference, now)
    granted = bill.points if bill.terms.mode == "postpaid" and merchant.state != "closed" else 0
    if granted:
        _grant(tx, vault, bill, granted, reference, now)
    detail = {
        "date": date_of(day).isoformat(),
        "granted_points": str(granted),
        "reference": reference,
    }
    act(tx, who, "bill.paid", code, detail, now)
    return bill._replace(reference=reference, paid_at=now)


def _grant(
    tx: Connection, vault: Vault, bill: Bill, points: int, reference: str, now: datetime
) -> None:
    entry = fund_merchant(
        id=vault.entry_id("bill.paid", f"{bill.merchant}\0{bill.day}"),
        at=instant(now),
        merchant=bill.merchant,
        points=points,
        reference=reference,
    )
    try:
        entries.append(tx, [entry])
    except Insufficient:
        detail = (
            f"more was refunded than redeemed, and {bill.code} has less than {-points} points of"
            " allowance left to take back; settle its other bills first"
        )
        raise BillError("ALLOWANCE_EXHAUSTED", detail) from None
