"""The answers residents get, as the OpenAPI document describes them. Amounts are strings."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from app.api.belonging import ProgressSchema


def _text(**metadata: str) -> ma.fields.String:
    return ma.fields.String(required=True, metadata=metadata)


def _maybe(**metadata: str) -> ma.fields.String:
    return ma.fields.String(required=True, allow_none=True, metadata=metadata)


def _list(schema: type[ma.Schema]) -> ma.fields.List[Any]:
    return ma.fields.List(ma.fields.Nested(schema), required=True)


class BucketSchema(ma.Schema):
    """Points that expire together; spent earliest first."""

    expires_on = _text(format="date", description="the last day they are valid, Asia/Shanghai")
    points = _text()


class VintageSchema(ma.Schema):
    """Carbon avoided in one calendar year."""

    year = _text()
    reduction_mg = _text(description="milligrams of CO2e")


class BalancesSchema(ma.Schema):
    """What a resident holds. Debt is what a correction took back after it was spent."""

    points = _text(description="free to spend")
    held_points = _text()
    debt_points = _text()
    buckets = _list(BucketSchema)
    next_expiry = ma.fields.Nested(BucketSchema, required=True, allow_none=True)
    reduction_mg = _text(description="milligrams of CO2e, all years")
    vintages = _list(VintageSchema)


class LineSchema(ma.Schema):
    """One entry. Amounts are what the wallet gained, negative when it lost."""

    entry_id = _text()
    kind = _text()
    title_zh = _text()
    scenario = _maybe()
    recorded_at = _text(format="date-time")
    recorded_date = _text(format="date")
    points = _text()
    reduction_mg = _text()
    sealed = ma.fields.Boolean(required=True)
    waiting_points = ma.fields.String(metadata={"description": "earned, waiting for a budget"})
    withheld_points = ma.fields.String(metadata={"description": "above a cap, not given"})
    concerns_entry_id = ma.fields.String(
        metadata={"description": "the entry that this settles, reverses, redeems or gives back"}
    )
    merchant = ma.fields.String(metadata={"description": "where points were held or spent"})
    out_request_no = ma.fields.String(metadata={"description": "a charge's, by its merchant"})
    order = ma.fields.String(metadata={"description": "the order that points were for"})
    reward_zh = ma.fields.String(metadata={"description": "what was ordered"})


class AreaCarbonSchema(ma.Schema):
    """Carbon of one of the seven areas."""

    area = _text()
    reduction_mg = _text(description="milligrams of CO2e, negative if more was taken back")


class DayCarbonSchema(ma.Schema):
    """What was recorded today; areas of which nothing was are left out."""

    date = _text(format="date")
    reduction_mg = _text()
    areas = _list(AreaCarbonSchema)


class MonthCarbonSchema(ma.Schema):
    """What was recorded this month; areas of which nothing was are left out."""

    month = _text(example="2026-11")
    reduction_mg = _text()
    areas = _list(AreaCarbonSchema)


class ExpiringSchema(ma.Schema):
    """Points that will soon be no longer valid."""

    points = _text()
    first_on = _maybe(format="date", description="the first of their last days")
    within_days = ma.fields.Integer(required=True)


class ArrivedSchema(ma.Schema):
    """What was written since the cursor."""

    entries = ma.fields.Integer(required=True)
    points = _text()
    reduction_mg = _text()
    more = ma.fields.Boolean(
        required=True,
        metadata={"description": "there may be more, from longer ago: see the statement"},
    )


class NextRewardSchema(ma.Schema):
    """The cheapest reward that one may have and lacks points for; else the dearest within reach."""

    id = _text()
    title_zh = _text()
    points = _text()
    missing_points = _text(description="0 if it can be ordered now")


class HomeSchema(ma.Schema):
    """The first screen in one call."""

    resident = _text()
    balances = ma.fields.Nested(BalancesSchema, required=True)
    expiring = ma.fields.Nested(ExpiringSchema, required=True)
    waiting_points = _text()
    today = ma.fields.Nested(DayCarbonSchema, required=True)
    month = ma.fields.Nested(MonthCarbonSchema, required=True)
    arrived = ma.fields.Nested(ArrivedSchema, required=True, allow_none=True)
    challenges = _list(ProgressSchema)
    next_reward = ma.fields.Nested(NextRewardSchema, required=True, allow_none=True)
    unread_messages = ma.fields.Integer(required=True)
    recent = _list(LineSchema)
    cursor = _text(description="send it as `since` next time")


class StatementSchema(ma.Schema):
    """A page of the statement, newest first."""

    items = _list(LineSchema)
    next_cursor = _maybe()
    has_more = ma.fields.Boolean(required=True)


class PostingSchema(ma.Schema):
    """One balanced line of an entry."""

    account = _text()
    asset = _text()
    bucket = _text(description="last valid day of points, year of carbon, or empty")
    amount = _text()


class InputSchema(ma.Schema):
    """A quantity that was reported."""

    title_zh = _text()
    title_en = _text()
    value = _text()
    unit = _text()


class CoefficientSchema(InputSchema):
    """A published number, with where it comes from."""

    source = _text()
    url = _text()
    year = ma.fields.Integer(required=True, metadata={"description": "0 when not given"})
    confidence = _text(description="A (primary text) to C (one weak page)")


class UsedSchema(ma.Schema):
    """What was claimed of a scenario in a cap's period before the act."""

    acts = _text()
    reduction_mg = _text()
    points = _text()


