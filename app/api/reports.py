"""For residents: what they bring themselves, steps from WeChat and acts with evidence."""

from __future__ import annotations

import hmac
import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g, request
from sqlalchemy import Connection

from app import limits, wechat
from app.api.strict_json import read_json
from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    bad_cursor,
    calendar_day,
    cursor_of,
    page,
    place_of,
    stamp,
)
from app.auth import resident
from app.errors import Problem, field_errors
from app.flows import report, sign_in
from app.flows.picture import read_picture
from app.flows.steps import Told, put_steps, read_steps
from app.store import reports
from app.wiring import wired
from scenarios import Catalogue

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_STATED = {
    "type": "object",
    "required": ["scenario", "occurred_at", "quantities"],
    "properties": {
        "scenario": {"type": "string", "example": "food.clean_plate"},
        "occurred_at": {"type": "string", "format": "date-time"},
        "quantities": {"type": "string", "description": "JSON", "example": '{"count": "1"}'},
        "code": {"type": "string", "maxLength": 200},
        "photo": {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP"},
    },
}

blp = Blueprint(
    "reports",
    __name__,
    url_prefix="/api/v1/me",
    description="居民自报：微信步数，带照片或编码的行为。What residents bring themselves.",
)


class WeRunSchema(ma.Schema):
    """What wx.getWeRunData gave, as it came."""

    encrypted_data = ma.fields.String(
        required=True, validate=ma.validate.Length(1, wechat.MAX_SEALED_CHARS)
    )
    iv = ma.fields.String(required=True, validate=ma.validate.Length(1, 100))


class StepDaySchema(ma.Schema):
    """What became of a day's steps; with `outcome` as a provider gets it, if some were credited
    just now or refused."""

    date = ma.fields.String(required=True)
    steps = ma.fields.String(required=True)
    state = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(["settled", "pending", "held", "outside"]),
        metadata={
            "description": "settled; pending: too few new steps as yet; held for a reviewer;"
            " outside: before you joined, before the scenario, or not begun"
        },
    )
    outcome = ma.fields.Dict()


class StepDaysSchema(ma.Schema):
    """Every day of the data, oldest first."""

    days = ma.fields.List(ma.fields.Nested(StepDaySchema), required=True)


class StatedSchema(ma.Schema):
    """The text fields of a report."""

    scenario = ma.fields.String(required=True, validate=ma.validate.Length(1, 100))
    occurred_at = ma.fields.String(required=True, validate=ma.validate.Length(1, 100))
    quantities = ma.fields.String(required=True, validate=ma.validate.Length(2, 4000))
    code = ma.fields.String(load_default="", validate=ma.validate.Length(1, 200))


class ReportSchema(ma.Schema):
    """A report and what was decided; entry_id is null until it is accepted."""

    id = ma.fields.String(required=True)
    scenario = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    occurred_at = ma.fields.String(required=True)
    quantities = ma.fields.Dict(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(reports.STATES))
    reported_at = ma.fields.String(required=True)
    reported_date = ma.fields.String(required=True)
    decided_at = ma.fields.String(required=True, allow_none=True)
    decided_date = ma.fields.String(required=True, allow_none=True)
    reason = ma.fields.String(required=True, allow_none=True)
    entry_id = ma.fields.String(required=True, allow_none=True)


