"""Cases: reviewers read and decide them; a merchant reads those of its own books and tills."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from flask import Response, g

from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    cursor_of,
    line,
    moment_of,
    page,
    stamp,
)
from app.auth import admin, head_office
from app.errors import Problem
from app.flows.case import decide
from app.store import cases
from app.store.cases import KINDS, STATES, Case, Wanted
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")
TOLD = ("difference", "offline")  # the kinds that a merchant is told of; fraud is not among them

blp = Blueprint(
    "cases",
    __name__,
    url_prefix="/api/v1",
    description="事项：可疑交易、账单差异、离线重复核销。Cases: fraud, differences, double uses.",
)


class MerchantCasesArgs(PageArgs):
    """Which of a merchant's own cases."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))
    kind = ma.fields.String(validate=ma.validate.OneOf(TOLD))


class CasesArgs(MerchantCasesArgs):
    """Which cases."""

    kind = ma.fields.String(validate=ma.validate.OneOf(KINDS))
    rule = ma.fields.String(validate=ma.validate.Length(1, 40))
    merchant = ma.fields.String(
        validate=ma.validate.Length(1, 31), metadata={"description": "a merchant's code"}
    )


class CaseReasonSchema(ma.Schema):
    """Why a case is upheld or dismissed. It stays in the trail: it must name no resident."""

    reason = ma.fields.String(required=True, validate=line(500))


class MerchantCaseSchema(ma.Schema):
    """A case. `times` is how often it came up; `facts` depend on the rule."""

    id = ma.fields.String(required=True)
    kind = ma.fields.String(required=True, metadata={"enum": list(KINDS)})
    rule = ma.fields.String(required=True)
    state = ma.fields.String(required=True, metadata={"enum": list(STATES)})
    times = ma.fields.String(required=True)
    facts = ma.fields.Dict(required=True)
    opened_at = ma.fields.String(required=True)
    opened_date = ma.fields.String(required=True)
    last_at = ma.fields.String(required=True)
    last_date = ma.fields.String(required=True)
    closed_at = ma.fields.String(required=True, allow_none=True)
    closed_date = ma.fields.String(required=True, allow_none=True)
    reason = ma.fields.String(required=True)


class CaseSchema(MerchantCaseSchema):
    """A case as a reviewer sees it; `shadow` if its rule was only being tried out. Whose it is is
    not told."""

    merchant = ma.fields.String(required=True, allow_none=True)
    shadow = ma.fields.Boolean(required=True)
    closed_by = ma.fields.String(required=True, allow_none=True)


class MerchantCasesSchema(ma.Schema):
    """A page of a merchant's cases."""

    items = ma.fields.List(ma.fields.Nested(MerchantCaseSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class CasesSchema(MerchantCasesSchema):
    """A page of cases."""

    items = ma.fields.List(ma.fields.Nested(CaseSchema), required=True)


@blp.serve("GET", "/admin/cases", gives=CasesSchema, guard=admin("reviewer"), query=CasesArgs)
def list_cases(args: dict[str, Any]) -> Response:
    """事项列表 · Cases, newest first."""
    kinds = (args["kind"],) if "kind" in args else None
    wanted = Wanted(args.get("state"), kinds, args.get("rule"), args.get("merchant"))
    found, more = _page(args, wanted)
    return answer(page([_whole(one) for one in found], more))


@blp.serve("GET", "/admin/cases/<case>", gives=CaseSchema, guard=admin("reviewer"))
def get_case(case: str) -> Response:
    """读取事项 · A case with its facts."""
    with wired().engine.connect() as tx:
        found = cases.find(tx, _known(case))
    if found is None:
        raise Problem("NOT_FOUND", "there is no case of this id")
    return answer(_whole(found))


@blp.serve(
    "POST",
    "/admin/cases/<case>/uphold",
    gives=CaseSchema,
    guard=admin("reviewer"),
    body=CaseReasonSchema,
    repeat=True,
)
def post_uphold(args: dict[str, Any], case: str) -> Response:
    """认定事项 · Decide that it is as it looks. What follows for the merchant, operators decide."""
    return _decide(case, "upheld", args["reason"])


@blp.serve(
    "POST",
    "/admin/cases/<case>/dismiss",
    gives=CaseSchema,
    guard=admin("reviewer"),
    body=CaseReasonSchema,
    repeat=True,
)
def post_dismiss(args: dict[str, Any], case: str) -> Response:
    """驳回事项 · Decide that nothing is wrong."""
    return _decide(case, "dismissed", args["reason"])


@blp.serve(
    "GET",
    "/merchant/cases",
    gives=MerchantCasesSchema,
    guard=head_office,
    query=MerchantCasesArgs,
)
def list_own_cases(args: dict[str, Any]) -> Response:
    """商户的事项 · The merchant's own cases about its bills and its offline tills, newest first."""
    kinds = (args["kind"],) if "kind" in args else TOLD
    wanted = Wanted(args.get("state"), kinds, None, g.merchant.code)
    found, more = _page(args, wanted)
    return answer(page([_shown(one) for one in found], more))


def _page(args: dict[str, Any], wanted: Wanted) -> tuple[list[Case], str | None]:
    limit, before = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = cases.newest(tx, wanted, before, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return found[:limit], last and cursor_of(f"{last.opened_at.isoformat()} {last.id}")


def _decide(case: str, state: str, reason: str) -> Response:
    who, known, now = g.admin.name, _known(case), wired().clock()
    return answer_once(lambda tx: _whole(decide(tx, who, known, state, reason, now)))


def _known(id: str) -> str:
    if not _ID.fullmatch(id):
        raise Problem("NOT_FOUND", "there is no case of this id")
    return id


def _shown(one: Case) -> dict[str, Any]:
    closed: dict[str, str | None] = {"closed_at": None, "closed_date": None}
    if one.closed_at is not None:
        closed |= stamp("closed", one.closed_at)
    return {
        "id": one.id,
        "kind": one.kind,
        "rule": one.rule,
        "state": one.state,
        "times": str(one.times),
        "facts": one.facts,
        **stamp("opened", one.opened_at),
        **stamp("last", one.last_at),
        **closed,
        "reason": one.reason,
    }


def _whole(one: Case) -> dict[str, Any]:
    more = {"merchant": one.merchant, "shadow": one.shadow, "closed_by": one.closed_by}
    return _shown(one) | more
