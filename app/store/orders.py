"""Orders: rewards that residents set points aside for, until they confirm, cancel or wait too long.

How points move is the ledger's business; a row here says which hold and which redemption they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from app.store import entries, fraud, people, rewards
from app.store.answers import Kept
from app.store.db import fetch, int_array
from app.store.rewards import Offer, Shopper
from ledger.entries import Entry

STATES: Final = ("held", "confirmed", "released")


class Order(NamedTuple):
    """An order as it stands. Ids are 32 hex digits; `points` are those of all its pieces;
    `resident` is None once that person was erased; `entry` is the redemption's; `placed_on` is the
    business day YYYYMMDD; `reason` says why it was released: cancelled, timeout, closed, erased;
    `refunded` points of it went back."""

    id: str
    reward: str
    merchant: str
    resident: str | None
    quantity: int
    points: int
    state: str
    hold: str
    entry: str | None
    placed_on: int
    placed_at: datetime
    expires_at: datetime
    closed_at: datetime | None
    reason: str
    refunded: int = 0


class Bought(NamedTuple):
    """An order with what its resident calls it by: the reward's kind and title, whose it is."""

    order: Order
    kind: str
    title_zh: str
    project: str
    merchant_code: str
    merchant_name: str


class Look(NamedTuple):
    """All that is known when a resident orders, with nobody locked: whether the request was
    `answered` before, the setting `order_minutes` if it is set, their points of each bucket, the
    reward, and what it and the rules against fraud ask of them."""

    answered: bool
    minutes: int | None
    wallet: dict[int, int]
    offer: Offer
    shopper: Shopper
    seen: fraud.Seen


_COLUMNS = (
    "o.id, o.reward, o.merchant, o.resident, o.quantity, o.points, o.state, o.hold, o.entry,"
    " o.placed_on, o.placed_at, o.expires_at, o.closed_at, o.reason, o.refunded"
)
_WIDTH = len(Order._fields)
_SELECT = f"SELECT {_COLUMNS} FROM orders o WHERE o.id = :id"  # noqa: S608 (ours)
_LOCK = text(f"{_SELECT} FOR NO KEY UPDATE")
_BOUGHT = f"""
SELECT {_COLUMNS}, r.kind, r.title_zh, r.project, m.code, m.name
FROM orders o JOIN rewards r ON r.id = o.reward JOIN merchants m ON m.id = o.merchant
WHERE o.resident = :resident"""  # noqa: S608 (ours)
_PAGE = text(f"""{_BOUGHT} AND (CAST(:state AS text) IS NULL OR o.state = :state)
  AND (CAST(:at AS timestamptz) IS NULL OR (o.placed_at, o.id) < (:at, :last))
ORDER BY o.placed_at DESC, o.id DESC LIMIT :limit""")
_ADD = text("""
INSERT INTO orders (id, reward, merchant, resident, quantity, points, state, hold, placed_on,
  placed_at, expires_at)
VALUES (:id, :reward, :merchant, :resident, :quantity, :points, 'held', :hold, :placed_on,
  :placed_at, :expires_at)""")
_LOOK = f"""
SELECT EXISTS (SELECT FROM answers WHERE scope = %(scope)s AND key = %(key)s),
  (SELECT value::integer FROM settings WHERE name = 'order_minutes'),
  w.buckets, w.amounts, o.*, p.*, f.*
FROM ({rewards.ON_OFFER}) o CROSS JOIN LATERAL ({rewards.SHOPPER}) p
CROSS JOIN LATERAL ({people.points_by_bucket("%(resident)s")}) w
CROSS JOIN LATERAL ({fraud.counting("%(resident)s", "%(device)s", "o.merchant")}) f"""  # noqa: S608
_OFFERED = 4 + len(rewards.Reward._fields) + len(Offer._fields) - 1
_SHOPPED = _OFFERED + len(Shopper._fields) + 1  # pieces had are two columns
_PLACE = f"""
SELECT place_order(ROW(%s, %s, %s, %s, %s, %s, %s, %s, NULL, 0, %s, %s, %s, NULL, '')::orders,
  %s::bigint, %s::integer, %s::integer[], %s::bigint[], ROW(%s, %s, %s, %s, %s, %s)::answers,
  {entries.ARGUMENTS})"""
_DUE = text("""
SELECT o.id FROM orders o JOIN merchants m ON m.id = o.merchant
WHERE o.state = 'held' AND (o.expires_at <= :now OR m.state = 'closed')
ORDER BY o.expires_at LIMIT :limit""")


def add(tx: Connection, order: Order) -> None:
    """Keep a new order, which is held."""
    values = order._asdict()
    for name in ("id", "reward", "merchant", "resident", "hold"):
        values[name] = bytes.fromhex(values[name])
    tx.execute(_ADD, values)


