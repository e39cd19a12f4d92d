"""Residents who leave: who asked to, who has left, and whom a database must forget again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, text

from app.store.db import bytea_array
from ledger.entries import Entry, Kind

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
    payloads = tx.execute(
        text("SELECT payload FROM entries WHERE kind = :kind"), {"kind": Kind.SUBJECT_ERASED}
    ).scalars()
    return [account_of(Entry.parse(payload)) for payload in payloads]


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


def restrict(tx: Connection, resident: str, on: bool, now: datetime) -> datetime | None:
    """Set or lift a resident's restriction; since when it stands. The first time counts."""
    return tx.execute(
        text(
            "UPDATE residents SET restricted_at ="
            " CASE WHEN :on THEN coalesce(restricted_at, CAST(:now AS timestamptz)) END"
            " WHERE id = :id AND erased_at IS NULL RETURNING restricted_at"
        ),
        {"id": bytes.fromhex(resident), "on": on, "now": now},
    ).scalar()
