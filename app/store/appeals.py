"""Appeals: what residents dispute, until when it is to be answered, and what came of it."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

UNDER_WAY = ("open", "asked")
STATES = (*UNDER_WAY, "granted", "granted_in_time", "refused", "withdrawn")


class Appeal(NamedTuple):
    """One appeal. `thing` (16 bytes) is what it is about, `sealed` what was said, under its
    resident's key; `points` those that were granted."""

    id: str
    resident: str
    about: str
    thing: bytes
    sealed: bytes
    state: str
    opened_at: datetime
    due_at: datetime
    asked_at: datetime | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    points: int = 0


class Figures(NamedTuple):
    """All appeals in numbers. `median_s` is None as long as none was decided."""

    opened: int
    open: int
    overdue: int
    granted: int
    granted_in_time: int
    refused: int
    withdrawn: int
    median_s: int | None


_COLUMNS = (
    "id, resident, about, thing, sealed, state, opened_at, due_at, asked_at, decided_at,"
    " decided_by, points"
)


def _read(row: tuple[object, ...]) -> Appeal:
    made = Appeal(*row)  # type: ignore[arg-type] # the columns' types are those of the fields
    return made._replace(id=row[0].hex(), resident=row[1].hex())  # type: ignore[attr-defined]


def _values(one: Appeal) -> dict[str, object]:
    ids = {"id": bytes.fromhex(one.id), "resident": bytes.fromhex(one.resident)}
    return one._asdict() | ids


def add(tx: Connection, one: Appeal) -> None:
    """Add an appeal. Raises IntegrityError if one about the same thing is under way."""
    names = ", ".join(f":{name}" for name in Appeal._fields)
    tx.execute(text(f"INSERT INTO appeals ({_COLUMNS}) VALUES ({names})"), _values(one))  # noqa: S608 (our own names)


def save(tx: Connection, one: Appeal) -> None:
    """Keep an appeal, which its caller has locked, as it now stands."""
    tx.execute(
        text(
            "UPDATE appeals SET sealed = :sealed, state = :state, due_at = :due_at,"
            " asked_at = :asked_at, decided_at = :decided_at, decided_by = :decided_by,"
            " points = :points WHERE id = :id"
        ),
        _values(one),
    )


def find(tx: Connection, id: str) -> Appeal | None:
    """An appeal by its id (32 hex digits)."""
    return _one(tx, f"SELECT {_COLUMNS} FROM appeals WHERE id = :id", id)  # noqa: S608


def lock(tx: Connection, id: str) -> Appeal | None:
    """An appeal by its id, locked; its resident is locked before."""
    return _one(tx, f"SELECT {_COLUMNS} FROM appeals WHERE id = :id FOR UPDATE", id)  # noqa: S608


def _one(tx: Connection, statement: str, id: str) -> Appeal | None:
    row = tx.execute(text(statement), {"id": bytes.fromhex(id)}).first()
    return _read(tuple(row)) if row else None


def of_resident(
    tx: Connection, resident: str, before: tuple[datetime, str] | None, limit: int
) -> list[Appeal]:
    """A page of a resident's appeals, newest first, after the place of an earlier one."""
    at, last = before or (None, "")
    rows = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM appeals WHERE resident = :resident"  # noqa: S608
            " AND (CAST(:at AS timestamptz) IS NULL OR (opened_at, id) < (:at, :last))"
            " ORDER BY opened_at DESC, id DESC LIMIT :limit"
        ),
        {
            "resident": bytes.fromhex(resident),
            "at": at,
            "last": bytes.fromhex(last),
            "limit": limit,
        },
    )
    return [_read(tuple(row)) for row in rows]


