"""At once: a plain order as two statements, each its own transaction: look, then place.

As with charges, nothing is locked while Python thinks: `orders.place` locks, holds what was looked
up against what is so then, writes all with the answer, and commits; the row of the reward's stock,
where all its buyers meet, is the last it changes. Whatever is not plain (a request answered before,
a term that is not met, a rule against fraud, somebody who came first) is left undone here, for the
long way to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from app.config import CITY_ZONE
from app.flows.fraud.check import Attempt, is_clean, since
from app.flows.once import Answer, Repeat, to_keep
from app.flows.order.place import new
from app.flows.reward.terms import why_not
from app.flows.setting import SETTINGS
from app.store import orders
from app.store.db import lost_a_race, one_statement
from app.store.orders import Bought, Look
from app.vault import Vault
from ledger import transfers
from ledger.buckets import day_number
from ledger.entries import instant
from ledger.errors import Insufficient


class Wanted(NamedTuple):
    """What a resident orders: so many pieces of a reward; `device` names the sign-in."""

    resident: str
    device: bytes | None
    reward: str
    quantity: int


def at_once(
    engine: Engine,
    vault: Vault,
    repeat: Repeat,
    wanted: Wanted,
    now: datetime,
    told: Callable[[Bought], Answer],
) -> Answer | None:
    """Place an order and keep what its resident is `told`, if that is plain; None if it is not, and
    nothing was done."""
    resident, device, reward, quantity = wanted
    today = day_number(now.astimezone(CITY_ZONE).date())
    request = repeat.scope, repeat.key
    try:
        with one_statement(engine) as alone:
            found = orders.look(alone, request, resident, device, reward, today, since(now))
            if found is None or not _is_plain(wanted, found, now):
                return None
            offer, terms, minutes = found.offer, found.offer.reward, found.minutes
            if minutes is None:
                minutes = SETTINGS["order_minutes"].default
            order = new(vault, resident, terms, quantity, minutes, now)
            entry = transfers.hold(
                id=order.hold,
                at=instant(now),
                resident=resident,
                points=order.points,
                wallet=found.wallet,
                today=today,
            )
            named = terms.kind, terms.title_zh, terms.project
            made = told(Bought(order, *named, offer.merchant_code, offer.merchant_name))
            had = None if terms.per_person is None else found.shopper.had.get(terms.id, 0)
            parts = had, terms.per_day, found.wallet, request, to_keep(vault, repeat, made)
            orders.place(alone, order, *parts, entry)
    except Insufficient:
        return None
    except DBAPIError as error:
        if lost_a_race(error):
            return None
        raise
    return made


def _is_plain(wanted: Wanted, found: Look, now: datetime) -> bool:
    local, terms = now.astimezone(CITY_ZONE).date(), found.offer.reward
    if found.answered or why_not(found.offer, found.shopper, wanted.quantity, local, now):
        return False
    points = terms.points * wanted.quantity
    attempt = Attempt(wanted.resident, wanted.device, terms.merchant, points, "order")
    return is_clean(attempt, found.seen)
