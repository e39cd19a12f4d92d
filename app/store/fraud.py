"""What the rules against fraud count: one statement each. A till waits for the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from app.config import CITY_ZONE
from app.store.db import fetch

COUNTED: Final = 500  # rows of one resident's day that are read at most


class Seen(NamedTuple):
    """What is known of who is about to spend; counts and points are without this attempt.

    `rules` are the rules' settings as far as they were ever set. `salt` is the resident's wrapped
    key: what is named after it is no longer to be tied to the account once that is erased.
    """

    rules: dict[str, Any]
    hour_count: int
    day_count: int
    day_points: int
    day_devices: int
    staff: bool
    salt: bytes


# `{resident}` and `{device}` are who spends; that resident's own day and hour are what counts.
_SEEN = """
WITH spent AS (
  (SELECT at, points - refunded AS points, device FROM charges
    WHERE resident = {resident} AND at >= %(since)s AND state <> 'failed'
    ORDER BY at DESC LIMIT %(counted)s)
  UNION ALL
  (SELECT placed_at, points, NULL FROM orders
    WHERE resident = {resident} AND placed_at >= %(since)s AND state <> 'released'
    ORDER BY placed_at DESC LIMIT %(counted)s)
)
SELECT
  (SELECT coalesce(jsonb_object_agg(name, value), '{{}}') FROM settings
    WHERE name IN ('fraud.resident', 'fraud.device', 'fraud.staff')),
  count(*) FILTER (WHERE at >= %(hour)s), count(*) FILTER (WHERE at >= %(day)s),
  coalesce(sum(points) FILTER (WHERE at >= %(day)s), 0)::bigint,
  count(DISTINCT device) FILTER (WHERE at >= %(day)s AND device <> {device}),
  EXISTS (SELECT FROM staff
    WHERE staff.resident = {resident} AND merchant = {merchant} AND active),
  (SELECT wrapped_key FROM residents WHERE id = {resident})
FROM spent"""


def counting(resident: str, device: str, merchant: str = "%(merchant)s") -> str:
    """The query of `Seen`, of those that these expressions name; `%(day)s`, `%(hour)s`,
    `%(since)s`, `%(merchant)s`, `%(counted)s` are as in `given`."""
    return _SEEN.format(resident=resident, device=device, merchant=merchant)


def given(merchant: str, day: datetime, hour: datetime) -> dict[str, Any]:
    """What `counting` asks for: when the day and the hour began that are counted."""
    return {
        "merchant": bytes.fromhex(merchant),
        "day": day,
        "hour": hour,
        "since": min(day, hour),
        "counted": COUNTED,
    }


_OF_GIVEN = counting("%(resident)s", "%(device)s")


def seen(
    tx: Connection,
    resident: str,
    merchant: str,
    device: bytes | None,
    day: datetime,
    hour: datetime,
) -> Seen:
    """What a resident has spent since `day` and since `hour`, and with how many other devices."""
    who = {"resident": bytes.fromhex(resident), "device": device}
    (row,) = fetch(tx, _OF_GIVEN, given(merchant, day, hour) | who)
    return Seen(*row)


class Place(NamedTuple):
    """Something that happened too often: at which merchant, under which key, and the figures."""

    merchant: str
    key: str
    facts: dict[str, Any]
    resident: str | None = None


# Where a line names no till it is its store's, or else the merchant's.
_WHERE = "encode(coalesce(b.till, b.store, b.merchant), 'hex')"
_AT_TILL = f"""
SELECT b.merchant, {_WHERE} AS till, t.code, date_trunc('minute', b.at) AS begins, count(*)
FROM bill_lines b LEFT JOIN tills t ON t.id = b.till
WHERE b.arrival > :after AND b.at >= :since AND b.kind = 'charge'
GROUP BY 1, 2, 3, 4 HAVING count(*) > :limit"""  # noqa: S608 (our own names)
_SAME_AMOUNT = f"""
SELECT b.merchant, {_WHERE} AS till, t.code, date_trunc('hour', b.at) AS begins, count(*), b.points
FROM bill_lines b LEFT JOIN tills t ON t.id = b.till
WHERE b.arrival > :after AND b.at >= :since AND b.kind = 'charge'
GROUP BY 1, 2, 3, 4, 6 HAVING count(*) > :limit"""  # noqa: S608
_SHARE = f"""
SELECT * FROM (
  SELECT b.merchant, {_WHERE} AS till, t.code, date_trunc('hour', b.at) AS begins,
    count(*) FILTER (WHERE b.kind = 'charge') AS charges,
    count(*) FILTER (WHERE b.kind <> 'charge') AS returned,
    -sum(b.points) FILTER (WHERE b.kind <> 'charge') AS points
  FROM bill_lines b LEFT JOIN tills t ON t.id = b.till
  WHERE b.arrival > :after AND b.at >= :since AND b.kind IN ('charge', 'refund', 'reverse')
  GROUP BY 1, 2, 3, 4) a
