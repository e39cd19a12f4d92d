"""Rewards: what points can be had for, on which terms, and to whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import fetch
from ledger.accounts import AccountKind, Asset

KINDS: Final = ("voucher", "ride", "goods", "donation", "rate_coupon")
CODES: Final = ("generated", "pool", "none")
STATES: Final = ("draft", "open", "paused", "closed")


class Reward(NamedTuple):
    """A reward and its terms. `id`, `merchant` and `store` are 32 hex digits, `code` is the
    merchant's own name for it. `points` is the price of one piece; `per_person` and `per_day` bound
    the pieces sold, None where nothing does; `districts` is None where all may have it; `store` is
    where goods are picked up."""

    id: str
    merchant: str
    code: str
    kind: str
    codes: str
    title_zh: str
    title_en: str
    text_zh: str
    project: str
    points: int
    per_person: int | None
    per_day: int | None
    valid_days: int
    unused: str
    opens_at: datetime
    closes_at: datetime
    districts: list[str] | None
    from_14: bool
    min_reduction_mg: int
    store: str | None
    state: str
    revision: int
    made_at: datetime


class Offer(NamedTuple):
    """A reward with what changes. `remaining` pieces (None: no end to them), pieces `sold`, and
    those `sold_today` if that is bounded; the merchant, with the points that may still be redeemed
    there; the pick-up store."""

    reward: Reward
    remaining: int | None
    sold: int
    sold_today: int
    merchant_code: str
    merchant_name: str
    merchant_state: str
    allowance: int
    store_code: str | None
    store_name: str | None
    store_address: str | None


class Shopper(NamedTuple):
    """What rewards ask of a resident: district, the first day at 14 if that is known to come,
    carbon avoided in mg, points free to spend, and pieces had of each reward."""

    district: str
    minor_until: date | None
    reduction_mg: int
    points: int
    had: Mapping[str, int]


_FIELDS: Final = Reward._fields
_WIDTH: Final = len(_FIELDS)
_HEX: Final = ("id", "merchant", "store")
_COLUMNS = ", ".join(f"r.{name}" for name in _FIELDS)
_OFFER = f"""
SELECT {_COLUMNS}, s.remaining, s.sold, coalesce(d.sold, 0), m.code, m.name, m.state,
  coalesce(b.amount, 0), t.code, t.name, t.address
FROM rewards r JOIN reward_stock s ON s.reward = r.id JOIN merchants m ON m.id = r.merchant
LEFT JOIN reward_days d ON d.reward = r.id AND d.day = :today
LEFT JOIN balances b ON b.account = r.merchant AND b.bucket = 0
  AND b.account_kind = {AccountKind.MERCHANT.code} AND b.asset = {Asset.POINT.code}
LEFT JOIN stores t ON t.id = r.store"""  # noqa: S608 (our own column names)
ON_OFFER = _OFFER.replace(":today", "%(today)s") + " WHERE r.id = %(reward)s"
"""The columns of an `Offer`, in the driver's own SQL: of the reward `%(reward)s` on `%(today)s`."""

_ONE = text(f"{_OFFER} WHERE r.id = :id")
_OWN = text(f"{_OFFER} WHERE r.merchant = :merchant AND r.code = :code")
_OPEN = text(f"""{_OFFER}
WHERE r.state = 'open' AND r.opens_at <= :now AND r.closes_at > :now AND m.state = 'approved'
ORDER BY r.points, r.id""")
_PAGE = text(f"""{_OFFER}
WHERE (CAST(:merchant AS bytea) IS NULL OR r.merchant = :merchant)
  AND (CAST(:state AS text) IS NULL OR r.state = :state)
  AND (CAST(:at AS timestamptz) IS NULL OR (r.made_at, r.id) < (:at, :last))
ORDER BY r.made_at DESC, r.id DESC LIMIT :limit""")
_LOCK = f"SELECT {_COLUMNS} FROM rewards r WHERE %s FOR NO KEY UPDATE"  # noqa: S608 (ours)
_LOCK_ONE = text(_LOCK % "r.id = :id")
_LOCK_OWN = text(_LOCK % "r.merchant = :merchant AND r.code = :code")
_PUT = text(
    f"INSERT INTO rewards ({', '.join(_FIELDS)})"  # noqa: S608 (our own column names)
    f" VALUES ({', '.join(f':{name}' for name in _FIELDS)}) ON CONFLICT (id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _FIELDS if name != "id")
    + " WHERE rewards.state = 'draft'"
)
_BRING = text("UPDATE rewards SET state = :state, revision = revision + 1 WHERE id = :id")
# The driver's own SQL: the first screen waits for it.
SHOPPER = f"""
WITH had AS (
  SELECT reward, quantity FROM orders WHERE resident = %(resident)s AND state <> 'released'),
held AS (
  SELECT coalesce(sum(amount) FILTER (WHERE asset = {Asset.POINT.code} AND bucket >= %(today)s), 0)
      AS p,
    coalesce(sum(amount) FILTER (WHERE asset = {Asset.CO2E.code}), 0) AS c
  FROM balances
  WHERE account = %(resident)s AND account_kind = {AccountKind.RESIDENT.code})
SELECT r.district, r.minor_until, held.p::bigint, held.c::bigint,
  ARRAY(SELECT reward FROM had), ARRAY(SELECT quantity FROM had)
FROM residents r, held
WHERE r.id = %(resident)s AND r.erased_at IS NULL"""  # noqa: S608 (our own numbers)
"""The columns of a `Shopper`, as `shopper_of` reads them: of `%(resident)s` on `%(today)s`."""


