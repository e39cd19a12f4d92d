"""Backtests: what was asked for, how far it is, and what came out. One runs at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text


class Backtest(NamedTuple):
    """One backtest. `draft` is None for the rules in force against themselves; `done` of `total`
    acts are replayed; `result` is JSON; `problem` says why it failed."""

    id: str
    draft: str | None
    revision: int | None
    days: int
    state: str
    done: int
    total: int
    problem: str | None
    requested_by: str | None
    requested_at: datetime
    finished_at: datetime | None
    result: bytes | None


_COLUMNS = """
SELECT encode(b.id, 'hex'), encode(b.draft, 'hex'), b.revision, b.days, b.state, b.done, b.total,
  b.problem, a.name, b.requested_at, b.finished_at, {result}
FROM backtests b LEFT JOIN admins a ON a.id = b.requested_by
"""
_FIND = text(_COLUMNS.format(result="b.result") + "WHERE b.id = :id")
_NEXT = text(
    _COLUMNS.format(result="NULL")
    + "WHERE b.state IN ('queued', 'running') ORDER BY b.requested_at, b.id LIMIT 1"
)
_PAGE = text(
    _COLUMNS.format(result="NULL")
    + """
WHERE b.draft IS NOT DISTINCT FROM CAST(:draft AS bytea)
  AND (CAST(:at AS timestamptz) IS NULL
    OR (b.requested_at, b.id) < (:at, CAST(:last AS bytea)))
ORDER BY b.requested_at DESC, b.id DESC LIMIT :limit"""
)
_TURN = "hashtextextended('backtest', 0)"


def add(
    tx: Connection,
    id: str,
    draft: tuple[str, int] | None,
    days: int,
    requested_by: bytes | None,
    now: datetime,
) -> None:
    """Put a backtest of a draft's revision (or of the rules in force) at the end of the queue."""
    name, revision = draft or (None, None)
    tx.execute(
        text(
            "INSERT INTO backtests (id, draft, revision, days, state, requested_by, requested_at)"
            " VALUES (:id, :draft, :revision, :days, 'queued', :requested_by, :now)"
        ),
        {
            "id": bytes.fromhex(id),
            "draft": bytes.fromhex(name) if name else None,
            "revision": revision,
            "days": days,
            "requested_by": requested_by,
            "now": now,
        },
    )


def find(tx: Connection, id: str) -> Backtest | None:
    """The backtest of this id with its result, or None."""
    row = tx.execute(_FIND, {"id": bytes.fromhex(id)}).first()
    return Backtest(*row) if row else None


def page(
    tx: Connection, draft: str | None, after: tuple[datetime, str] | None, limit: int
) -> list[Backtest]:
    """Backtests of a draft, or of the rules in force, without results, the latest first."""
    at, last = after or (None, "")
    parameters = {
        "draft": bytes.fromhex(draft) if draft else None,
        "at": at,
        "last": bytes.fromhex(last),
        "limit": limit,
    }
    return [Backtest(*row) for row in tx.execute(_PAGE, parameters)]


def waiting(tx: Connection) -> Backtest | None:
    """The next to run, or None: also one that was begun, if nobody holds the turn any more."""
    row = tx.execute(_NEXT).first()
    return Backtest(*row) if row else None


def take(tx: Connection, id: str, now: datetime) -> None:
    """Begin it, from the start."""
    tx.execute(
        text(
            "UPDATE backtests SET state = 'running', done = 0, total = 0, beat_at = :now"
            " WHERE id = :id"
        ),
        {"id": bytes.fromhex(id), "now": now},
    )


def beat(tx: Connection, id: str, done: int, total: int, now: datetime) -> None:
    """Say how far it is."""
    tx.execute(
        text("UPDATE backtests SET done = :done, total = :total, beat_at = :now WHERE id = :id"),
        {"id": bytes.fromhex(id), "done": done, "total": total, "now": now},
    )


def finish(
    tx: Connection, id: str, result: bytes | None, problem: str | None, now: datetime
) -> None:
    """Keep what came out: a result, or why there is none."""
    tx.execute(
        text(
            "UPDATE backtests SET state = :state, result = :result, problem = :problem,"
            " finished_at = :now WHERE id = :id"
        ),
        {
            "id": bytes.fromhex(id),
            "state": "failed" if problem else "done",
            "result": result,
            "problem": problem,
            "now": now,
        },
    )


@contextmanager
def turn(engine: Engine) -> Iterator[bool]:
    """Whether it is our turn to run backtests, until this ends or our process does."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        mine = bool(tx.execute(text(f"SELECT pg_try_advisory_lock({_TURN})")).scalar_one())
        try:
            yield mine
        finally:
            if mine:
                tx.execute(text(f"SELECT pg_advisory_unlock({_TURN})"))