class CapSchema(ma.Schema):
    """What earns points at most in a day or month."""

    per = _text()
    of = _text()
    limit = ma.fields.Integer(required=True)
    source = _text()
    applied = ma.fields.Boolean(
        required=True, metadata={"description": "this cap decided how many points were withheld"}
    )
    used_before = ma.fields.Nested(
        UsedSchema, metadata={"description": "only where points were withheld"}
    )


class CalculationSchema(ma.Schema):
    """From what was done to grams and points, reckoned again at this moment."""

    provider = _text()
    activity_id = _text()
    occurred_at = _text(format="date-time")
    occurred_date = _text(format="date")
    scenario = _text()
    version = ma.fields.Integer(required=True)
    digest = _text()
    inputs = _list(InputSchema)
    coefficients = _list(CoefficientSchema)
    formula_zh = _text()
    formula_en = _text()
    arithmetic = _text()
    reduction_mg = _text()
    reduction_g = _text()
    points_per_kg = ma.fields.Integer(required=True)
    points_before_caps = _text()
    caps = _list(CapSchema)


class EntrySchema(LineSchema):
    """One entry in full."""

    reason = _maybe(description="why points are fewer: CAP_REACHED or WAITING_FOR_BUDGET")
    waiting = _maybe(description="what became of points that waited: waiting, paid or lapsed")
    settled_by_entry_id = _maybe(description="the entry that paid what waited")
    reversed_by_entry_id = _maybe(description="the entry that took this one back")
    postings = _list(PostingSchema)
    calculation = ma.fields.Nested(CalculationSchema, required=True, allow_none=True)


class OpeningSchema(ma.Schema):
    """commitment = SHA-256(salt followed by the opening's UTF-8 bytes), both in hex."""

    entry_id = _text()
    commitment = _text()
    salt = _text()
    opening = _text(description="RFC 8785 JSON")


class RejectionSchema(ma.Schema):
    """One activity that was refused."""

    recorded_at = _text(format="date-time")
    recorded_date = _text(format="date")
    provider = _text()
    activity_id = _text()
    scenario = _maybe(description="null if there is none of the name that was reported")
    scenario_zh = _maybe(description="its title")
    code = _text()
    title_zh = _text()
    reason_zh = _text(description="what happened and what can be done")
    detail = _text()


class RejectionsSchema(ma.Schema):
    """A page of refusals, newest first."""

    items = _list(RejectionSchema)
    next_cursor = _maybe()
    has_more = ma.fields.Boolean(required=True)
