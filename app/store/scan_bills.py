"""The bills' tables beside the ledger's, read whole and streamed, to hold one against the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.detached import whole

_PAGE = 5000


class Pair(NamedTuple):
    """A redemption or refund, its leaf (None: not sealed yet), and its line: the entry id and
    merchant it names, and its points; None if it has none."""

    arrival: int
    leaf: int | None
    payload: bytes
    line: tuple[str, str, int] | None


_PAIRS = text("""
SELECT e.arrival, v.leaf, e.payload, encode(l.entry, 'hex'), encode(l.merchant, 'hex'), l.points
FROM entries e LEFT JOIN leaf_of(e.arrival) v ON true LEFT JOIN bill_lines l USING (arrival)
WHERE e.kind IN ('redeem', 'refund') ORDER BY v.leaf NULLS LAST, e.arrival""")
_ORPHANS = text("""
SELECT l.arrival, encode(l.merchant, 'hex') FROM bill_lines l WHERE NOT EXISTS (
  SELECT FROM entries e WHERE e.arrival = l.arrival AND e.kind IN ('redeem', 'refund'))
ORDER BY l.arrival""")
_DIFFERENCES = text("""
SELECT coalesce(m.code, encode(merchant, 'hex')), day, b.lines, b.points, coalesce(l.lines, 0),
  coalesce(l.points, 0)
FROM bills b
FULL JOIN (SELECT merchant, day, count(*) AS lines, sum(points)::bigint AS points FROM bill_lines
  WHERE day <= (SELECT closed FROM bill_head) GROUP BY 1, 2) l USING (merchant, day)
LEFT JOIN merchants m ON m.id = merchant
WHERE (b.lines, b.points) IS DISTINCT FROM (l.lines, l.points) ORDER BY day, merchant""")


def pairs(tx: Connection) -> Iterator[Pair]:
    """Every redemption and refund in the log's order, those not sealed yet at the end."""
    with tx.execute(_PAIRS, execution_options={"yield_per": _PAGE}) as found:
        for row in found:
            line = None if row[3] is None else (row[3], row[4], row[5])
            yield Pair(row[0], row[1], whole(tx, row[2], row[0]), line)


def orphans(tx: Connection) -> list[tuple[int, str]]:
    """Arrival and merchant (32 hex digits) of lines that stand for no redemption or refund."""
    return [(row[0], row[1]) for row in tx.execute(_ORPHANS)]


def points(tx: Connection) -> int:
    """The sum of all lines."""
    total = text("SELECT coalesce(sum(points), 0)::bigint FROM bill_lines")
    return int(tx.execute(total).scalar_one())


def differences(
    tx: Connection,
) -> list[tuple[str, int, tuple[int, int] | None, tuple[int, int]]]:
    """Bills that are not their lines: merchant's code, day, lines and points as billed (None: there
    is no bill, though the day is cut), and as they are."""
    return [
        (row[0], row[1], None if row[2] is None else (row[2], row[3]), (row[4], row[5]))
        for row in tx.execute(_DIFFERENCES)
    ]
