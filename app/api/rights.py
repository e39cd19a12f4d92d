"""For residents: what the law gives them. See all, correct, restrict, take along, and leave."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.wire import Blueprint, answer, answer_once, instant, stamp
from app.auth import resident
from app.errors import Problem
from app.flows import archive, farewell
from app.flows.join import DISTRICTS
from app.flows.ranking import Rankings
from app.store import archives, farewells
from app.store.archives import Archive
from app.store.farewells import Profile
from app.wiring import wired

_ID = re.compile("[0-9a-f]{32}")

blp = Blueprint(
    "rights",
    __name__,
    url_prefix="/api/v1/me",
    description="权利：更正、限制处理、数据副本、注销。Correct, restrict, take along, leave.",
)


class DistrictSchema(ma.Schema):
    """Where one lives."""

    district = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(sorted(DISTRICTS)),
        metadata={"description": "GB/T 2260 code of a county of the city"},
    )


class ProfileSchema(ma.Schema):
    """What is kept of a person as such, and since when its use is restricted, if it is."""

    resident = ma.fields.String(required=True)
    district = ma.fields.String(required=True)
    joined_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    restricted_at = ma.fields.String(
        required=True, allow_none=True, metadata={"format": "date-time"}
    )


class RestrictSchema(ma.Schema):
    """Whether all further use of one's data is restricted."""

    on = ma.fields.Boolean(required=True, truthy={True}, falsy={False})


class ArchiveSchema(ma.Schema):
    """An archive of all one's data: queued, ready, or failed."""

    id = ma.fields.String(required=True)
    state = ma.fields.String(required=True)
    asked_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    asked_date = ma.fields.String(required=True, metadata={"format": "date"})
    kept_until = ma.fields.String(required=True, metadata={"format": "date-time"})


class LossSchema(ma.Schema):
    """What erasure costs, and the code that confirms it; nothing is done yet."""

    confirm_code = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    points = ma.fields.String(required=True, metadata={"description": "lost"})
    held_points = ma.fields.String(
        required=True, metadata={"description": "on hold for purchases that will then not be made"}
    )
    waiting_points = ma.fields.String(
        required=True, metadata={"description": "waiting for a budget"}
    )
    reduction_mg = ma.fields.String(
        required=True, metadata={"description": "stays in the city's sum, as nobody's"}
    )


class ConfirmSchema(ma.Schema):
    """The code that was given last."""

    confirm_code = ma.fields.String(required=True, validate=ma.validate.Length(1, 20))


class ErasedSchema(ma.Schema):
    """The entry of the public log that says so."""

    entry_id = ma.fields.String(required=True)
    erased_at = ma.fields.String(required=True, metadata={"format": "date-time"})


@blp.serve("GET", "/profile", gives=ProfileSchema, guard=resident)
def get_profile() -> Response:
    """个人资料 · What is kept of me as such."""
    with wired().engine.connect() as tx:
        return answer(_profile(farewells.profile(tx, g.resident)))


@blp.serve("PUT", "/profile", gives=ProfileSchema, guard=resident, body=DistrictSchema)
def put_profile(args: dict[str, Any]) -> Response:
    """更正个人资料 · Correct where I live."""
    here = wired()
    with here.engine.begin() as tx:
        found = farewells.move(tx, g.resident, args["district"])
    _settle_rankings()
    return answer(_profile(found))


@blp.serve(
    "POST", "/restriction", gives=ProfileSchema, guard=resident, body=RestrictSchema, repeat=True
)
def post_restriction(args: dict[str, Any]) -> Response:
    """限制处理 · Keep my data and do nothing more with it, or go on again.

    Nothing new is credited, pushed or ranked meanwhile; reading and every right still work.
    """
    now = wired().clock()
    made = answer_once(lambda tx: _profile(farewells.restrict(tx, g.resident, args["on"], now)))
    _settle_rankings()
    return made


@blp.serve("POST", "/archives", gives=ArchiveSchema, status=202, guard=resident, repeat=True)
def post_archive() -> Response:
    """申请数据副本 · Ask for all that is held about me; it is made within minutes.

    Asked for again within an hour, it is the same one.
    """
    now = wired().clock()
    return answer_once(lambda tx: _archive(archive.ask(tx, g.resident, now)), 202)


@blp.serve("GET", "/archives/<archive_id>", gives=ArchiveSchema, guard=resident)
def get_archive(archive_id: str) -> Response:
    """数据副本的状态 · Whether an archive is ready."""
    with wired().engine.connect() as tx:
        found = archives.find(tx, _identifier(archive_id), g.resident)
    if found is None:
        raise Problem("NOT_FOUND", "you have no archive of this id; it is kept for 7 days")
    return answer(_archive(found))


@blp.serve(
    "GET",
    "/archives/<archive_id>/download",
    gives={"type": "string", "format": "binary"},
    media="application/zip",
    guard=resident,
)
def get_archive_download(archive_id: str) -> Response:
    """下载数据副本 · The archive: data.json, data.xlsx, receipts and a signed manifest."""
    here = wired()
    with here.engine.connect() as tx:
        packed = archive.read(tx, here.vault, _identifier(archive_id), g.resident)
    made = Response(packed, mimetype="application/zip")
    made.headers["Content-Disposition"] = 'attachment; filename="puhui-my-data.zip"'
    made.headers["Cache-Control"] = "no-store"
    return made


@blp.serve("POST", "/erasure", gives=LossSchema, guard=resident, repeat=True)
def post_erasure() -> Response:
    """申请注销 · What I would lose, and a code that confirms within 15 minutes."""
    here = wired()

    def work(tx: Connection) -> dict[str, str]:
        asked = farewell.ask(tx, here.vault, g.resident, here.clock())
        code, until, *amounts = asked
        return {
            "confirm_code": code,
            "expires_at": instant(until),
            **dict(zip(asked._fields[2:], map(str, amounts), strict=True)),
        }

    return answer_once(work)


@blp.serve(
    "POST", "/erasure/confirm", gives=ErasedSchema, guard=resident, body=ConfirmSchema, repeat=True
)
def post_erasure_confirm(args: dict[str, Any]) -> Response:
    """确认注销 · Erase me, for good. This token and all others end with the answer."""
    here = wired()

    def work(tx: Connection) -> dict[str, str]:
        code = args["confirm_code"].strip().upper()
        entry = farewell.confirm(tx, here.vault, g.resident, code, here.clock())
        return {"entry_id": entry.id, "erased_at": instant(datetime.fromisoformat(entry.at))}

    made = answer_once(work)
    here.sign_outs.look_again()
    _settle_rankings()
    return made


def _settle_rankings() -> None:
    here = wired()
    Rankings(here.engine, here.vault, here.redis).settle(g.resident, here.clock())


def _identifier(given: str) -> str:
    if not _ID.fullmatch(given):
        raise Problem("NOT_FOUND", "an archive's id is 32 lower-case hex digits")
    return given


def _profile(found: Profile | None) -> dict[str, Any]:
    if found is None:
        raise Problem("SUBJECT_ERASED", "this account was closed")
    since = found.restricted_at
    return {
        "resident": g.resident,
        "district": found.district,
        "joined_at": instant(found.joined_at),
        "restricted_at": instant(since) if since else None,
    }


def _archive(one: Archive) -> dict[str, str]:
    return {
        "id": one.id,
        "state": one.state,
        **stamp("asked", one.asked_at),
        "kept_until": instant(one.asked_at + archive.KEPT),
    }
