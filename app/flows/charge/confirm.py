"""Confirm, or decline: a resident answers a charge that waits for them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows import redeem
from app.flows.charge.charge import bill
from app.flows.charge.query import ChargeError
from app.flows.charge.timeout import end
from app.store import charges, people
from app.store.charges import Face
from app.vault import Vault

_CLOSED = {
    "pending": "the minute for it is over",
    "succeeded": "it is paid",
    "failed": "it failed",
    "reversed": "the merchant has reversed it",
}


def confirm(tx: Connection, vault: Vault, resident: str, id: str, now: datetime) -> Face:
    """Pay a charge of one's own; paid already, it is answered again. Raises ChargeError
    CHARGE_UNKNOWN, CHARGE_CLOSED, and Exhausted: `give_up` then, in another transaction."""
    found = _lock(tx, resident, id)
    one = found.charge
    if one.state == "succeeded":
        return found
    if one.state != "pending" or one.expires_at is None or now >= one.expires_at:
        raise _closed(one.state)
    moved = redeem.redeem(tx, vault, one.hold or "", one.merchant, now)
    bill(tx, one, moved, now)
    paid = one._replace(state="succeeded", entry=moved.entry.id, closed_at=now)
    charges.change(tx, paid)
    return found._replace(charge=paid)


def decline(tx: Connection, vault: Vault, resident: str, id: str, now: datetime) -> Face:
    """Refuse a charge of one's own; refused already, it is answered again. Raises ChargeError
    CHARGE_UNKNOWN, CHARGE_CLOSED."""
    found = _lock(tx, resident, id)
    one = found.charge
    if one.code == "CONFIRMATION_DECLINED":
        return found
    if one.state != "pending":
        raise _closed(one.state)
    return found._replace(charge=end(tx, vault, one, "failed", "CONFIRMATION_DECLINED", now))


def give_up(tx: Connection, vault: Vault, resident: str, id: str, now: datetime) -> None:
    """End a charge that its merchant's allowance does not cover any more."""
    one = _lock(tx, resident, id).charge
    if one.state == "pending":
        end(tx, vault, one, "failed", "ALLOWANCE_EXHAUSTED", now)


def _lock(tx: Connection, resident: str, id: str) -> Face:
    alive = people.lock(tx, resident) is not None
    found = charges.lock_own(tx, resident, id) if alive else None
    if found is None:
        raise ChargeError("CHARGE_UNKNOWN", "you have no charge of this id")
    return found


def _closed(state: str) -> ChargeError:
    return ChargeError("CHARGE_CLOSED", f"this charge waits for no answer: {_CLOSED[state]}")
