"""Binding a provider's account: codes and tokens, what is bound, and disputes over it."""

from __future__ import annotations

import re
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
    instant,
    page,
    place_of,
    stamp,
)
from app.auth import admin, resident, signed
from app.errors import Problem
from app.flows import bind, dispute
from app.store import bindings
from app.store.bindings import Binding, Dispute
from app.store.db import one_statement
from app.wiring import wired

blp = Blueprint(
    "bindings",
    __name__,
    url_prefix="/api/v1",
    description="绑定：把运营方账号连到居民。Bindings of providers' accounts, and disputes.",
)

_ID = re.compile(r"[0-9a-f]{32}")
_provider = Pattern("^[a-z0-9][a-z0-9-]{1,30}$", error="must be a provider's code")


def _printable(value: str) -> None:
    if not value.isprintable():
        raise ma.ValidationError("must hold printable characters only")


class BindingCodeArgsSchema(ma.Schema):
    """Whose code it is to be, by the provider's own identifier."""

    subject = ma.fields.String(required=True, validate=[ma.validate.Length(1, 128), _printable])


class BindingCodeSchema(ma.Schema):
    """A code to show to the customer."""

    code = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True)


class BindingChallengeArgsSchema(ma.Schema):
    """For which provider's token."""

    provider = ma.fields.String(required=True, validate=_provider)


class BindingChallengeSchema(ma.Schema):
    """What the provider signs into its token."""

    challenge = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True)


class BindingProofSchema(ma.Schema):
    """A provider's code, or a token that it signed."""

    provider = ma.fields.String(required=True, validate=_provider)
    code = ma.fields.String(load_default="", validate=ma.validate.Length(1, 20))
    token = ma.fields.String(
        load_default="",
        validate=Pattern("^[A-Za-z0-9._-]{1,2000}$", error="must be a compact signed token"),
    )

    @ma.validates_schema
    def one(self, data: dict[str, Any], **_: Any) -> None:
        """Exactly one proof."""
        if bool(data.get("code")) == bool(data.get("token")):
            raise ma.ValidationError("give either code or token", "code")


class BindingSchema(ma.Schema):
    """An account that is bound. `disputed` if somebody else has shown that it is theirs."""

    id = ma.fields.String(required=True)
    provider = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    bound_at = ma.fields.String(required=True)
    bound_date = ma.fields.String(required=True)
    disputed = ma.fields.Boolean()
    claimed = ma.fields.Integer(
        metadata={"description": "acts that waited for this and were judged now"}
    )


class BindingsSchema(ma.Schema):
    """Everything that is bound."""

    items = ma.fields.List(ma.fields.Nested(BindingSchema), required=True)


class BindingDisputeSchema(ma.Schema):
    """A dispute: `open`, or it came to be that the account `moved`, or was `kept`."""

    id = ma.fields.String(required=True)
    provider = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(["open", "moved", "kept"]))
    opened_at = ma.fields.String(required=True)
    opened_date = ma.fields.String(required=True)
    closed_at = ma.fields.String(required=True, allow_none=True)


