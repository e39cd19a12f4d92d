"""Appeals: residents open them, reviewers answer them, everybody sees how that goes."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from flask import Response, g, request
from sqlalchemy import Connection

from app import limits
from app.api.appeal_forms import (
    AppealFiguresSchema,
    AppealReasonSchema,
    AppealsArgs,
    AppealSchema,
    AppealsSchema,
    AppealTextSchema,
    GrantSchema,
    NewAppealSchema,
    head,
    whole,
)
from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    cursor_of,
    moment_of,
    page,
)
from app.auth import admin, resident
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows.appeal import steps
from app.flows.appeal.case import Bench, Case, opened
from app.store import appeals, statements
from app.store.appeals import Appeal
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")

blp = Blueprint(
    "appeals",
    __name__,
    url_prefix="/api/v1",
    description="申诉：提出、补充、答复、公开数字。Appeals: opened, answered, and how that goes.",
)


def _bench() -> Bench:
    here = wired()
    return Bench(here.vault, here.registry, here.clock())


def _known(id: str) -> str:
    if not _ID.fullmatch(id):
        raise Problem("NOT_FOUND", "there is no appeal of this id")
    return id


def _whole(tx: Connection, one: Appeal) -> dict[str, Any]:
    here = wired()
    wrapped = statements.wrapped_key(tx, one.resident)
    if wrapped is None:
        raise Problem("NOT_FOUND", "there is no appeal of this id")
    return whole(one, opened(here.vault.subject_key(one.resident, wrapped), one), here.clock())


def _step(take: Callable[[Connection, Bench], Appeal], status: int = 200) -> Response:
    """Take a step of an appeal, once; answer how it then stands."""
    bench = _bench()
    return answer_once(lambda tx: _whole(tx, take(tx, bench)), status)


@blp.serve(
    "POST",
    "/me/appeals",
    gives=AppealSchema,
    status=201,
    guard=resident,
    body=NewAppealSchema,
    repeat=True,
)
def post_appeal(args: dict[str, Any]) -> Response:
    """提出申诉 · Dispute an entry, a missing act, a rejection, or what is kept of you.

    It is answered by `due_at`; if nobody does, it is granted by itself within the city's limits.
    """
    who, about = g.resident, args.pop("about")
    case = Case(**args | {"points": int(args.get("points", 0))})
    return _step(lambda tx, bench: steps.file(tx, bench, who, about, case), 201)


@blp.serve("GET", "/me/appeals", gives=AppealsSchema, guard=resident, query=PageArgs)
def list_own(args: dict[str, Any]) -> Response:
    """我的申诉 · One's own appeals, newest first."""
    limit, before = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = appeals.of_resident(tx, g.resident, before, limit + 1)
    return _page(found, limit, lambda one: one.opened_at)


@blp.serve("GET", "/me/appeals/<appeal>", gives=AppealSchema, guard=resident)
def get_own(appeal: str) -> Response:
    """一件申诉 · One of one's own appeals, with all that was said."""
    with wired().engine.connect() as tx:
        found = appeals.find(tx, _known(appeal))
        if found is None or found.resident != g.resident:
            raise Problem("NOT_FOUND", "you have no appeal of this id")
        made = _whole(tx, found)
    return answer(made)


@blp.serve(
    "POST",
    "/me/appeals/<appeal>/answer",
    gives=AppealSchema,
    guard=resident,
    body=AppealTextSchema,
    repeat=True,
)
def post_answer(args: dict[str, Any], appeal: str) -> Response:
    """补充说明 · Answer what a reviewer asked; the time to decide goes on from here."""
    who = g.resident
    return _step(lambda tx, bench: steps.answer(tx, bench, who, _known(appeal), args["text"]))


@blp.serve("POST", "/me/appeals/<appeal>/withdraw", gives=AppealSchema, guard=resident, repeat=True)
def post_withdraw(appeal: str) -> Response:
    """撤回申诉 · Take an appeal back."""
    who = g.resident
    return _step(lambda tx, bench: steps.withdraw(tx, bench, who, _known(appeal)))


@blp.serve("GET", "/admin/appeals", gives=AppealsSchema, guard=admin("reviewer"), query=AppealsArgs)
def list_appeals(args: dict[str, Any]) -> Response:
    """申诉列表 · Appeals in a state, the first due first."""
    limit, after = args["limit"], moment_of(args.get("cursor"))
    day = args.get("due_before")
    end = day and datetime(day.year, day.month, day.day, tzinfo=CITY_ZONE) + timedelta(days=1)
    with wired().engine.connect() as tx:
        found = appeals.by_due(tx, args["state"], end, after, limit + 1)
    return _page(found, limit, lambda one: one.due_at)


@blp.serve("GET", "/admin/appeals/<appeal>", gives=AppealSchema, guard=admin("reviewer"))
def get_appeal(appeal: str) -> Response:
    """读取申诉 · An appeal with all that was said; whose it is is not told."""
    with wired().engine.connect() as tx:
        found = appeals.find(tx, _known(appeal))
        if found is None:
            raise Problem("NOT_FOUND", "there is no appeal of this id")
        made = _whole(tx, found)
    return answer(made)


@blp.serve(
    "POST",
    "/admin/appeals/<appeal>/ask",
    gives=AppealSchema,
    guard=admin("reviewer"),
    body=AppealTextSchema,
    repeat=True,
)
def post_ask(args: dict[str, Any], appeal: str) -> Response:
    """要求补充 · Ask the resident; the time to decide stands still until they answer."""
    who = g.admin.name
    return _step(lambda tx, bench: steps.ask(tx, bench, who, _known(appeal), args["text"]))


@blp.serve(
    "POST",
    "/admin/appeals/<appeal>/grant",
    gives=AppealSchema,
    guard=admin("reviewer"),
    body=GrantSchema,
    repeat=True,
)
def post_grant(args: dict[str, Any], appeal: str) -> Response:
    """支持申诉 · Decide for the resident; points come out of the scenario's budget."""
    who, points, reason = g.admin.name, int(args["points"]), args["reason"]
    return _step(lambda tx, bench: steps.grant(tx, bench, who, _known(appeal), points, reason))


@blp.serve(
    "POST",
    "/admin/appeals/<appeal>/refuse",
    gives=AppealSchema,
    guard=admin("reviewer"),
    body=AppealReasonSchema,
    repeat=True,
)
def post_refuse(args: dict[str, Any], appeal: str) -> Response:
    """不予支持 · Decide against the resident, and say why."""
    who = g.admin.name
    return _step(lambda tx, bench: steps.refuse(tx, bench, who, _known(appeal), args["reason"]))


@blp.serve("GET", "/appeals/figures", gives=AppealFiguresSchema)
def get_figures() -> Response:
    """申诉数字 · How many were opened, granted, refused, and how long a decision takes."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")
    here = wired()
    with here.engine.connect() as tx:
        found = appeals.figures(tx, here.clock())
    numbers = {name: str(value) for name, value in found._asdict().items() if name != "median_s"}
    hours = None if found.median_s is None else str(found.median_s // 3600)
    return answer(numbers | {"median_hours": hours})


def _page(found: list[Appeal], limit: int, at: Callable[[Appeal], datetime]) -> Response:
    last = found[limit - 1] if len(found) > limit else None
    more = cursor_of(f"{at(last).isoformat()} {last.id}") if last else None
    now = wired().clock()
    return answer(page([head(one, now) for one in found[:limit]], more))
