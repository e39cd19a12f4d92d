"""Points by their last day: whose are past it, and whose soon will be. Read page by page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array, int_array
from ledger.accounts import AccountKind, Asset


class Place(NamedTuple):
    """A wallet's bucket; pages go by resident and bucket."""

    resident: bytes
    bucket: int


START: Final = Place(b"", 0)
_WALLETS = f"account_kind = {AccountKind.RESIDENT.code} AND asset = {Asset.POINT.code}"
_DUE = text(f"""
SELECT b.account, b.bucket FROM balances b JOIN residents r ON r.id = b.account
WHERE {_WALLETS} AND b.account >= :resident AND (b.account, b.bucket) > (:resident, :bucket)
  AND b.bucket < :today AND b.amount > 0 AND r.erased_at IS NULL
ORDER BY b.account, b.bucket LIMIT :limit""")  # noqa: S608 (our own two numbers)
_LOCK = text("""
SELECT id FROM residents WHERE id = ANY(CAST(:residents AS bytea[])) AND erased_at IS NULL
ORDER BY id FOR NO KEY UPDATE""")
_HELD = text(f"""
SELECT b.account, b.bucket, b.amount
FROM unnest(CAST(:residents AS bytea[]), CAST(:buckets AS integer[])) AS d (account, bucket)
JOIN balances b USING (account, bucket)
WHERE {_WALLETS} AND b.amount > 0 ORDER BY b.account, b.bucket""")  # noqa: S608
# What was told already is not asked for again: a message's key is its bucket and its notice.
_SOON = text(f"""
SELECT b.account, b.bucket, b.amount,
  CASE WHEN b.bucket <= :soon THEN :short ELSE :long END AS days
FROM balances b JOIN residents r ON r.id = b.account
WHERE {_WALLETS} AND b.account >= :resident AND (b.account, b.bucket) > (:resident, :bucket)
  AND b.bucket BETWEEN :today AND :last AND b.amount > 0 AND r.erased_at IS NULL
  AND NOT EXISTS (
    SELECT FROM messages m WHERE m.resident = b.account AND m.kind = :kind
      AND m.key = b.bucket || ':' || CASE WHEN b.bucket <= :soon THEN :short ELSE :long END)
ORDER BY b.account, b.bucket LIMIT :limit""")  # noqa: S608


class Soon(NamedTuple):
    """Points that expire within so many days, of which their owner was not told yet."""

    place: Place
    points: int
    days: int


def due(tx: Connection, today: int, after: Place, limit: int) -> list[Place]:
    """Buckets with points whose last day is before `today` (YYYYMMDD)."""
    parameters = {**after._asdict(), "today": today, "limit": limit}
    return [Place(*row) for row in tx.execute(_DUE, parameters)]


def lock(tx: Connection, places: Sequence[Place]) -> list[tuple[str, int, int]]:
    """Lock the residents in order; (resident, bucket, points) of what is there once they are."""
    ids = sorted({place.resident for place in places})
    living = set(tx.execute(_LOCK, {"residents": bytea_array(ids)}).scalars())
    some = [place for place in places if place.resident in living]
    rows = tx.execute(
        _HELD,
        {
            "residents": bytea_array(place.resident for place in some),
            "buckets": int_array(place.bucket for place in some),
        },
    )
    return [(account.hex(), bucket, points) for account, bucket, points in rows]


def soon(
    tx: Connection,
    kind: str,
    today: int,
    notices: tuple[tuple[int, int], tuple[int, int]],
    after: Place,
    limit: int,
) -> list[Soon]:
    """Points that expire today or later whose owner has no message of this kind about them.
    `notices` are the short and the long one: (days, the last bucket it speaks of)."""
    (short, week), (long, last) = notices
    parameters = {
        **after._asdict(),
        "kind": kind,
        "today": today,
        "soon": week,
        "last": last,
        "short": short,
        "long": long,
        "limit": limit,
    }
    return [Soon(Place(*row[:2]), *row[2:]) for row in tx.execute(_SOON, parameters)]