class BindingDisputesSchema(ma.Schema):
    """A page of disputes."""

    items = ma.fields.List(ma.fields.Nested(BindingDisputeSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class DisputesArgs(PageArgs):
    """Which disputes."""

    state = ma.fields.String(
        load_default="open", validate=ma.validate.OneOf(["open", "moved", "kept"])
    )


class DisputeReasonSchema(ma.Schema):
    """Why it is decided so; it names nobody."""

    reason = ma.fields.String(required=True, validate=[ma.validate.Length(1, 1000), _printable])


@blp.serve(
    "POST",
    "/binding-codes",
    gives=BindingCodeSchema,
    guard=signed,
    body=BindingCodeArgsSchema,
    repeat=True,
)
def post_code(args: dict[str, Any]) -> Response:
    """绑定码 · A code by which your customer binds their account; it lives for 15 minutes."""
    here = wired()

    def work(tx: Connection) -> dict[str, str]:
        parts = (here.vault, g.provider, args["subject"], here.clock())
        code, until = bind.make_code(tx, *parts)
        return {"code": code, "expires_at": instant(until)}

    return answer_once(work)


@blp.serve(
    "POST",
    "/me/binding-challenges",
    gives=BindingChallengeSchema,
    guard=resident,
    body=BindingChallengeArgsSchema,
)
def post_challenge(args: dict[str, Any]) -> Response:
    """绑定挑战值 · What a provider signs so that its token is good for me only. Nothing is kept."""
    here = wired()
    made, until = bind.make_challenge(here.vault, g.resident, args["provider"], here.clock())
    return answer({"challenge": made, "expires_at": instant(until)})


@blp.serve("GET", "/me/bindings", gives=BindingsSchema, guard=resident)
def get_bindings() -> Response:
    """我的绑定 · The accounts that are bound to me."""
    with wired().engine.connect() as tx:
        items = [
            {**_binding(one), "disputed": bool(bindings.over(tx, one.subject))}
            for one in bindings.of(tx, g.resident)
        ]
    return answer({"items": items})


@blp.serve(
    "POST",
    "/me/bindings",
    gives=BindingSchema,
    guard=resident,
    body=BindingProofSchema,
    repeat=True,
)
def post_binding(args: dict[str, Any]) -> Response:
    """绑定 · Bind an account; acts that waited for it are credited, in order of time."""
    here = wired()

    def work(tx: Connection) -> dict[str, Any]:
        parts = (here.vault, here.registry, g.resident, bind.Proof(**args), here.clock())
        made = bind.bind(tx, *parts)
        return {**_binding(made.binding), "claimed": made.claimed}

    return answer_once(work)


@blp.serve(
    "POST", "/me/bindings/<binding>/unbind", gives=BindingsSchema, guard=resident, repeat=True
)
def post_unbind(binding: str) -> Response:
    """解除绑定 · Let an account go; a disputed one goes to who claims it. Points stay."""
    here = wired()

    def work(tx: Connection) -> dict[str, Any]:
        dispute.unbind(tx, here.vault, here.registry, g.resident, binding, here.clock())
        return {"items": [_binding(one) for one in bindings.of(tx, g.resident)]}

    return answer_once(work)


@blp.serve("GET", "/me/binding-disputes", gives=BindingDisputesSchema, guard=resident)
def get_own_disputes() -> Response:
    """我的绑定争议 · The disputes I opened."""
    with one_statement(wired().engine) as tx:
        found = bindings.of_claimant(tx, g.resident)
    return answer(page([_dispute(one) for one in found], None))


@blp.serve(
    "POST",
    "/me/binding-disputes",
    gives=BindingDisputeSchema,
    guard=resident,
    body=BindingProofSchema,
    repeat=True,
)
def post_dispute(args: dict[str, Any]) -> Response:
    """提出绑定争议 · Claim an account that another has bound; the holder is told."""
    here = wired()

    def work(tx: Connection) -> dict[str, Any]:
        proof = bind.Proof(**args)
        return _dispute(dispute.open_dispute(tx, here.vault, g.resident, proof, here.clock()))

    return answer_once(work)


@blp.serve(
    "GET",
    "/admin/binding-disputes",
    gives=BindingDisputesSchema,
    guard=admin("operator"),
    query=DisputesArgs,
)
def get_disputes(args: dict[str, Any]) -> Response:
    """绑定争议 · Disputes in a state, the oldest first; no person is named."""
    limit, after = args["limit"], place_of(args.get("cursor")) or ""
    if after and not _ID.fullmatch(after):
        raise bad_cursor()
    with one_statement(wired().engine) as tx:
        found = bindings.disputes(tx, args["state"], after, limit + 1)
    more = cursor_of(found[limit - 1].id) if len(found) > limit else None
    return answer(page([_dispute(one) for one in found[:limit]], more))


@blp.serve(
    "POST",
    "/admin/binding-disputes/<key>/<verdict>",
    gives=BindingDisputeSchema,
    guard=admin("operator"),
    body=DisputeReasonSchema,
    repeat=True,
)
def post_verdict(args: dict[str, Any], key: str, verdict: str) -> Response:
    """裁定绑定争议 · Move the account to who claims it, or keep it where it is."""
    here = wired()
    if not _ID.fullmatch(key) or verdict not in ("move", "keep"):
        raise Problem("NOT_FOUND", "there is no dispute of this id, or no such verdict")
    by = g.admin.name, args["reason"]

    def work(tx: Connection) -> dict[str, Any]:
        parts = (here.vault, here.registry, key, verdict == "move", by, here.clock())
        return _dispute(dispute.decide(tx, *parts))

    return answer_once(work)


def _binding(one: Binding) -> dict[str, Any]:
    return {
        "id": one.id,
        "provider": one.provider,
        "name": one.name,
        **stamp("bound", one.bound_at),
    }


def _dispute(one: Dispute) -> dict[str, Any]:
    return {
        "id": one.id,
        "provider": one.provider,
        "state": one.state,
        **stamp("opened", one.opened_at),
        "closed_at": instant(one.closed_at) if one.closed_at else None,
    }
