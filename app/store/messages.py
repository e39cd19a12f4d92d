"""Residents' inbox, and how often each may still be told outside of it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Message(NamedTuple):
    """One message of an inbox. What it says is sealed under its resident's key."""

    id: int
    kind: str
    key: str
    sealed: bytes
    created_at: datetime
    read_at: datetime | None


_HOLD = text("SELECT wrapped_key FROM residents WHERE id = :id AND erased_at IS NULL FOR SHARE")
# A kind's template stands in the setting named after it; without one there is nothing to push.
_PUT = text("""
INSERT INTO messages (resident, kind, key, sealed, created_at, push, push_at)
SELECT :id, :kind, :key, :sealed, :now,
  CASE WHEN d.due THEN 'due' ELSE 'none' END, CASE WHEN d.due THEN CAST(:now AS timestamptz) END
FROM (SELECT EXISTS (
  SELECT FROM settings t JOIN subscriptions s ON s.template = t.value ->> 'id'
  WHERE t.name = 'template.' || :kind AND s.resident = :id AND s.quota > 0)) AS d (due)
ON CONFLICT (resident, kind, key) DO NOTHING""")
_PAGE = text("""
SELECT id, kind, key, sealed, created_at, read_at FROM messages
WHERE resident = :resident AND id < :before AND (read_at IS NULL OR NOT :unread)
ORDER BY id DESC LIMIT :limit""")


def hold(tx: Connection, resident: str) -> bytes | None:
    """The wrapped key of a living resident, who cannot be erased until `tx` ends; else None."""
    return tx.execute(_HOLD, {"id": bytes.fromhex(resident)}).scalar()


def put(tx: Connection, resident: str, kind: str, key: str, sealed: bytes, now: datetime) -> bool:
    """Add a message, to be pushed too if the resident asked for its kind; False if it is there."""
    parameters = {
        "id": bytes.fromhex(resident),
        "kind": kind,
        "key": key,
        "sealed": sealed,
        "now": now,
    }
    return tx.execute(_PUT, parameters).rowcount == 1


def page(
    tx: Connection, resident: str, before: int, limit: int, *, only_unread: bool = False
) -> list[Message]:
    """A resident's messages of lower ids, newest first."""
    parameters = {
        "resident": bytes.fromhex(resident),
        "before": before,
        "unread": only_unread,
        "limit": limit,
    }
    return [Message(*row) for row in tx.execute(_PAGE, parameters)]


def unread(tx: Connection, resident: str) -> int:
    """How many of a resident's messages were not read yet."""
    count = tx.execute(
        text("SELECT count(*) FROM messages WHERE resident = :resident AND read_at IS NULL"),
        {"resident": bytes.fromhex(resident)},
    ).scalar_one()
    return int(count)


def read_up_to(tx: Connection, resident: str, last: int, now: datetime) -> None:
    """Mark a resident's messages as read, up to and with this id."""
    tx.execute(
        text(
            "UPDATE messages SET read_at = :now"
            " WHERE resident = :resident AND id <= :last AND read_at IS NULL"
        ),
        {"resident": bytes.fromhex(resident), "last": last, "now": now},
    )


class Due(NamedTuple):
    """A message that is to be pushed: whose it is, and whether we may do more than keep it."""

    message: Message
    resident: str
    restricted: bool
    attempts: int


_DUE = text("""
SELECT m.id, m.kind, m.key, m.sealed, m.created_at, m.read_at,
  m.resident, r.restricted_at IS NOT NULL, m.attempts
FROM messages m JOIN residents r ON r.id = m.resident
WHERE m.push = 'due' AND m.push_at <= :now
ORDER BY m.push_at LIMIT 1 FOR UPDATE OF m SKIP LOCKED""")


def take_due(tx: Connection, now: datetime) -> Due | None:
    """The message that is longest due for a push and that nobody else holds; locked."""
    row = tx.execute(_DUE, {"now": now}).first()
    return Due(Message(*row[:6]), row[6].hex(), row[7], row[8]) if row else None


def push(tx: Connection, id: int, state: str, at: datetime | None, attempts: int) -> None:
    """Keep what became of a message's push; `at` is when it is due again."""
    tx.execute(
        text(
            "UPDATE messages SET push = :state, push_at = :at, attempts = :attempts WHERE id = :id"
        ),
        {"id": id, "state": state, "at": at, "attempts": attempts},
    )
