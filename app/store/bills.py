"""Bills: what each merchant redeemed and gave back, a line a document, and the days that are cut.

A line is written in the transaction of its ledger entry, and never changes. The database itself
(a trigger of `bill_lines`) puts it into the first day that is still open, so no bill that was
handed out ever gains a line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.config import CITY_ZONE
from app.store.db import fetch, text_array
from ledger.buckets import day_number


class Line(NamedTuple):
    """One document of a merchant: `kind` is charge, refund, reverse, order, void or lapse.

    `number` is the merchant's own (an order's is its id), `origin` the number of what is given
    back, "" for a redemption. `points` are what the entry cancelled, negative if it gave back.
    """

    arrival: int
    merchant: str
    kind: str
    number: str
    origin: str
    entry_id: str
    points: int
    store: bytes | None
    till: bytes | None


_ADD = """
INSERT INTO bill_lines
  (arrival, merchant, day, kind, number, origin, entry, points, store, till, at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING day"""


def add(tx: Connection, line: Line, now: datetime) -> int:
    """Put a line on its merchant's bill; the day YYYYMMDD whose bill that is: today's, or the
    first one not cut yet. A till waits for this: one statement. Raises DBAPIError, also if the
    entry has a line already."""
    arrival, merchant, kind, number, origin, entry, points, store, till = line
    ids = bytes.fromhex(merchant), bytes.fromhex(entry)
    today = day_number(now.astimezone(CITY_ZONE).date())
    values = (arrival, ids[0], today, kind, number, origin, ids[1], points, store, till, now)
    ((day,),) = fetch(tx, _ADD, values)
    return int(day)


def closed(tx: Connection) -> int:
    """The last day that is cut: no line can fall into it, or into one before it, any more."""
    day: int = tx.execute(text("SELECT closed FROM bill_head")).scalar_one()
    return day


def cut(tx: Connection, day: int) -> None:
    """Cut all days up to this one, once whoever adds a line just now has committed."""
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('bills', 0))"))
    tx.execute(text("UPDATE bill_head SET closed = :day WHERE closed < :day"), {"day": day})


# Bills of a merchant are made in the order of their days: two index probes a merchant.
_UNBILLED = text("""
SELECT m.id, d.day FROM merchants m
CROSS JOIN LATERAL (SELECT coalesce(max(b.day), 0) AS day FROM bills b WHERE b.merchant = m.id) b
CROSS JOIN LATERAL (
  SELECT l.day FROM bill_lines l WHERE l.merchant = m.id AND l.day > b.day
    AND l.day <= (SELECT closed FROM bill_head) ORDER BY l.day LIMIT 1) d
ORDER BY d.day, m.id LIMIT 1""")


def next_unbilled(tx: Connection) -> tuple[str, int] | None:
    """A merchant and the first day that is cut, has lines of theirs and no bill yet."""
    row = tx.execute(_UNBILLED).first()
    return (row.id.hex(), row.day) if row else None


class Row(NamedTuple):
    """A line as it is written out; `at` is the city's time as YYYY-MM-DD HH:MM:SS, `store` and
    `till` are codes, or ""."""

    at: str
    kind: str
    number: str
    origin: str
    store: str
    till: str
    entry_id: str
    points: int


# Codes of stores and tills, unlike their names, never change: what is written stays the same.
_ROWS = text("""
SELECT to_char(l.at AT TIME ZONE :zone, 'YYYY-MM-DD HH24:MI:SS'), l.kind, l.number, l.origin,
  coalesce(s.code, ''), coalesce(t.code, ''), encode(l.entry, 'hex'), l.points
FROM bill_lines l LEFT JOIN stores s ON s.id = l.store LEFT JOIN tills t ON t.id = l.till
WHERE l.merchant = :merchant AND l.day = :day ORDER BY l.arrival""")
_PAGE = 5000


def rows(tx: Connection, merchant: str, day: int) -> Iterator[Row]:
    """The lines of a merchant's day in the order of the ledger, streamed."""
    given = {"merchant": bytes.fromhex(merchant), "day": day, "zone": CITY_ZONE.key}
    with tx.execute(_ROWS, given, execution_options={"yield_per": _PAGE}) as found:
        yield from map(Row._make, found)


class Sum(NamedTuple):
    """Lines of one kind in one store (code and name, or "") of a merchant's day, summed up."""

    store: str
    name: str
    kind: str
    lines: int
    points: int


_SUMS = text("""
SELECT coalesce(s.code, ''), coalesce(s.name, ''), g.kind, g.lines, g.points FROM (
  SELECT store, kind, count(*) AS lines, sum(points)::bigint AS points FROM bill_lines
  WHERE merchant = :merchant AND day = :day GROUP BY store, kind) g
LEFT JOIN stores s ON s.id = g.store ORDER BY 1, 3""")


def sums(tx: Connection, merchant: str, day: int) -> list[Sum]:
    """A merchant's day by store and kind."""
    given = {"merchant": bytes.fromhex(merchant), "day": day}
    return [Sum._make(row) for row in tx.execute(_SUMS, given)]


class Known(NamedTuple):
    """A document by its number: the day whose bill has it, its kind and points."""

    number: str
    day: int
    kind: str
    points: int


_BY_NUMBER = text("""
SELECT number, day, kind, points FROM bill_lines
WHERE merchant = :merchant AND day BETWEEN :first AND :last
  AND number = ANY(CAST(:numbers AS text[])) ORDER BY arrival""")


def by_number(
    tx: Connection, merchant: str, days: tuple[int, int], numbers: Sequence[str]
) -> list[Known]:
    """A merchant's documents of these numbers from the first day to the last."""
    given = {
        "merchant": bytes.fromhex(merchant),
        "first": days[0],
        "last": days[1],
        "numbers": text_array(numbers),
    }
    return [Known._make(row) for row in tx.execute(_BY_NUMBER, given)]
