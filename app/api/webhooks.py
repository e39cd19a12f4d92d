"""For merchants: endpoints to be told at, the log of events, and sending them again."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g
from sqlalchemy import Connection

from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    cursor_of,
    instant,
    moment_of,
    page,
    stamp,
)
from app.auth import head_office
from app.errors import Problem
from app.flows.webhook import replay as again
from app.flows.webhook.address import MAX_URL
from app.flows.webhook.emit import KINDS, TEST, VERIFICATION
from app.flows.webhook.endpoint import Shown, disable, register, rotate, send_test
from app.flows.webhook.prove_owner import ask
from app.flows.webhook.spread import KEPT
from app.store import deliveries, webhooks
from app.store.db import transact
from app.store.deliveries import STATES, Attempt, Delivery
from app.store.webhooks import Endpoint, Event
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")

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


class EndpointSchema(ma.Schema):
    """An endpoint. `reason` says why it is disabled, or what its last proof failed by."""

    id = ma.fields.String(required=True)
    url = ma.fields.String(required=True)
    kinds = ma.fields.List(ma.fields.String(), required=True)
    state = ma.fields.String(
        required=True, validate=ma.validate.OneOf(["pending", "active", "disabled"])
    )
    reason = ma.fields.String(required=True)
    secret = ma.fields.String(metadata={"description": "shown once, when it is made"})
    old_secret_until = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the secret before signs as well until then"},
    )
    made_at = ma.fields.String(required=True)
    made_date = ma.fields.String(required=True)
    verified_at = ma.fields.String(required=True, allow_none=True)
    failing_since = ma.fields.String(required=True, allow_none=True)


class EndpointsSchema(ma.Schema):
    """A merchant's endpoints, oldest first."""

    items = ma.fields.List(ma.fields.Nested(EndpointSchema), required=True)


class SentSchema(ma.Schema):
    """The event that was made."""

    event = ma.fields.String(required=True)


class ReplaySchema(ma.Schema):
    """To one endpoint; without it, to all that ask for the event's kind."""

    endpoint = ma.fields.String(validate=ma.validate.Length(1, 64))


class SinceSchema(ma.Schema):
    """From when on; nothing is older than 90 days."""

    since = ma.fields.AwareDateTime(format="iso", required=True)


class ReplayedSchema(ma.Schema):
    """How many deliveries were made due."""

    replayed = ma.fields.String(required=True)


class EventsArgs(PageArgs):
    """Which events: of a kind, or with a delivery in a state."""

    kind = ma.fields.String(validate=ma.validate.OneOf([*KINDS, TEST, VERIFICATION]))
    state = ma.fields.String(validate=ma.validate.OneOf(STATES))


class DeliverySchema(ma.Schema):
    """How an event stands with an endpoint."""

    endpoint = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    attempts = ma.fields.Integer(required=True)
    next_at = ma.fields.String(required=True, allow_none=True)


class EventSchema(ma.Schema):
    """An event; `id` is what is sent as webhook-id."""

    id = ma.fields.String(required=True)
    kind = ma.fields.String(required=True)
    at = ma.fields.String(required=True)
    deliveries = ma.fields.List(ma.fields.Nested(DeliverySchema), required=True)


