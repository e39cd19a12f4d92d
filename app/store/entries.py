"""The only door into the ledger: `append`. Every way points move ends here.

The writer takes no lock on the log. Its callers have locked people first, then budgets, each in
sorted order; `append` changes guarded balances, and only then draws arrival numbers, so that for
any account the order of arrivals is the order of commits and sealing in that order replays legally.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.store import packed
from app.store.db import bytea_array, copy_in, fetch, int_array, text_array
from app.store.detached import whole
from app.store.packed import copy_packed
from ledger.accounts import AccountKind, Asset
from ledger.entries import Entry, Kind, Row
from ledger.errors import Exhausted, Insufficient
from ledger.merkle import leaf_hash
from ledger.plain import Issue

_MERCHANT = AccountKind.MERCHANT.code
_RESIDENT, _BUDGET = AccountKind.RESIDENT.code, AccountKind.BUDGET.code
_CO2E, _POINT = Asset.CO2E.code, Asset.POINT.code
_FUNDS: Final = (_BUDGET, _POINT, 0)
_terms = attrgetter("terms")
_ENTRY = ("arrival", "id", "kind", "payload")
_POSTING = ("arrival", "amount", "account", "bucket", "account_kind", "asset")
_OUTBOX = {"arrival": "int8", "count": "int4", "leaf_hashes": "bytea"}

FEW: Final = 32
"""Entries beyond this many are copied in; up to it, one call of `append_entries` is faster."""

_SHORT = "PH0"  # of append_entries: the account that holds too little is of the kind that follows
ARGUMENTS: Final = (
    "%s::bytea[], %s::smallint[], %s::smallint[], %s::integer[],"
    " %s::bigint[], %s::bytea[], %s::text[], %s::bytea[], %s::bytea[], %s::integer[],"
    " %s::bigint[], %s::bytea[], %s::integer[], %s::smallint[], %s::smallint[]"
)
"""What `append_entries` takes, as `arguments` gives it."""

_APPEND = f"SELECT append_entries({ARGUMENTS})"
_Change = tuple[bytes, int, int, int, int]  # account, kind, asset, bucket, amount

_DEBIT = """
UPDATE balances b SET amount = b.amount - d.amount
FROM unnest(%s::bytea[], %s::smallint[], %s::smallint[], %s::integer[], %s::bigint[])
  AS d (account, kind, asset, bucket, amount)
