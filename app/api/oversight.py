"""For operators and auditors: budgets, what shadow rules would refuse, and the audit trail."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, time, timedelta
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.public import BudgetsSchema, budgets_shown
from app.api.wire import (
    Blueprint,
    NearDay,
    PageArgs,
    Pattern,
    answer,
    answer_once,
    bad_cursor,
    cursor_of,
    line,
    page,
    place_of,
    stamp,
)
from app.auth import admin
from app.config import CITY_ZONE
from app.flows.budget import add_points
from app.flows.trail import act, export_trail
from app.store import shadow, trail
from app.wiring import wired
from ledger.encoding import MAX_INT

_DEFAULT_DAYS = 30

blp = Blueprint(
    "oversight",
    __name__,
    url_prefix="/api/v1/admin",
    description="监督：预算、影子规则、审计记录。Budgets, shadow rules, and the audit trail.",
)


class SpanArgs(ma.Schema):
    """From the first day to the last, both included."""

    since = NearDay(data_key="from")
    until = NearDay(data_key="to")


class TrailArgs(SpanArgs, PageArgs):
    """Which acts: of whom, of what kind, when."""

    actor = ma.fields.String(validate=ma.validate.Length(1, 64))
    action = ma.fields.String(validate=ma.validate.Length(1, 64))


def _printable(value: str) -> None:
    if not value.isprintable():  # as the ledger asks of every text
        raise ma.ValidationError("must hold printable characters only")


class FundSchema(ma.Schema):
    """Points for a budget, and the decision that grants them."""

    points = ma.fields.String(
        required=True,
        validate=Pattern("^[1-9][0-9]{0,14}$", error="must be a whole number, as text"),
    )
    reference = ma.fields.String(
        required=True,
        validate=[line(100), _printable],
        metadata={"description": "the decision's number; counts once"},
    )


class FundedSchema(ma.Schema):
    """The entry by which the points were granted; `again` if the reference had counted before."""

    entry_id = ma.fields.String(required=True)
    again = ma.fields.Boolean(required=True)


class ShadowSchema(ma.Schema):
    """What one rule in shadow mode would have refused."""

    scenario = ma.fields.String(required=True)
    number = ma.fields.Integer(required=True)
    rule = ma.fields.String(required=True)
    acts = ma.fields.String(required=True)
    reduction_mg = ma.fields.String(required=True)


class ShadowsSchema(ma.Schema):
    """Every rule that would have refused something in the time asked for."""

    items = ma.fields.List(ma.fields.Nested(ShadowSchema), required=True)


class ActSchema(ma.Schema):
    """What an administrator did, and the log's entry that commits to it."""

    entry_id = ma.fields.String(required=True)
    acted_at = ma.fields.String(required=True)
    acted_date = ma.fields.String(required=True)
    actor = ma.fields.String(required=True)
    action = ma.fields.String(required=True)
    target = ma.fields.String(required=True)
    detail = ma.fields.Dict(required=True)
    index = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "in the log; null until sealed"}
    )


class ActsSchema(ma.Schema):
    """A page of acts, newest first."""

    items = ma.fields.List(ma.fields.Nested(ActSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


@blp.serve("GET", "/budgets", gives=BudgetsSchema, guard=admin("operator"))
def get_budgets() -> Response:
    """预算 · What was funded, what was issued, what is left, what waits."""
    return answer({"items": budgets_shown()})


@blp.serve(
    "POST",
    "/budgets/<scope>/fund",
    gives=FundedSchema,
    guard=admin("operator"),
    body=FundSchema,
    repeat=True,
)
def post_fund(args: dict[str, Any], scope: str) -> Response:
    """拨付积分 · Add points to a budget; those who wait are paid by the worker, in order."""
    here, who = wired(), g.admin.name
    points, reference = int(args["points"]), args["reference"]

    def work(tx: Connection) -> dict[str, Any]:
        now = here.clock()
        entry, new = add_points(tx, here.vault, scope, points, reference, now)
        detail = {"entry_id": entry.id, "points": points, "reference": reference}
        act(tx, who, "budget.funded" if new else "budget.funded_before", scope, detail, now)
        return {"entry_id": entry.id, "again": not new}

    return answer_once(work)


@blp.serve(
    "GET",
    "/shadow",
    gives=ShadowsSchema,
    guard=admin("editor", "reviewer", "operator"),
    query=SpanArgs,
)
def get_shadow(args: dict[str, Any]) -> Response:
    """影子规则 · What each rule in shadow mode would have refused, in the last 30 days if no days
    are given. The acts were credited all the same."""
    here = wired()
    last = args.get("until") or here.clock().astimezone(CITY_ZONE).date()
    first = args.get("since") or last - timedelta(days=_DEFAULT_DAYS - 1)
    with here.engine.connect() as tx:
        found = shadow.report(tx, _begin(first), _end(last))
    return answer(
        {
            "items": [
                {**one._asdict(), "acts": str(one.acts), "reduction_mg": str(one.reduction_mg)}
                for one in found
            ]
        }
    )


@blp.serve("GET", "/trail", gives=ActsSchema, guard=admin("auditor"), query=TrailArgs)
def get_trail(args: dict[str, Any]) -> Response:
    """审计记录 · What administrators did, newest first, each with the entry that commits to it."""
    limit = args["limit"]
    place = place_of(args.get("cursor")) or str(MAX_INT)
    if not re.fullmatch(r"[0-9]{1,16}", place):
        raise bad_cursor()
    with wired().engine.connect() as tx:
        found = trail.newest(tx, _wanted(args), int(place), limit + 1)
    more = cursor_of(str(found[limit - 1].arrival)) if len(found) > limit else None
    return answer(page([_shown(one) for one in found[:limit]], more))


@blp.serve(
    "GET",
    "/trail/export",
    gives={"type": "string"},
    media="application/jsonl",
    guard=admin("auditor"),
    query=SpanArgs,
)
def get_trail_export(args: dict[str, Any]) -> Response:
    """导出审计记录 · The sealed acts as lines of JSON, in the log's order: index, record, salt.

    SHA-256(salt followed by record) is the commitment of the log's entry of that index.
    """
    made = Response(export_trail(wired().engine, _wanted(args)), content_type="application/jsonl")
    made.headers["Cache-Control"] = "no-store"
    made.headers["Content-Disposition"] = "attachment; filename=trail.jsonl"
    return made


def _wanted(args: dict[str, Any]) -> trail.Wanted:
    return trail.Wanted(args.get("actor"), args.get("action"), *_span(args))


def _span(args: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """The moments at which the first day begins and the last one ends."""
    since, until = args.get("since"), args.get("until")
    return since and _begin(since), until and _end(until)


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), CITY_ZONE)


def _end(day: date) -> datetime:
    return _begin(day + timedelta(days=1))


def _shown(one: trail.Act) -> dict[str, Any]:
    return {
        "entry_id": one.entry_id.hex(),
        **stamp("acted", one.at),
        "actor": one.actor,
        "action": one.action,
        "target": one.target,
        "detail": json.loads(one.record)["detail"],
        "index": None if one.leaf is None else str(one.leaf),
    }
