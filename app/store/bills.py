"""Bills: what each merchant redeemed and gave back, a line a document, and the days that are cut.

A line is written in the transaction of its ledger entry, and never changes. The database itself
(a trigger of `bill_lines`) puts it into the first day that is still open, so no bill that was
handed out ever gains a line.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.store.db import fetch
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


_NEXT = """
SELECT greatest(%s, to_char(to_date(closed::text, 'YYYYMMDD') + 1, 'YYYYMMDD')::integer)
FROM bill_head"""


def day_of_next(tx: Connection, now: datetime) -> int:
    """The day YYYYMMDD whose bill would have a line that were added now."""
    ((day,),) = fetch(tx, _NEXT, [day_number(now.astimezone(CITY_ZONE).date())])
    return int(day)
