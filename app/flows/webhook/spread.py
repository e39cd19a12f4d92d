"""Spread: make events of what was sealed, and give every event to the endpoints that ask for it.

What tills and orders did is told from their lines on the bills, once these are sealed, in the order
of the log: a till waits for nothing of it, and nothing is told that is not in the log for good.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from app.flows.webhook.emit import made
from app.store import deliveries, log, webhooks
from app.store.webhooks import Event, Line
from app.vault import Vault

KEPT: Final = timedelta(days=90)
_LEAVES: Final = 10_000
_EVENTS: Final = 500
_KINDS: Final = {
    "charge": "charge.succeeded",
    "refund": "charge.refunded",
    "reverse": "charge.reversed",
    "order": "order.confirmed",
    "void": "voucher.voided",
    "lapse": "voucher.lapsed",
}


def tell(engine: Engine, vault: Vault) -> bool:
    """Make events of the next leaves of the log; whether there are more."""
    with engine.begin() as tx:
        first = webhooks.take_head(tx)
        size = log.head(tx).size
        if first is None or first >= size:
            return False
        last = min(size, first + _LEAVES)
        webhooks.put_events(tx, [_event(vault, line) for line in webhooks.lines(tx, first, last)])
        webhooks.move_head(tx, last)
    return last < size


def spread(engine: Engine, now: datetime) -> bool:
    """Give new events to their endpoints; whether there may be more."""
    with engine.begin() as tx:
        return deliveries.spread(tx, now, _EVENTS) == _EVENTS


def forget(engine: Engine, now: datetime) -> None:
    """Drop the events that are older than is promised."""
    while True:
        with engine.begin() as tx:
            if deliveries.forget(tx, now - KEPT, _EVENTS) < _EVENTS:
                return


def _event(vault: Vault, line: Line) -> Event:
    data = {
        "number": line.number,
        "origin": line.origin,
        "points": str(line.points),
        "entry_id": line.entry_id,
        "leaf": str(line.leaf),
        "store": line.store,
        "till": line.till,
        "bill_day": date.fromisoformat(str(line.day)).isoformat(),
    }
    return made(vault, line.merchant, _KINDS[line.kind], line.entry_id, data, line.at)
