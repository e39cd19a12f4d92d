"""Webhooks on the wire: how an endpoint, an event and its deliveries are shown and asked for."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import marshmallow as ma
import orjson
from sqlalchemy import Connection

from app.api.wire import PageArgs, cursor_of, instant, moment_of, page, stamp
from app.errors import Problem
from app.flows.webhook.emit import KINDS, TEST, VERIFICATION
from app.store import deliveries
from app.store.deliveries import STATES, Attempt, Delivery
from app.store.webhooks import ENDPOINT_STATES, Endpoint, Event

_ID = re.compile("[0-9a-f]{32}")


class EndpointSchema(ma.Schema):
    """An endpoint. `reason` says why it is disabled, or what its last proof failed by."""

    id = ma.fields.String(required=True)
    url = ma.fields.String(required=True)
    kinds = ma.fields.List(ma.fields.String(), required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(ENDPOINT_STATES))
    reason = ma.fields.String(required=True)
    old_secret_until = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the secret before signs as well until then"},
    )
    made_at = ma.fields.String(required=True)
    made_date = ma.fields.String(required=True)
    verified_at = ma.fields.String(required=True, allow_none=True)
    failing_since = ma.fields.String(required=True, allow_none=True)


class SecretEndpointSchema(EndpointSchema):
    """The same with its secret, if one was made."""

    secret = ma.fields.String(metadata={"description": "shown once, when it is made"})


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


def known_endpoint(webhook: str) -> str:
    """An endpoint's id from an address. Raises Problem WEBHOOK_UNKNOWN."""
    if not _ID.fullmatch(webhook):
        raise Problem("WEBHOOK_UNKNOWN", "this merchant has no endpoint of this id")
    return webhook


def known_event(event: str) -> str:
    """An event's id from an address. Raises Problem EVENT_UNKNOWN."""
    if not _ID.fullmatch(event):
        raise Problem("EVENT_UNKNOWN", "this merchant has no event of this id")
    return event


def endpoint_shown(one: Endpoint) -> dict[str, Any]:
    """An endpoint, without its secret."""
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


def events_page(tx: Connection, merchant: str, args: dict[str, Any]) -> dict[str, Any]:
    """A page of a merchant's events, newest first, as `EventsArgs` asks for them."""
    limit, place = args["limit"], moment_of(args.get("cursor"))
    found = deliveries.page(tx, merchant, args.get("state"), args.get("kind"), place, limit + 1)
    stand = deliveries.of_events(tx, [one.id for one in found[:limit]])
    items = [_event(one, stand.get(one.id, [])) for one in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return page(items, cursor_of(f"{last.at.isoformat()} {last.id}") if last else None)


def whole_event(tx: Connection, merchant: str, event: str) -> dict[str, Any]:
    """A merchant's event with its body and every attempt. Raises Problem EVENT_UNKNOWN."""
    found = deliveries.event(tx, merchant, known_event(event))
    if found is None:
        raise Problem("EVENT_UNKNOWN", "this merchant has no event of this id")
    stand = deliveries.of_events(tx, [event]).get(event, [])
    attempts = [_attempt(one) for one in deliveries.attempts(tx, event)]
    return _event(found, stand) | {"body": orjson.loads(found.body), "attempts": attempts}


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
