"""For residents: the code to show at a till, and the charges that came of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import marshmallow as ma
from flask import Response, g

from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    bad_cursor,
    cursor_of,
    instant,
    page,
    place_of,
    stamp,
)
from app.auth import resident
from app.errors import PROBLEMS, Problem
from app.flows.charge.confirm import confirm, decline, give_up
from app.flows.pay_code import REFRESH_S, new_code
from app.store import charges
from app.store.charges import Face
from app.store.db import one_statement
from app.wiring import wired
from ledger.errors import Exhausted

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (True, datetime.max.replace(tzinfo=UTC), b"")
_ID = re.compile(r"[0-9a-f]{32}").fullmatch

blp = Blueprint(
    "paying",
    __name__,
    url_prefix="/api/v1/me",
    description="付款码与付款：出示、确认、查询。The code to show at a till, and what was paid.",
)


class PayCodeArgs(ma.Schema):
    """Nothing is asked but who asks."""


class PayCodeSchema(ma.Schema):
    """A code to be drawn as QR, until it expires or is used."""

    code = ma.fields.String(required=True, metadata={"pattern": "^96[0-9]{18}$"})
    expires_at = ma.fields.String(required=True)
    refresh_s = ma.fields.Integer(required=True)


class OwnChargeSchema(ma.Schema):
    """A charge as its resident sees it; a pending one is to be confirmed or declined."""

    id = ma.fields.String(required=True)
    merchant = ma.fields.String(required=True)
    out_request_no = ma.fields.String(required=True)
    state = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(["pending", "succeeded", "failed", "reversed"]),
    )
    points = ma.fields.String(required=True)
    refunded_points = ma.fields.String(required=True)
    code = ma.fields.String(required=True, allow_none=True)
    reason_zh = ma.fields.String(required=True, allow_none=True)
    entry_id = ma.fields.String(required=True, allow_none=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True, allow_none=True)


class OwnChargesSchema(ma.Schema):
    """A page of one's charges: those that wait for an answer, then the newest first."""

    items = ma.fields.List(ma.fields.Nested(OwnChargeSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


@blp.serve("POST", "/pay-code", gives=PayCodeSchema, guard=resident, body=PayCodeArgs)
def post_pay_code(args: dict[str, Any]) -> Response:
    """付款码 · A fresh code to show at a till. It is good for one use; show the next one after
    `refresh_s`. Older ones stay good for their time, three at most."""
    here = wired()
    device = bytes.fromhex(g.sign_in) if g.sign_in else None
    with here.engine.begin() as tx:
        made = new_code(tx, here.vault, g.resident, device, here.clock())
    return answer(
        {"code": made.code, "expires_at": instant(made.expires_at), "refresh_s": REFRESH_S}
    )


@blp.serve("GET", "/charges", gives=OwnChargesSchema, guard=resident, query=PageArgs)
def get_my_charges(args: dict[str, Any]) -> Response:
    """我的付款 · What tills charged me: what waits for my answer, then the newest first."""
    limit, before = args["limit"], _place(place_of(args.get("cursor")))
    with one_statement(wired().engine) as tx:
        found = charges.of_resident(tx, g.resident, before, limit + 1)
    more = _cursor(found[limit - 1]) if len(found) > limit else None
    return answer(page([_own(face) for face in found[:limit]], more))


@blp.serve("POST", "/charges/<id>/confirm", gives=OwnChargeSchema, guard=resident, repeat=True)
def post_confirm(id: str) -> Response:
    """确认付款 · Pay a charge that waits for me."""
    here, charge = wired(), _known(id)
    parts = (here.vault, g.resident, charge, here.clock())
    try:
        return answer_once(lambda tx: _own(confirm(tx, *parts)))
    except Exhausted:
        with here.engine.begin() as tx:
            give_up(tx, *parts)
        raise Problem(
            "ALLOWANCE_EXHAUSTED", "the merchant's allowance does not cover these points"
        ) from None


@blp.serve("POST", "/charges/<id>/decline", gives=OwnChargeSchema, guard=resident, repeat=True)
def post_decline(id: str) -> Response:
    """拒绝付款 · Refuse a charge that waits for me; its points are mine again."""
    here, charge = wired(), _known(id)
    parts = (here.vault, g.resident, charge, here.clock())
    return answer_once(lambda tx: _own(decline(tx, *parts)))


def _known(id: str) -> str:
    if not _ID(id):
        raise Problem("CHARGE_UNKNOWN", "you have no charge of this id")
    return id


def _own(face: Face) -> dict[str, Any]:
    one = face.charge
    return {
        "id": one.id,
        "merchant": face.merchant_name,
        "out_request_no": one.number,
        "state": one.state,
        "points": str(one.points),
        "refunded_points": str(one.refunded),
        "code": one.code or None,
        "reason_zh": PROBLEMS[one.code][1] if one.code else None,
        "entry_id": one.entry,
        **stamp("created", one.at),
        "expires_at": instant(one.expires_at)
        if one.state == "pending" and one.expires_at
        else None,
    }


def _cursor(face: Face) -> str:
    one = face.charge
    micros = (one.at - _EPOCH) // timedelta(microseconds=1)
    return cursor_of(f"{int(one.state == 'pending')}|{micros}|{one.id}")


def _place(place: str | None) -> tuple[bool, datetime, bytes]:
    if place is None:
        return _FIRST
    found = re.fullmatch(r"([01])\|([0-9]{1,17})\|([0-9a-f]{32})", place)
    if not found:
        raise bad_cursor()
    at = _EPOCH + timedelta(microseconds=int(found[2]))
    return found[1] == "1", at, bytes.fromhex(found[3])
