"""Settlement: the bills that were made of the lines, what was paid of them, and the whole sum."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from ledger.accounts import AccountKind, Asset


class Terms(NamedTuple):
    """What a bill goes by: a contract's number (0: there was none), who pays, how, and how much."""

    contract: int
    payer: str
    mode: str
    fen_per_100_points: int

    @property
    def milli_fen_per_point(self) -> int:
        """What the city pays a merchant for one point; nothing if the merchant bears it."""
        return self.fen_per_100_points * 10 if self.payer == "city" else 0


class Bill(NamedTuple):
    """A merchant's bill of one day; `merchant` is an id (32 hex digits), `code` and `name` are its
    own. `reference` and `paid_at` are None until it is paid."""

    merchant: str
    code: str
    name: str
    day: int
    terms: Terms
    lines: int
    points: int
    milli_fen: int
    csv_sha256: bytes
    closed_at: datetime
    reference: str | None
    paid_at: datetime | None


_TERMS = text("""
SELECT number, payer, mode, fen_per_100_points FROM contracts WHERE merchant = :merchant
ORDER BY made_at >= :end, CASE WHEN made_at < :end THEN -number ELSE number END LIMIT 1""")


def terms(tx: Connection, merchant: str, end: datetime) -> Terms:
    """The terms in force when a day ended; the first ones if none were made by then."""
    row = tx.execute(_TERMS, {"merchant": bytes.fromhex(merchant), "end": end}).first()
    return Terms._make(row) if row else Terms(0, "merchant", "prepaid", 0)


def put(
    tx: Connection,
    merchant: str,
    day: int,
    contract: int,
    sums: tuple[int, int, int],
    csv_sha256: bytes,
    now: datetime,
) -> bool:
    """Keep a bill; `sums` are its lines, points and milli-fen. False if it is kept already."""
    statement = text(
        "INSERT INTO bills"
        " (merchant, day, contract, lines, points, milli_fen, csv_sha256, closed_at) VALUES"
        " (:merchant, :day, :contract, :lines, :points, :milli_fen, :csv_sha256, :now)"
        " ON CONFLICT DO NOTHING"
    )
    given = {
        "merchant": bytes.fromhex(merchant),
        "day": day,
        "contract": contract,
        "lines": sums[0],
        "points": sums[1],
        "milli_fen": sums[2],
        "csv_sha256": csv_sha256,
        "now": now,
    }
    return tx.execute(statement, given).rowcount == 1


_BILLS = """
SELECT b.merchant, m.code, m.name, b.day, b.contract, coalesce(c.payer, 'merchant'),
  coalesce(c.mode, 'prepaid'), coalesce(c.fen_per_100_points, 0), b.lines, b.points, b.milli_fen,
  b.csv_sha256, b.closed_at, p.reference, p.paid_at
FROM bills b JOIN merchants m ON m.id = b.merchant
LEFT JOIN contracts c ON c.merchant = b.merchant AND c.number = b.contract
LEFT JOIN bill_payments p ON p.merchant = b.merchant AND p.day = b.day
"""


def find(tx: Connection, merchant: str, day: int) -> Bill | None:
    """A merchant's bill of a day."""
    statement = text(_BILLS + "WHERE b.merchant = :merchant AND b.day = :day")
    row = tx.execute(statement, {"merchant": bytes.fromhex(merchant), "day": day}).first()
    return _bill(row) if row else None


def between(tx: Connection, merchant: str, first: int, last: int) -> list[Bill]:
    """A merchant's bills from a day to another, in order."""
    statement = text(
        _BILLS + "WHERE b.merchant = :merchant AND b.day BETWEEN :first AND :last ORDER BY b.day"
    )
    given = {"merchant": bytes.fromhex(merchant), "first": first, "last": last}
    return [_bill(row) for row in tx.execute(statement, given)]


class Wanted(NamedTuple):
    """Which bills a list is of: days, a merchant's code, paid or not; None: whatever."""

    first: int
    last: int
    code: str | None = None
    paid: bool | None = None


