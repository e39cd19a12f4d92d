"""For residents: their inbox, and which messages may also reach them through WeChat."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    answer_once,
    bad_cursor,
    cursor_of,
    page,
    place_of,
    stamp,
)
from app.auth import resident
from app.errors import Problem
from app.flows.notify import WORDINGS, read_letter
from app.flows.setting import templates
from app.store import messages, statements, subscriptions
from app.store.messages import Message
from app.wiring import wired
from ledger.encoding import MAX_INT

_MOST_TAPS = 20

blp = Blueprint(
    "messages",
    __name__,
    url_prefix="/api/v1/me",
    description="消息：收件箱与订阅消息。Messages: an inbox, and WeChat's subscription messages.",
)


class MessagesArgs(PageArgs):
    """Which messages."""

    unread = ma.fields.Boolean(
        load_default=False, truthy={"true"}, falsy={"false"}, metadata={"description": "only those"}
    )


class MessageSchema(ma.Schema):
    """A message: what it says, and its parameters for a client with words of its own."""

    id = ma.fields.String(required=True)
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(list(WORDINGS)))
    title = ma.fields.String(required=True)
    text = ma.fields.String(required=True)
    params = ma.fields.Dict(required=True)
    read = ma.fields.Boolean(required=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)


class MessagesSchema(ma.Schema):
    """A page of messages, newest first."""

    items = ma.fields.List(ma.fields.Nested(MessageSchema), required=True)
    unread = ma.fields.String(required=True, metadata={"description": "in the whole inbox"})
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class ReadSchema(ma.Schema):
    """The newest message that was seen; it and all before it count as read."""

    up_to = ma.fields.String(
        required=True, validate=Pattern("^[0-9]{1,18}$", error="must be a message's id")
    )


class UnreadSchema(ma.Schema):
    """How many messages are still unread."""

    unread = ma.fields.String(required=True)


class TapSchema(ma.Schema):
    """What wx.requestSubscribeMessage brought for one template: taps that accepted, or 0 for a
    refusal, after which nothing more is sent until somebody accepts again."""

    template = ma.fields.String(required=True, validate=ma.validate.Length(1, 64))
    accepted = ma.fields.Integer(
        strict=True,
        required=True,
        validate=ma.validate.Range(0, _MOST_TAPS, error=f"must be 0 to {_MOST_TAPS}"),
    )


class SubscriptionSchema(ma.Schema):
    """A template, what it is sent for, and how many of its messages are asked for and not sent."""

    template = ma.fields.String(required=True)
    kinds = ma.fields.List(ma.fields.String(), required=True)
    quota = ma.fields.Integer(required=True)
    refused_at = ma.fields.String()
    refused_date = ma.fields.String()


class SubscriptionsSchema(ma.Schema):
    """Every template that messages are sent by."""

    items = ma.fields.List(ma.fields.Nested(SubscriptionSchema), required=True)


@blp.serve("GET", "/messages", gives=MessagesSchema, guard=resident, query=MessagesArgs)
def list_messages(args: dict[str, Any]) -> Response:
    """收件箱 · Messages, newest first."""
    here, limit = wired(), args["limit"]
    place = place_of(args.get("cursor")) or str(MAX_INT)
    if not place.isascii() or not place.isdecimal() or len(place) > len(str(MAX_INT)):
        raise bad_cursor()
    with here.engine.connect() as tx:
        found = messages.page(tx, g.resident, int(place), limit + 1, only_unread=args["unread"])
        unread = messages.unread(tx, g.resident)
        wrapped = statements.wrapped_key(tx, g.resident)
    own = here.vault.subject_key(g.resident, wrapped) if wrapped else b""
    more = cursor_of(str(found[limit - 1].id)) if len(found) > limit else None
    items = [_shown(own, one) for one in found[:limit]] if own else []
    return answer({**page(items, more), "unread": str(unread)})


def _shown(own: bytes, one: Message) -> dict[str, Any]:
    letter = read_letter(own, one)
    return {
        "id": str(one.id),
        "kind": one.kind,
        **letter._asdict(),
        "read": one.read_at is not None,
        **stamp("created", one.created_at),
    }


@blp.serve(
    "POST", "/messages/read", gives=UnreadSchema, guard=resident, body=ReadSchema, repeat=True
)
def post_read(args: dict[str, Any]) -> Response:
    """标为已读 · Mark messages as read, up to and with this one."""
    who, last, now = g.resident, int(args["up_to"]), wired().clock()

    def work(tx: Connection) -> dict[str, str]:
        messages.read_up_to(tx, who, last, now)
        return {"unread": str(messages.unread(tx, who))}

    return answer_once(work)


@blp.serve("GET", "/subscriptions", gives=SubscriptionsSchema, guard=resident)
def list_subscriptions() -> Response:
    """订阅消息 · Every template, and how many of its messages are asked for."""
    with wired().engine.connect() as tx:
        made = _subscriptions(tx, g.resident)
    return answer(made)


@blp.serve(
    "POST",
    "/subscriptions",
    gives=SubscriptionsSchema,
    guard=resident,
    body=TapSchema,
    repeat=True,
)
def post_subscription(args: dict[str, Any]) -> Response:
    """记录订阅 · Count what was tapped: one tap is one message."""
    who, template, taps, now = g.resident, args["template"], args["accepted"], wired().clock()

    def work(tx: Connection) -> dict[str, Any]:
        if template not in templates(tx):
            raise Problem("NOT_FOUND", "no message is sent by this template")
        if messages.hold(tx, who) is None:
            raise Problem("SUBJECT_ERASED", "this account was erased")
        if taps:
            subscriptions.accept(tx, who, template, taps)
        else:
            subscriptions.refuse(tx, who, template, now)
        return _subscriptions(tx, who)

    return answer_once(work)


def _subscriptions(tx: Connection, resident: str) -> dict[str, Any]:
    known = subscriptions.of_resident(tx, resident)
    items = []
    for template, kinds in templates(tx).items():
        held = known.get(template)
        refused = stamp("refused", held.refused_at) if held and held.refused_at else {}
        quota = held.quota if held else 0
        items.append({"template": template, "kinds": kinds, "quota": quota, **refused})
    return {"items": items}