WHERE returned > :limit AND 100 * returned > :percent * charges"""  # noqa: S608
_REFUNDED = """
SELECT one.merchant, r.id, r.wrapped_key, n.count, n.points
FROM (SELECT DISTINCT c.merchant, c.resident FROM bill_lines b
    JOIN charges c ON c.merchant = b.merchant AND c.number = b.origin
    WHERE b.arrival > :after AND b.at >= :since AND b.kind IN ('refund', 'reverse')) one
JOIN residents r ON r.id = one.resident
CROSS JOIN LATERAL (SELECT count(*), sum(refunded) AS points FROM (SELECT refunded FROM charges c
    WHERE c.resident = one.resident AND c.at >= :day AND c.merchant = one.merchant
      AND c.refunded > 0 LIMIT :counted) given_back) n
WHERE n.count > :limit"""


def _said(begins: datetime) -> str:
    return begins.astimezone(CITY_ZONE).isoformat()


def charges_at_tills(tx: Connection, after: int, since: datetime, limit: int) -> Iterator[Place]:
    """Tills and minutes with more than `limit` charges, in lines after an arrival."""
    given = {"after": after, "since": since, "limit": limit}
    for row in tx.execute(text(_AT_TILL), given):
        begins = _said(row.begins)
        facts = {"till": row.code, "minute": begins, "charges": row[4]}
        yield Place(row.merchant.hex(), f"{row.till} {begins}", facts)


def same_amounts(tx: Connection, after: int, since: datetime, limit: int) -> Iterator[Place]:
    """Tills, hours and amounts with more than `limit` charges, in lines after an arrival."""
    given = {"after": after, "since": since, "limit": limit}
    for row in tx.execute(text(_SAME_AMOUNT), given):
        begins, points = _said(row.begins), str(row.points)
        facts = {"till": row.code, "hour": begins, "points": points, "charges": row[4]}
        yield Place(row.merchant.hex(), f"{row.till} {begins} {points}", facts)


def returned_shares(
    tx: Connection, after: int, since: datetime, limit: int, percent: int
) -> Iterator[Place]:
    """Tills and hours with more than `limit` refunds and reversals that are also more than so many
    percent of the charges, in lines after an arrival."""
    given = {"after": after, "since": since, "limit": limit, "percent": percent}
    for row in tx.execute(text(_SHARE), given):
        begins = _said(row.begins)
        facts = {
            "till": row.code,
            "hour": begins,
            "charges": row.charges,
            "returned": row.returned,
            "points": str(row.points),
        }
        yield Place(row.merchant.hex(), f"{row.till} {begins}", facts)


def given_back(
    tx: Connection, after: int, since: datetime, day: datetime, limit: int
) -> Iterator[Place]:
    """Residents with more than `limit` charges since `day` began that one merchant gave back, if
    lines after an arrival say that there was something new."""
    given = {"after": after, "since": since, "day": day, "limit": limit, "counted": COUNTED}
    for row in tx.execute(text(_REFUNDED), given):
        facts = {"day": day.date().isoformat(), "charges": row.count, "points": str(row.points)}
        key = f"{row.wrapped_key.hex()} {row.merchant.hex()} {day.date()}"
        yield Place(row.merchant.hex(), key, facts, row.id.hex())


def newest_line(tx: Connection) -> int:
    """The arrival of the newest line of any bill; 0 if there is none."""
    return int(tx.execute(text("SELECT coalesce(max(arrival), 0) FROM bill_lines")).scalar_one())


def before_day(tx: Connection, day: int) -> int:
    """An arrival before all lines of this business day and those after it."""
    statement = "SELECT coalesce(min(arrival), 1) - 1 FROM bill_lines WHERE day >= :day"
    return int(tx.execute(text(statement), {"day": day}).scalar_one())
