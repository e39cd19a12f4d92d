"""For reviewers: what residents report themselves, and days of steps that nobody can believe."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.reports import moment_cursor, moment_of
from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    answer_once,
    calendar_day,
    page,
    stamp,
)
from app.auth import admin
from app.errors import Problem
from app.flows.report import accept_report, read_claim, read_photo, refuse_report, title_of
from app.flows.steps import accept_day, refuse_day
from app.flows.trail import act
from app.store import reports, steps
from app.wiring import wired

_MONTH = 100  # of a day YYYYMMDD
_FIRST = (datetime.min.replace(tzinfo=UTC), b"")

blp = Blueprint(
    "reviews",
    __name__,
    url_prefix="/api/v1/admin",
    description="审核：居民自报的行为、存疑的步数。Reviewers decide what residents report.",
)


class ReviewArgs(PageArgs):
    """Which reports."""

    state = ma.fields.String(load_default="waiting", validate=ma.validate.OneOf(reports.STATES))


class RefusalSchema(ma.Schema):
    """Why it is refused; the resident reads it."""

    reason = ma.fields.String(
        required=True,
        validate=[
            ma.validate.Length(1, 500),
            ma.validate.Predicate("isprintable", error="must hold printable characters only"),
        ],
    )


class CountedSchema(ma.Schema):
    """How many of the day's steps count in all, those credited before among them."""

    steps = ma.fields.String(
        required=True,
        validate=Pattern("^[1-9][0-9]{0,7}$", error="must be a whole number, as text"),
    )


class ReviewSchema(ma.Schema):
    """A report as a reviewer sees it: what was stated and shown, and not by whom."""

    id = ma.fields.String(required=True)
    scenario = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    occurred_at = ma.fields.String(required=True)
    quantities = ma.fields.Dict(required=True)
    code = ma.fields.String(required=True)
    photo = ma.fields.Boolean(required=True, metadata={"description": "whether there is a picture"})
    state = ma.fields.String(required=True)
    reported_at = ma.fields.String(required=True)
    reported_date = ma.fields.String(required=True)
    reason = ma.fields.String(required=True, allow_none=True)