def look(
    alone: Connection,
    request: tuple[str, str],
    resident: str,
    device: bytes | None,
    reward: str,
    day: int,
    since: tuple[datetime, datetime],
) -> Look | None:
    """Look up all that a plain order needs in one go, and lock nothing: the request is a caller's
    scope and key, `since` when the day and the hour began that the rules against fraud count. None
    if there is no such reward or no such living account."""
    given = fraud.given("", *since) | {
        "scope": request[0],
        "key": request[1],
        "resident": bytes.fromhex(resident),
        "device": device,
        "reward": bytes.fromhex(reward),
        "today": day,
    }
    rows = fetch(alone, _LOOK, given)
    if not rows:
        return None
    answered, minutes, buckets, amounts, *rest = rows[0]
    return Look(
        answered,
        minutes,
        dict(zip(buckets or (), amounts or (), strict=True)),
        rewards.offer_of(rest[: _OFFERED - 4]),
        rewards.shopper_of(rest[_OFFERED - 4 : _SHOPPED - 4]),
        fraud.Seen(*rest[_SHOPPED - 4 :]),
    )


def place(
    alone: Connection,
    one: Order,
    had: int | None,
    per_day: int | None,
    wallet: Mapping[int, int],
    request: tuple[str, str],
    kept: Kept,
    entry: Entry,
) -> None:
    """Do a plain order in one go: keep the answer of its request, and it, append its hold and take
    its pieces. `had` are the pieces that its resident had of the reward, None if that is not
    bounded.

    Raises DBAPIError unique_violation if the request was answered meanwhile, serialization_failure
    if the wallet or `had` is not as it was looked up or too few pieces are left, and else as
    `entries.append` does.
    """
    values = [
        *map(bytes.fromhex, (one.id, one.reward, one.merchant, one.resident or "")),
        *(one.quantity, one.points, one.state, bytes.fromhex(one.hold)),
        *(one.placed_on, one.placed_at, one.expires_at, had, per_day),
        *(int_array(wallet), int_array(wallet.values()), *request, *kept, one.placed_at),
    ]
    entries.call(alone, _PLACE, [*values, *entries.arguments([entry])])


def find(tx: Connection, id: str) -> Order | None:
    """The order of this id, or None."""
    return _order(tx.execute(text(_SELECT), {"id": bytes.fromhex(id)}).first())


def lock(tx: Connection, id: str) -> Order | None:
    """The same, and nobody else changes it until this transaction ends. Its resident is to be
    locked before."""
    return _order(tx.execute(_LOCK, {"id": bytes.fromhex(id)}).first())


def confirm(tx: Connection, id: str, entry: str, now: datetime) -> None:
    """Note which redemption a held order became."""
    tx.execute(
        text(
            "UPDATE orders SET state = 'confirmed', entry = :entry, closed_at = :now"
            " WHERE id = :id AND state = 'held'"
        ),
        {"id": bytes.fromhex(id), "entry": bytes.fromhex(entry), "now": now},
    )


def release(tx: Connection, id: str, reason: str, now: datetime) -> None:
    """Note that a held order came to nothing, and why."""
    tx.execute(
        text(
            "UPDATE orders SET state = 'released', reason = :reason, closed_at = :now"
            " WHERE id = :id AND state = 'held'"
        ),
        {"id": bytes.fromhex(id), "reason": reason, "now": now},
    )


def give_back(tx: Connection, id: str, points: int) -> None:
    """Note that points of a confirmed order go back."""
    tx.execute(
        text("UPDATE orders SET refunded = refunded + :points WHERE id = :id"),
        {"id": bytes.fromhex(id), "points": points},
    )


def due(tx: Connection, now: datetime, limit: int) -> list[str]:
    """Held orders whose time is over, or whose merchant is closed."""
    rows = tx.execute(_DUE, {"now": now, "limit": limit})
    return [found.hex() for found in rows.scalars()]


def held(tx: Connection, resident: str) -> list[str]:
    """Every order that a resident's points are set aside for."""
    rows = tx.execute(
        text("SELECT id FROM orders WHERE resident = :who AND state = 'held' ORDER BY id"),
        {"who": bytes.fromhex(resident)},
    )
    return [found.hex() for found in rows.scalars()]


def page(
    tx: Connection,
    resident: str,
    state: str | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[Bought]:
    """A resident's orders, newest first, beginning after the place of one."""
    at, last = before or (None, "")
    asked = {"resident": bytes.fromhex(resident), "state": state, "at": at}
    rows = tx.execute(_PAGE, asked | {"last": bytes.fromhex(last), "limit": limit})
    return _bought(rows)


def bought(tx: Connection, resident: str, id: str) -> Bought | None:
    """One order of this resident's, or None."""
    asked = {"resident": bytes.fromhex(resident), "id": bytes.fromhex(id)}
    found = _bought(tx.execute(text(f"{_BOUGHT} AND o.id = :id"), asked))
    return found[0] if found else None


def _bought(rows: Iterable[Any]) -> list[Bought]:
    return [Bought(_read(row), *row[_WIDTH:]) for row in rows]


def _order(row: Any) -> Order | None:
    return _read(row) if row else None


def _read(row: Any) -> Order:
    values: list[Any] = [it.hex() if isinstance(it, bytes) else it for it in row[:_WIDTH]]
    return Order(*values)
