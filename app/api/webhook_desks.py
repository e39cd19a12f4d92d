"""For administrators: which merchants' endpoints do not take what they are told; sending again."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.partner_forms import CODE
from app.api.webhook_forms import (
    EndpointSchema,
    EventsArgs,
    EventsSchema,
    ReplayedSchema,
    ReplaySchema,
    SinceSchema,
    WholeEventSchema,
    endpoint_shown,
    events_page,
    known_endpoint,
    known_event,
    whole_event,
)
from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    bad_cursor,
    cursor_of,
    instant,
    page,
    place_of,
)
from app.auth import admin
from app.flows.partner.standing import known
from app.flows.trail import act
from app.flows.webhook import replay as again
from app.flows.webhook.spread import KEPT
from app.store import webhooks
from app.store.webhooks import COUNTED, ENDPOINT_STATES, Watched
from app.wiring import wired

READ, OPERATE = admin("operator", "auditor"), admin("operator")

blp = Blueprint(
    "webhook desks",
    __name__,
    url_prefix="/api/v1/admin",
    description="通知管理：各商户的通知地址、死信与重发。Webhooks of all merchants, dead letters.",
)


class WatchedArgs(PageArgs):
    """Which endpoints; `failing`: only those whose deliveries fail or are dead."""

    merchant = ma.fields.String(
        validate=ma.validate.Length(1, 31), metadata={"description": "a merchant's code"}
    )
    state = ma.fields.String(validate=ma.validate.OneOf(ENDPOINT_STATES))
    failing = ma.fields.String(load_default="false", validate=ma.validate.OneOf(["true", "false"]))


class WatchedEndpointSchema(EndpointSchema):
    """An endpoint, whose it is, and how many deliveries wait and are dead. Its URL is shown without
    the query, which may hold a secret of the merchant's."""

    merchant = ma.fields.String(required=True)
    waiting = ma.fields.Integer(
        required=True, metadata={"description": f"{COUNTED}: so many, or more"}
    )
    dead = ma.fields.Integer(
        required=True, metadata={"description": f"{COUNTED}: so many, or more"}
    )


class WatchedEndpointsSchema(ma.Schema):
    """A page of endpoints by merchant."""

    items = ma.fields.List(ma.fields.Nested(WatchedEndpointSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


@blp.serve("GET", "/webhooks", gives=WatchedEndpointsSchema, guard=READ, query=WatchedArgs)
def list_all_webhooks(args: dict[str, Any]) -> Response:
    """通知地址总览 · Endpoints of all merchants by code, and what waits for them or is dead."""
    limit, after = args["limit"], _place(args.get("cursor"))
    wanted = (args.get("merchant"), args.get("state"), after, limit + 1)
    with wired().engine.connect() as tx:
        found = webhooks.watched(tx, *wanted, failing=args["failing"] == "true")
    last = found[limit - 1] if len(found) > limit else None
    more = last and cursor_of(f"{last.code} {last.endpoint.id}")
    return answer(page([_watched(one) for one in found[:limit]], more))


@blp.serve("GET", "/merchants/<merchant>/events", gives=EventsSchema, guard=READ, query=EventsArgs)
def list_merchant_events(args: dict[str, Any], merchant: str) -> Response:
    """商户事件日志 · A merchant's events of the last 90 days; `state=dead` are dead letters."""
    with wired().engine.connect() as tx:
        return answer(events_page(tx, known(tx, merchant).id, args))


@blp.serve("GET", "/merchants/<merchant>/events/<event>", gives=WholeEventSchema, guard=READ)
def get_merchant_event(merchant: str, event: str) -> Response:
    """读取商户事件 · An event, the body that is sent, and every attempt."""
    with wired().engine.connect() as tx:
        return answer(whole_event(tx, known(tx, merchant).id, event))


@blp.serve(
    "POST",
    "/merchants/<merchant>/events/<event>/replay",
    gives=ReplayedSchema,
    guard=OPERATE,
    body=ReplaySchema,
    status=202,
    repeat=True,
)
def post_event_replay(args: dict[str, Any], merchant: str, event: str) -> Response:
    """重发商户事件 · Send an event again to one active endpoint, or to all that ask for it."""
    named, now = known_event(event), wired().clock()
    to = known_endpoint(args["endpoint"]) if "endpoint" in args else None
    detail = {"event": named} | ({"endpoint": to} if to else {})
    return _replay(merchant, detail, lambda tx, whose: again.replay(tx, whose, named, to, now))


@blp.serve(
    "POST",
    "/merchants/<merchant>/webhooks/<webhook>/replay",
    gives=ReplayedSchema,
    guard=OPERATE,
    body=SinceSchema,
    status=202,
    repeat=True,
)
def post_webhook_replay(args: dict[str, Any], merchant: str, webhook: str) -> Response:
    """按时间重发商户事件 · Send an active endpoint again all that happened since then."""
    to, now = known_endpoint(webhook), wired().clock()
    since = max(args["since"], now - KEPT)
    detail = {"endpoint": to, "since": instant(since)}
    return _replay(
        merchant, detail, lambda tx, whose: again.replay_since(tx, whose, to, since, now)
    )


def _replay(code: str, detail: dict[str, Any], send: Callable[[Connection, str], int]) -> Response:
    who, now = g.admin.name, wired().clock()

    def work(tx: Connection) -> dict[str, str]:
        count = send(tx, known(tx, code).id)
        act(tx, who, "webhook.replayed", code, detail | {"replayed": count}, now)
        return {"replayed": str(count)}

    return answer_once(work, 202)


def _place(cursor: str | None) -> tuple[str, str]:
    place = place_of(cursor)
    if place is None:
        return "", ""
    code, _, last = place.partition(" ")
    if not re.fullmatch(CODE, code) or not re.fullmatch("[0-9a-f]{32}", last):
        raise bad_cursor()
    return code, last


def _watched(one: Watched) -> dict[str, Any]:
    counts = {"waiting": one.waiting, "dead": one.dead}
    shown = endpoint_shown(one.endpoint)
    return shown | {"merchant": one.code, "url": shown["url"].partition("?")[0], **counts}
