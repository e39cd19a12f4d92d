"""Confirm: a held order becomes a redemption, its vouchers, and a line of its merchant's bill."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows import redeem
from app.flows.order.hold import OrderError, lock_own
from app.flows.voucher.issue import issue
from app.store import bills, merchants, orders, vouchers
from app.store.bills import Line
from app.store.orders import Order
from app.vault import Vault
from ledger.errors import Exhausted


def confirm(tx: Connection, vault: Vault, resident: str, id: str, now: datetime) -> Order:
    """Take what was ordered; one that is confirmed stays as it is. What was held is given also by
    a merchant that was suspended meanwhile: the promise was made.

    Raises OrderError SUBJECT_ERASED, NOT_FOUND, ORDER_RELEASED, MERCHANT_CLOSED,
    ALLOWANCE_EXHAUSTED; IssueError.
    """
    order = lock_own(tx, resident, id)
    if order.state == "confirmed":
        return order
    if order.state == "released" or order.expires_at <= now:
        raise OrderError(
            "ORDER_RELEASED",
            f"this order is over ({order.reason or 'timeout'}): points and stock go back",
        )
    merchant = merchants.by_id(tx, order.merchant)
    if merchant is None or merchant.state == "closed":
        raise OrderError("MERCHANT_CLOSED", "the merchant is closed; your points come back")
    issue(tx, vault, order, now)
    store = vouchers.terms(tx, order.reward).store
    try:
        arrival, entry = redeem.redeem(tx, vault, order.hold, order.merchant, now)
    except Exhausted:
        raise OrderError(
            "ALLOWANCE_EXHAUSTED",
            f"{merchant.code} can take no more points at present; the order stays held until its"
            " time is over",
        ) from None
    orders.confirm(tx, order.id, entry.id, now)
    line = Line(arrival, order.merchant, "order", order.id, "", entry.id, order.points, store, None)
    bills.add(tx, line, now)
    return order._replace(state="confirmed", entry=entry.id, closed_at=now)
