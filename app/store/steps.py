"""How many steps residents took each day, how far that is settled, and days held for reviewers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class StepDay(NamedTuple):
    """A resident's day YYYYMMDD. Up to `settled` its steps were credited or refused, in `revision`
    pieces; `held_id` (16 bytes) names it to reviewers while one is to look at it."""

    day: int
    steps: int
    settled: int
    revision: int
    held_at: datetime | None
    held_id: bytes | None
    updated_at: datetime


class Held(NamedTuple):
    """A day that waits for a reviewer, and whose."""

    resident: str
    id: bytes
    at: datetime
    day: StepDay


_COLUMNS = "day, steps, settled, revision, held_at, held_id, updated_at"
_PUT = text(
    f"INSERT INTO step_days (resident, {_COLUMNS}) VALUES (:resident, :day, :steps, :settled,"  # noqa: S608 (a constant)
    " :revision, :held_at, :held_id, :updated_at) ON CONFLICT (resident, day) DO UPDATE"
    " SET steps = :steps, settled = :settled, revision = :revision, held_at = :held_at,"
    " held_id = :held_id, updated_at = :updated_at"
)


def known(tx: Connection, resident: str, since: int) -> dict[int, StepDay]:
    """A resident's days from `since` on."""
    rows = tx.execute(
        text(f"SELECT {_COLUMNS} FROM step_days WHERE resident = :who AND day >= :since"),  # noqa: S608
        {"who": bytes.fromhex(resident), "since": since},
    )
    return {row.day: StepDay(*row) for row in rows}


def put(tx: Connection, resident: str, days: Iterable[StepDay]) -> None:
    """Keep days as they now stand."""
    who = bytes.fromhex(resident)
    rows = [{"resident": who, **one._asdict()} for one in days]
    if rows:
        tx.execute(_PUT, rows)


def held(tx: Connection, after: tuple[datetime, bytes], limit: int) -> list[Held]:
    """Days that wait for a reviewer, those that wait longest first."""
    rows = tx.execute(
        text(
            f"SELECT resident, {_COLUMNS} FROM step_days WHERE held_at IS NOT NULL"  # noqa: S608
            " AND (held_at, held_id) > (:at, :id) ORDER BY held_at, held_id LIMIT :limit"
        ),
        {"at": after[0], "id": after[1], "limit": limit},
    )
    return [_held(row) for row in rows]


def find_held(tx: Connection, held_id: bytes) -> Held | None:
    """The day that reviewers know by this id."""
    row = tx.execute(
        text(f"SELECT resident, {_COLUMNS} FROM step_days WHERE held_id = :id"),  # noqa: S608
        {"id": held_id},
    ).first()
    return _held(row) if row else None


def _held(row: Any) -> Held:
    return Held(row.resident.hex(), row.held_id, row.held_at, StepDay(*row[1:]))
