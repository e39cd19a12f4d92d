"""An order under one's hands: found, and locked after its resident."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows import redeem
from app.store import orders, people, stock
from app.store.orders import Order
from app.vault import Vault


class OrderError(Exception):
    """An order cannot be placed or taken this step; the code says why, the sentence what helps."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def lock_own(tx: Connection, resident: str, id: str) -> Order:
    """A resident's order, which nobody else decides on until `tx` ends. Raises OrderError
    SUBJECT_ERASED, NOT_FOUND."""
    if people.lock(tx, resident) is None:
        raise OrderError("SUBJECT_ERASED", "this account was closed")
    found = orders.lock(tx, id)
    if found is None or found.resident != resident:
        raise OrderError("NOT_FOUND", "you have no order of this id")
    return found


def let_go(tx: Connection, vault: Vault, order: Order, reason: str, now: datetime) -> Order:
    """Release a held order that was locked after its resident: points and stock go back."""
    redeem.release(tx, vault, order.hold, now)
    orders.release(tx, order.id, reason, now)
    stock.give_back(tx, order.reward, order.quantity, order.placed_on)
    return order._replace(state="released", reason=reason, closed_at=now)
