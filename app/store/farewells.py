"""Residents' word on themselves: where they live, that no more is to be done, that they leave."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array
from app.store.detached import whole
from ledger.entries import Entry, Kind


class Profile(NamedTuple):
    """What is kept of a resident as such."""

    district: str
    joined_at: datetime
    restricted_at: datetime | None


_PROFILE = text("""
SELECT district, joined_at, restricted_at FROM residents WHERE id = :id AND erased_at IS NULL""")
_MOVE = text("""
UPDATE residents SET district = :district WHERE id = :id AND erased_at IS NULL
RETURNING district, joined_at, restricted_at""")
# A batch that has read that processing is not restricted is waited for.
_RESTRICT = text("""
WITH held AS (SELECT id FROM residents WHERE id = :id AND erased_at IS NULL FOR UPDATE)
UPDATE residents r SET restricted_at =
  CASE WHEN :on THEN coalesce(restricted_at, CAST(:now AS timestamptz)) END
FROM held WHERE r.id = held.id
RETURNING district, joined_at, restricted_at""")
_ASK = text("""
INSERT INTO farewells (resident, code, asked_at) VALUES (:resident, :code, :now)
ON CONFLICT (resident) DO UPDATE SET code = excluded.code, asked_at = excluded.asked_at""")


def ask(tx: Connection, resident: str, code: bytes, now: datetime) -> None:
    """Keep the keyed hash of the code that confirms; an earlier one is void."""
    tx.execute(_ASK, {"resident": bytes.fromhex(resident), "code": code, "now": now})


def asked(tx: Connection, resident: str, since: datetime) -> bytes | None:
    """The keyed hash of the code that confirms, if one was given since that moment."""
    return tx.execute(
        text("SELECT code FROM farewells WHERE resident = :resident AND asked_at >= :since"),
        {"resident": bytes.fromhex(resident), "since": since},
    ).scalar()


def in_the_log(tx: Connection) -> list[str]:
    """Everybody whom the ledger says was erased. Reads all entries: for after a restore."""
    query = text("SELECT payload, arrival FROM entries WHERE kind = :kind")
    rows = tx.execute(query, {"kind": Kind.SUBJECT_ERASED}).all()
    return [account_of(Entry.parse(whole(tx, *row))) for row in rows]


def account_of(entry: Entry) -> str:
    """Whom a `subject.erased` entry is about."""
    account: str = entry.detail["account"]
    return account.removeprefix("resident:")


def known(tx: Connection, residents: Iterable[str]) -> set[str]:
    """Which of these accounts this database has."""
    rows = tx.execute(
        text("SELECT id FROM residents WHERE id = ANY(CAST(:ids AS bytea[]))"),
        {"ids": bytea_array(map(bytes.fromhex, residents))},
    )
    return {one.hex() for one in rows.scalars()}


def profile(tx: Connection, resident: str) -> Profile | None:
    """What is kept of a living resident as such."""
    return _read(tx.execute(_PROFILE, {"id": bytes.fromhex(resident)}).first())


def move(tx: Connection, resident: str, district: str) -> Profile | None:
    """Correct the district of a living resident; what is kept then."""
    return _read(tx.execute(_MOVE, {"id": bytes.fromhex(resident), "district": district}).first())


def restrict(tx: Connection, resident: str, on: bool, now: datetime) -> Profile | None:
    """Restrict the use of a living resident's data, or lift that; what is kept then. The first
    time counts. Pushes that are due are not sent any more."""
    parameters = {"id": bytes.fromhex(resident), "on": on, "now": now}
    if on:
        tx.execute(
            text("UPDATE messages SET push = 'none' WHERE resident = :id AND push = 'due'"),
            parameters,
        )
    return _read(tx.execute(_RESTRICT, parameters).first())


def _read(row: Any) -> Profile | None:
    return Profile(*row) if row else None
