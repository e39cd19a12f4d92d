"""What residents and reviewers send of an appeal and are answered, as the documents describe it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import marshmallow as ma

from app.api.wire import NearDay, PageArgs, Pattern, instant, stamp
from app.flows.appeal.case import Case
from app.store.appeals import STATES, Appeal

_ABOUT = {  # what an appeal is about: the fields that say which, all of them needed
    "entry": ("entry_id",),
    "missing": ("scenario", "occurred_at", "quantities"),
    "rejection": ("provider", "activity_id"),
    "correction": (),
}
_OPTIONAL = {"entry": ("points",), "missing": ("provider",)}
_DETAILS = sorted({name for names in (*_ABOUT.values(), *_OPTIONAL.values()) for name in names})
_TEXT = ma.validate.Length(1, 2000)


class AppealTextSchema(ma.Schema):
    """What is asked or answered."""

    text = ma.fields.String(required=True, validate=_TEXT)


class AppealReasonSchema(ma.Schema):
    """Why an appeal is refused; its resident reads it."""

    reason = ma.fields.String(required=True, validate=_TEXT)


def _points(**more: Any) -> ma.fields.String:
    return ma.fields.String(
        validate=Pattern(
            "^(0|[1-9][0-9]{0,6})$", error="must be a whole number below 10000000, as text"
        ),
        **more,
    )


class GrantSchema(AppealReasonSchema):
    """What an appeal is granted, and why; its resident reads it. 0 is right if only words were."""

    points = _points(required=True)


class NewAppealSchema(ma.Schema):
    """An appeal: what it is about, which one of those, and what is wrong with it."""

    about = ma.fields.String(required=True, validate=ma.validate.OneOf(list(_ABOUT)))
    text = ma.fields.String(required=True, validate=_TEXT)
    entry_id = ma.fields.String(
        validate=Pattern("^[0-9a-f]{32}$", error="must be an entry's id"),
        metadata={"description": "of an entry"},
    )
    points = _points(metadata={"description": "of an entry: how many more it should have given"})
    scenario = ma.fields.String(
        validate=ma.validate.Length(1, 100), metadata={"description": "of a missing act"}
    )
    occurred_at = ma.fields.String(
        validate=ma.validate.Length(1, 40), metadata={"description": "of a missing act; RFC 3339"}
    )
    quantities = ma.fields.Dict(
        keys=ma.fields.String(validate=ma.validate.Length(1, 40)),
        values=ma.fields.String(validate=ma.validate.Length(1, 40)),
        validate=ma.validate.Length(0, 10),
        metadata={"description": "of a missing act, as providers write them"},
    )
    provider = ma.fields.String(
        validate=ma.validate.Length(1, 40),
        metadata={"description": "of a rejection; of a missing act, who should have reported it"},
    )
    activity_id = ma.fields.String(
        validate=ma.validate.Length(1, 64), metadata={"description": "of a rejection"}
    )

    @ma.validates_schema
    def which(self, data: dict[str, Any], **_: Any) -> None:
        """Each kind of appeal has the fields that say which, and no others."""
        about = data.get("about", "correction")
        taken = _ABOUT[about] + _OPTIONAL.get(about, ())
        wrong = {name: ["is needed"] for name in _ABOUT[about] if name not in data}
        wrong |= {
            name: [f"does not belong to an appeal about {about}"]
            for name in _DETAILS
            if name in data and name not in taken
        }
        if wrong:
            raise ma.ValidationError(wrong)


class SaidSchema(ma.Schema):
    """A question, or its answer."""

    by = ma.fields.String(required=True, validate=ma.validate.OneOf(["resident", "reviewer"]))
    said_at = ma.fields.String(required=True)
    text = ma.fields.String(required=True)


class AppealHeadSchema(ma.Schema):
    """An appeal, without its words. `overdue`: it should have been answered, and a person must."""

    id = ma.fields.String(required=True)
    about = ma.fields.String(required=True, validate=ma.validate.OneOf(list(_ABOUT)))
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    overdue = ma.fields.Boolean(required=True)
    granted_points = ma.fields.String(required=True)
    opened_at = ma.fields.String(required=True)
    opened_date = ma.fields.String(required=True)
    due_at = ma.fields.String(required=True)
    due_date = ma.fields.String(required=True)
    asked_at = ma.fields.String()
    asked_date = ma.fields.String()
    decided_at = ma.fields.String()
    decided_date = ma.fields.String()


class AppealSchema(AppealHeadSchema):
    """An appeal with all that was said."""

    text = ma.fields.String(required=True)
    claimed_points = ma.fields.String(required=True)
    entry_id = ma.fields.String(required=True, allow_none=True)
    provider = ma.fields.String(required=True, allow_none=True)
    activity_id = ma.fields.String(required=True, allow_none=True)
    scenario = ma.fields.String(required=True, allow_none=True)
    occurred_at = ma.fields.String(required=True, allow_none=True)
    quantities = ma.fields.Dict(required=True)
    said = ma.fields.List(ma.fields.Nested(SaidSchema), required=True)
    reason = ma.fields.String(required=True, allow_none=True)


class AppealsSchema(ma.Schema):
    """A page of appeals."""

    items = ma.fields.List(ma.fields.Nested(AppealHeadSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class AppealsArgs(PageArgs):
    """Which appeals: in which state, due before the end of which day."""

    state = ma.fields.String(load_default="open", validate=ma.validate.OneOf(STATES))
    due_before = NearDay()


class AppealFiguresSchema(ma.Schema):
    """All appeals in numbers; those of people who left are not in them."""

    opened = ma.fields.String(required=True)
    open = ma.fields.String(required=True)
    overdue = ma.fields.String(required=True)
    granted = ma.fields.String(required=True)
    granted_in_time = ma.fields.String(
        required=True, metadata={"description": "by themselves, because nobody answered in time"}
    )
    refused = ma.fields.String(required=True)
    withdrawn = ma.fields.String(required=True)
    median_hours = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "from opening to decision; null until one was decided"},
    )


def head(one: Appeal, now: datetime) -> dict[str, Any]:
    """An appeal as AppealHeadSchema describes it."""
    made: dict[str, Any] = {
        "id": one.id,
        "about": one.about,
        "state": one.state,
        "overdue": one.state == "open" and one.due_at < now,
        "granted_points": str(one.points),
        **stamp("opened", one.opened_at),
        **stamp("due", one.due_at),
    }
    for name, at in (("asked", one.asked_at), ("decided", one.decided_at)):
        made |= stamp(name, at) if at else {}
    return made


def whole(one: Appeal, case: Case, now: datetime) -> dict[str, Any]:
    """An appeal as AppealSchema describes it."""
    return head(one, now) | {
        "text": case.text,
        "claimed_points": str(case.points),
        "entry_id": case.entry_id,
        "provider": case.provider,
        "activity_id": case.activity_id,
        "scenario": case.scenario,
        "occurred_at": case.occurred_at,
        "quantities": dict(case.quantities),
        "said": [
            {
                "by": said.by,
                "said_at": instant(datetime.fromisoformat(said.at)),
                "text": said.text,
            }
            for said in case.said
        ],
        "reason": case.reason,
    }
