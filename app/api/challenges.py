"""For administrators: monthly challenges, written by editors and opened by reviewers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g
from sqlalchemy import Connection

from app.api.draft_forms import ReasonSchema
from app.api.wire import (
    Blueprint,
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
    tagged,
)
from app.auth import admin
from app.errors import Problem
from app.flows import challenge
from app.store import challenges as store
from app.store.challenges import STATES, Challenge
from app.store.db import transact
from app.wiring import wired
from scenarios import AREAS

_ID = re.compile("[0-9a-f]{32}")
_MONTH = "^20[0-9]{2}-(0[1-9]|1[0-2])$"
_MOST = {"acts": 1000, "grams": 10_000_000, "days": 28}
_TITLE = line(60)
EDIT, REVIEW = admin("editor"), admin("reviewer")

blp = Blueprint(
    "challenges",
    __name__,
    url_prefix="/api/v1/admin/challenges",
    description="月度挑战：起草、开启、关闭。Monthly challenges: written, opened, closed.",
)


class GoalSchema(ma.Schema):
    """What is to be reached: acts, grams of CO2e, or different days, in an area, in some
    scenarios, or in anything."""

    of = ma.fields.String(required=True, validate=ma.validate.OneOf(challenge.UNITS))
    at_least = ma.fields.Integer(
        strict=True, required=True, validate=ma.validate.Range(1, max(_MOST.values()))
    )
    area = ma.fields.String(load_default=None, allow_none=True, validate=ma.validate.OneOf(AREAS))
    scenarios = ma.fields.List(
        ma.fields.String(validate=ma.validate.Length(1, 64)),
        load_default=[],
        validate=ma.validate.Length(0, 50),
    )

    @ma.validates_schema
    def reachable(self, data: dict[str, Any], **_: Any) -> None:
        """A goal can be met within its month, and is one thing."""
        most = _MOST[data["of"]]
        if data["at_least"] > most:
            raise ma.ValidationError(f"of {data['of']} at most {most}", "at_least")
        if data["area"] and data["scenarios"]:
            raise ma.ValidationError("name an area or scenarios, not both", "scenarios")


class WrittenChallengeSchema(ma.Schema):
    """A challenge as an editor writes it."""

    month = ma.fields.String(
        required=True, validate=Pattern(_MONTH, error="must be a month YYYY-MM")
    )
    title_zh = ma.fields.String(required=True, validate=_TITLE)
    title_en = ma.fields.String(required=True, validate=_TITLE)
    goal = ma.fields.Nested(GoalSchema, required=True)


class ChallengeSchema(WrittenChallengeSchema):
    """A challenge as it stands. `revision` is its ETag."""

    id = ma.fields.String(required=True)
    revision = ma.fields.Integer(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    changed_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    changed_date = ma.fields.String(required=True, metadata={"format": "date"})
    members = ma.fields.Integer(required=True, metadata={"description": "who joined it"})


class ChallengesSchema(ma.Schema):
    """A page of challenges, the latest month first."""

    items = ma.fields.List(ma.fields.Nested(ChallengeSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class ChallengesArgs(PageArgs):
    """Which challenges."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))


