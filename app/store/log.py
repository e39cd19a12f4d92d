"""The log's tables: the head and its edge, leaves, tiles, checkpoints, and the folded open sums.

What waits and what is sealed is kept by *runs*: entries whose arrival numbers have no gap between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store import detached
from app.store.db import copy_in, fetch, int_array
from ledger.accounts import AccountKind, Asset
from ledger.entries import Kind
from ledger.merkle import HASH_BYTES
from ledger.tiles import Edge, Tile


class Head(NamedTuple):
    """The sealed log: how many leaves, the partial tiles, and the last business day closed."""

    size: int
    edge: Edge
    day: int | None


class Pending(NamedTuple):
    """A run of appended entries that is not in the tree yet: the first one's number, and the leaf
    hashes of all, one after the other."""

    arrival: int
    leaf_hashes: bytes


class Run(NamedTuple):
    """Entries of all arrival numbers from the first to the last."""

    first: int
    last: int


def lock_head(tx: Connection, *, wait: bool = False) -> Head | None:
    """The head, locked; None if another sealer holds it and its end is not to be waited for."""
    query = "SELECT size, edge, day FROM log_head FOR UPDATE"
    row = tx.execute(text(query if wait else query + " SKIP LOCKED")).first()
    return Head(row.size, Edge(tuple(row.edge)), row.day) if row else None


def head(tx: Connection) -> Head:
    """The head as it stands."""
    row = tx.execute(text("SELECT size, edge, day FROM log_head")).one()
    return Head(row.size, Edge(tuple(row.edge)), row.day)


def set_head(tx: Connection, edge: Edge, day: int) -> None:
    """Move the head."""
    tx.execute(
        text("UPDATE log_head SET size = :size, edge = CAST(:edge AS bytea[]), day = :day"),
        {"size": edge.size, "edge": list(edge.levels), "day": day},
    )


_TAKE = """
DELETE FROM outbox WHERE arrival <= (
  SELECT max(arrival) FROM (
    SELECT arrival, sum(count) OVER (ORDER BY arrival) - count AS before
    FROM outbox ORDER BY arrival LIMIT %(limit)s) first
  WHERE before < %(limit)s)
