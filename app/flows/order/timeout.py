"""Timeout: what was held too long, or of a merchant that closed, goes back to its residents."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine

from app.flows.notify import notify
from app.flows.order.hold import let_go
from app.store import orders, people
from app.store.db import transact
from app.vault import Vault

_PAGE: Final = 100
_CLOSED: Final = "商户已停止合作，订单未能完成。"


def release_due(engine: Engine, vault: Vault, now: datetime) -> int:
    """Release a page of orders, each in a transaction of its own; how many were looked at. Safe to
    repeat and to run in several processes at once."""
    with engine.connect() as tx:
        found = orders.due(tx, now, _PAGE)
    for one in found:
        transact(engine, partial(_release, vault=vault, id=one, now=now))
    return len(found)


def _release(tx: Connection, vault: Vault, id: str, now: datetime) -> None:
    seen = orders.find(tx, id)
    if seen is None or seen.resident is None or people.lock(tx, seen.resident) is None:
        return  # who left took their orders back themselves
    order = orders.lock(tx, id)
    if order is None or order.state != "held":
        return
    if order.expires_at <= now:
        let_go(tx, vault, order, "timeout", now)
        return
    let_go(tx, vault, order, "closed", now)
    params = {"points": str(order.points), "reason": _CLOSED}
    notify(tx, vault, seen.resident, "points.returned", f"order {id}", params, now)