@blp.serve("GET", "", gives=ChallengesSchema, guard=admin(), query=ChallengesArgs)
def list_challenges(args: dict[str, Any]) -> Response:
    """挑战列表 · Challenges, the latest month first."""
    limit, before = args["limit"], _place(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = store.page(tx, args.get("state"), before, limit + 1)
        items = [_shown(tx, one) for one in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return answer(page(items, cursor_of(f"{last.month} {last.id}") if last else None))


@blp.serve(
    "POST",
    "",
    gives=ChallengeSchema,
    status=201,
    guard=EDIT,
    body=WrittenChallengeSchema,
    repeat=True,
)
def post_challenge(body: dict[str, Any]) -> Response:
    """起草挑战 · Write a challenge that nobody sees yet."""
    who, now = g.admin.name, wired().clock()
    return _post(lambda tx: challenge.draft(tx, who, *_content(tx, body), now), 201)


@blp.serve("GET", "/<challenge_id>", gives=ChallengeSchema, guard=admin())
def get_challenge(challenge_id: str) -> Response:
    """读取挑战 · One challenge. Mind its ETag."""
    with wired().engine.connect() as tx:
        made = _found(tx, challenge_id)
    return tagged(answer(made), str(made["revision"]))


@blp.serve(
    "PUT",
    "/<challenge_id>",
    gives=ChallengeSchema,
    guard=EDIT,
    body=WrittenChallengeSchema,
    match=True,
)
def put_challenge(body: dict[str, Any], challenge_id: str) -> Response:
    """修改挑战 · Put another content in a draft's place."""
    who, revision, now = g.admin.name, g.revision, wired().clock()
    known = _known(challenge_id)

    def work(tx: Connection) -> dict[str, Any]:
        challenge.edit(tx, who, known, revision, *_content(tx, body), now)
        return _found(tx, known)

    made = transact(wired().engine, work)
    return tagged(answer(made), str(made["revision"]))


@blp.serve(
    "POST", "/<challenge_id>/open", gives=ChallengeSchema, guard=REVIEW, repeat=True, match=True
)
def post_open(challenge_id: str) -> Response:
    """开启挑战 · Show it to residents; by a reviewer who did not write it."""
    who, revision, now = g.admin.name, g.revision, wired().clock()
    known = _known(challenge_id)

    def work(tx: Connection) -> str:
        challenge.start(tx, who, known, revision, now)
        return known

    return _post(work)


@blp.serve(
    "POST",
    "/<challenge_id>/close",
    gives=ChallengeSchema,
    guard=REVIEW,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_close(body: dict[str, Any], challenge_id: str) -> Response:
    """关闭挑战 · Take it back: it counts for nothing any more."""
    who, revision, now = g.admin.name, g.revision, wired().clock()
    known = _known(challenge_id)

    def work(tx: Connection) -> str:
        challenge.close(tx, who, known, revision, body["reason"], now)
        return known

    return _post(work)


def _post(step: Callable[[Connection], str], status: int = 200) -> Response:
    made = answer_once(lambda tx: _found(tx, step(tx)), status)
    return tagged(made, str(orjson.loads(made.data)["revision"]))


def _content(tx: Connection, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Month YYYYMM and body. Raises Problem if a scenario is not in the registry."""
    known = wired().registry.current(tx).scenarios
    errors = [
        {"field": f"goal.scenarios.{at}", "message": "is no scenario of the registry"}
        for at, name in enumerate(body["goal"]["scenarios"])
        if name not in known
    ]
    if errors:
        raise Problem("VALIDATION_FAILED", "the goal names unknown scenarios", errors=errors)
    year, _, month = body["month"].partition("-")
    kept = {name: body[name] for name in ("title_zh", "title_en", "goal")}
    return int(year + month), kept


def _found(tx: Connection, challenge_id: str) -> dict[str, Any]:
    found = store.find(tx, _known(challenge_id))
    if found is None:
        raise Problem("NOT_FOUND", "there is no challenge of this id")
    return _shown(tx, found)


def _shown(tx: Connection, one: Challenge) -> dict[str, Any]:
    return {
        "id": one.id,
        "revision": one.revision,
        "state": one.state,
        **face(one),
        **stamp("changed", one.changed_at),
        "members": store.taking_part(tx, one.id),
    }


def face(one: Challenge) -> dict[str, Any]:
    """What everybody sees of a challenge."""
    return {"month": f"{one.month // 100}-{one.month % 100:02d}", **one.body}


def _known(challenge_id: str) -> str:
    if not _ID.fullmatch(challenge_id):
        raise Problem("NOT_FOUND", "there is no challenge of this id")
    return challenge_id


def _place(cursor: str | None) -> tuple[int, str] | None:
    place = place_of(cursor)
    if place is None:
        return None
    found = re.fullmatch(r"(20[0-9]{4}) ([0-9a-f]{32})", place)
    if not found:
        raise bad_cursor()
    return int(found[1]), found[2]
