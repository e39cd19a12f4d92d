"""The only door into the ledger: `append`. Every way points move ends here.

The writer takes no lock on the log. Its callers have locked people first, then budgets, each in
sorted order; `append` changes guarded balances, and only then draws arrival numbers, so that for
any account the order of arrivals is the order of commits and sealing in that order replays legally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from app.store.db import bytea_array, copy_in, int_array
from ledger.accounts import AccountKind
from ledger.entries import Entry, Kind
from ledger.errors import Exhausted, Insufficient
from ledger.merkle import leaf_hash
from ledger.plain import Issue

_MERCHANT = AccountKind.MERCHANT.code
_ENTRY = {"arrival": "int8", "id": "bytea", "kind": "text", "payload": "bytea"}
_POSTING = {
    "arrival": "int8",
    "amount": "int8",
    "account": "bytea",
    "bucket": "int4",
    "account_kind": "int2",
    "asset": "int2",
}
_OUTBOX = {"arrival": "int8", "leaf_hash": "bytea"}

# Account key -> (kind code, asset code, bucket) -> change. Accounts are many and their buckets few:
# sorted so, in a third of the time.
_Changes = dict[bytes, dict[tuple[int, int, int], int]]

_DEBIT = text("""
UPDATE balances b SET amount = b.amount - d.amount
FROM unnest(CAST(:account AS bytea[]), CAST(:kind AS smallint[]), CAST(:asset AS smallint[]),
  CAST(:bucket AS integer[]), CAST(:amount AS bigint[])) AS d (account, kind, asset, bucket, amount)
WHERE b.account = d.account AND b.account_kind = d.kind AND b.asset = d.asset
  AND b.bucket = d.bucket AND b.amount >= d.amount""")
_CREDIT = text("""
INSERT INTO balances AS b (account, account_kind, asset, bucket, amount)
SELECT * FROM unnest(CAST(:account AS bytea[]), CAST(:kind AS smallint[]),
  CAST(:asset AS smallint[]), CAST(:bucket AS integer[]), CAST(:amount AS bigint[]))
ON CONFLICT (account, account_kind, asset, bucket)
DO UPDATE SET amount = b.amount + excluded.amount""")
_ARRIVALS = text("SELECT nextval('arrivals') FROM generate_series(1, :n)")


def append(tx: Connection, entries: Sequence[Entry | Issue]) -> list[int]:
    """Write entries, their postings and outbox rows; return their arrival numbers, in order.

    Raises Insufficient if a guarded balance would fall below zero, and IntegrityError (from the
    unique id) if an entry with the same scope and key was written meanwhile; the caller's
    transaction is then to be rolled back.
    """
    if not entries:
        return []
    postings: list[tuple[Any, ...]] = []
    deltas: _Changes = {}
    counts: list[int] = []
    for entry in entries:
        rows = entry.rows()
        for amount, key, bucket, kind, asset in rows:
            if kind < 10:
                own = deltas.setdefault(key, {})
                place = kind, asset, bucket
                own[place] = own.get(place, 0) + amount
        postings += rows
        counts.append(len(rows))
    changes = [
        (key, *place, amount)
        for key in sorted(deltas)
        for place, amount in sorted(deltas[key].items())
    ]
    _debit(tx, [(*balance, -amount) for *balance, amount in changes if amount < 0])
    _move(tx, _CREDIT, [change for change in changes if change[-1] > 0])
    arrivals, payloads = _write(tx, entries)
    lines = (arrival for arrival, n in zip(arrivals, counts, strict=True) for _ in range(n))
    copy_in(
        tx,
        "postings",
        _POSTING,
        ((arrival, *posting) for arrival, posting in zip(lines, postings, strict=True)),
    )
    copy_in(
        tx,
        "outbox",
        _OUTBOX,
        ((a, leaf_hash(payload)) for a, payload in zip(arrivals, payloads, strict=True)),
    )
    return arrivals


def write_for_sealer(tx: Connection, entry: Entry) -> tuple[int, bytes]:
    """Write an entry without postings that its caller seals itself; its arrival and leaf hash."""
    (arrival,), (payload,) = _write(tx, [entry])
    return arrival, leaf_hash(payload)


def _write(tx: Connection, entries: Sequence[Entry | Issue]) -> tuple[list[int], list[bytes]]:
    arrivals = list(tx.execute(_ARRIVALS, {"n": len(entries)}).scalars().all())
    payloads = [entry.payload() for entry in entries]
    copy_in(
        tx,
        "entries",
        _ENTRY,
        (
            (arrival, bytes.fromhex(entry.id), entry.kind, payload)
            for arrival, entry, payload in zip(arrivals, entries, payloads, strict=True)
        ),
    )
    return arrivals, payloads


def _debit(tx: Connection, debits: Sequence[tuple[Any, ...]]) -> None:
    for merchants in (False, True):
        some = [debit for debit in debits if (debit[1] == _MERCHANT) is merchants]
        if some and _move(tx, _DEBIT, some) != len(some):
            short = Exhausted if merchants else Insufficient
            raise short("An account does not hold what this entry takes from it.")


def _move(tx: Connection, statement: Any, rows: Sequence[tuple[Any, ...]]) -> int:
    """Apply sorted changes (account, kind, asset, bucket, amount); how many rows changed."""
    if not rows:
        return 0
    accounts, kinds, assets, buckets, amounts = zip(*rows, strict=True)
    return tx.execute(
        statement,
        {
            "account": bytea_array(accounts),
            "kind": int_array(kinds),
            "asset": int_array(assets),
            "bucket": int_array(buckets),
            "amount": int_array(amounts),
        },
    ).rowcount


def take_turn(tx: Connection, entry_id: str) -> None:
    """Wait for anybody else who decides on this entry's fate now."""
    name = {"name": entry_id}
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), name)


def find(tx: Connection, entry_id: str) -> tuple[int, Entry] | None:
    """The entry of this id with its arrival number, or None."""
    row = tx.execute(
        text("SELECT arrival, payload FROM entries WHERE id = :id"), {"id": bytes.fromhex(entry_id)}
    ).first()
    return (row.arrival, Entry.parse(row.payload)) if row else None


def known(tx: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Which of these entry ids exist already, with their arrival numbers."""
    rows = tx.execute(
        text("SELECT id, arrival FROM entries WHERE id = ANY(CAST(:ids AS bytea[]))"),
        {"ids": bytea_array(map(bytes.fromhex, ids))},
    )
    return {row.id.hex(): row.arrival for row in rows}


def of_kind(tx: Connection, resident: str, kind: Kind) -> list[Entry]:
    """A resident's entries of one kind, in the order they were appended."""
    rows = tx.execute(
        text(
            "SELECT e.payload FROM entries e WHERE e.kind = :kind AND e.arrival IN ("
            "SELECT arrival FROM postings WHERE account = :id AND account_kind <= 3)"
            " ORDER BY e.arrival"
        ),
        {"id": bytes.fromhex(resident), "kind": kind},
    )
    return [Entry.parse(payload) for payload in rows.scalars()]
