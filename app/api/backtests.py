"""For editors and reviewers: what a draft would have done to the acts of the last days."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g
from sqlalchemy import Connection

from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    cursor_of,
    moment_of,
    page,
    stamp,
)
from app.auth import admin
from app.errors import Problem
from app.flows.backtest import queue
from app.flows.backtest.queue import MAX_DAYS
from app.store import backtests
from app.store.backtests import Backtest
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")
_STATES = ("queued", "running", "done", "failed")

blp = Blueprint(
    "backtests",
    __name__,
    url_prefix="/api/v1/admin",
    description="测算：草案对近期行为的影响。Backtests: a draft over the acts of the last days.",
)


class BacktestArgs(ma.Schema):
    """How many whole days before today are replayed; today is added as far as it is."""

    days = ma.fields.Integer(
        strict=True,
        required=True,
        validate=ma.validate.Range(1, MAX_DAYS, error=f"must be 1 to {MAX_DAYS}"),
    )


class BacktestSchema(ma.Schema):
    """A backtest. `done` of `total` activities are replayed."""

    id = ma.fields.String(required=True)
    draft = ma.fields.String(required=True, allow_none=True)
    revision = ma.fields.Integer(required=True, allow_none=True)
    days = ma.fields.Integer(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(_STATES))
    done = ma.fields.Integer(required=True)
    total = ma.fields.Integer(required=True)
    problem = ma.fields.String(required=True, allow_none=True)
    requested_by = ma.fields.String(required=True, allow_none=True)
    requested_at = ma.fields.String(required=True)
    requested_date = ma.fields.String(required=True)
    finished_at = ma.fields.String()
    finished_date = ma.fields.String()


class BacktestResultSchema(BacktestSchema):
    """A backtest with what came out, described in docs/administrators.md."""

    result = ma.fields.Dict(required=True, allow_none=True)


class BacktestsSchema(ma.Schema):
    """A page of backtests."""

    items = ma.fields.List(ma.fields.Nested(BacktestSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


def _shown(one: Backtest) -> dict[str, Any]:
    made = {
        "id": one.id,
        "draft": one.draft,
        "revision": one.revision,
        "days": one.days,
        "state": one.state,
        "done": one.done,
        "total": one.total,
        "problem": one.problem,
        "requested_by": one.requested_by,
        **stamp("requested", one.requested_at),
    }
    return made | (stamp("finished", one.finished_at) if one.finished_at else {})


def _request(draft: str | None, days: int) -> Response:
    if draft is not None and not _ID.fullmatch(draft):
        raise Problem("NOT_FOUND", "there is no draft of this id")
    who, now = g.admin, wired().clock()

    def work(tx: Connection) -> dict[str, Any]:
        return _shown(_found(tx, queue.request(tx, who.name, who.id, draft, days, now)))

    return answer_once(work, 202)


def _found(tx: Connection, backtest: str) -> Backtest:
    found = backtests.find(tx, backtest) if _ID.fullmatch(backtest) else None
    if found is None:
        raise Problem("NOT_FOUND", "there is no backtest of this id")
    return found


@blp.serve(
    "POST",
    "/drafts/<draft>/backtest",
    gives=BacktestSchema,
    status=202,
    guard=admin("editor"),
    body=BacktestArgs,
    repeat=True,
)
def post_draft_backtest(args: dict[str, Any], draft: str) -> Response:
    """测算草案 · Queue a backtest of the draft as it is now."""
    return _request(draft, args["days"])


@blp.serve(
    "POST",
    "/backtests",
    gives=BacktestSchema,
    status=202,
    guard=admin("editor"),
    body=BacktestArgs,
    repeat=True,
)
def post_backtest(args: dict[str, Any]) -> Response:
    """测算现行规则 · Queue the rules in force against themselves: it must give the ledger."""
    return _request(None, args["days"])


@blp.serve("GET", "/backtests/<backtest>", gives=BacktestResultSchema, guard=admin())
def get_backtest(backtest: str) -> Response:
    """读取测算 · A backtest, how far it is, and its result once it is done."""
    with wired().engine.connect() as tx:
        found = _found(tx, backtest)
    result = orjson.Fragment(found.result) if found.result else None
    return answer({**_shown(found), "result": result})


def _page(draft: str | None, args: dict[str, Any]) -> Response:
    limit, after = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = backtests.page(tx, draft, after, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = cursor_of(f"{last.requested_at.isoformat()} {last.id}") if last else None
    return answer(page([_shown(one) for one in found[:limit]], more))


@blp.serve("GET", "/drafts/<draft>/backtests", gives=BacktestsSchema, guard=admin(), query=PageArgs)
def list_draft_backtests(args: dict[str, Any], draft: str) -> Response:
    """草案测算列表 · Backtests of a draft, the latest first; of any of its revisions."""
    if not _ID.fullmatch(draft):
        raise Problem("NOT_FOUND", "there is no draft of this id")
    return _page(draft, args)


@blp.serve("GET", "/backtests", gives=BacktestsSchema, guard=admin(), query=PageArgs)
def list_backtests(args: dict[str, Any]) -> Response:
    """现行规则测算列表 · Backtests of the rules in force, the latest first."""
    return _page(None, args)