def put(tx: Connection, reward: Reward) -> bool:
    """Keep a new reward, or other terms of a draft; False if it is no draft any more."""
    values = reward._asdict()
    values |= {name: _bytes(values[name]) for name in _HEX}
    return tx.execute(_PUT, values).rowcount == 1


def lock(tx: Connection, id: str) -> Reward | None:
    """The reward of this id, and nobody else changes it until this transaction ends; who orders it
    is not kept waiting."""
    row = tx.execute(_LOCK_ONE, {"id": bytes.fromhex(id)}).first()
    return _reward(row) if row else None


def lock_own(tx: Connection, merchant: str, code: str) -> Reward | None:
    """The same by its merchant's own code."""
    row = tx.execute(_LOCK_OWN, {"merchant": bytes.fromhex(merchant), "code": code}).first()
    return _reward(row) if row else None


def bring(tx: Connection, id: str, state: str) -> None:
    """Bring a reward to another state; that is a revision too."""
    tx.execute(_BRING, {"id": bytes.fromhex(id), "state": state})


def offer(tx: Connection, id: str, today: int) -> Offer | None:
    """A reward as it stands on a business day YYYYMMDD, in whatever state."""
    return _first(tx.execute(_ONE, {"id": bytes.fromhex(id), "today": today}))


def own_offer(tx: Connection, merchant: str, code: str, today: int) -> Offer | None:
    """The same by its merchant's own code."""
    asked = {"merchant": bytes.fromhex(merchant), "code": code, "today": today}
    return _first(tx.execute(_OWN, asked))


def open_offers(tx: Connection, now: datetime, today: int) -> list[Offer]:
    """All that can be ordered now of approved merchants, sold out or not, by rising price."""
    return [offer_of(row) for row in tx.execute(_OPEN, {"now": now, "today": today})]


def page(
    tx: Connection,
    merchant: str | None,
    state: str | None,
    today: int,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Offer]:
    """Rewards of a merchant, or of all, newest first, beginning after the place of one."""
    at, last = before or (None, "")
    asked = {"merchant": _bytes(merchant), "state": state, "today": today, "limit": limit}
    rows = tx.execute(_PAGE, asked | {"at": at, "last": bytes.fromhex(last)})
    return [offer_of(row) for row in rows]


def shopper(tx: Connection, resident: str, today: int) -> Shopper | None:
    """What rewards ask of a resident on a business day YYYYMMDD; None if they left."""
    rows = fetch(tx, SHOPPER, {"resident": bytes.fromhex(resident), "today": today})
    return shopper_of(rows[0]) if rows else None


def shopper_of(row: Sequence[Any]) -> Shopper:
    """What a row of `SHOPPER` says."""
    district, minor_until, points, reduction_mg, ids, quantities = row
    had: dict[str, int] = {}
    for reward, quantity in zip(ids, quantities, strict=True):
        had[reward.hex()] = had.get(reward.hex(), 0) + quantity
    return Shopper(district, minor_until, reduction_mg, points, had)


def store_of(tx: Connection, merchant: str, code: str) -> str | None:
    """The id of a merchant's open store of this code."""
    found = tx.execute(
        text("SELECT id FROM stores WHERE merchant = :merchant AND code = :code AND open"),
        {"merchant": bytes.fromhex(merchant), "code": code},
    ).scalar()
    return found.hex() if found else None


def _bytes(name: str | None) -> bytes | None:
    return None if name is None else bytes.fromhex(name)


def _first(rows: Iterable[Any]) -> Offer | None:
    return next(map(offer_of, rows), None)


def offer_of(row: Any) -> Offer:
    """What a row of `ON_OFFER` says."""
    return Offer(_reward(row), *row[_WIDTH:])


def _reward(row: Any) -> Reward:
    values: list[Any] = [it.hex() if isinstance(it, bytes) else it for it in row[:_WIDTH]]
    return Reward(*values)
