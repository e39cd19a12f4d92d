"""Answers to requests that changed something, kept for whoever sends the request again."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Kept(NamedTuple):
    """A kept answer: the digest of its request, its HTTP status, and its bytes, sealed."""

    digest: bytes
    status: int
    sealed: bytes


def take_turn(tx: Connection, scope: str, key: str) -> bool:
    """Whether nobody else works on this request now; nobody then will until `tx` ends."""
    taken = tx.execute(
        text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 1))"),
        {"name": f"{scope} {key}"},
    ).scalar_one()
    return bool(taken)


def find(tx: Connection, scope: str, key: str) -> Kept | None:
    """What this caller was answered under this key, if anything."""
    row = tx.execute(
        text("SELECT body_digest, status, body FROM answers WHERE scope = :scope AND key = :key"),
        {"scope": scope, "key": key},
    ).first()
    return Kept(*row) if row else None


def keep(tx: Connection, scope: str, key: str, kept: Kept, now: datetime) -> None:
    """Keep an answer. Raises IntegrityError if the key has one."""
    tx.execute(
        text(
            "INSERT INTO answers (scope, key, body_digest, status, body, answered_at)"
            " VALUES (:scope, :key, :digest, :status, :sealed, :now)"
        ),
        {"scope": scope, "key": key, **kept._asdict(), "now": now},
    )


def forget(tx: Connection, before: datetime) -> int:
    """Drop answers given before that moment; return how many."""
    statement = text("DELETE FROM answers WHERE answered_at < :before")
    return tx.execute(statement, {"before": before}).rowcount
