"""For merchants: endpoints to be told at, the log of events, and sending them again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.webhook_forms import (
    EndpointSchema,
    EventsArgs,
    EventsSchema,
    ReplayedSchema,
    ReplaySchema,
    SecretEndpointSchema,
    SinceSchema,
    WholeEventSchema,
    endpoint_shown,
    events_page,
    known_endpoint,
    known_event,
    whole_event,
)
from app.api.wire import Blueprint, answer, answer_once
from app.auth import head_office
from app.errors import Problem
from app.flows.webhook import replay as again
from app.flows.webhook.address import MAX_URL
from app.flows.webhook.emit import KINDS
from app.flows.webhook.endpoint import Shown, disable, register, rotate, send_test
from app.flows.webhook.prove_owner import ask
from app.flows.webhook.spread import KEPT
from app.store import webhooks
from app.store.db import transact
from app.wiring import wired

blp = Blueprint(
    "webhooks",
    __name__,
    url_prefix="/api/v1/merchant",
    description="商户：事件通知。Webhooks: what happened, told to a merchant's own servers.",
)


class RegisterSchema(ma.Schema):
    """Where to tell what; without kinds, everything."""

    url = ma.fields.String(
        required=True,
        validate=ma.validate.Length(1, MAX_URL),
        metadata={"example": "https://pay.shop.example/puhui"},
    )
    kinds = ma.fields.List(
        ma.fields.String(validate=ma.validate.OneOf(KINDS)),
        load_default=list,
        validate=ma.validate.Length(0, len(KINDS)),
    )


class EndpointsSchema(ma.Schema):
    """A merchant's endpoints, oldest first."""

    items = ma.fields.List(ma.fields.Nested(EndpointSchema), required=True)


class SentSchema(ma.Schema):
    """The event that was made."""

    event = ma.fields.String(required=True)


@blp.serve(
    "POST",
    "/webhooks",
    gives=SecretEndpointSchema,
    guard=head_office,
    body=RegisterSchema,
    status=201,
)
def post_webhook(args: dict[str, Any]) -> Response:
    """登记通知地址 · Add an endpoint; its secret is in this answer only.

    The same URL again sets its kinds. One that was never proved gets a new secret each time, so a
    lost answer costs nothing.
    """
    here, now = wired(), wired().clock()
    parts = (here.vault, g.merchant, args["url"], args["kinds"], now)
    loopback = here.config.webhook_loopback
    shown = transact(here.engine, lambda tx: register(tx, *parts, loopback=loopback))
    return answer(_secret(shown), 201)


@blp.serve("GET", "/webhooks", gives=EndpointsSchema, guard=head_office)
def list_webhooks() -> Response:
    """通知地址列表 · Every endpoint."""
    with wired().engine.connect() as tx:
        found = webhooks.of_merchant(tx, g.merchant.id)
    return answer({"items": [endpoint_shown(one) for one in found]})


@blp.serve("GET", "/webhooks/<webhook>", gives=EndpointSchema, guard=head_office)
def get_webhook(webhook: str) -> Response:
    """读取通知地址 · One endpoint: whether it is proved, and why it is not."""
    with wired().engine.connect() as tx:
        found = webhooks.of_merchant(tx, g.merchant.id)
    there = next((one for one in found if one.id == webhook), None)
    if there is None:
        raise Problem("WEBHOOK_UNKNOWN", "this merchant has no endpoint of this id")
    return answer(endpoint_shown(there))


@blp.serve(
    "POST", "/webhooks/<webhook>/verify", gives=EndpointSchema, guard=head_office, status=202
)
def post_verify(webhook: str) -> Response:
    """验证通知地址 · Have the endpoint asked for the challenge; within seconds it is active, or
    `reason` says what it answered."""
    return _prove(webhook)