class EventsSchema(ma.Schema):
    """A page of events, newest first."""

    items = ma.fields.List(ma.fields.Nested(EventSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class AttemptSchema(ma.Schema):
    """One request to an endpoint: its HTTP status, if one came, and what was wrong."""

    endpoint = ma.fields.String(required=True)
    attempt = ma.fields.Integer(required=True)
    at = ma.fields.String(required=True)
    ms = ma.fields.Integer(required=True)
    status = ma.fields.Integer(required=True, allow_none=True)
    error = ma.fields.String(required=True)


class WholeEventSchema(EventSchema):
    """An event with the body that is sent and every attempt."""

    body = ma.fields.Dict(required=True)
    attempts = ma.fields.List(ma.fields.Nested(AttemptSchema), required=True)


@blp.serve(
    "POST", "/webhooks", gives=EndpointSchema, guard=head_office, body=RegisterSchema, status=201
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
    return answer({"items": [_endpoint(one) for one in found]})


@blp.serve("GET", "/webhooks/<webhook>", gives=EndpointSchema, guard=head_office)
def get_webhook(webhook: str) -> Response:
    """读取通知地址 · One endpoint: whether it is proved, and why it is not."""
    with wired().engine.connect() as tx:
        found = webhooks.of_merchant(tx, g.merchant.id)
    there = next((one for one in found if one.id == webhook), None)
    if there is None:
        raise _unknown()
    return answer(_endpoint(there))


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
    gives=EndpointSchema,
    guard=head_office,
    repeat=True,
)
def post_rotate_secret(webhook: str) -> Response:
    """更换密钥 · Make a new secret; the one before signs as well for 24 hours."""
    vault, who, one, now = wired().vault, g.merchant.id, _known(webhook), wired().clock()
    return answer_once(lambda tx: _secret(rotate(tx, vault, who, one, now)))


@blp.serve("POST", "/webhooks/<webhook>/disable", gives=EndpointSchema, guard=head_office)
def post_disable(webhook: str) -> Response:
    """停用通知地址 · Send nothing more; what waits is dead, and may be replayed later."""
    who, one = g.merchant.id, _known(webhook)
    return answer(_endpoint(transact(wired().engine, lambda tx: disable(tx, who, one))))


@blp.serve("POST", "/webhooks/<webhook>/test", gives=SentSchema, guard=head_office, status=202)
def post_test(webhook: str) -> Response:
    """发送测试事件 · Send an active endpoint an event `endpoint.test`."""
    here, parts = wired(), (wired().vault, g.merchant.id, _known(webhook), wired().clock())
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
    who, one, now = g.merchant.id, _known(webhook), wired().clock()
    since: datetime = max(args["since"], now - KEPT)

    def work(tx: Connection) -> int:
        return again.replay_since(tx, who, one, since, now)

    return answer({"replayed": str(transact(wired().engine, work))}, 202)


@blp.serve("GET", "/events", gives=EventsSchema, guard=head_office, query=EventsArgs)
def list_events(args: dict[str, Any]) -> Response:
    """事件日志 · Events of the last 90 days, newest first."""
    limit, place = args["limit"], moment_of(args.get("cursor"))
    wanted = (args.get("state"), args.get("kind"), place, limit + 1)
    with wired().engine.connect() as tx:
        found = deliveries.page(tx, g.merchant.id, *wanted)
        stand = deliveries.of_events(tx, [one.id for one in found[:limit]])
    items = [_event(one, stand.get(one.id, [])) for one in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return answer(page(items, cursor_of(f"{last.at.isoformat()} {last.id}") if last else None))


@blp.serve("GET", "/events/<event>", gives=WholeEventSchema, guard=head_office)
def get_event(event: str) -> Response:
    """读取事件 · An event, the body that is sent, and every attempt."""
    if not _ID.fullmatch(event):
        raise _no_event()
    with wired().engine.connect() as tx:
        found = deliveries.event(tx, g.merchant.id, event)
        if found is None:
            raise _no_event()
        stand = deliveries.of_events(tx, [event]).get(event, [])
        made = deliveries.attempts(tx, event)
    whole = {"body": orjson.loads(found.body), "attempts": [_attempt(one) for one in made]}
    return answer(_event(found, stand) | whole)


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
    if not _ID.fullmatch(event):
        raise _no_event()
    to = _known(args["endpoint"]) if "endpoint" in args else None
    parts = (g.merchant.id, event, to, wired().clock())
    count = transact(wired().engine, lambda tx: again.replay(tx, *parts))
    return answer({"replayed": str(count)}, 202)


def _prove(webhook: str) -> Response:
    here, parts = wired(), (wired().vault, g.merchant, _known(webhook), wired().clock())
    return answer(_endpoint(transact(here.engine, lambda tx: ask(tx, *parts))), 202)


def _known(webhook: str) -> str:
    if not _ID.fullmatch(webhook):
        raise _unknown()
    return webhook


def _unknown() -> Problem:
    return Problem("WEBHOOK_UNKNOWN", "this merchant has no endpoint of this id")


def _no_event() -> Problem:
    return Problem("EVENT_UNKNOWN", "this merchant has no event of this id")


def _secret(shown: Shown) -> dict[str, Any]:
    return _endpoint(shown.endpoint) | ({"secret": shown.secret} if shown.secret else {})


def _endpoint(one: Endpoint) -> dict[str, Any]:
    return {
        "id": one.id,
        "url": one.url,
        "kinds": one.kinds,
        "state": one.state,
        "reason": one.reason,
        "old_secret_until": _moment(one.old_until),
        **stamp("made", one.made_at),
        "verified_at": _moment(one.verified_at),
        "failing_since": _moment(one.failing_since),
    }


def _event(one: Event, stand: list[Delivery]) -> dict[str, Any]:
    shown = [
        {
            "endpoint": each.endpoint,
            "state": each.state,
            "attempts": each.attempts,
            "next_at": instant(each.next_at) if each.state == "waiting" else None,
        }
        for each in stand
    ]
    return {"id": one.id, "kind": one.kind, "at": instant(one.at), "deliveries": shown}


def _attempt(one: Attempt) -> dict[str, Any]:
    return one._asdict() | {"at": instant(one.at)}


def _moment(at: datetime | None) -> str | None:
    return instant(at) if at else None