def by_due(
    tx: Connection,
    state: str,
    due_before: datetime | None,
    after: tuple[datetime, str] | None,
    limit: int,
    *,
    processed: bool = False,
) -> list[Appeal]:
    """A page of the appeals in a state, the first due first, after the place of an earlier one.

    `processed` leaves out residents whose data may only be kept.
    """
    at, last = after or (None, "")
    rows = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM appeals a WHERE state = :state"  # noqa: S608
            " AND (CAST(:before AS timestamptz) IS NULL OR due_at < :before)"
            " AND (CAST(:at AS timestamptz) IS NULL OR (due_at, id) > (:at, :last))"
            " AND (NOT :processed OR EXISTS (SELECT FROM residents r"
            "   WHERE r.id = a.resident AND r.restricted_at IS NULL))"
            " ORDER BY due_at, id LIMIT :limit"
        ),
        {
            "state": state,
            "before": due_before,
            "at": at,
            "last": bytes.fromhex(last),
            "processed": processed,
            "limit": limit,
        },
    )
    return [_read(tuple(row)) for row in rows]


def is_under_way(tx: Connection, resident: str, thing: bytes) -> bool:
    """Whether this resident's appeal about this thing waits for somebody."""
    statement = (
        "SELECT EXISTS (SELECT FROM appeals WHERE resident = :resident AND thing = :thing"
        " AND state IN ('open', 'asked'))"
    )
    given = {"resident": bytes.fromhex(resident), "thing": thing}
    return bool(tx.execute(text(statement), given).scalar_one())


def was_granted(tx: Connection, resident: str, thing: bytes) -> bool:
    """Whether an appeal of this resident about this thing was granted before."""
    statement = (
        "SELECT EXISTS (SELECT FROM appeals WHERE resident = :resident AND thing = :thing"
        " AND state IN ('granted', 'granted_in_time'))"
    )
    given = {"resident": bytes.fromhex(resident), "thing": thing}
    return bool(tx.execute(text(statement), given).scalar_one())


def count_under_way(tx: Connection, resident: str) -> int:
    """How many appeals of a resident wait for somebody."""
    count = tx.execute(
        text(
            "SELECT count(*) FROM appeals WHERE resident = :resident AND state IN ('open', 'asked')"
        ),
        {"resident": bytes.fromhex(resident)},
    ).scalar_one()
    return int(count)


def granted_in_time(tx: Connection, resident: str, since: datetime) -> int:
    """The points that a resident's appeals gave by themselves from that moment on."""
    total = tx.execute(
        text(
            "SELECT sum(points) FROM appeals WHERE resident = :resident"
            " AND state = 'granted_in_time' AND decided_at >= :since"
        ),
        {"resident": bytes.fromhex(resident), "since": since},
    ).scalar()
    return int(total or 0)


def was_refused(tx: Connection, resident: str, provider: str, activity_id: str) -> bool:
    """Whether a provider's activity of this id was refused to a resident."""
    statement = (
        "SELECT EXISTS (SELECT FROM rejections WHERE resident = :resident"
        " AND provider = :provider AND activity_id = :activity_id)"
    )
    given = {
        "resident": bytes.fromhex(resident),
        "provider": provider,
        "activity_id": activity_id,
    }
    return bool(tx.execute(text(statement), given).scalar_one())


_FIGURES = text("""
SELECT count(*), count(*) FILTER (WHERE state IN ('open', 'asked')),
  count(*) FILTER (WHERE state = 'open' AND due_at < :now),
  count(*) FILTER (WHERE state = 'granted'),
  count(*) FILTER (WHERE state = 'granted_in_time'),
  count(*) FILTER (WHERE state = 'refused'),
  count(*) FILTER (WHERE state = 'withdrawn'),
  (percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM decided_at - opened_at))
    FILTER (WHERE state IN ('granted', 'granted_in_time', 'refused')))::bigint
FROM appeals""")


def figures(tx: Connection, now: datetime) -> Figures:
    """All appeals in numbers; those of erased residents are gone."""
    return Figures(*tx.execute(_FIGURES, {"now": now}).one())


def overdue(tx: Connection, now: datetime) -> int:
    """How many appeals should have been answered and could not be granted by themselves."""
    statement = "SELECT count(*) FROM appeals WHERE state = 'open' AND due_at < :now"
    return int(tx.execute(text(statement), {"now": now}).scalar_one())