class ReportsSchema(ma.Schema):
    """A page of one's reports, newest first."""

    items = ma.fields.List(ma.fields.Nested(ReportSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


@blp.serve("PUT", "/steps", gives=StepDaysSchema, guard=resident, body=WeRunSchema)
def put_my_steps(args: dict[str, Any]) -> Response:
    """微信步数 · Credit what is new in each day's steps. The same data again changes nothing."""
    here, now = wired(), wired().clock()
    with here.engine.connect() as tx:
        key = sign_in.session_key(tx, here.vault, g.resident)
    opened = wechat.decrypt(
        here.config.wechat_app_id, key or "", args["encrypted_data"], args["iv"], now
    )
    told = put_steps(here.engine, here.vault, here.registry, g.resident, read_steps(opened), now)
    return answer({"days": [_day(one) for one in told]})


@blp.serve(
    "POST",
    "/reports",
    gives=ReportSchema,
    status=201,
    guard=resident,
    raw=dict.fromkeys(_FORMS, _STATED),
    repeat=True,
)
def post_report() -> Response:
    """自报行为 · Report an act for a reviewer: fields of a form, with a picture or a code as the
    scenario's evidence asks. The picture is stripped of everything but what it shows."""
    here = wired()
    claim, photo = _stated()
    picture = None
    if photo is not None:
        limits.spend(limits.PICTURES, g.resident)
        picture = read_picture(here.vault, photo)
    # a form sent again has another boundary: the request is known by what it says
    said = orjson.dumps([*claim, sha256(photo or b"").hexdigest()], option=orjson.OPT_SORT_KEYS)
    g.repeat = g.repeat._replace(digest=hmac.digest(here.vault.ids, said, "sha256"))

    def work(tx: Connection) -> dict[str, Any]:
        catalogue, now = here.registry.current(tx), here.clock()
        made = report.report(tx, here.vault, catalogue, g.resident, claim, picture, now)
        return _shown(made, catalogue)

    return answer_once(work, 201)


@blp.serve("GET", "/reports", gives=ReportsSchema, guard=resident, query=PageArgs)
def get_reports(args: dict[str, Any]) -> Response:
    """我的申报 · What I reported and what was decided, newest first."""
    here, limit = wired(), args["limit"]
    before = moment_of(args.get("cursor")) or (datetime.max.replace(tzinfo=UTC), b"")
    with here.engine.connect() as tx:
        catalogue = here.registry.current(tx)
        found = reports.of_resident(tx, g.resident, before, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = moment_cursor(last.reported_at, last.id) if last else None
    return answer(page([_shown(one, catalogue) for one in found[:limit]], more))


def moment_cursor(at: datetime, id: bytes) -> str:
    """The cursor of a list in order of time, then id."""
    return cursor_of(f"{(at - _EPOCH) // timedelta(microseconds=1)}|{id.hex()}")


def moment_of(cursor: str | None) -> tuple[datetime, bytes] | None:
    """Undo `moment_cursor`; None for the first page. Raises Problem CURSOR_INVALID."""
    place = place_of(cursor)
    if place is None:
        return None
    found = re.fullmatch(r"([0-9]{1,17})\|([0-9a-f]{32})", place)
    if not found:
        raise bad_cursor()
    return _EPOCH + timedelta(microseconds=int(found[1])), bytes.fromhex(found[2])


def _stated() -> tuple[report.Claim, bytes | None]:
    """What the form says, each field once and none that we do not know, and its picture."""
    if request.mimetype not in _FORMS:
        raise Problem("CONTENT_TYPE", f"send a form: {' or '.join(_FORMS)}")
    form, files = request.form, request.files
    wrong = {
        name[:100]: ["must be there once, as a text, and photo as a file"]
        for name in {*form, *files}
        if len(form.getlist(name)) + len(files.getlist(name)) != 1
        or (name in files) != (name == "photo")
    }
    fields = {name: value for name, value in form.items() if name not in wrong}
    found = wrong | StatedSchema().validate(fields)
    if found:
        errors = list(field_errors(found))[:100]
        detail = f"{len(errors)} field(s) are not as they must be"
        raise Problem("VALIDATION_FAILED", detail, errors=errors)
    stated = StatedSchema().load(fields)
    stated["quantities"] = read_json(stated["quantities"].encode())
    photo = files.get("photo")
    return report.Claim(**stated), None if photo is None else photo.read()


def _day(one: Told) -> dict[str, Any]:
    made = {"date": calendar_day(one.day), "steps": str(one.steps), "state": one.state}
    return {**made, "outcome": one.outcome} if one.outcome else made


def _shown(one: reports.Report, catalogue: Catalogue) -> dict[str, Any]:
    vault = wired().vault
    claim = report.read_claim(vault, one)
    never = {"decided_at": None, "decided_date": None}
    return {
        "id": one.id.hex(),
        "scenario": one.scenario,
        "title_zh": report.title_of(catalogue, one),
        "occurred_at": claim.occurred_at,
        "quantities": claim.quantities,
        "state": one.state,
        **stamp("reported", one.reported_at),
        **(stamp("decided", one.decided_at) if one.decided_at else never),
        "reason": one.reason,
        "entry_id": report.credited_as(vault, one.id) if one.state == "accepted" else None,
    }
