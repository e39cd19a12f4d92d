"""Refund: give back some of a charge, or all of it, under a number of its own. One transaction."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, Engine

from app.flows import redeem
from app.flows.charge.query import (
    ChargeError,
    Returned,
    hold_still,
    must_be_own,
    must_be_same,
    query_refund,
    returned,
)
from app.flows.notify import notify
from app.store import bills, charges, merchants
from app.store.charges import Charge, Face, Refund
from app.store.db import transact
from app.store.merchants import Partner
from app.vault import Vault

_UNPAID = {
    "pending": "it waits for its resident; reverse it instead",
    "failed": "it failed, and took nothing",
    "reversed": "it was reversed, and nothing is left of it",
}


class Asked(NamedTuple):
    """What a till asks: `charge` is the number of what was paid, `staff` whoever gives it back."""

    partner: Partner
    number: str
    charge: str
    points: int
    reason: str
    staff: str | None


def refund(engine: Engine, vault: Vault, asked: Asked, now: datetime) -> tuple[Refund, Returned]:
    """Refund, once for each number; what became of it, failures too, and what it gave back.

    Raises ChargeError REQUEST_NO_REUSED.
    """
    return transact(engine, lambda tx: _attempt(tx, vault, asked, now))


def _attempt(tx: Connection, vault: Vault, asked: Asked, now: datetime) -> tuple[Refund, Returned]:
    merchant = asked.partner.id
    said = orjson.dumps([asked.charge, asked.points, asked.reason, asked.staff]).decode()
    digest = vault.mark(f"refund {said}", 32)
    found = hold_still(tx, merchant, asked.charge)
    fault = _fault(tx, asked, found)
    made = Refund(
        merchant=merchant,
        number=asked.number,
        digest=digest,
        charge=asked.charge,
        points=asked.points,
        state="failed" if fault else "succeeded",
        code=fault.code if fault else "",
        detail=str(fault) if fault else "",
        staff=asked.staff,
        reason=asked.reason,
        entry=None if fault or not found else refund_entry(vault, found.charge, asked.number),
        at=now,
    )
    if not charges.put_refund(tx, made):
        kept = query_refund(tx, merchant, asked.number)
        must_be_same(digest, kept[0].digest)
        return kept
    if fault is None and found is not None:
        if found.charge.resident is not None:
            params = {"points": str(asked.points), "merchant": found.merchant_name}
            key = f"{found.charge.id} {asked.number}"
            notify(tx, vault, found.charge.resident, "charge.refunded", key, params, now)
        one = found.charge
        charges.change(tx, one._replace(refunded=one.refunded + asked.points))
        give_back(tx, vault, one, asked.points, asked.number, now)
    return made, returned(tx, made.entry, made.points)


def _fault(tx: Connection, asked: Asked, found: Face | None) -> ChargeError | None:
    """Why this cannot be given back; None if it can."""
    if found is None:
        return ChargeError("CHARGE_UNKNOWN", f"no charge came under the number {asked.charge}")
    one = found.charge
    try:
        must_be_own(one, asked.partner.till)
    except ChargeError as not_own:
        return not_own
    if one.state != "succeeded":
        return ChargeError("CHARGE_NOT_PAID", f"the charge is {one.state}: {_UNPAID[one.state]}")
    if asked.points > one.points - one.refunded:
        left = one.points - one.refunded
        return ChargeError("REFUND_EXCEEDS", f"of the charge only {left} points are left to refund")
    return manager_needed(tx, asked.partner.id, asked.staff)


def manager_needed(tx: Connection, merchant: str, staff: str | None) -> ChargeError | None:
    """The refusal of an employee who may not give points back; None if they may."""
    if merchants.may_refund(tx, merchant, staff):
        return None
    detail = "send as staff the number of a manager or an owner; others may not give points back"
    return ChargeError("MANAGER_NEEDED", detail)


def give_back(
    tx: Connection, vault: Vault, one: Charge, points: int, number: str, now: datetime
) -> None:
    """Give points of a charge back, which is locked as its resident is, with a line on the
    merchant's bill. Without a `number` it is a reversal."""
    request = _request(number)
    moved = redeem.refund(tx, vault, one.entry or "", points, one.refunded, request, now)
    line = bills.Line(
        arrival=moved.arrival,
        merchant=one.merchant,
        kind="refund" if number else "reverse",
        number=number or one.number,
        origin=one.number,
        entry_id=moved.entry.id,
        points=-points,
        store=one.store,
        till=one.till,
    )
    bills.add(tx, line, now)


def refund_entry(vault: Vault, one: Charge, number: str) -> str:
    """The id of the ledger's refund under this number; without a number, of the reversal."""
    return vault.entry_id("refund", f"{one.entry}\0{_request(number)}")


def _request(number: str) -> str:
    return f"refund {number}" if number else "reverse"
