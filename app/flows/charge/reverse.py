"""Reverse: whatever became of a charge, nothing is left of it afterwards. One transaction.

Legal in every state, and the same however often it is asked for. What was paid goes back, what is
pending is released, what failed stays so; and a number that never came can be used no more.
"""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.charge.query import (
    Returned,
    hold_still,
    must_be_own,
    query,
    returned,
)
from app.flows.charge.refund import give_back, manager_needed, refund_entry
from app.flows.charge.timeout import end
from app.store import charges
from app.store.charges import Charge, Face
from app.store.db import transact
from app.store.merchants import Partner
from app.vault import Vault


class Reversed(NamedTuple):
    """A charge after its reversal, and what that gave back: nothing if nothing was left."""

    face: Face
    returned: Returned


def reverse(
    engine: Engine, vault: Vault, partner: Partner, number: str, staff: str | None, now: datetime
) -> Reversed:
    """Reverse the charge of this number. Raises ChargeError TILL_NOT_YOURS, and MANAGER_NEEDED for
    what was paid before today."""
    return transact(engine, lambda tx: _attempt(tx, vault, partner, number, staff, now))


def _attempt(
    tx: Connection, vault: Vault, partner: Partner, number: str, staff: str | None, now: datetime
) -> Reversed:
    found = hold_still(tx, partner.id, number)
    if found is None and charges.put(tx, _tombstone(partner, number, now)):
        return Reversed(query(tx, partner.id, number), Returned(0, to_nobody=False))
    if found is None:  # the charge came while this one looked
        found = hold_still(tx, partner.id, number) or query(tx, partner.id, number)
    one = found.charge
    must_be_own(one, partner.till)
    if one.state == "pending":
        one = end(tx, vault, one, "reversed", "", now)
    elif one.state == "succeeded":
        if _day(one.at) != _day(now) and (fault := manager_needed(tx, partner.id, staff)):
            raise fault
        whole = one._replace(state="reversed", refunded=one.points, closed_at=now)
        charges.change(tx, whole)
        if one.refunded < one.points:
            give_back(tx, vault, one, one.points - one.refunded, "", now)
        one = whole
    return Reversed(found._replace(charge=one), _returned(tx, vault, one))


def _returned(tx: Connection, vault: Vault, one: Charge) -> Returned:
    """What the reversal gave back: all that earlier refunds had left."""
    if one.state != "reversed" or one.entry is None:
        return Returned(0, to_nobody=False)
    points = one.points - charges.refunded_by_number(tx, one.merchant, one.number)
    return returned(tx, refund_entry(vault, one, ""), points)


def _tombstone(partner: Partner, number: str, now: datetime) -> Charge:
    """Stands in the place of a charge that never came, and never will."""
    return Charge(
        merchant=partner.id,
        number=number,
        id=token_hex(16),
        digest=None,
        resident=None,
        device=None,
        store=None,
        till=partner.till,
        staff=None,
        points=0,
        refunded=0,
        state="reversed",
        code="",
        detail="",
        hold=None,
        entry=None,
        at=now,
        expires_at=None,
        closed_at=now,
    )


def _day(at: datetime) -> object:
    return at.astimezone(CITY_ZONE).date()
