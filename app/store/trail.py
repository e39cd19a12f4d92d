"""What administrators did: rows beside the ledger's admin.acted entries, which commit to them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

_PAGE = 1000


class Act(NamedTuple):
    """One act: the canonical JSON record, the salt of its commitment, and its entry.

    `leaf` is the entry's index in the log, None until it is sealed.
    """

    arrival: int
    at: datetime
    actor: str
    action: str
    target: str
    record: bytes
    salt: bytes
    entry_id: bytes
    leaf: int | None


class Wanted(NamedTuple):
    """Which acts: None where any will do; `since` is included, `until` is not."""

    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_ACTS = """
SELECT t.arrival, t.at, t.actor, t.action, t.target, t.record, t.salt, e.id, l.leaf
FROM trail t JOIN entries e USING (arrival) LEFT JOIN leaf_of(t.arrival) l ON true
WHERE (CAST(:actor AS text) IS NULL OR t.actor = :actor)
  AND (CAST(:action AS text) IS NULL OR t.action = :action)
  AND (CAST(:since AS timestamptz) IS NULL OR t.at >= :since)
  AND (CAST(:until AS timestamptz) IS NULL OR t.at < :until)
"""
_NEWEST = text(_ACTS + "AND t.arrival < :before ORDER BY t.arrival DESC LIMIT :limit")
_SEALED = text(_ACTS + "AND l.leaf IS NOT NULL ORDER BY l.leaf")


def add(
    tx: Connection,
    arrival: int,
    at: datetime,
    what: tuple[str, str, str],
    record: bytes,
    salt: bytes,
) -> None:
    """Keep one act beside its entry; `what` is actor, action and target."""
    actor, action, target = what
    tx.execute(
        text(
            "INSERT INTO trail (arrival, at, actor, action, target, record, salt)"
            " VALUES (:arrival, :at, :actor, :action, :target, :record, :salt)"
        ),
        {
            "arrival": arrival,
            "at": at,
            "actor": actor,
            "action": action,
            "target": target,
            "record": record,
            "salt": salt,
        },
    )


def newest(tx: Connection, wanted: Wanted, before: int, limit: int) -> list[Act]:
    """Acts before an arrival number, newest first."""
    asked: dict[str, Any] = {**wanted._asdict(), "before": before, "limit": limit}
    return [Act(*row) for row in tx.execute(_NEWEST, asked)]


def sealed(tx: Connection, wanted: Wanted) -> Iterator[Act]:
    """Acts whose entries are in the log, in its order, streamed."""
    options = {"yield_per": _PAGE}
    with tx.execute(_SEALED, wanted._asdict(), execution_options=options) as rows:
        for row in rows:
            yield Act(*row)
