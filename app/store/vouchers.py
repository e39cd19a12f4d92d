"""Vouchers: what an order brought, whose it is, and until when it may be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array, copy_in

STATES: Final = ("issued", "used", "voided", "lapsed")


class Voucher(NamedTuple):
    """A voucher. Ids are hex; `sealed` is its code under the resident's own key, None with the
    resident once they left; `valid_until` is its last day YYYYMMDD."""

    id: str
    order: str
    reward: str
    merchant: str
    resident: str | None
    points: int
    sealed: bytes | None
    state: str
    valid_until: int
    issued_at: datetime
    changed_at: datetime


class Terms(NamedTuple):
    """What a reward says of its vouchers; `store` is where alone they are used, None: anywhere."""

    codes: str
    valid_days: int
    unused: str
    store: bytes | None
    title: str


class New(NamedTuple):
    """A voucher to be issued, and the keyed hash its code is found by."""

    id: str
    digest: bytes
    sealed: bytes


class Shown(NamedTuple):
    """A voucher with what a resident is told of its reward, its merchant and its store."""

    voucher: Voucher
    kind: str
    title: str
    text: str
    unused: str
    merchant_code: str
    merchant_name: str
    store_code: str | None
    store_name: str | None
    address: str | None


_COLUMNS = (
    'v.id, v."order", v.reward, v.merchant, v.resident, v.points, v.sealed, v.state,'
    " v.valid_until, v.issued_at, v.changed_at"
)
_IDS, _WIDTH = 5, len(Voucher._fields)
_TYPES = {
    "id": "bytea",
    '"order"': "bytea",
    "reward": "bytea",
    "merchant": "bytea",
    "resident": "bytea",
    "points": "int8",
    "digest": "bytea",
    "sealed": "bytea",
    "state": "text",
    "valid_until": "int4",
    "issued_at": "timestamptz",
    "changed_at": "timestamptz",
}
# What is past its last day is told to its resident as lapsed, though the worker ends it later.
_STATE = "CASE WHEN v.state = 'issued' AND v.valid_until < :today THEN 'lapsed' ELSE v.state END"
_SHOWN = (
    f"SELECT {_COLUMNS.replace('v.state', _STATE)},"  # noqa: S608 (our own names)
    " r.kind, r.title_zh, r.text_zh, r.unused, m.code, m.name, s.code, s.name, s.address"
    " FROM vouchers v JOIN rewards r ON r.id = v.reward"
    " JOIN merchants m ON m.id = v.merchant LEFT JOIN stores s ON s.id = r.store"
)
_TAKE = text("""
UPDATE reward_codes SET taken = true WHERE digest IN (
  SELECT digest FROM reward_codes WHERE reward = :reward AND NOT taken
  LIMIT :count FOR UPDATE SKIP LOCKED)
RETURNING digest, sealed""")


def terms(tx: Connection, reward: str) -> Terms:
    """The terms of a reward that there is."""
    row = tx.execute(
        text("SELECT codes, valid_days, unused, store, title_zh FROM rewards WHERE id = :id"),
        {"id": bytes.fromhex(reward)},
    ).one()
    return Terms(*row)


def take_codes(tx: Connection, reward: str, count: int) -> list[tuple[bytes, bytes]]:
    """At most so many codes of a reward's pool, which nobody else is given: (digest, sealed)."""
    rows = tx.execute(_TAKE, {"reward": bytes.fromhex(reward), "count": count})
    return [(digest, sealed) for digest, sealed in rows]


def of_order(tx: Connection, order: str) -> list[str]:
    """The ids of an order's vouchers."""
    rows = tx.execute(
        text('SELECT id FROM vouchers WHERE "order" = :order ORDER BY id'),
        {"order": bytes.fromhex(order)},
    )
    return [found.hex() for found in rows.scalars()]


def put(tx: Connection, like: Voucher, made: Iterable[New]) -> None:
    """Issue vouchers that are alike but for id, digest and sealed code."""
    whose = [bytes.fromhex(it) for it in (like.order, like.reward, like.merchant)]
    resident = like.resident and bytes.fromhex(like.resident)
    rows = (
        (
            bytes.fromhex(one.id),
            *whose,
            resident,
            like.points,
            one.digest,
            one.sealed,
            like.state,
            like.valid_until,
            like.issued_at,
            like.changed_at,
        )
        for one in made
    )
    copy_in(tx, "vouchers", _TYPES, rows)


