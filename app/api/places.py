"""For residents: where points can be spent, and that somebody works there."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from flask import Response, g, request
from sqlalchemy import Connection

from app import limits
from app.api.partner_forms import CODE, OWN_CODE, district
from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    answer_once,
    bad_cursor,
    cursor_of,
    page,
    place_of,
)
from app.auth import resident
from app.flows.partner import staff
from app.store import premises
from app.wiring import wired

_CACHED = "public, max-age=60"

blp = Blueprint(
    "places",
    __name__,
    url_prefix="/api/v1",
    description="可用商户与员工绑定。Where points can be spent, and who works there.",
)


class PlacesArgs(PageArgs):
    """Where."""

    district = district()


class PlaceSchema(ma.Schema):
    """A store where points can be spent."""

    merchant = ma.fields.String(required=True)
    merchant_name = ma.fields.String(required=True)
    code = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    district = ma.fields.String(required=True)
    address = ma.fields.String(required=True)


class PlacesSchema(ma.Schema):
    """A page of stores."""

    items = ma.fields.List(ma.fields.Nested(PlaceSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class StaffCodeSchema(ma.Schema):
    """The code that a merchant gave to its employee."""

    code = ma.fields.String(required=True, validate=ma.validate.Length(8, 16))


class StaffLeaveSchema(ma.Schema):
    """The code of a merchant."""

    merchant = ma.fields.String(
        required=True, validate=Pattern(CODE, error="must be a merchant's code")
    )


class StaffLinkSchema(ma.Schema):
    """Where somebody works."""

    merchant = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    number = ma.fields.String(required=True)
    role = ma.fields.String(required=True)


class StaffLinksSchema(ma.Schema):
    """All of it."""

    items = ma.fields.List(ma.fields.Nested(StaffLinkSchema), required=True)


@blp.serve("GET", "/merchants", gives=PlacesSchema, query=PlacesArgs)
def list_places(args: dict[str, Any]) -> Response:
    """在哪里用积分 · Open stores, all or a district's; may be a minute old."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")
    limit, after = args["limit"], _place(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = premises.places(tx, args.get("district"), after, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = cursor_of(f"{last.merchant} {last.code}") if last else None
    made = answer(page([one._asdict() for one in found[:limit]], more))
    made.headers["Cache-Control"] = _CACHED
    return made


@blp.serve("GET", "/me/staff-link", gives=StaffLinksSchema, guard=resident)
def get_link() -> Response:
    """我任职的商户 · Where one said to work; points cannot be redeemed there."""
    with wired().engine.connect() as tx:
        made = _posts(tx, g.resident)
    return answer(made)


@blp.serve(
    "POST",
    "/me/staff-link",
    gives=StaffLinksSchema,
    guard=resident,
    body=StaffCodeSchema,
    repeat=True,
)
def post_link(body: dict[str, Any]) -> Response:
    """绑定任职商户 · Say where one works, by the code that the merchant gave."""
    here, who = wired(), g.resident

    def work(tx: Connection) -> dict[str, Any]:
        staff.link(tx, here.vault, who, body["code"], here.clock())
        return _posts(tx, who)

    return answer_once(work)


@blp.serve(
    "POST",
    "/me/staff-link/leave",
    gives=StaffLinksSchema,
    guard=resident,
    body=StaffLeaveSchema,
    repeat=True,
)
def post_leave(body: dict[str, Any]) -> Response:
    """解除任职绑定 · Say that one works there no more."""
    who = g.resident

    def work(tx: Connection) -> dict[str, Any]:
        premises.leave(tx, body["merchant"], who)
        return _posts(tx, who)

    return answer_once(work)


def _posts(tx: Connection, who: str) -> dict[str, Any]:
    return {"items": [one._asdict() for one in premises.posts(tx, who)]}


def _place(cursor: str | None) -> tuple[str, str] | None:
    place = place_of(cursor)
    if place is None:
        return None
    merchant, _, store = place.partition(" ")
    if not re.fullmatch(CODE, merchant) or not re.fullmatch(OWN_CODE, store):
        raise bad_cursor()
    return merchant, store
