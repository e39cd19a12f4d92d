"""Redeem: set points aside, cancel them for a merchant or give them back; and refund.

The ledger's moves that charges and orders share, each inside its caller's transaction. The caller
has locked the resident (`people.lock`, `people.lock_spending`) and then its own rows, and calls
these last: what they change is where many tills meet. With each redemption and refund it writes one
bill line.

Every move gives the entry with its arrival number, and has one entry id for its request: done
again, it gives the same entry. A `charge` is asked for once by whoever holds the row of its number.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.store import entries, people
from app.vault import Vault
from ledger import transfers
from ledger.accounts import Asset
from ledger.buckets import day_number
from ledger.entries import Entry, Kind, instant
from ledger.errors import Refused


class Moved(NamedTuple):
    """An appended entry, and its arrival number."""

    arrival: int
    entry: Entry


def hold(
    tx: Connection, vault: Vault, resident: str, points: int, request: str, now: datetime
) -> Moved:
    """Set points aside, earliest bucket first. Raises Insufficient."""
    entry_id = vault.entry_id("hold", f"{resident}\0{request}")
    found = entries.find(tx, entry_id)
    if found is not None:
        return Moved(*found)
    entry = transfers.hold(
        id=entry_id,
        at=instant(now),
        resident=resident,
        points=points,
        wallet=_points(tx, resident),
        today=_today(now),
    )
    return _append(tx, entry)


def release(tx: Connection, vault: Vault, hold_id: str, now: datetime) -> Moved:
    """Give a hold back. Raises Refused if it was redeemed or does not exist."""
    return _resolve(tx, vault, hold_id, None, now)


def redeem(tx: Connection, vault: Vault, hold_id: str, merchant: str, now: datetime) -> Moved:
    """Cancel a hold's points for a merchant. Raises Refused if it was released or is unknown,
    Exhausted if the merchant's allowance does not cover them."""
    return _resolve(tx, vault, hold_id, merchant, now)


def _resolve(
    tx: Connection, vault: Vault, hold_id: str, merchant: str | None, now: datetime
) -> Moved:
    """One entry id stands for 'the hold's resolution', so that there can only ever be one."""
    held = _find(tx, hold_id, Kind.HOLD)
    entry_id, at = vault.entry_id("resolve", hold_id), instant(now)
    found = entries.find(tx, entry_id)
    if found is not None:
        if found[1].detail.get("merchant") != merchant:
            raise Refused(f"The hold was resolved already, by a {found[1].kind}.")
        return Moved(*found)
    if merchant is None:
        return _append(tx, transfers.release(id=entry_id, at=at, hold=held))
    return _append(tx, transfers.redeem(id=entry_id, at=at, hold=held, merchant=merchant))


def charge(
    tx: Connection,
    vault: Vault,
    resident: str,
    points: int,
    merchant: str,
    request: str,
    now: datetime,
) -> Moved:
    """Cancel points for a merchant at once, earliest bucket first; `request` is the merchant's own
    number. Raises Insufficient, Exhausted if the merchant's allowance does not cover them, and
    IntegrityError if that request was charged before."""
    entry = transfers.charge(
        id=vault.entry_id("charge", f"{merchant}\0{request}"),
        at=instant(now),
        resident=resident,
        points=points,
        wallet=_points(tx, resident),
        today=_today(now),
        merchant=merchant,
    )
    return _append(tx, entry)


def refund(
    tx: Connection,
    vault: Vault,
    redeem_id: str,
    points: int,
    refunded: int,
    request: str,
    now: datetime,
) -> Moved:
    """Give points of a redemption back, at most what it cancelled; `refunded` is what its refunds
    gave back so far, by a row that the caller has locked. If the resident was erased, the points
    are gone and the merchant's side is still put right. Raises Insufficient, Refused."""
    redeemed = _find(tx, redeem_id, Kind.REDEEM)
    erased = people.lock(tx, redeemed.resident) is None
    entry_id = vault.entry_id("refund", f"{redeem_id}\0{request}")
    found = entries.find(tx, entry_id)
    if found is not None:
        return Moved(*found)
    entry = transfers.refund(
        id=entry_id,
        at=instant(now),
        redeem=redeemed,
        points=points,
        refunded=refunded,
        today=_today(now),
        erased=erased,
    )
    return _append(tx, entry)


def _append(tx: Connection, entry: Entry) -> Moved:
    (arrival,) = entries.append(tx, [entry])
    return Moved(arrival, entry)


def _find(tx: Connection, entry_id: str, kind: Kind) -> Entry:
    found = entries.find(tx, entry_id)
    if found is None or found[1].kind is not kind:
        raise Refused(f"There is no {kind} with this id.")
    return found[1]


def _points(tx: Connection, resident: str) -> dict[int, int]:
    wallet = people.wallet(tx, resident)
    return {bucket: amount for (asset, bucket), amount in wallet.items() if asset is Asset.POINT}


def _today(now: datetime) -> int:
    return day_number(now.astimezone(CITY_ZONE).date())
