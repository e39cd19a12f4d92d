"""Redeem: set points aside, then cancel them for a merchant or give them back; and refund.

These are the ledger's moves, each idempotent by its caller's request number. Merchants, orders and
tills stand on them.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.store import entries, people
from app.vault import Vault
from ledger import transfers
from ledger.accounts import Asset
from ledger.buckets import day_number
from ledger.entries import Entry, Kind, instant
from ledger.errors import Refused


def hold(
    engine: Engine, vault: Vault, resident: str, points: int, request: str, now: datetime
) -> Entry:
    """Set points aside, earliest bucket first. Raises Insufficient; Refused if there is no such
    living resident."""
    with engine.begin() as tx:
        if people.lock(tx, resident) is None:
            raise Refused("There is no such resident.")
        entry_id = vault.entry_id("hold", f"{resident}\0{request}")
        found = entries.find(tx, entry_id)
        if found is not None:
            return found[1]
        wallet = people.wallet(tx, resident)
        entry = transfers.hold(
            id=entry_id,
            at=instant(now),
            resident=resident,
            points=points,
            wallet={bucket: n for (asset, bucket), n in wallet.items() if asset is Asset.POINT},
            today=day_number(now.astimezone(CITY_ZONE).date()),
        )
        entries.append(tx, [entry])
        return entry


def release(engine: Engine, vault: Vault, hold_id: str, now: datetime) -> Entry:
    """Give a hold back. Raises Refused if it was redeemed or does not exist."""
    return _resolve(engine, vault, hold_id, None, now)


def redeem(engine: Engine, vault: Vault, hold_id: str, merchant: str, now: datetime) -> Entry:
    """Cancel a hold's points for a merchant. Raises Refused if it was released or is unknown."""
    return _resolve(engine, vault, hold_id, merchant, now)


def _resolve(
    engine: Engine, vault: Vault, hold_id: str, merchant: str | None, now: datetime
) -> Entry:
    """One entry id stands for 'the hold's resolution', so that there can only ever be one."""
    with engine.begin() as tx:
        held = _find(tx, hold_id, Kind.HOLD)
        if people.lock(tx, held.resident) is None:
            raise Refused("The resident of this hold was erased.")
        entry_id, at = vault.entry_id("resolve", hold_id), instant(now)
        found = entries.find(tx, entry_id)
        if found is not None:
            if found[1].detail.get("merchant") != merchant:
                raise Refused(f"The hold was resolved already, by a {found[1].kind}.")
            return found[1]
        if merchant is None:
            entry = transfers.release(id=entry_id, at=at, hold=held)
        else:
            entry = transfers.redeem(id=entry_id, at=at, hold=held, merchant=merchant)
        entries.append(tx, [entry])
        return entry


def refund(
    engine: Engine, vault: Vault, redeem_id: str, points: int, request: str, now: datetime
) -> Entry:
    """Give points of a redemption back, at most what it cancelled. Raises Insufficient, Refused."""
    with engine.begin() as tx:
        redeemed = _find(tx, redeem_id, Kind.REDEEM)
        if people.lock(tx, redeemed.resident) is None:
            raise Refused("The resident of this redemption was erased.")
        entry_id = vault.entry_id("refund", f"{redeem_id}\0{request}")
        found = entries.find(tx, entry_id)
        if found is not None:
            return found[1]
        back: dict[int, int] = defaultdict(int)
        for earlier in entries.of_kind(tx, redeemed.resident, Kind.REFUND):
            if earlier.detail["redeem"] == redeem_id:
                for posting in earlier.postings:
                    back[posting.bucket] += max(posting.amount, 0)
        entry = transfers.refund(
            id=entry_id, at=instant(now), redeem=redeemed, points=points, refunded=back
        )
        entries.append(tx, [entry])
        return entry


def _find(tx: Connection, entry_id: str, kind: Kind) -> Entry:
    found = entries.find(tx, entry_id)
    if found is None or found[1].kind is not kind:
        raise Refused(f"There is no {kind} with this id.")
    return found[1]