WHERE b.account = d.account AND b.account_kind = d.kind AND b.asset = d.asset
  AND b.bucket = d.bucket AND b.amount >= d.amount RETURNING 1"""
_CREDIT = """
INSERT INTO balances AS b (account, account_kind, asset, bucket, amount)
SELECT * FROM unnest(%s::bytea[], %s::smallint[], %s::smallint[], %s::integer[], %s::bigint[])
ON CONFLICT (account, account_kind, asset, bucket)
DO UPDATE SET amount = b.amount + excluded.amount"""
_ARRIVALS = "SELECT nextval('arrivals') FROM generate_series(1, %s)"


def append(tx: Connection, entries: Sequence[Entry | Issue]) -> list[int]:
    """Write entries, their postings and outbox rows; return their arrival numbers, in order.

    Raises Insufficient if a guarded balance would fall below zero (Exhausted, if a merchant's),
    and IntegrityError (from the unique id) if an entry with the same scope and key was written
    meanwhile; the caller's transaction is then to be rolled back.
    """
    if not entries:
        return []
    if len(entries) <= FEW:
        return list(call(tx, _APPEND, arguments(entries)))
    return _append_many(tx, entries)


def _changes(lines: Iterable[Sequence[Row]], issues: Iterable[Issue] = ()) -> list[_Change]:
    """What becomes of the guarded balances, sorted: (account, kind, asset, bucket, amount)."""
    sums: dict[tuple[int, int, int], dict[bytes, int]] = {}  # by place, then by account
    for rows in lines:
        for amount, key, bucket, kind, asset in rows:
            if kind < 10:
                _add(sums.setdefault((kind, asset, bucket), {}), key, amount)
    for terms, some in groupby(issues, key=_terms):  # what their rows say, without making them
        carbon = sums.setdefault((_RESIDENT, _CO2E, terms.vintage), {})
        wallet = sums.setdefault((_RESIDENT, _POINT, terms.bucket), {})
        paid = 0
        for _, resident, _, mg, points, _ in some:
            carbon[resident] = carbon.get(resident, 0) + mg
            if points:
                wallet[resident] = wallet.get(resident, 0) + points
                paid += points
        if paid:
            _add(sums.setdefault(_FUNDS, {}), bytes.fromhex(terms.budget), -paid)
    # Accounts are many and their places few: sorted so, in a third of the time.
    places = sorted(sums.items())
    return [
        (account, *place, total)
        for account in sorted(set().union(*sums.values()))
        for place, own in places
        if (total := own.get(account))
    ]


def _add(sums: dict[bytes, int], account: bytes, amount: int) -> None:
    sums[account] = sums.get(account, 0) + amount


def arguments(entries: Sequence[Entry | Issue]) -> list[Any]:
    """What a few entries are to `append_entries`. The order of locks is that of `_append_many`:
    debits first, and of both the merchants' last, for theirs are the rows where most tills meet."""
    lines = [entry.rows() for entry in entries]
    changes = sorted(_changes(lines), key=lambda change: (change[4] > 0, change[1] == _MERCHANT))
    payloads = [entry.payload() for entry in entries]
    postings = [(n, *row) for n, rows in enumerate(lines, 1) for row in rows]
    accounts, kinds, assets, buckets, amounts = zip(*changes, strict=True) if changes else [()] * 5
    numbers, sums, keys, places, roles, units = (
        zip(*postings, strict=True) if postings else [()] * 6
    )
    return [
        bytea_array(accounts),
        *map(int_array, (kinds, assets, buckets, amounts)),
        bytea_array(bytes.fromhex(entry.id) for entry in entries),
        text_array(entry.kind for entry in entries),
        bytea_array(payloads),
        bytea_array(map(leaf_hash, payloads)),
        *map(int_array, (numbers, sums)),
        bytea_array(keys),
        *map(int_array, (places, roles, units)),
    ]


def call(tx: Connection, statement: str, values: Sequence[Any]) -> Any:
    """What a statement that calls `append_entries` returns. Raises as `append` does."""
    try:
        ((result,),) = fetch(tx, statement, values)
    except DBAPIError as error:
        short = getattr(error.orig, "sqlstate", None) or ""
        if short.startswith(_SHORT):
            raise _insufficient(int(short[3:]) == _MERCHANT) from error
        raise
    return result


def _append_many(tx: Connection, entries: Sequence[Entry | Issue]) -> list[int]:
    """By sets and by COPY, which cost more to begin and less for each row."""
    changes = _changes(
        (entry.rows() for entry in entries if type(entry) is not Issue),
        (entry for entry in entries if type(entry) is Issue),
    )
    for merchants in (False, True):
        debits = [
            (*change[:4], -change[4])
            for change in changes
            if change[4] < 0 and (change[1] == _MERCHANT) is merchants
        ]
        if len(_move(tx, _DEBIT, debits)) < len(debits):
            raise _insufficient(merchants)
    _move(tx, _CREDIT, [change for change in changes if change[4] > 0])
    arrivals, payloads = _write(tx, entries)
    copy_packed(tx, "postings", _POSTING, packed.postings(arrivals, entries))
    copy_in(tx, "outbox", _OUTBOX, waiting(arrivals, list(map(leaf_hash, payloads))))
    return arrivals


def waiting(arrivals: Sequence[int], hashes: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Rows of `outbox`, each of numbers without a gap: its first, how many, and their leaf hashes.
    Two transactions may have drawn their numbers in turns."""
    gaps = [place for place, (one, other) in enumerate(pairwise(arrivals), 1) if other > one + 1]
    for first, end in pairwise((0, *gaps, len(arrivals))):
        yield arrivals[first], end - first, b"".join(hashes[first:end])


def _insufficient(merchant: bool) -> Insufficient:
    if merchant:
        return Exhausted("The merchant's allowance does not cover what this entry redeems.")
    return Insufficient("An account does not hold what this entry takes from it.")


def write_for_sealer(tx: Connection, entry: Entry) -> tuple[int, bytes]:
    """Write an entry without postings that its caller seals itself; its arrival and leaf hash."""
    (arrival,), (payload,) = _write(tx, [entry])
    return arrival, leaf_hash(payload)


def _write(tx: Connection, entries: Sequence[Entry | Issue]) -> tuple[list[int], list[bytes]]:
    arrivals = [arrival for (arrival,) in fetch(tx, _ARRIVALS, [len(entries)])]
    payloads = [entry.payload() for entry in entries]
    copy_packed(tx, "entries", _ENTRY, map(packed.entry, arrivals, entries, payloads))
    return arrivals, payloads


def _move(tx: Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Apply sorted changes (account, kind, asset, bucket, amount); what the statement returns."""
    if not rows:
        return []
    accounts, *numbers = zip(*rows, strict=True)
    return fetch(tx, statement, [bytea_array(accounts), *map(int_array, numbers)])


def take_turn(tx: Connection, entry_id: str) -> None:
    """Wait for anybody else who decides on this entry's fate now."""
    name = {"name": entry_id}
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), name)


def find(tx: Connection, entry_id: str) -> tuple[int, Entry] | None:
    """The entry of this id with its arrival number, or None."""
    row = tx.execute(
        text("SELECT arrival, payload FROM entries WHERE id = :id"), {"id": bytes.fromhex(entry_id)}
    ).first()
    return (row.arrival, Entry.parse(whole(tx, row.payload, row.arrival))) if row else None


def known(tx: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Which of these entry ids exist already, with their arrival numbers."""
    query = "SELECT id, arrival FROM entries WHERE id = ANY(%s::bytea[])"
    rows = fetch(tx, query, [bytea_array(map(bytes.fromhex, ids))])
    return {entry_id.hex(): arrival for entry_id, arrival in rows}


def of_kind(tx: Connection, resident: str, kind: Kind) -> list[Entry]:
    """A resident's entries of one kind, in the order they were appended."""
    rows = tx.execute(
        text(
            "SELECT e.payload, e.arrival FROM entries e WHERE e.kind = :kind AND e.arrival IN ("
            "SELECT arrival FROM own_postings(:id, 0))"
            " ORDER BY e.arrival"
        ),
        {"id": bytes.fromhex(resident), "kind": kind},
    )
    return [Entry.parse(whole(tx, *row)) for row in rows.all()]
