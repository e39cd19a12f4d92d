"""Cancel: a held order is given back, by its resident, or because they leave."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.order.hold import OrderError, let_go, lock_own
from app.store import orders
from app.store.orders import Order
from app.vault import Vault


def cancel(tx: Connection, vault: Vault, resident: str, id: str, now: datetime) -> Order:
    """Give a held order back; one that was released stays as it is. Raises OrderError
    SUBJECT_ERASED, NOT_FOUND, ORDER_CONFIRMED."""
    order = lock_own(tx, resident, id)
    if order.state == "confirmed":
        raise OrderError("ORDER_CONFIRMED", "the order is confirmed; what it brought is yours")
    return let_go(tx, vault, order, "cancelled", now) if order.state == "held" else order


def cancel_all(tx: Connection, vault: Vault, resident: str, now: datetime) -> None:
    """Give back all that is held for a resident who leaves and is locked."""
    for one in orders.held(tx, resident):
        order = orders.lock(tx, one)
        if order is not None and order.state == "held":
            let_go(tx, vault, order, "erased", now)