RETURNING arrival, leaf_hashes"""


def take_pending(tx: Connection, limit: int) -> list[Pending]:
    """Take the first runs of the outbox, in arrival order, until they are `limit` entries or more:
    no run is cut, and none is longer than what one transaction wrote."""
    return list(map(Pending._make, sorted(fetch(tx, _TAKE, {"limit": limit}))))


def joined(pending: Iterable[Pending]) -> list[Run]:
    """The same runs in the same order, those that follow each other without a gap as one."""
    runs: list[Run] = []
    for arrival, leaf_hashes in pending:
        first, last = arrival, arrival + len(leaf_hashes) // HASH_BYTES - 1
        if runs and runs[-1].last + 1 == arrival:
            first = runs.pop().first
        runs.append(Run(first, last))
    return runs


# OFFSET 0: each run's entries are looked up, whatever the planner thinks of how many those may be.
_PENDING = text("""
SELECT e.payload FROM outbox o CROSS JOIN LATERAL (
  SELECT payload FROM entries
  WHERE arrival >= o.arrival AND arrival < o.arrival + o.count AND kind = :kind OFFSET 0) e""")
_PUT = """
INSERT INTO runs (leaf, arrival, count)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[])"""


def pending(tx: Connection, kind: Kind) -> list[bytes]:
    """The payloads of entries of a kind that are not in the tree yet."""
    return list(tx.execute(_PENDING, {"kind": kind}).scalars())


def put_leaves(tx: Connection, first: int, runs: Sequence[Run]) -> None:
    """Give the entries of these runs the leaf indexes from `first` on."""
    counts = [run.last - run.first + 1 for run in runs]
    leaves = accumulate(counts[:-1], initial=first)
    fetch(tx, _PUT, [*map(int_array, (leaves, (run.first for run in runs), counts))])


def put_tiles(tx: Connection, tiles: Iterable[tuple[Tile, bytes]]) -> None:
    """Keep tiles that became full."""
    copy_in(
        tx,
        "tiles",
        {"level": "int2", "n": "int8", "hashes": "bytea"},
        ((tile.level, tile.index, hashes) for tile, hashes in tiles),
    )


_FOLD = """
INSERT INTO open_balances AS o (account_kind, account, asset, amount)
SELECT p.account_kind, p.account, p.asset, sum(p.amount)
FROM unnest(%s::bigint[], %s::bigint[]) AS run (first, last)
JOIN postings p ON p.arrival BETWEEN run.first AND run.last AND p.account_kind > 10
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
ON CONFLICT (account_kind, account, asset) DO UPDATE SET amount = o.amount + excluded.amount"""


def fold_open(tx: Connection, runs: Sequence[Run]) -> None:
    """Add these entries' postings on open accounts to the folded sums.

    Who is between two runs may be committed just now, and is folded when it is sealed.
    """
    # The table grows faster than its statistics: a plan for a small one would read all of it,
    # every second.
    tx.execute(text("SET LOCAL enable_seqscan = off"))
    fetch(tx, _FOLD, [*map(int_array, zip(*runs, strict=True))])


_KIND_NAMES = {kind.code: str(kind) for kind in AccountKind}
_ASSET_NAMES = {asset.code: str(asset) for asset in Asset}


def open_totals(tx: Connection) -> dict[str, int]:
    """Folded sums by '<account kind>:<asset>', as a `day.closed` entry states them."""
    rows = tx.execute(
        text(
            "SELECT account_kind, asset, sum(amount) AS total FROM open_balances"
            " GROUP BY account_kind, asset HAVING sum(amount) <> 0"
        )
    )
    return {
        f"{_KIND_NAMES[row.account_kind]}:{_ASSET_NAMES[row.asset]}": int(row.total) for row in rows
    }


def put_checkpoint(tx: Connection, size: int, note: str, now: datetime) -> None:
    """Keep a signed checkpoint."""
    tx.execute(
        text("INSERT INTO checkpoints (size, note, sealed_at) VALUES (:size, :note, :now)"),
        {"size": size, "note": note, "now": now},
    )


def latest_checkpoint(tx: Connection) -> str | None:
    """The newest signed checkpoint; None before the first seal."""
    return tx.execute(text("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1")).scalar()


def read_tile(tx: Connection, tile: Tile) -> bytes:
    """The hashes of a tile, full or cut to its width; empty if the log has not grown so far.

    A partial tile is the head of the full one that followed it, or of the edge.
    """
    hashes: bytes | None = tx.execute(
        text("SELECT hashes FROM tiles WHERE level = :level AND n = :n"),
        {"level": tile.level, "n": tile.index},
    ).scalar()
    if hashes is None:
        last = head(tx)
        levels = last.edge.levels
        if tile.level < len(levels) and last.size >> 8 * (tile.level + 1) == tile.index:
            hashes = levels[tile.level]
    wanted = tile.width * 32
    return hashes[:wanted] if hashes and len(hashes) >= wanted else b""


def leaf_of(tx: Connection, arrival: int) -> int | None:
    """The leaf index of an entry; None while it is not sealed."""
    return tx.execute(text("SELECT leaf FROM leaf_of(:arrival)"), {"arrival": arrival}).scalar()


class Sealed(NamedTuple):
    """An entry with what proves it, of one moment: leaf (None while it is not sealed), the full
    tile it stands in (empty while it is not full), and the newest checkpoint."""

    payload: bytes
    leaf: int | None
    tile: bytes
    note: str | None


_SEALED = """
SELECT e.payload, l.leaf, coalesce(t.hashes, ''), (
  SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1), e.arrival
FROM entries e LEFT JOIN leaf_of(e.arrival) l ON true
LEFT JOIN tiles t ON t.level = 0 AND t.n = l.leaf >> 8
WHERE e.id = %s"""


def sealed(tx: Connection, entry_id: str) -> Sealed | None:
    """An entry of this id and what its proof begins with; None if there is no such entry."""
    rows = fetch(tx, _SEALED, [bytes.fromhex(entry_id)])
    if not rows:
        return None
    payload, *proof, arrival = rows[0]
    return Sealed(detached.whole(tx, payload, arrival), *proof)


def payloads(tx: Connection, first: int, count: int) -> list[bytes]:
    """The payloads of `count` leaves from `first` on."""
    rows = tx.execute(
        text(
            "SELECT e.payload, l.leaf FROM leaves_between(:first, :last) l"
            " JOIN entries e USING (arrival) ORDER BY l.leaf"
        ),
        {"first": first, "last": first + count},
    ).all()
    return [detached.at_leaf(tx, leaf) if data is None else data for data, leaf in rows]


def sealed_before(tx: Connection, moment: datetime) -> int:
    """How many leaves the last checkpoint before a moment speaks for."""
    query = "SELECT coalesce(max(size), 0) FROM checkpoints WHERE sealed_at < :moment"
    return int(tx.execute(text(query), {"moment": moment}).scalar_one())
