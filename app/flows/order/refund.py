"""Refund: points of a confirmed order go back, and its merchant's bill says so."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows import redeem
from app.flows.order.hold import OrderError
from app.flows.redeem import Moved
from app.store import bills, orders, stock, vouchers
from app.store.bills import Line
from app.vault import Vault


def refund(
    tx: Connection,
    vault: Vault,
    order: str,
    points: int,
    number: str,
    kind: str,
    now: datetime,
    *,
    restock: int = 0,
) -> Moved:
    """Give points of a confirmed order back to who ordered it, or to nobody if they left.

    `number` is the document's on the bill, `kind` void or lapse. `restock` pieces go back into
    stock; a code of the merchant's own was given out once and does not. The resident is locked by
    the caller; it asks once, holding what the number stands for.

    Raises OrderError NOT_FOUND, and REFUND_EXCEEDS if that were more than the order took.
    """
    found = orders.lock(tx, order)
    if found is None or found.entry is None:
        raise OrderError("NOT_FOUND", "there is no confirmed order of this id")
    if found.refunded + points > found.points:
        left = found.points - found.refunded
        raise OrderError("REFUND_EXCEEDS", f"of this order {left} points are left to give back")
    orders.give_back(tx, order, points)
    terms = vouchers.terms(tx, found.reward)
    if restock and terms.codes != "pool":
        stock.give_back(tx, found.reward, restock, 0)
    request = f"{kind} {number}"
    moved = redeem.refund(tx, vault, found.entry, points, found.refunded, request, now)
    line = Line(
        moved.arrival,
        found.merchant,
        kind,
        number,
        order,
        moved.entry.id,
        -points,
        terms.store,
        None,
    )
    bills.add(tx, line, now)
    return moved