def newest(tx: Connection, wanted: Wanted, before: tuple[int, str], limit: int) -> list[Bill]:
    """A page of bills, the newest day first, within a day by code; after the place (day, code)."""
    statement = text(
        _BILLS + "WHERE b.day BETWEEN :first AND :last"
        " AND (CAST(:code AS text) IS NULL OR m.code = :code)"
        " AND (CAST(:paid AS boolean) IS NULL OR (p.day IS NOT NULL) = :paid)"
        " AND (b.day < :day OR (b.day = :day AND m.code > :after))"
        " ORDER BY b.day DESC, m.code LIMIT :limit"
    )
    given = {**wanted._asdict(), "day": before[0], "after": before[1], "limit": limit}
    return [_bill(row) for row in tx.execute(statement, given)]


def every(tx: Connection) -> Iterator[Bill]:
    """All bills there are, streamed."""
    statement = text(_BILLS + "ORDER BY b.day, b.merchant")
    with tx.execute(statement, execution_options={"yield_per": 1000}) as found:
        yield from map(_bill, found)


def _bill(row: Any) -> Bill:
    return Bill._make((row[0].hex(), *row[1:4], Terms._make(row[4:8]), *row[8:]))


def pay(tx: Connection, merchant: str, day: int, reference: str, now: datetime) -> bool:
    """Note that a bill was paid; False if that is noted already."""
    statement = text(
        "INSERT INTO bill_payments (merchant, day, reference, paid_at)"
        " VALUES (:merchant, :day, :reference, :now) ON CONFLICT DO NOTHING"
    )
    given = {
        "merchant": bytes.fromhex(merchant),
        "day": day,
        "reference": reference,
        "now": now,
    }
    return tx.execute(statement, given).rowcount == 1


_CREDIT = text("""
SELECT coalesce(sum(l.points), 0)::bigint FROM bill_lines l JOIN (
  SELECT mode, made_at, lead(made_at, 1, 'infinity') OVER (ORDER BY number) AS until
  FROM contracts WHERE merchant = :merchant) c ON l.at >= c.made_at AND l.at < c.until
WHERE l.merchant = :merchant AND l.day = :day AND c.mode = 'postpaid'""")


def on_credit(tx: Connection, merchant: str, day: int) -> int:
    """The points of a merchant's day that were redeemed on credit, less those given back: of the
    lines under postpaid terms, if these changed within the day."""
    given = {"merchant": bytes.fromhex(merchant), "day": day}
    return int(tx.execute(_CREDIT, given).scalar_one())


class StoreMonth(NamedTuple):
    """What one store's part of a merchant's bills comes to; `store` is a code, or "" for what was
    redeemed at no store, such as orders in the mini-program."""

    store: str
    name: str
    lines: int
    redeemed_points: int
    returned_points: int
    milli_fen: int
    paid_milli_fen: int


_BY_STORE = text("""
SELECT coalesce(s.code, ''), coalesce(s.name, ''), sum(g.lines)::bigint, sum(g.plus)::bigint,
  sum(g.minus)::bigint, sum(g.points * r.rate)::bigint,
  coalesce(sum(g.points * r.rate) FILTER (WHERE r.paid), 0)::bigint
FROM (
  SELECT day, store, count(*) AS lines, sum(points) AS points,
    coalesce(sum(points) FILTER (WHERE points > 0), 0) AS plus,
    coalesce(-sum(points) FILTER (WHERE points < 0), 0) AS minus
  FROM bill_lines WHERE merchant = :merchant AND day BETWEEN :first AND :last
  GROUP BY day, store) g
JOIN (
  SELECT b.day, p.day IS NOT NULL AS paid,
    CASE WHEN c.payer = 'city' THEN c.fen_per_100_points * 10 ELSE 0 END AS rate
  FROM bills b LEFT JOIN contracts c ON c.merchant = b.merchant AND c.number = b.contract
  LEFT JOIN bill_payments p ON p.merchant = b.merchant AND p.day = b.day
  WHERE b.merchant = :merchant AND b.day BETWEEN :first AND :last) r USING (day)
LEFT JOIN stores s ON s.id = g.store
GROUP BY 1, 2 ORDER BY 1""")