def find(tx: Connection, id: str, *, lock: bool = False) -> Voucher | None:
    """A voucher by its id; with `lock`, as it is once nobody else decides on it."""
    row = tx.execute(
        text(f"SELECT {_COLUMNS} FROM vouchers v WHERE v.id = :id" + _lock(lock)),  # noqa: S608
        {"id": bytes.fromhex(id)},
    ).first()
    return _read(row) if row else None


def find_by(tx: Connection, digests: Sequence[bytes], *, lock: bool = False) -> Voucher | None:
    """The voucher whose code has one of these keyed hashes."""
    if not digests:
        return None
    where = " WHERE v.digest = ANY(CAST(:digests AS bytea[])) ORDER BY v.id LIMIT 1"
    row = tx.execute(
        text(f"SELECT {_COLUMNS} FROM vouchers v" + where + _lock(lock)),  # noqa: S608
        {"digests": bytea_array(digests)},
    ).first()
    return _read(row) if row else None


def turn(tx: Connection, id: str, state: str, now: datetime) -> None:
    """Put a voucher, which the caller has locked, into another state."""
    tx.execute(
        text("UPDATE vouchers SET state = :state, changed_at = :now WHERE id = :id"),
        {"id": bytes.fromhex(id), "state": state, "now": now},
    )


def shown(tx: Connection, id: str, resident: str, today: int) -> Shown | None:
    """One of a resident's vouchers; `today` is YYYYMMDD."""
    row = tx.execute(
        text(f"{_SHOWN} WHERE v.id = :id AND v.resident = :resident"),
        {"id": bytes.fromhex(id), "resident": bytes.fromhex(resident), "today": today},
    ).first()
    return _read_shown(row) if row else None


def newest(
    tx: Connection,
    resident: str,
    state: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
    today: int,
) -> list[Shown]:
    """A page of a resident's vouchers, newest first, after the place (issued_at, id) of one."""
    at, last = before or (None, "")
    rows = tx.execute(
        text(
            f"{_SHOWN} WHERE v.resident = :resident"
            f" AND (CAST(:state AS text) IS NULL OR {_STATE} = :state)"
            " AND (CAST(:at AS timestamptz) IS NULL OR (v.issued_at, v.id) < (:at, :last))"
            " ORDER BY v.issued_at DESC, v.id DESC LIMIT :limit"
        ),
        {
            "resident": bytes.fromhex(resident),
            "state": state,
            "at": at,
            "last": bytes.fromhex(last),
            "limit": limit,
            "today": today,
        },
    )
    return [_read_shown(row) for row in rows]


def past(tx: Connection, day: int, limit: int) -> list[str]:
    """Vouchers still issued whose last day lies before this one, the longest past first."""
    rows = tx.execute(
        text(
            "SELECT id FROM vouchers WHERE state = 'issued' AND valid_until < :day"
            " ORDER BY valid_until LIMIT :limit"
        ),
        {"day": day, "limit": limit},
    )
    return [found.hex() for found in rows.scalars()]


# What was told already is left out: a message's key is its voucher's id.
_ENDING = text(f"""
{_SHOWN} WHERE v.state = 'issued' AND v.valid_until BETWEEN :today AND :last
  AND v.issued_at < :before AND v.resident IS NOT NULL
  AND NOT EXISTS (SELECT FROM messages t WHERE t.resident = v.resident AND t.kind = :kind
    AND t.key = encode(v.id, 'hex'))
ORDER BY v.valid_until LIMIT :limit""")


def ending(
    tx: Connection, kind: str, today: int, last: int, before: datetime, limit: int
) -> list[Shown]:
    """Vouchers issued before a moment, with a last day from `today` to `last`, whose resident has
    no message of this kind about them."""
    parameters = {"kind": kind, "today": today, "last": last, "before": before, "limit": limit}
    return [_read_shown(row) for row in tx.execute(_ENDING, parameters)]


def _lock(lock: bool) -> str:
    return " FOR UPDATE OF v" if lock else ""


def _read(row: Any) -> Voucher:
    ids: list[Any] = [it.hex() if it is not None else None for it in row[:_IDS]]
    return Voucher(*ids, *row[_IDS:_WIDTH])


def _read_shown(row: Any) -> Shown:
    return Shown(_read(row), *row[_WIDTH:])
