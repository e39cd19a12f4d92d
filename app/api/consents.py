"""For residents: which provider may report what of me."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.wire import Blueprint, Pattern, answer, stamp
from app.auth import resident
from app.flows.consent import Wish, decide, open_scenarios, text_digest
from app.flows.own import SOURCES, takes
from app.store import bindings, consents, providers
from app.store.consents import Consent
from app.store.db import transact
from app.wiring import wired
from scenarios import Version

_MOST = 500

blp = Blueprint(
    "consents",
    __name__,
    url_prefix="/api/v1/me",
    description="授权：逐个场景、逐个来源。Consents, one a scenario and provider.",
)

_provider = Pattern("^[a-z0-9][a-z0-9-]{1,30}$", error="must be a provider's code")


class ConsentSchema(ma.Schema):
    """A consent on record; `withdrawn_at` is null while it holds."""

    provider = ma.fields.String(required=True)
    scenario = ma.fields.String(required=True)
    text_digest = ma.fields.String(required=True)
    given_at = ma.fields.String(required=True)
    given_date = ma.fields.String(required=True)
    withdrawn_at = ma.fields.String(required=True, allow_none=True)
    withdrawn_date = ma.fields.String(required=True, allow_none=True)


class ConsentSourceSchema(ma.Schema):
    """One provider's state for one scenario."""

    provider = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    state = ma.fields.String(
        required=True, validate=ma.validate.OneOf(["none", "given", "withdrawn"])
    )
    text_changed = ma.fields.Boolean(
        required=True, metadata={"description": "it was given to another text than today's"}
    )


class ConsentOfferSchema(ma.Schema):
    """A scenario with the text to agree to."""

    scenario = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    text_zh = ma.fields.String(required=True)
    text_digest = ma.fields.String(required=True)
    sensitive = ma.fields.List(ma.fields.String(), required=True)
    providers = ma.fields.List(ma.fields.Nested(ConsentSourceSchema), required=True)


class ConsentOffersSchema(ma.Schema):
    """Everything that can be consented to, for the providers one is bound to and for what one
    brings oneself."""

    items = ma.fields.List(ma.fields.Nested(ConsentOfferSchema), required=True)


class OfferArgs(ma.Schema):
    """Only for one provider, bound or not yet."""

    provider = ma.fields.String(validate=_provider)


class ConsentWishSchema(ma.Schema):
    """One consent to give or withdraw. To withdraw, no text needs to be read."""

    provider = ma.fields.String(required=True, validate=_provider)
    scenario = ma.fields.String(required=True, validate=ma.validate.Length(1, 60))
    text_digest = ma.fields.String(
        load_default="", validate=Pattern("^([0-9a-f]{64})?$", error="must be 64 hex digits")
    )
    given = ma.fields.Boolean(required=True, truthy={True}, falsy={False})


class ConsentWishesSchema(ma.Schema):
    """Consents to give and withdraw, all or none."""

    consents = ma.fields.List(
        ma.fields.Nested(ConsentWishSchema), required=True, validate=ma.validate.Length(1, _MOST)
    )

    @ma.validates_schema
    def once(self, data: dict[str, Any], **_: Any) -> None:
        """One wish a scenario and provider."""
        named = [(one["provider"], one["scenario"]) for one in data.get("consents", ())]
        if len(set(named)) < len(named):
            raise ma.ValidationError("names a scenario and provider twice", "consents")


@blp.serve("GET", "/consents", gives=ConsentOffersSchema, guard=resident, query=OfferArgs)
def get_consents(args: dict[str, Any]) -> Response:
    """授权一览 · What I could consent to and what I have, with the texts."""
    here = wired()
    with here.engine.connect() as tx:
        versions = open_scenarios(here.registry.current(tx), here.clock())
        items = _offers(tx, versions, g.resident, args.get("provider"))
    return answer({"items": items})


@blp.serve("PUT", "/consents", gives=ConsentOffersSchema, guard=resident, body=ConsentWishesSchema)
def put_consents(args: dict[str, Any]) -> Response:
    """授权与撤回 · Give and withdraw consents; what is withdrawn stops at once."""
    here = wired()
    wishes = [Wish(**one) for one in args["consents"]]

    def work(tx: Connection) -> list[dict[str, Any]]:
        now = here.clock()
        decide(tx, here.vault, here.registry, g.resident, wishes, now)
        changed = {wish.scenario for wish in wishes}
        versions = open_scenarios(here.registry.current(tx), now)
        some = {name: one for name, one in versions.items() if name in changed}
        return _offers(tx, some, g.resident, None)

    return answer({"items": transact(here.engine, work)})


def consent_shown(one: Consent) -> dict[str, Any]:
    """A consent on record, for JSON."""
    ended: Mapping[str, str | None] = {"withdrawn_at": None, "withdrawn_date": None}
    if one.withdrawn_at is not None:
        ended = stamp("withdrawn", one.withdrawn_at)
    return {
        "provider": one.provider,
        "scenario": one.scenario,
        "text_digest": one.text_digest,
        **stamp("given", one.given_at),
        **ended,
    }


def _offers(
    tx: Connection, versions: Mapping[str, Version], who: str, only: str | None
) -> list[dict[str, Any]]:
    names, record = providers.names(tx), consents.of(tx, bytes.fromhex(who))
    known = {(one.provider, one.scenario): one for one in record}
    sources = {*SOURCES, *(bound.provider for bound in bindings.of(tx, who))}
    sources.update(code for code, _ in known)
    shown = sorted(sources if only is None else {only} & names.keys())
    return [
        {
            "scenario": scenario,
            "title_zh": version.title.zh,
            "text_zh": version.consent.zh,
            "text_digest": text_digest(version),
            "sensitive": list(version.sensitive),
            "providers": [
                {
                    "provider": code,
                    "name": names[code],
                    **_state(known.get((code, scenario)), version),
                }
                for code in shown
                if takes(code, version)
            ],
        }
        for scenario, version in versions.items()
    ]


def _state(known: Consent | None, version: Version) -> dict[str, Any]:
    if known is None or known.withdrawn_at is not None:
        return {"state": "withdrawn" if known else "none", "text_changed": False}
    return {"state": "given", "text_changed": known.text_digest != text_digest(version)}