def by_store(tx: Connection, merchant: str, first: int, last: int) -> list[StoreMonth]:
    """A merchant's bills from a day to another, by store."""
    given = {"merchant": bytes.fromhex(merchant), "first": first, "last": last}
    return [StoreMonth._make(row) for row in tx.execute(_BY_STORE, given)]


class MerchantSum(NamedTuple):
    """What a merchant's bills of some days come to."""

    code: str
    name: str
    bills: int
    points: int
    milli_fen: int
    paid_milli_fen: int


_BY_MERCHANT = text("""
SELECT m.code, m.name, count(*), sum(b.points)::bigint, sum(b.milli_fen)::bigint,
  coalesce(sum(b.milli_fen) FILTER (WHERE p.day IS NOT NULL), 0)::bigint
FROM bills b JOIN merchants m ON m.id = b.merchant
LEFT JOIN bill_payments p ON p.merchant = b.merchant AND p.day = b.day
WHERE b.day BETWEEN :first AND :last AND m.code > :after
GROUP BY 1, 2 ORDER BY 1 LIMIT :limit""")


def by_merchant(tx: Connection, first: int, last: int, after: str, limit: int) -> list[MerchantSum]:
    """All merchants' bills from a day to another, by merchant, after a code."""
    given = {"first": first, "last": last, "after": after, "limit": limit}
    return [MerchantSum._make(row) for row in tx.execute(_BY_MERCHANT, given)]


class Total(NamedTuple):
    """All bills of some days."""

    bills: int
    points: int
    milli_fen: int
    paid_milli_fen: int


_TOTAL = text("""
SELECT count(*), coalesce(sum(b.points), 0)::bigint, coalesce(sum(b.milli_fen), 0)::bigint,
  coalesce(sum(b.milli_fen) FILTER (WHERE p.day IS NOT NULL), 0)::bigint
FROM bills b LEFT JOIN bill_payments p USING (merchant, day)
WHERE b.day BETWEEN :first AND :last""")


def total(tx: Connection, first: int, last: int) -> Total:
    """What all merchants' bills from a day to another come to."""
    return Total._make(tx.execute(_TOTAL, {"first": first, "last": last}).one())


class Position(NamedTuple):
    """What merchants were ever credited with, in points: on bills that were made, on lines that
    have no bill yet, and by the ledger's account of what was redeemed, sealed or not."""

    closed: int
    billed_points: int
    open_points: int
    ledger_points: int

    @property
    def difference_points(self) -> int:
        """Zero, always."""
        return self.billed_points + self.open_points - self.ledger_points


# One statement: a line and its posting are then both seen or both not.
_POSITION = text("""
SELECT (SELECT closed FROM bill_head), (SELECT coalesce(sum(points), 0)::bigint FROM bills), (
  SELECT coalesce(sum(l.points), 0)::bigint FROM merchants m
  CROSS JOIN LATERAL (SELECT coalesce(max(b.day), 0) AS day FROM bills b WHERE b.merchant = m.id) b
  CROSS JOIN LATERAL (SELECT sum(l.points) AS points FROM bill_lines l
    WHERE l.merchant = m.id AND l.day > b.day) l
), (
  SELECT coalesce(sum(amount), 0)::bigint FROM open_balances
  WHERE account_kind = :redeemed AND asset = :point
) + (
  SELECT coalesce(sum(p.amount), 0)::bigint FROM outbox o CROSS JOIN LATERAL (
    SELECT sum(amount) AS amount FROM postings
    WHERE arrival >= o.arrival AND arrival < o.arrival + o.count
      AND account_kind > 10 AND account_kind = :redeemed AND asset = :point) p
)""")


def position(tx: Connection) -> Position:
    """The whole sum of both books, at one moment; quick, for it trusts the bills' own sums."""
    given = {"redeemed": AccountKind.REDEEMED.code, "point": Asset.POINT.code}
    return Position._make(tx.execute(_POSITION, given).one())
