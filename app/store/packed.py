"""What intake writes most of, as the very bytes of a binary COPY.

The driver asks each value of each row for its type. Of these tables every row has one shape, which
is packed in one call; and the four postings of a plain issue differ in four values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from struct import Struct
from typing import Any, Final

import psycopg
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from ledger.entries import Entry
from ledger.plain import Issue, Terms
from scenarios import Key, Usage

# A row: how many fields (h), then each one's length (i) and its bytes, in network order.
_BEGIN: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END: Final = b"\xff\xff"
_ENTRY = Struct(">h iq i16s i").pack  # arrival, id; the kind and the payload follow
_ISSUE = Struct(">h iq i16s i5s i").pack  # arrival, id, kind; the payload follows
_LENGTH = Struct(">i").pack
_OPENING = Struct(">h iq i16s i").pack  # arrival, resident; what is sealed follows
_USAGE = Struct(">h i16s").pack  # resident; the key follows
_COUNTS = Struct(">ii iq iq").pack  # count, reduction in mg, points
_POSTING = Struct(">h iq iq i16s ii ih ih").pack  # arrival, amount, account, bucket, kind, asset
_FIELDS: Final = b"\0\6"
_CARBON = Struct(">2s iqiq 42s iqiq i16s 20s").pack
_POINTS = Struct(">2s iqiq 42s iqiq i16s 22s iqiq 42s iqiq i16s 20s").pack
_PLACE = Struct(">ii ih ih").pack


def copy_packed(
    tx: Connection, table: str, columns: tuple[str, ...], rows: Iterable[bytes]
) -> None:
    """COPY rows into a table as this module packs them. Raises DBAPIError."""
    driver: Any = tx.connection.driver_connection
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(b"".join((_BEGIN, *rows, _END)))
    except psycopg.Error as error:
        raise DBAPIError.instance(statement, None, error, psycopg.Error) from error


def entry(arrival: int, one: Entry | Issue, payload: bytes) -> bytes:
    """Of `entries`: arrival, id, kind, payload."""
    if type(one) is Issue:
        return _ISSUE(4, 8, arrival, 16, one.key, 5, b"issue", len(payload)) + payload
    kind = one.kind.encode()
    return b"".join(
        (
            _ENTRY(4, 8, arrival, 16, bytes.fromhex(one.id), len(kind)),
            kind,
            _LENGTH(len(payload)),
            payload,
        )
    )


def opening(arrival: int, resident: bytes, sealed: bytes) -> bytes:
    """Of `openings`: arrival, resident, sealed."""
    return _OPENING(3, 8, arrival, 16, resident, len(sealed)) + sealed


def usage(resident: bytes, key: Key, used: Usage) -> bytes:
    """Of `usage`: resident, scenario, period, count, reduction_mg, points."""
    count, mg, points = used
    return _USAGE(6, 16, resident) + _counter(key) + _COUNTS(4, count, 8, mg, 8, points)


@lru_cache(maxsize=1024)
def _counter(key: Key) -> bytes:
    name = key[0].encode()
    return _LENGTH(len(name)) + name + _LENGTH(4) + _LENGTH(key[1])


def postings(arrivals: Iterable[int], entries: Iterable[Entry | Issue]) -> Iterator[bytes]:
    """All of each entry's `postings`: arrival, amount, account, bucket, account_kind, asset."""
    shared = None  # one batch's issues have few different terms: two in a row, mostly the same
    for arrival, one in zip(arrivals, entries, strict=True):
        if type(one) is not Issue:
            for amount, key, bucket, kind, asset in one.rows():
                yield _POSTING(6, 8, arrival, 8, amount, 16, key, 4, bucket, 2, kind, 2, asset)
            continue
        _, wallet, terms, mg, points, _ = one
        if terms is not shared:
            shared, (source, carbon, budget, credit) = terms, _shared(terms)
        # fmt: off
        if points:
            yield _POINTS(
                _FIELDS, 8, arrival, 8, -mg, source, 8, arrival, 8, mg, 16, wallet, carbon,
                8, arrival, 8, -points, budget, 8, arrival, 8, points, 16, wallet, credit,
            )
        else:
            yield _CARBON(
                _FIELDS, 8, arrival, 8, -mg, source, 8, arrival, 8, mg, 16, wallet, carbon[:20]
            )
        # fmt: on


@lru_cache(maxsize=1024)
def _shared(terms: Terms) -> tuple[bytes, bytes, bytes, bytes]:
    """What follows the amounts in the rows of plain issues of these terms, up to the next row's
    values: of the source and the budget with the account, of the wallet's two without it."""
    rows = Issue(b"", b"", terms, 1, 1, b"").rows()
    source, carbon, budget, credit = (
        _PLACE(4, bucket, 2, kind, 2, asset) for _, _, bucket, kind, asset in rows
    )
    keys = [_LENGTH(16) + key.ljust(16) for _, key, *_ in rows]  # no budget: no points, not used
    return keys[0] + source + _FIELDS, carbon + _FIELDS, keys[2] + budget + _FIELDS, credit
