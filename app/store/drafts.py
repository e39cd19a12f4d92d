"""Drafts of scenario changes as they stand; who did what to them is in the trail."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

STATES = ("draft", "submitted", "approved", "rejected", "withdrawn", "discarded")


class Draft(NamedTuple):
    """One draft. `body` is the change set as JSON; `revision` counts its contents, not its states.

    `author` and `reviewer` are administrators' names; `decision` is the reviewer's reason.
    """

    id: str
    revision: int
    state: str
    title: str
    reason: str
    body: bytes
    author: str
    created_at: datetime
    changed_at: datetime
    submitted_at: datetime | None
    reviewer: str | None
    decided_at: datetime | None
    decision: str | None


_SELECT = """
SELECT encode(d.id, 'hex'), d.revision, d.state, d.title, d.reason, d.body, a.name,
  d.created_at, d.changed_at, d.submitted_at, r.name, d.decided_at, d.decision
FROM drafts d JOIN admins a ON a.id = d.author LEFT JOIN admins r ON r.id = d.reviewer
"""
_FIND = text(f"{_SELECT} WHERE d.id = :id")
_LOCK = text(f"{_SELECT} WHERE d.id = :id FOR UPDATE OF d")
_PAGE = text(f"""{_SELECT}
WHERE (CAST(:state AS text) IS NULL OR d.state = :state)
  AND (CAST(:at AS timestamptz) IS NULL OR (d.changed_at, d.id) < (:at, CAST(:id AS bytea)))
ORDER BY d.changed_at DESC, d.id DESC LIMIT :limit""")


def add(
    tx: Connection, id: str, title: str, reason: str, body: bytes, author: bytes, now: datetime
) -> None:
    """Keep a new draft, as revision 1."""
    tx.execute(
        text(
            "INSERT INTO drafts"
            " (id, revision, state, title, reason, body, author, created_at, changed_at)"
            " VALUES (:id, 1, 'draft', :title, :reason, :body, :author, :now, :now)"
        ),
        {
            "id": bytes.fromhex(id),
            "title": title,
            "reason": reason,
            "body": body,
            "author": author,
            "now": now,
        },
    )


def find(tx: Connection, id: str) -> Draft | None:
    """The draft of this id, or None."""
    row = tx.execute(_FIND, {"id": bytes.fromhex(id)}).first()
    return Draft(*row) if row else None


def lock(tx: Connection, id: str) -> Draft | None:
    """The same, and nobody else changes it until this transaction ends."""
    row = tx.execute(_LOCK, {"id": bytes.fromhex(id)}).first()
    return Draft(*row) if row else None


def page(
    tx: Connection, state: str | None, after: tuple[datetime, str] | None, limit: int
) -> list[Draft]:
    """Drafts, of one state or of all, last changed first, beginning after the place of one."""
    at, last = after or (None, "")
    rows = tx.execute(_PAGE, {"state": state, "at": at, "id": bytes.fromhex(last), "limit": limit})
    return [Draft(*row) for row in rows]


def revise(tx: Connection, id: str, title: str, reason: str, body: bytes, now: datetime) -> None:
    """Replace a draft's content; whatever was decided about the old one is over."""
    tx.execute(
        text(
            "UPDATE drafts SET revision = revision + 1, state = 'draft', title = :title,"
            " reason = :reason, body = :body, changed_at = :now, submitted_at = NULL,"
            " reviewer = NULL, decided_at = NULL, decision = NULL WHERE id = :id"
        ),
        {"id": bytes.fromhex(id), "title": title, "reason": reason, "body": body, "now": now},
    )


def submit(tx: Connection, id: str, now: datetime) -> None:
    """Hand a draft to the reviewers: its content stands still from now on."""
    tx.execute(
        text(
            "UPDATE drafts SET state = 'submitted', submitted_at = :now, changed_at = :now,"
            " reviewer = NULL, decided_at = NULL, decision = NULL WHERE id = :id"
        ),
        {"id": bytes.fromhex(id), "now": now},
    )


def decide(
    tx: Connection, id: str, state: str, decision: str, admin: bytes | None, now: datetime
) -> None:
    """Bring a draft to the state it was decided to have; `admin` is the reviewer, if it was one."""
    tx.execute(
        text(
            "UPDATE drafts SET state = :state, decision = :decision, decided_at = :now,"
            " changed_at = :now, reviewer = coalesce(:admin, reviewer) WHERE id = :id"
        ),
        {
            "id": bytes.fromhex(id),
            "state": state,
            "decision": decision,
            "admin": admin,
            "now": now,
        },
    )


def editors(tx: Connection, id: str) -> set[str]:
    """Everybody who ever wrote this draft's content, out of the trail: nobody can take it out."""
    rows = tx.execute(
        text(
            "SELECT DISTINCT actor FROM trail"
            " WHERE target = :target AND action IN ('draft.opened', 'draft.edited')"
        ),
        {"target": id},
    )
    return set(rows.scalars())


def backtest(tx: Connection, id: str, revision: int) -> tuple[str, str] | None:
    """Id and state of the best backtest of exactly this revision: a finished one if there is."""
    row = tx.execute(
        text(
            "SELECT encode(id, 'hex') AS id, state FROM backtests"
            " WHERE draft = :draft AND revision = :revision"
            " ORDER BY state = 'done' DESC, requested_at DESC, id LIMIT 1"
        ),
        {"draft": bytes.fromhex(id), "revision": revision},
    ).first()
    return (row.id, row.state) if row else None
