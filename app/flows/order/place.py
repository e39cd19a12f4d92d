"""Place: set points and pieces of a reward aside together, for as long as a resident may think.

What is plain is done `at_once`; the way here is the one for everything.

Stages: (1) the resident is locked, so that their limits hold under a double tap; (2) the terms;
(3) the rules against fraud; (4) the points; (5) the pieces, last, since that row is everybody's.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from secrets import token_hex

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows import redeem
from app.flows.fraud.check import Attempt, check
from app.flows.order.hold import OrderError
from app.flows.reward.terms import why_not
from app.flows.setting import setting
from app.store import orders, people, rewards, stock
from app.store.orders import Order
from app.store.rewards import Offer, Reward
from app.vault import Vault
from ledger.buckets import day_number


def place(
    tx: Connection,
    vault: Vault,
    resident: str,
    device: bytes | None,
    reward: str,
    quantity: int,
    now: datetime,
) -> Order:
    """Order pieces of a reward; they are held until the order's `expires_at`.

    Raises OrderError: SUBJECT_ERASED, NOT_FOUND, a code of `why_not`, or the one of a rule against
    fraud.
    """
    if not people.lock_spending(tx, resident):  # (1)
        raise OrderError("SUBJECT_ERASED", "this account was closed")
    local = now.astimezone(CITY_ZONE).date()
    today = day_number(local)
    shopper, offer = rewards.shopper(tx, resident, today), rewards.offer(tx, reward, today)
    if shopper is None or offer is None or offer.reward.state == "draft":
        raise OrderError("NOT_FOUND", "there is no reward of this id")
    for code, detail in why_not(offer, shopper, quantity, local, now):  # (2)
        raise OrderError(code, detail)
    terms = offer.reward
    points = terms.points * quantity
    verdict = check(tx, Attempt(resident, device, terms.merchant, points, "order"), now)  # (3)
    if verdict is not None:
        raise OrderError(*verdict)
    order = new(vault, resident, terms, quantity, setting(tx, "order_minutes"), now)
    redeem.hold(tx, vault, resident, points, f"order {order.id}", now)  # (4)
    orders.add(tx, order)
    _take(tx, offer, quantity, today)  # (5)
    return order


def new(
    vault: Vault, resident: str, terms: Reward, quantity: int, minutes: int, now: datetime
) -> Order:
    """The order as it will be if its points can be held."""
    made = token_hex(16)
    return Order(
        id=made,
        reward=terms.id,
        merchant=terms.merchant,
        resident=resident,
        quantity=quantity,
        points=terms.points * quantity,
        state="held",
        hold=vault.entry_id("hold", f"{resident}\0order {made}"),
        entry=None,
        placed_on=day_number(now.astimezone(CITY_ZONE).date()),
        placed_at=now,
        expires_at=now + timedelta(minutes=minutes),
        closed_at=None,
        reason="",
    )


def _take(tx: Connection, offer: Offer, quantity: int, today: int) -> None:
    """What the terms saw may have been sold since; this settles it."""
    terms = offer.reward
    taken = stock.take(tx, terms.id, quantity, terms.per_day, today)
    if not taken.stock:
        raise OrderError("REWARD_SOLD_OUT", "of this reward not so many pieces are left")
    if not taken.day:
        raise OrderError("DAY_LIMIT", f"{terms.per_day} piece(s) a day; try again tomorrow")
