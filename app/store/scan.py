"""The ledger's tables read whole, in order and streamed, for the operator's self-check."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, TextClause, text

from app.store.detached import whole
from ledger.accounts import AccountKind, Asset

_PAGE = 5000

Line = tuple[bytes, int, int, int, int]  # account key, kind code, asset code, bucket, amount


class Stored(NamedTuple):
    """One entry and all that other tables hold for it; None where they hold nothing. A detached
    payload is None: `store/detached` reads it."""

    arrival: int
    id: bytes
    kind: str
    payload: bytes | None
    leaf: int | None
    pending_hash: bytes | None
    sealed_opening: bytes | None
    wrapped_key: bytes | None
    waiting: tuple[bytes, bytes, bytes, int] | None  # entry id, resident, budget, points
    lines: list[Line]


_ENTRIES = text("""
SELECT e.arrival, e.id, e.kind, e.payload, l.leaf, o.leaf_hash, p.sealed, r.wrapped_key,
  w.entry_id, w.resident, w.budget, w.points
FROM entries e
LEFT JOIN leaf_of(e.arrival) l ON true
LEFT JOIN LATERAL (
  SELECT substr(leaf_hashes, (32 * (e.arrival - arrival) + 1)::integer, 32) AS leaf_hash
  FROM (SELECT * FROM outbox WHERE arrival <= e.arrival ORDER BY arrival DESC LIMIT 1) last
  WHERE e.arrival < arrival + count) o ON true
LEFT JOIN openings p USING (arrival)
LEFT JOIN residents r ON r.id = p.resident
LEFT JOIN waiting w USING (arrival)
ORDER BY e.arrival""")
_LINES = text("""
SELECT arrival, account, account_kind, asset, bucket, amount FROM postings ORDER BY arrival""")
_MISPLACED = text("""
SELECT 'runs', leaf FROM (
  SELECT *, lag(leaf + count, 1, 0::bigint) OVER (ORDER BY leaf) AS next,
    lag(arrival + count) OVER (ORDER BY arrival) AS free FROM runs) r
WHERE leaf <> next OR leaf + count > (SELECT size FROM log_head) OR arrival < free
UNION ALL SELECT 'outbox', arrival FROM (
  SELECT arrival, lag(arrival + count) OVER (ORDER BY arrival) AS free FROM outbox) o
WHERE arrival < free ORDER BY 1, 2""")
_CHECKPOINTS = text("SELECT size, note FROM checkpoints ORDER BY size")
_ORPHANS = text("""
SELECT name, arrival FROM (
  SELECT 'postings' AS name, arrival FROM postings
  UNION ALL SELECT 'outbox', arrival + n FROM outbox CROSS JOIN generate_series(0, count - 1) n
  UNION ALL SELECT 'openings', arrival FROM openings
  UNION ALL SELECT 'waiting', arrival FROM waiting) r
WHERE NOT EXISTS (SELECT FROM entries e WHERE e.arrival = r.arrival) ORDER BY 1, 2""")
_ACTS = text("""
SELECT arrival, e.payload, t.at, t.actor, t.action, t.target, t.record, t.salt, e.kind IS NULL
FROM trail t FULL JOIN (SELECT arrival, payload, kind FROM entries WHERE kind = 'admin.acted') e
USING (arrival) ORDER BY arrival""")
_GUARDED = text("""
SELECT account, account_kind, asset, bucket, coalesce(b.amount, 0), coalesce(p.amount, 0)
FROM (SELECT * FROM balances WHERE amount <> 0) b
FULL JOIN (SELECT account, account_kind, asset, bucket, sum(amount) AS amount FROM postings
  WHERE account_kind < 10 GROUP BY 1, 2, 3, 4 HAVING sum(amount) <> 0) p
USING (account, account_kind, asset, bucket)
WHERE b.amount IS DISTINCT FROM p.amount ORDER BY 1, 2, 3, 4""")
_OPEN = text("""
SELECT account, account_kind, asset, 0, coalesce(b.amount, 0), coalesce(p.amount, 0)
FROM (SELECT * FROM open_balances WHERE amount <> 0) b
FULL JOIN (SELECT account, account_kind, asset, sum(amount) AS amount
  FROM runs r JOIN postings p ON p.arrival >= r.arrival AND p.arrival < r.arrival + r.count
  WHERE account_kind > 10 GROUP BY 1, 2, 3 HAVING sum(amount) <> 0) p
USING (account, account_kind, asset)
WHERE b.amount IS DISTINCT FROM p.amount ORDER BY 1, 2, 3""")


class Acted(NamedTuple):
    """A row of the trail, and the payload of its entry; either may be missing."""

    arrival: int
    payload: bytes | None
    at: datetime | None
    actor: str
    action: str
    target: str
    record: bytes
    salt: bytes


class Difference(NamedTuple):
    """A kept sum that is not the sum of its postings."""

    table: str
    account: str
    asset: str
    bucket: int
    kept: int
    posted: int


def entries(tx: Connection) -> Iterator[Stored]:
    """Every entry in arrival order. Lines of arrivals that have no entry are passed over."""
    grouped = groupby(_stream(tx, _LINES), key=itemgetter(0))
    arrival, lines = next(grouped, (None, iter(())))
    for row in _stream(tx, _ENTRIES):
        while arrival is not None and arrival < row[0]:
            arrival, lines = next(grouped, (None, iter(())))
        own = [tuple(line[1:]) for line in lines] if arrival == row[0] else []
        waiting = tuple(row[8:]) if row[8] is not None else None
        yield Stored._make((*row[:8], waiting, own))


def misplaced(tx: Connection) -> list[tuple[str, int]]:
    """(table, key) of runs that overlap the one before, of leaves also of those that do not follow
    it or lie beyond the log's end."""
    return [(row[0], row[1]) for row in tx.execute(_MISPLACED)]


def checkpoints(tx: Connection) -> Iterator[tuple[int, str]]:
    """Every signed checkpoint with the size it is kept under, in order."""
    return ((row[0], row[1]) for row in _stream(tx, _CHECKPOINTS))


def acts(tx: Connection) -> Iterator[Acted]:
    """Every act of an administrator, in order."""
    for arrival, payload, *record, is_none in _stream(tx, _ACTS):
        yield Acted(arrival, None if is_none else whole(tx, payload, arrival), *record)


def orphans(tx: Connection) -> list[tuple[str, int]]:
    """(table, arrival) of rows whose entry does not exist."""
    return [(row[0], row[1]) for row in tx.execute(_ORPHANS)]


def differences(tx: Connection) -> Iterator[Difference]:
    """Balances that are not what was posted, and folded sums that are not what was sealed."""
    kinds = {kind.code: str(kind) for kind in AccountKind}
    assets = {asset.code: str(asset) for asset in Asset}
    for table, query in (("balances", _GUARDED), ("open_balances", _OPEN)):
        for account, kind, asset, bucket, kept, posted in tx.execute(query):
            name = f"{kinds.get(kind, kind)}:{account.hex()}"
            shown = assets.get(asset, str(asset))
            yield Difference(table, name, shown, bucket, int(kept), int(posted))


def tile_count(tx: Connection) -> int:
    """How many full tiles are kept."""
    return int(tx.execute(text("SELECT count(*) FROM tiles")).scalar_one())


def _stream(tx: Connection, query: TextClause) -> Iterator[Any]:
    with tx.execute(query, execution_options={"yield_per": _PAGE}) as rows:
        yield from rows
