"""What editors send of a draft and what they are answered, as the OpenAPI document describes it."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from app.api.registry import DifferenceSchema
from app.api.wire import Day, PageArgs, Pattern
from app.flows.changeset import MAX_TITLE
from app.store.drafts import STATES

_MAX_EDITIONS = 100


def _words(longest: int) -> Pattern:
    return Pattern(
        rf"^[^\u0000-\u001f\u007f]{{1,{longest}}}$",
        error=f"must be 1 to {longest} characters on one line",
    )


class SourceSchema(ma.Schema):
    """Where a number comes from."""

    source = ma.fields.String(required=True)
    url = ma.fields.String(load_default="")
    tag = ma.fields.String(required=True, metadata={"description": "P, S, C, D or rec"})


class RateSchema(ma.Schema):
    """A new points rate; a draft that has one must hold an edition of every behaviour."""

    points_per_kg = ma.fields.Integer(strict=True, required=True)
    validity_months = ma.fields.Integer(strict=True, required=True)
    sources = ma.fields.List(ma.fields.Nested(SourceSchema), required=True)


_EDITIONS = {
    "description": (
        "whole editions as GET /scenarios/{id}/versions/{n} gives them, without format, number,"
        " effective_from and rate: those are filled in when the draft is approved"
    )
}


class WrittenSchema(ma.Schema):
    """What every draft says of itself."""

    title = ma.fields.String(required=True, validate=_words(MAX_TITLE))
    reason = ma.fields.String(required=True, validate=_words(1000))
    effective_from = Day(required=True)
    rate = ma.fields.Nested(RateSchema, allow_none=True, load_default=None)


class OpenSchema(WrittenSchema):
    """A draft to begin: copies of editions, new editions, or both."""

    scenarios = ma.fields.List(
        ma.fields.String(),
        load_default=[],
        validate=ma.validate.Length(0, _MAX_EDITIONS),
        metadata={"description": "ids whose editions are copied as they will stand by then"},
    )
    editions = ma.fields.List(
        ma.fields.Dict(),
        load_default=[],
        validate=ma.validate.Length(0, _MAX_EDITIONS),
        metadata=_EDITIONS,
    )

    @ma.validates_schema
    def something(self, data: dict[str, Any], **_: Any) -> None:
        """A draft of nothing is no draft."""
        if not data.get("scenarios") and not data.get("editions"):
            raise ma.ValidationError("name at least one scenario or edition", "scenarios")


class ContentSchema(WrittenSchema):
    """The whole content of a draft."""

    editions = ma.fields.List(
        ma.fields.Dict(),
        required=True,
        validate=ma.validate.Length(1, _MAX_EDITIONS),
        metadata=_EDITIONS,
    )


class ChoiceSchema(ma.Schema):
    """Another value of a coefficient. A listed alternative brings its own source; any other value
    needs one."""

    value = ma.fields.String(
        required=True, validate=Pattern(r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?$")
    )
    source = ma.fields.String(load_default=None)
    url = ma.fields.String(load_default=None)
    tag = ma.fields.String(load_default=None)
    year = ma.fields.Integer(strict=True, load_default=None)
    confidence = ma.fields.String(load_default=None)


class ReasonSchema(ma.Schema):
    """Why."""

    reason = ma.fields.String(required=True, validate=_words(1000))


class UndoSchema(ReasonSchema):
    """Why, and from when."""

    effective_from = Day(required=True)


class DraftsArgs(PageArgs):
    """Which drafts."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))


class HeadSchema(ma.Schema):
    """A draft in a line. `revision` counts contents and is the ETag; `state` is where it stands."""

    id = ma.fields.String(required=True)
    revision = ma.fields.Integer(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    title = ma.fields.String(required=True)
    reason = ma.fields.String(required=True)
    effective_from = ma.fields.String(required=True, metadata={"format": "date"})
    scenarios = ma.fields.List(ma.fields.String(), required=True)
    author = ma.fields.String(required=True)
    created_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    created_date = ma.fields.String(required=True, metadata={"format": "date"})
    changed_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    changed_date = ma.fields.String(required=True, metadata={"format": "date"})
    submitted_at = ma.fields.String(metadata={"format": "date-time"})
    submitted_date = ma.fields.String(metadata={"format": "date"})
    decided_at = ma.fields.String(metadata={"format": "date-time"})
    decided_date = ma.fields.String(metadata={"format": "date"})
    reviewer = ma.fields.String(required=True, allow_none=True)
    decision = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "why it was decided so"}
    )


class ComparedSchema(ma.Schema):
    """What one edition changes."""

    scenario = ma.fields.String(required=True)
    number = ma.fields.Integer(required=True, metadata={"description": "it has, or would have"})
    replaces = ma.fields.Integer(required=True, allow_none=True)
    digest = ma.fields.String(required=True)
    entry_id = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "that published it"}
    )
    changes = ma.fields.List(ma.fields.Nested(DifferenceSchema), required=True)


class FindingSchema(ma.Schema):
    """Something that forbids submitting or approving the draft today."""

    code = ma.fields.String(required=True)
    field = ma.fields.String(required=True)
    message = ma.fields.String(required=True)


class TestedSchema(ma.Schema):
    """A backtest of exactly this revision."""

    id = ma.fields.String(required=True)
    state = ma.fields.String(required=True)


class DraftSchema(HeadSchema):
    """A draft in full, held against the registry as it stands."""

    rate = ma.fields.Nested(RateSchema, required=True, allow_none=True)
    editions = ma.fields.List(ma.fields.Dict(), required=True)
    compared = ma.fields.List(ma.fields.Nested(ComparedSchema), required=True)
    findings = ma.fields.List(ma.fields.Nested(FindingSchema), required=True)
    backtest = ma.fields.Nested(TestedSchema, required=True, allow_none=True)


class DraftsSchema(ma.Schema):
    """A page of drafts, last changed first."""

    items = ma.fields.List(ma.fields.Nested(HeadSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)
