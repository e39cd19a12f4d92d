"""The ledger read person by person over a stretch of its past, for replaying it by other rules.

A stretch begins at an arrival number: the order in which things were written is the order in which
they counted. Every function reads; the caller holds one snapshot over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.store.db import bytea_array
from app.store.detached import whole
from ledger.accounts import AccountKind, Asset

_AT = slice(7, 31)  # the time in an entry's canonical bytes, which begin {"at":"
_PAGE = 10_000


class Line(NamedTuple):
    """One entry of somebody's: payload, and what was done, sealed, if that was kept."""

    resident: bytes
    arrival: int
    payload: bytes
    sealed: bytes | None


class Owner(NamedTuple):
    """What a person's acts are opened and told apart by; both are None once they are erased."""

    wrapped_key: bytes | None
    district: str | None


_FROM = text("""
SELECT arrival, payload FROM entries WHERE arrival >= :arrival ORDER BY arrival LIMIT 1""")
# The driver's own SQL, for an answer in binary: as text, most of the bytes would be twice as long.
_LINES = """
SELECT p.account, e.arrival, e.payload, o.sealed
FROM (SELECT DISTINCT account, arrival
  FROM stretches(%(first)s, 9223372036854775807) s JOIN postings ON arrival >> 21 = s
  WHERE account_kind <= 3 AND account >= %(low)s AND account < %(high)s
    AND arrival >= %(first)s) p
JOIN entries e USING (arrival) LEFT JOIN openings o USING (arrival)
ORDER BY p.account, e.arrival"""
_BY_ID = text("""
SELECT e.id, e.arrival, e.payload, o.sealed
FROM entries e LEFT JOIN openings o USING (arrival)
WHERE e.id = ANY(CAST(:ids AS bytea[]))""")
_OWNERS = text("""
SELECT id, wrapped_key, district FROM residents WHERE id = ANY(CAST(:ids AS bytea[]))""")
_FUNDED = text("""
SELECT p.arrival, p.account, p.amount FROM postings p JOIN entries e USING (arrival)
WHERE p.account IN (SELECT token FROM budgets) AND p.account_kind = 5 AND p.amount > 0
  AND p.arrival >= :first AND e.kind = 'budget.funded'""")
_WAITING = text("SELECT arrival, budget, points FROM waiting ORDER BY arrival")
_AWAITED = text("""
SELECT DISTINCT e.arrival, e.payload
FROM own_postings(:resident, 0) p JOIN entries e USING (arrival)
WHERE e.kind = 'issue'
  AND (e.payload IS NULL OR position('"awaiting":'::bytea IN e.payload) > 0)
ORDER BY e.arrival""")
_ENDING = text("""
SELECT account, bucket, amount FROM balances
WHERE account = ANY(CAST(:residents AS bytea[])) AND account_kind = :kind AND asset = :asset""")
_HELD = text("""
SELECT account, amount FROM balances WHERE account_kind = :kind AND asset = :asset""")
_REFUSED = text("""
SELECT code, count(*) FROM rejections WHERE recorded_at >= :since GROUP BY code ORDER BY code""")


def first_since(tx: Connection, at: str) -> int:
    """The arrival from which on entries bear this time (RFC 3339, UTC) or a later one.

    Times rise with arrivals but for the moments between a request's clock and its commit.
    """
    bounds = "SELECT coalesce(min(arrival), 0), coalesce(max(arrival), -1) + 1 FROM entries"
    low, high = tx.execute(text(bounds)).one()
    while low < high:
        middle = (low + high) // 2
        arrival, payload = tx.execute(_FROM, {"arrival": middle}).one()
        if whole(tx, payload, arrival)[_AT].decode() >= at:
            high = middle
        else:
            low = arrival + 1
    return int(low)


def count(tx: Connection, first: int) -> int:
    """How many openings there are from an arrival on: the acts to be replayed."""
    statement = text("SELECT count(*) FROM openings WHERE arrival >= :first")
    return int(tx.execute(statement, {"first": first}).scalar_one())


def lines(tx: Connection, low: bytes, high: bytes, first: int) -> list[Line]:
    """What was written about the people of a slice of tokens, by person and arrival."""
    driver: Any = tx.connection.driver_connection
    try:
        with driver.cursor(binary=True) as cursor:
            rows = cursor.execute(_LINES, {"low": low, "high": high, "first": first}).fetchall()
    except psycopg.Error as error:
        raise DBAPIError.instance(_LINES, None, error, psycopg.Error) from error
    return [
        Line(account, arrival, whole(tx, payload, arrival), sealed)
        for account, arrival, payload, sealed in rows
    ]


def by_id(tx: Connection, ids: Iterable[str]) -> dict[str, tuple[int, bytes, bytes | None]]:
    """(arrival, payload, sealed opening) of entries by their ids."""
    wanted = [bytes.fromhex(one) for one in ids]
    if not wanted:
        return {}
    rows = tx.execute(_BY_ID, {"ids": bytea_array(wanted)})
    return {row[0].hex(): (row[1], whole(tx, row[2], row[1]), row[3]) for row in rows.all()}


def owners(tx: Connection, residents: Sequence[bytes]) -> dict[bytes, Owner]:
    """Key and district of these people."""
    rows = tx.execute(_OWNERS, {"ids": bytea_array(residents)})
    return {row[0]: Owner(row[1], row[2]) for row in rows}


def erased(tx: Connection, since: datetime) -> list[str]:
    """Who was erased since a moment."""
    statement = text("SELECT id FROM residents WHERE erased_at >= :since ORDER BY id")
    return [row.hex() for row in tx.execute(statement, {"since": since}).scalars()]


def awaited(tx: Connection, resident: str) -> list[tuple[int, bytes]]:
    """(arrival, payload) of every issue of a person that had to wait for its budget."""
    rows = tx.execute(_AWAITED, {"resident": bytes.fromhex(resident)})
    every = ((arrival, whole(tx, payload, arrival)) for arrival, payload in rows.all())
    return [(arrival, payload) for arrival, payload in every if b'"awaiting":' in payload]


def wallets(tx: Connection, residents: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
    """Points by bucket in these people's wallets now, emptied buckets too."""
    codes = {"kind": AccountKind.RESIDENT.code, "asset": Asset.POINT.code}
    found: dict[bytes, dict[int, int]] = {}
    for account, bucket, amount in tx.execute(
        _ENDING, {"residents": bytea_array(residents), **codes}
    ):
        found.setdefault(account, {})[bucket] = amount
    return found


def budgets(tx: Connection) -> dict[str, int]:
    """What each budget that was ever funded holds now."""
    codes = {"kind": AccountKind.BUDGET.code, "asset": Asset.POINT.code}
    return {row[0].hex(): row[1] for row in tx.execute(_HELD, codes)}


def fundings(tx: Connection, first: int) -> list[tuple[int, str, int]]:
    """(arrival, budget, points) of each funding from an arrival on."""
    return [(row[0], row[1].hex(), row[2]) for row in tx.execute(_FUNDED, {"first": first})]


def waiting(tx: Connection) -> Iterator[tuple[int, str, int]]:
    """(arrival, budget, points) of everything that waits now, in order."""
    with tx.execute(_WAITING, execution_options={"yield_per": _PAGE}) as rows:
        for row in rows:
            yield row[0], row[1].hex(), row[2]


def refused(tx: Connection, since: datetime) -> dict[str, int]:
    """How many acts were refused since a moment, by code."""
    return {row[0]: row[1] for row in tx.execute(_REFUSED, {"since": since})}
