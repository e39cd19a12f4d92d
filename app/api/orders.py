"""For residents: orders of rewards, held first, then confirmed or cancelled."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g
from sqlalchemy import Connection

from app.api.certificate import CertificateSchema, certificate, drawn
from app.api.reward_forms import MerchantFaceSchema
from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    answer_once,
    answered,
    cursor_of,
    instant,
    moment_of,
    page,
    stamp,
)
from app.auth import resident
from app.errors import Problem
from app.flows.once import Answer
from app.flows.order.at_once import Wanted, at_once
from app.flows.order.cancel import cancel
from app.flows.order.confirm import confirm
from app.flows.order.place import place
from app.store import orders, vouchers
from app.store.orders import STATES, Bought, Order
from app.store.rewards import KINDS
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")

blp = Blueprint(
    "orders",
    __name__,
    url_prefix="/api/v1/me/orders",
    description="订单：下单、确认、取消、捐赠证书。Orders: placed, confirmed, cancelled.",
)


class NewOrderSchema(ma.Schema):
    """What is wanted."""

    reward = ma.fields.String(
        required=True, validate=Pattern("^[0-9a-f]{32}$", error="must be the id of a reward")
    )
    quantity = ma.fields.Integer(strict=True, load_default=1, validate=ma.validate.Range(1, 100))


class OrderSchema(ma.Schema):
    """An order. While it is held its points are set aside, until `expires_at`."""

    id = ma.fields.String(required=True)
    reward = ma.fields.String(required=True)
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(KINDS))
    title_zh = ma.fields.String(required=True)
    merchant = ma.fields.Nested(MerchantFaceSchema, required=True)
    quantity = ma.fields.Integer(required=True)
    points = ma.fields.String(required=True, metadata={"description": "of all pieces"})
    refunded_points = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    reason = ma.fields.String(
        required=True,
        metadata={"description": "why it was released: cancelled, timeout, closed; else empty"},
    )
    placed_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    placed_date = ma.fields.String(required=True, metadata={"format": "date"})
    expires_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    closed_at = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"format": "date-time", "description": "when it was confirmed or released"},
    )
    entry_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "of the redemption"}
    )


class FullOrderSchema(OrderSchema):
    """An order with what it brought."""

    vouchers = ma.fields.List(
        ma.fields.String(),
        required=True,
        metadata={"description": "ids of its vouchers; a donation brings a certificate instead"},
    )


class OrdersSchema(ma.Schema):
    """A page of orders, newest first."""

    items = ma.fields.List(ma.fields.Nested(OrderSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class OrdersArgs(PageArgs):
    """Which orders."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))


@blp.serve(
    "POST",
    "",
    gives=FullOrderSchema,
    status=201,
    guard=resident,
    body=NewOrderSchema,
    repeat=True,
)
def post_order(body: dict[str, Any]) -> Response:
    """下单 · Set points and pieces of a reward aside, until you confirm or cancel.

    What nobody confirms by `expires_at` goes back by itself.
    """
    device = bytes.fromhex(g.sign_in) if g.sign_in else None
    wanted = Wanted(g.resident, device, body["reward"], body["quantity"])
    here, now = wired(), wired().clock()
    made = at_once(here.engine, here.vault, g.repeat, wanted, now, _told)
    return answered(made) if made else _once(lambda tx: place(tx, here.vault, *wanted, now), 201)


@blp.serve("GET", "", gives=OrdersSchema, guard=resident, query=OrdersArgs)
def list_orders(args: dict[str, Any]) -> Response:
    """我的订单 · Your orders, newest first."""
    limit, before = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = orders.page(tx, g.resident, args.get("state"), before, limit + 1)
    last = found[limit - 1].order if len(found) > limit else None
    more = cursor_of(f"{last.placed_at.isoformat()} {last.id}") if last else None
    return answer(page([_shown(one) for one in found[:limit]], more))


@blp.serve("GET", "/<order>", gives=FullOrderSchema, guard=resident)
def get_order(order: str) -> Response:
    """一件订单 · One of your orders, with what it brought."""
    with wired().engine.connect() as tx:
        return answer(_full(tx, _own(tx, order)))


@blp.serve("POST", "/<order>/confirm", gives=FullOrderSchema, guard=resident, repeat=True)
def post_confirm(order: str) -> Response:
    """确认订单 · Take what was ordered: its vouchers are issued, once. One that is confirmed stays
    as it is."""
    here, who, now = wired(), g.resident, wired().clock()
    return _once(lambda tx: confirm(tx, here.vault, who, _known(order), now))


@blp.serve("POST", "/<order>/cancel", gives=FullOrderSchema, guard=resident, repeat=True)
def post_cancel(order: str) -> Response:
    """取消订单 · Give a held order back: points and stock return. One that was released stays as it
    is."""
    here, who, now = wired(), g.resident, wired().clock()
    return _once(lambda tx: cancel(tx, here.vault, who, _known(order), now))


@blp.serve("GET", "/<order>/certificate", gives=CertificateSchema, guard=resident)
def get_certificate(order: str) -> Response:
    """捐赠证书 · What a confirmed donation went to, and how anybody can check it."""
    with wired().engine.connect() as tx:
        return answer(certificate(_own(tx, order), wired().config.log_origin))


@blp.serve(
    "GET",
    "/<order>/certificate.svg",
    gives={"type": "string"},
    media="image/svg+xml",
    guard=resident,
)
def get_drawn_certificate(order: str) -> Response:
    """捐赠证书（图片） · The certificate as a drawing, to be shown or printed."""
    with wired().engine.connect() as tx:
        made = drawn(certificate(_own(tx, order), wired().config.log_origin))
    answered = Response(made, mimetype="image/svg+xml")
    answered.headers["Cache-Control"] = "no-store"
    return answered


def _told(one: Bought) -> Answer:
    """Of an order that was placed just now, and so has brought nothing yet."""
    return Answer(201, orjson.dumps({**_shown(one), "vouchers": []}))


def _once(step: Callable[[Connection], Order], status: int = 200) -> Response:
    """Take a step of an order, once; answer how it then stands."""
    who = g.resident

    def work(tx: Connection) -> dict[str, Any]:
        found = orders.bought(tx, who, step(tx).id)
        assert found is not None  # noqa: S101 (it was locked a line above)
        return _full(tx, found)

    return answer_once(work, status)


def _own(tx: Connection, order: str) -> Bought:
    found = orders.bought(tx, g.resident, _known(order))
    if found is None:
        raise Problem("NOT_FOUND", "you have no order of this id")
    return found


def _known(order: str) -> str:
    if not _ID.fullmatch(order):
        raise Problem("NOT_FOUND", "you have no order of this id")
    return order


def _full(tx: Connection, one: Bought) -> dict[str, Any]:
    return {**_shown(one), "vouchers": vouchers.of_order(tx, one.order.id)}


def _shown(one: Bought) -> dict[str, Any]:
    order = one.order
    return {
        "id": order.id,
        "reward": order.reward,
        "kind": one.kind,
        "title_zh": one.title_zh,
        "merchant": {"code": one.merchant_code, "name": one.merchant_name},
        "quantity": order.quantity,
        "points": str(order.points),
        "refunded_points": str(order.refunded),
        "state": order.state,
        "reason": order.reason,
        **stamp("placed", order.placed_at),
        "expires_at": instant(order.expires_at),
        "closed_at": instant(order.closed_at) if order.closed_at else None,
        "entry_id": order.entry,
    }
