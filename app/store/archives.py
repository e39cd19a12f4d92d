"""Archives of all that is held about a person: what goes into one, and who asked for one.

A table is in an archive by a line here; a test holds the lines against the schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from app.store.detached import whole

SECTIONS: Final = {
    "residents": "id = :id",
    "privacy_acceptances": "resident = :id",
    "logins": "resident = :id",
    "refresh_tokens": "resident = :id",
    "phones": "resident = :id",
    "consents": "resident = :id",
    "bindings": "resident = :id",
    "binding_codes": "(provider, subject) IN"
    " (SELECT provider, subject FROM bindings WHERE resident = :id)",
    "binding_disputes": ":id IN (claimant, holder)",
    "unclaimed": "subject IN (SELECT subject FROM bindings WHERE resident = :id)",
    "balances": "account = :id",
    "usage": "resident = :id AND period IN (SELECT used_periods())",
    "waiting": "resident = :id",
    "rejections": "resident = :id",
    "step_days": "resident = :id",
    "reports": "resident = :id",
    "evidence": "resident = :id",
    "appeals": "resident = :id",
    "cases": "resident = :id",
    "messages": "resident = :id",
    "subscriptions": "resident = :id",
    "challenge_members": "resident = :id",
    "rankings": "resident = :id",
    "friends": ":id IN (resident, friend)",
    "friend_codes": "resident = :id",
    "guardian_codes": "resident = :id",
    "staff": "resident = :id",
    "orders": "resident = :id",
    "vouchers": "resident = :id",
    "voucher_moves": "voucher IN (SELECT id FROM vouchers WHERE resident = :id)",
    "charges": "resident = :id",
    "refunds": "(merchant, charge) IN (SELECT merchant, number FROM charges WHERE resident = :id)",
    "archives": "resident = :id",
    "farewells": "resident = :id",
}
"""Table: which of its rows are a person's. What the ledger has of them comes by `entries`."""

NO_SECTION: Final = {
    "answers": "sealed copies of answers, for a month, of what the other tables hold",
    "pay_codes": "keyed hashes of codes that lived for a minute",
    "openings": "they come with their entries",
    "postings": "they come with their entries",
}
"""Tables with a person's rows that are no section, and why."""


class Fact(NamedTuple):
    """One of a person's entries: its id and bytes, its leaf if sealed, its sealed opening."""

    id: str
    payload: bytes
    leaf: int | None
    opening: bytes | None


class Archive(NamedTuple):
    """An archive that was asked for. Its bytes are sealed under its resident's key."""

    id: str
    resident: str
    state: str
    asked_at: datetime
    ready_at: datetime | None


_FACTS = text("""
SELECT e.id, e.payload, l.leaf, o.sealed, e.arrival
FROM (SELECT DISTINCT arrival FROM own_postings(:id, 0)) p
JOIN entries e USING (arrival) LEFT JOIN leaf_of(e.arrival) l ON true
LEFT JOIN openings o USING (arrival)
ORDER BY e.arrival""")
_COLUMNS = "id, resident, state, asked_at, ready_at"


def rows(tx: Connection, table: str, resident: str) -> list[dict[str, Any]]:
    """A person's rows of one of the sections, as they are stored."""
    statement = f"SELECT * FROM {table} WHERE {SECTIONS[table]}"  # noqa: S608 (our own words)
    found = tx.execute(text(statement), {"id": bytes.fromhex(resident)})
    return [dict(row) for row in found.mappings()]


def facts(tx: Connection, resident: str) -> Iterator[Fact]:
    """A person's entries in the order they were appended."""
    for entry_id, payload, *more, arrival in tx.execute(_FACTS, {"id": bytes.fromhex(resident)}):
        yield Fact(entry_id.hex(), whole(tx, payload, arrival), *more)


def put(tx: Connection, id: str, resident: str, now: datetime) -> None:
    """Put an archive into the queue; those of this resident that were made before are dropped."""
    parameters = {"id": bytes.fromhex(id), "who": bytes.fromhex(resident), "now": now}
    tx.execute(text("DELETE FROM archives WHERE resident = :who"), parameters)
    tx.execute(
        text(
            "INSERT INTO archives (id, resident, state, asked_at)"
            " VALUES (:id, :who, 'queued', :now)"
        ),
        parameters,
    )


def newest(tx: Connection, resident: str) -> Archive | None:
    """The archive that a resident asked for last."""
    return _read(
        tx.execute(
            text(
                f"SELECT {_COLUMNS} FROM archives WHERE resident = :who"  # noqa: S608 (ours)
                " ORDER BY asked_at DESC LIMIT 1"
            ),
            {"who": bytes.fromhex(resident)},
        ).first()
    )


def find(tx: Connection, id: str, resident: str) -> Archive | None:
    """An archive of this resident."""
    return _read(
        tx.execute(
            text(f"SELECT {_COLUMNS} FROM archives WHERE id = :id AND resident = :who"),  # noqa: S608 (ours)
            {"id": bytes.fromhex(id), "who": bytes.fromhex(resident)},
        ).first()
    )


def sealed(tx: Connection, id: str) -> bytes | None:
    """The sealed bytes of an archive that is ready."""
    return tx.execute(
        text("SELECT sealed FROM archives WHERE id = :id"), {"id": bytes.fromhex(id)}
    ).scalar()


def take(tx: Connection) -> Archive | None:
    """The next one to be made, which nobody else makes until `tx` ends."""
    return _read(
        tx.execute(
            text(
                f"SELECT {_COLUMNS} FROM archives WHERE state = 'queued'"  # noqa: S608 (ours)
                " ORDER BY asked_at LIMIT 1 FOR UPDATE SKIP LOCKED"
            )
        ).first()
    )


def finish(tx: Connection, id: str, sealed: bytes | None, now: datetime) -> None:
    """Keep an archive that was made, or (None) that making it failed."""
    tx.execute(
        text(
            "UPDATE archives SET state = :state, sealed = :sealed, ready_at = :now WHERE id = :id"
        ),
        {
            "id": bytes.fromhex(id),
            "state": "failed" if sealed is None else "ready",
            "sealed": sealed,
            "now": now,
        },
    )


def forget(tx: Connection, before: datetime) -> None:
    """Drop archives that were asked for before that moment."""
    tx.execute(text("DELETE FROM archives WHERE asked_at < :before"), {"before": before})


def _read(row: Any) -> Archive | None:
    return Archive(row[0].hex(), row[1].hex(), *row[2:]) if row else None
