"""How rewards are written by merchants, and how merchants, operators and residents read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import marshmallow as ma

from app.api.partner_forms import district
from app.api.wire import Pattern, line, stamp
from app.errors import PROBLEMS
from app.flows.join import DISTRICTS
from app.flows.reward.choose import Choice
from app.flows.reward.terms import WhyNot
from app.store.rewards import CODES, KINDS, STATES, Offer, Reward

_TITLE = line(60)
_POINTS = Pattern("^[1-9][0-9]{0,8}$", error="must be 1 to 999999999, as text")
_COUNT = Pattern("^(0|[1-9][0-9]{0,8})$", error="must be 0 to 999999999, as text")
_GRAMS = Pattern("^(0|[1-9][0-9]{0,15})$", error="must be milligrams, at most 16 digits, as text")
_CODE = Pattern("^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$", error="must be a code of one of your stores")

_MOMENT = ma.validate.Range(
    datetime(2020, 1, 1, tzinfo=UTC),
    datetime(2100, 1, 1, tzinfo=UTC),
    error="must lie in the years 2020 to 2099",
)


def _text(**metadata: Any) -> ma.fields.String:
    return ma.fields.String(required=True, metadata=metadata)


def _maybe(**metadata: Any) -> ma.fields.String:
    return ma.fields.String(required=True, allow_none=True, metadata=metadata)


def _bound(most: int, description: str) -> ma.fields.Integer:
    return ma.fields.Integer(
        strict=True,
        load_default=None,
        allow_none=True,
        validate=ma.validate.Range(1, most),
        metadata={"description": description},
    )


class TermsSchema(ma.Schema):
    """The terms of a reward: once it is open they are a promise."""

    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(KINDS))
    codes = ma.fields.String(
        load_default="generated",
        validate=ma.validate.OneOf(CODES),
        metadata={"description": "made here; a pool of your own; none, for a donation and only it"},
    )
    title_zh = ma.fields.String(required=True, validate=_TITLE)
    title_en = ma.fields.String(required=True, validate=_TITLE)
    text_zh = ma.fields.String(required=True, validate=ma.validate.Length(1, 2000))
    project = ma.fields.String(
        load_default="",
        validate=ma.validate.Length(0, 60),
        metadata={"description": "of a donation, and only of it: the public project it goes to"},
    )
    points = ma.fields.String(
        required=True, validate=_POINTS, metadata={"description": "the price of one piece"}
    )
    per_person = _bound(100_000, "pieces one resident may have in all; null: any number")
    per_day = _bound(1_000_000_000, "pieces sold a day in all; null: any number")
    valid_days = ma.fields.Integer(
        strict=True,
        required=True,
        validate=ma.validate.Range(1, 3650),
        metadata={"description": "days a voucher may be used after the day it is issued"},
    )
    unused = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(["refund", "lapse"]),
        metadata={"description": "what becomes of an unused voucher: points go back, or not"},
    )
    opens_at = ma.fields.AwareDateTime(required=True, format="iso", validate=_MOMENT)
    closes_at = ma.fields.AwareDateTime(required=True, format="iso", validate=_MOMENT)
    districts = ma.fields.List(
        district(),
        load_default=None,
        allow_none=True,
        validate=ma.validate.Length(1, len(DISTRICTS)),
        metadata={"description": "only for residents of these; null: for all"},
    )
    from_14 = ma.fields.Boolean(
        load_default=False, truthy={True}, falsy={False}, metadata={"description": "not under 14"}
    )
    min_reduction_mg = ma.fields.String(
        load_default="0",
        validate=_GRAMS,
        metadata={"description": "carbon a resident must have avoided so far"},
    )
    store = ma.fields.String(
        load_default=None,
        allow_none=True,
        validate=_CODE,
        metadata={"description": "where alone it is used; goods are picked up there"},
    )


class WrittenRewardSchema(TermsSchema):
    """A reward as a merchant writes it."""

    stock = ma.fields.String(
        load_default=None,
        allow_none=True,
        validate=_COUNT,
        metadata={
            "description": "pieces in all; a pool's are its codes, a donation may have no end"
        },
    )

    @ma.validates_schema
    def fits(self, data: dict[str, Any], **_: Any) -> None:
        """Terms belong to their kind."""
        donation = data["kind"] == "donation"
        wrong: dict[str, list[str]] = {}
        if donation != (data["codes"] == "none"):
            wrong["codes"] = ["must be none for a donation, and for nothing else"]
        if donation != bool(data["project"]):
            wrong["project"] = ["must name the public project of a donation, and of nothing else"]
        if data["kind"] == "goods" and data["store"] is None:
            wrong["store"] = ["must say where goods are picked up"]
        if donation and data["store"] is not None:
            wrong["store"] = ["a donation is not picked up"]
        if data["codes"] == "generated" and data["stock"] is None:
            wrong["stock"] = ["must say how many pieces there are"]
        if data["codes"] == "pool" and data["stock"] is not None:
            wrong["stock"] = ["leave it out: each code that is uploaded is a piece"]
        if data["closes_at"] <= data["opens_at"]:
            wrong["closes_at"] = ["must lie after opens_at"]
        if wrong:
            raise ma.ValidationError(wrong)


class MerchantFaceSchema(ma.Schema):
    """Whose a reward is."""

    code = _text()
    name = _text()


class StoreFaceSchema(ma.Schema):
    """Where alone a reward is used."""

    code = _text()
    name = _text()
    address = _text()


class RewardSchema(TermsSchema):
    """A reward as its merchant and operators read it. `revision` is its ETag."""

    id = _text()
    code = _text(description="the merchant's own name for it")
    merchant = ma.fields.Nested(MerchantFaceSchema, required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    revision = ma.fields.Integer(required=True)
    made_at = _text(format="date-time")
    made_date = _text(format="date")
    remaining = _maybe(description="pieces left; null: there is no end to them")
    sold = _text(description="pieces ordered; those of released orders and of voids are not in it")
    sold_today = _text(description="of a reward with per_day; 0 for others")


class RewardsSchema(ma.Schema):
    """A page of rewards, newest first."""

    items = ma.fields.List(ma.fields.Nested(RewardSchema), required=True)
    next_cursor = _maybe()
    has_more = ma.fields.Boolean(required=True)


class WhyNotSchema(ma.Schema):
    """One reason why a reward cannot be ordered now."""

    code = _text()
    title_zh = _text()
    detail = _text()


class OfferSchema(ma.Schema):
    """A reward in a list."""

    id = _text()
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(KINDS))
    title_zh = _text()
    title_en = _text()
    points = _text(description="the price of one piece")
    missing_points = _text(description="what you still lack for one piece; 0 if nothing")
    remaining = _maybe(description="pieces left; null: there is no end to them")
    merchant = ma.fields.Nested(MerchantFaceSchema, required=True)
    closes_at = _text(format="date-time")
    closes_date = _text(format="date")
    why_not = ma.fields.List(
        ma.fields.Nested(WhyNotSchema),
        required=True,
        metadata={"description": "empty: you can order one now"},
    )


class OffersSchema(ma.Schema):
    """A page of rewards by rising price."""

    items = ma.fields.List(ma.fields.Nested(OfferSchema), required=True)
    next_cursor = _maybe()
    has_more = ma.fields.Boolean(required=True)


class FullOfferSchema(OfferSchema):
    """A reward with all its terms."""

    text_zh = _text()
    project = _text(description="of a donation: where it goes")
    per_person = ma.fields.Integer(required=True, allow_none=True)
    per_day = ma.fields.Integer(required=True, allow_none=True)
    valid_days = ma.fields.Integer(required=True)
    unused = _text(description="of an unused voucher: refund (points go back) or lapse")
    opens_at = _text(format="date-time")
    opens_date = _text(format="date")
    districts = ma.fields.List(ma.fields.String(), required=True, allow_none=True)
    from_14 = ma.fields.Boolean(required=True)
    min_reduction_mg = _text()
    store = ma.fields.Nested(StoreFaceSchema, required=True, allow_none=True)


def terms_of(body: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
    """A written reward as flows know it: its terms, and pieces in stock (None: no end to them)."""
    terms = {name: body[name] for name in TermsSchema._declared_fields}
    for name in ("points", "min_reduction_mg"):
        terms[name] = int(terms[name])
    return terms, None if body["stock"] is None else int(body["stock"])


def shown(offer: Offer) -> dict[str, Any]:
    """A reward as RewardSchema describes it."""
    reward = offer.reward
    return {
        **_terms(reward),
        "id": reward.id,
        "code": reward.code,
        "codes": reward.codes,
        "store": offer.store_code,
        "opens_at": stamp("opens", reward.opens_at)["opens_at"],
        "closes_at": stamp("closes", reward.closes_at)["closes_at"],
        "merchant": _merchant(offer),
        "state": reward.state,
        "revision": reward.revision,
        **stamp("made", reward.made_at),
        "remaining": _remaining(offer),
        "sold": str(offer.sold),
        "sold_today": str(offer.sold_today),
    }


def listed(choice: Choice, points: int) -> dict[str, Any]:
    """A reward as OfferSchema describes it, to a resident with so many points."""
    offer, reward = choice.offer, choice.offer.reward
    return {
        "id": reward.id,
        "kind": reward.kind,
        "title_zh": reward.title_zh,
        "title_en": reward.title_en,
        "points": str(reward.points),
        "missing_points": str(max(0, reward.points - points)),
        "remaining": _remaining(offer),
        "merchant": _merchant(offer),
        **stamp("closes", reward.closes_at),
        "why_not": [_reason(one) for one in choice.against],
    }


def full(choice: Choice, points: int) -> dict[str, Any]:
    """A reward as FullOfferSchema describes it."""
    offer, reward = choice.offer, choice.offer.reward
    store = None
    if reward.store is not None:
        store = {
            "code": offer.store_code,
            "name": offer.store_name,
            "address": offer.store_address,
        }
    return {
        **_terms(reward),
        **listed(choice, points),
        **stamp("opens", reward.opens_at),
        "store": store,
    }


def _terms(reward: Reward) -> dict[str, Any]:
    return {
        "kind": reward.kind,
        "title_zh": reward.title_zh,
        "title_en": reward.title_en,
        "text_zh": reward.text_zh,
        "project": reward.project,
        "points": str(reward.points),
        "per_person": reward.per_person,
        "per_day": reward.per_day,
        "valid_days": reward.valid_days,
        "unused": reward.unused,
        "districts": reward.districts,
        "from_14": reward.from_14,
        "min_reduction_mg": str(reward.min_reduction_mg),
    }


def _merchant(offer: Offer) -> dict[str, str]:
    return {"code": offer.merchant_code, "name": offer.merchant_name}


def _remaining(offer: Offer) -> str | None:
    return None if offer.remaining is None else str(offer.remaining)


def _reason(one: WhyNot) -> dict[str, str]:
    return {"code": one.code, "title_zh": PROBLEMS[one.code][1], "detail": one.detail}