class ReviewsSchema(ma.Schema):
    """A page of reports, those that were made first before the others."""

    items = ma.fields.List(ma.fields.Nested(ReviewSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class HeldDaySchema(ma.Schema):
    """A day whose steps wait for a reviewer, beside the same person's other days."""

    id = ma.fields.String(required=True)
    date = ma.fields.String(required=True)
    steps = ma.fields.String(required=True)
    settled_steps = ma.fields.String(
        required=True, metadata={"description": "of these, credited or refused before"}
    )
    held_at = ma.fields.String(required=True)
    held_date = ma.fields.String(required=True)
    other_days = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.String(), required=True)


class HeldDaysSchema(ma.Schema):
    """A page of days that wait, those that wait longest first."""

    items = ma.fields.List(ma.fields.Nested(HeldDaySchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class DecidedSchema(ma.Schema):
    """What became of it: `outcome` as a provider gets it; rejected if the rules refused what a
    reviewer had accepted, or if a reviewer refused."""

    outcome = ma.fields.String(required=True)
    code = ma.fields.String()
    detail = ma.fields.String()
    entry_id = ma.fields.String()
    points = ma.fields.String()
    reduction_mg = ma.fields.String()


@blp.serve("GET", "/reports", gives=ReviewsSchema, guard=admin("reviewer"), query=ReviewArgs)
def get_reports(args: dict[str, Any]) -> Response:
    """待审申报 · What residents reported themselves, oldest first."""
    here, limit = wired(), args["limit"]
    with here.engine.connect() as tx:
        catalogue = here.registry.current(tx)
        after = moment_of(args.get("cursor")) or _FIRST
        found = reports.in_state(tx, args["state"], after, limit + 1)
    items = []
    for one in found[:limit]:
        claim = read_claim(here.vault, one)
        items.append(
            {
                "id": one.id.hex(),
                "title_zh": title_of(catalogue, one),
                **claim._asdict(),
                "photo": one.pictured,
                "state": one.state,
                **stamp("reported", one.reported_at),
                "reason": one.reason,
            }
        )
    last = found[limit - 1] if len(found) > limit else None
    return answer(page(items, moment_cursor(last.reported_at, last.id) if last else None))


@blp.serve(
    "GET",
    "/reports/<report>/photo",
    gives={"type": "string", "format": "binary"},
    media="image/jpeg",
    guard=admin("reviewer"),
)
def get_photo(report: str) -> Response:
    """申报照片 · The picture, without anything that came with it."""
    here = wired()
    with here.engine.connect() as tx:
        made = Response(read_photo(tx, here.vault, _id(report)), content_type="image/jpeg")
    made.headers["Cache-Control"] = "no-store"
    return made


@blp.serve(
    "POST", "/reports/<report>/accept", gives=DecidedSchema, guard=admin("reviewer"), repeat=True
)
def post_report_accept(report: str) -> Response:
    """通过申报 · Credit the act, as the rules have it."""
    here, who, named = wired(), g.admin.name, _id(report)

    def work(tx: Connection) -> dict[str, Any]:
        catalogue, now = here.registry.current(tx), here.clock()
        outcome = accept_report(tx, here.vault, catalogue, named, who, now)
        act(tx, who, "report.accepted", report, _noted(outcome), now)
        return _decided(outcome)

    return answer_once(work)


@blp.serve(
    "POST",
    "/reports/<report>/refuse",
    gives=DecidedSchema,
    guard=admin("reviewer"),
    body=RefusalSchema,
    repeat=True,
)
def post_report_refuse(args: dict[str, Any], report: str) -> Response:
    """不通过申报 · Refuse the act, for a reason that the resident is told."""
    here, who, named = wired(), g.admin.name, _id(report)

    def work(tx: Connection) -> dict[str, Any]:
        catalogue, now = here.registry.current(tx), here.clock()
        refuse_report(tx, here.vault, catalogue, named, who, args["reason"], now)
        act(tx, who, "report.refused", report, {}, now)
        return {"outcome": "rejected", "code": "REPORT_REFUSED", "detail": args["reason"]}

    return answer_once(work)


@blp.serve("GET", "/step-days", gives=HeldDaysSchema, guard=admin("reviewer"), query=PageArgs)
def get_step_days(args: dict[str, Any]) -> Response:
    """存疑步数 · Days with more steps than anybody walks, or that grew faster than anybody runs."""
    here, limit = wired(), args["limit"]
    with here.engine.connect() as tx:
        found = steps.held(tx, moment_of(args.get("cursor")) or _FIRST, limit + 1)
        items = [
            _held(one, steps.known(tx, one.resident, one.day.day - _MONTH)) for one in found[:limit]
        ]
    last = found[limit - 1] if len(found) > limit else None
    more = moment_cursor(last.at, last.id) if last else None
    return answer(page(items, more))


@blp.serve(
    "POST",
    "/step-days/<held>/accept",
    gives=DecidedSchema,
    guard=admin("reviewer"),
    body=CountedSchema,
    repeat=True,
)
def post_step_day_accept(args: dict[str, Any], held: str) -> Response:
    """通过步数 · Let a held day count, with as many of its steps as are to be believed."""
    here, who, named, counted = wired(), g.admin.name, _id(held), int(args["steps"])

    def work(tx: Connection) -> dict[str, Any]:
        catalogue, now = here.registry.current(tx), here.clock()
        outcome = accept_day(tx, here.vault, catalogue, named, counted, now)
        act(tx, who, "step_day.accepted", held, {"steps": counted, **_noted(outcome)}, now)
        return _decided(outcome)

    return answer_once(work)


@blp.serve(
    "POST",
    "/step-days/<held>/refuse",
    gives=DecidedSchema,
    guard=admin("reviewer"),
    body=RefusalSchema,
    repeat=True,
)
def post_step_day_refuse(args: dict[str, Any], held: str) -> Response:
    """不通过步数 · Refuse what was not yet credited of a held day."""
    here, who, named = wired(), g.admin.name, _id(held)

    def work(tx: Connection) -> dict[str, Any]:
        catalogue, now = here.registry.current(tx), here.clock()
        refuse_day(tx, here.vault, catalogue, named, args["reason"], now)
        act(tx, who, "step_day.refused", held, {}, now)
        return {"outcome": "rejected", "code": "STEPS_REFUSED", "detail": args["reason"]}

    return answer_once(work)


def _id(given: str) -> bytes:
    if not re.fullmatch(r"[0-9a-f]{32}", given):
        raise Problem("NOT_FOUND", "an id is 32 hex digits")
    return bytes.fromhex(given)


def _noted(outcome: dict[str, Any]) -> dict[str, Any]:
    """What the trail keeps of an outcome: nothing that leads to the resident."""
    return {name: outcome[name] for name in ("outcome", "code") if name in outcome}


def _decided(outcome: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if name in DecidedSchema().fields}


def _held(one: steps.Held, others: dict[int, steps.StepDay]) -> dict[str, Any]:
    day = one.day
    return {
        "id": one.id.hex(),
        "date": calendar_day(day.day),
        "steps": str(day.steps),
        "settled_steps": str(day.settled),
        **stamp("held", one.at),
        "other_days": {
            calendar_day(number): str(other.steps)
            for number, other in sorted(others.items())
            if number != day.day
        },
    }