@blp.serve(
    "POST", "/webhooks/<webhook>/enable", gives=EndpointSchema, guard=head_office, status=202
)
def post_enable(webhook: str) -> Response:
    """启用通知地址 · Bring a disabled endpoint back: it is asked for a challenge as at first."""
    return _prove(webhook)


@blp.serve(
    "POST",
    "/webhooks/<webhook>/rotate-secret",
    gives=SecretEndpointSchema,
    guard=head_office,
    repeat=True,
)
def post_rotate_secret(webhook: str) -> Response:
    """更换密钥 · Make a new secret; the one before signs as well for 24 hours."""
    vault, who, one, now = wired().vault, g.merchant.id, known_endpoint(webhook), wired().clock()
    return answer_once(lambda tx: _secret(rotate(tx, vault, who, one, now)))


@blp.serve("POST", "/webhooks/<webhook>/disable", gives=EndpointSchema, guard=head_office)
def post_disable(webhook: str) -> Response:
    """停用通知地址 · Send nothing more; what waits is dead, and may be replayed later."""
    who, one = g.merchant.id, known_endpoint(webhook)
    return answer(endpoint_shown(transact(wired().engine, lambda tx: disable(tx, who, one))))


@blp.serve("POST", "/webhooks/<webhook>/test", gives=SentSchema, guard=head_office, status=202)
def post_test(webhook: str) -> Response:
    """发送测试事件 · Send an active endpoint an event `endpoint.test`."""
    here, parts = wired(), (wired().vault, g.merchant.id, known_endpoint(webhook), wired().clock())
    return answer({"event": transact(here.engine, lambda tx: send_test(tx, *parts))}, 202)


@blp.serve(
    "POST",
    "/webhooks/<webhook>/replay",
    gives=ReplayedSchema,
    guard=head_office,
    body=SinceSchema,
    status=202,
)
def post_replay_since(args: dict[str, Any], webhook: str) -> Response:
    """按时间重发 · Send an active endpoint again all that happened since then, delivered or not.

    Its receiver knows by webhook-id what it has already.
    """
    who, one, now = g.merchant.id, known_endpoint(webhook), wired().clock()
    since: datetime = max(args["since"], now - KEPT)

    def work(tx: Connection) -> int:
        return again.replay_since(tx, who, one, since, now)

    return answer({"replayed": str(transact(wired().engine, work))}, 202)


@blp.serve("GET", "/events", gives=EventsSchema, guard=head_office, query=EventsArgs)
def list_events(args: dict[str, Any]) -> Response:
    """事件日志 · Events of the last 90 days, newest first."""
    with wired().engine.connect() as tx:
        return answer(events_page(tx, g.merchant.id, args))


@blp.serve("GET", "/events/<event>", gives=WholeEventSchema, guard=head_office)
def get_event(event: str) -> Response:
    """读取事件 · An event, the body that is sent, and every attempt."""
    with wired().engine.connect() as tx:
        return answer(whole_event(tx, g.merchant.id, event))


@blp.serve(
    "POST",
    "/events/<event>/replay",
    gives=ReplayedSchema,
    guard=head_office,
    body=ReplaySchema,
    status=202,
)
def post_replay(args: dict[str, Any], event: str) -> Response:
    """重发事件 · Send an event again, whatever became of it, with a ladder of its own."""
    to = known_endpoint(args["endpoint"]) if "endpoint" in args else None
    parts = (g.merchant.id, known_event(event), to, wired().clock())
    count = transact(wired().engine, lambda tx: again.replay(tx, *parts))
    return answer({"replayed": str(count)}, 202)


def _prove(webhook: str) -> Response:
    here, parts = wired(), (wired().vault, g.merchant, known_endpoint(webhook), wired().clock())
    return answer(endpoint_shown(transact(here.engine, lambda tx: ask(tx, *parts))), 202)


def _secret(shown: Shown) -> dict[str, Any]:
    return endpoint_shown(shown.endpoint) | ({"secret": shown.secret} if shown.secret else {})
