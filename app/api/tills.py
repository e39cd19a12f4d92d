"""For merchants: charge by the code a resident shows, ask what became of it, reverse, refund.

Each request goes by a number of the merchant's own. Sent again it has the same answer; an answer
that got lost is asked for by that number.
"""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from flask import Response, g

from app.api.wire import Blueprint, Pattern, answer, instant, line, stamp
from app.auth import merchant, paying
from app.errors import PROBLEMS, Problem
from app.flows.charge import charge as charging
from app.flows.charge import refund as refunding
from app.flows.charge.at_once import at_once
from app.flows.charge.query import Returned, query, query_refund
from app.flows.charge.reverse import reverse
from app.store.charges import Face, Refund
from app.store.db import one_statement
from app.wiring import wired

blp = Blueprint(
    "tills",
    __name__,
    url_prefix="/api/v1/merchant",
    description="商户收银：收款、查询、撤销、退款。Charging at the till; requests are signed.",
)

NUMBER = "^[A-Za-z0-9_-]{8,64}$"
STAFF = "^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
_NUMBER = re.compile(NUMBER).fullmatch
_STATES = ["succeeded", "pending", "failed", "reversed"]


def numbered(description: str) -> ma.fields.String:
    """A request number of the merchant's own."""
    return ma.fields.String(
        required=True,
        validate=Pattern(NUMBER, error="must be 8 to 64 of A-Z a-z 0-9 _ -"),
        metadata={"description": description},
    )


def amount() -> ma.fields.String:
    """Points to be moved, as a text."""
    fault = "must be a whole number from 1 to 999999999, as a string"
    return ma.fields.String(required=True, validate=Pattern("^[1-9][0-9]{0,8}$", error=fault))


def coded(description: str, *, required: bool = False) -> ma.fields.String:
    """A merchant's own code of a till or an employee."""
    return ma.fields.String(
        required=required,
        validate=Pattern(STAFF, error="must be 1 to 32 of A-Z a-z 0-9 _ -"),
        metadata={"description": description},
    )


class ChargeArgs(ma.Schema):
    """What a till charges."""

    out_request_no = numbered("your number for this charge, used once")
    code = ma.fields.String(
        required=True,
        validate=Pattern("^[0-9]{1,40}$", error="must be the digits that the till has read"),
        metadata={"description": "what the resident shows: 20 digits beginning with 96"},
    )
    points = amount()
    till = coded("your code of the till", required=True)
    staff = coded("your number of the employee")


class ReverseArgs(ma.Schema):
    """Who reverses."""

    staff = coded("a manager's or owner's number, for what was paid before today")


class RefundArgs(ma.Schema):
    """What is given back."""

    out_refund_no = numbered("your number for this refund, used once")
    out_request_no = numbered("the number of the charge")
    points = amount()
    reason = ma.fields.String(
        required=True, validate=line(100), metadata={"description": "name no person in it"}
    )
    staff = coded("a manager's or owner's number, if you have named staff to us")


class TillChargeSchema(ma.Schema):
    """A charge as it stands. `code` and `detail` say why one failed."""

    charge_id = ma.fields.String(required=True)
    out_request_no = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(_STATES))
    points = ma.fields.String(required=True)
    refunded_points = ma.fields.String(required=True)
    store = ma.fields.String(required=True, allow_none=True)
    till = ma.fields.String(required=True, allow_none=True)
    staff = ma.fields.String(required=True, allow_none=True)
    entry_id = ma.fields.String(required=True, allow_none=True)
    code = ma.fields.String(required=True, allow_none=True)
    title_zh = ma.fields.String(required=True, allow_none=True)
    detail = ma.fields.String(required=True, allow_none=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)
    expires_at = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "until then a pending one waits for its resident"},
    )


class _ReturnedSchema(ma.Schema):
    returned_points = ma.fields.String(required=True)
    returned_to = ma.fields.String(
        required=True,
        allow_none=True,
        validate=ma.validate.OneOf(["resident", "nobody"]),
        metadata={"description": "nobody: the resident has left; your bill is still put right"},
    )


class ReversalSchema(_ReturnedSchema):
    """A number of which nothing is left. The charge itself stays failed if it had failed."""

    out_request_no = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.Equal("reversed"))
    charge = ma.fields.Nested(TillChargeSchema, required=True)


class RefundSchema(_ReturnedSchema):
    """A refund. `code` and `detail` say why one failed."""

    out_refund_no = ma.fields.String(required=True)
    out_request_no = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(["succeeded", "failed"]))
    points = ma.fields.String(required=True)
    reason = ma.fields.String(required=True)
    staff = ma.fields.String(required=True, allow_none=True)
    entry_id = ma.fields.String(required=True, allow_none=True)
    code = ma.fields.String(required=True, allow_none=True)
    title_zh = ma.fields.String(required=True, allow_none=True)
    detail = ma.fields.String(required=True, allow_none=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)


@blp.serve("POST", "/charges", gives=TillChargeSchema, guard=paying, body=ChargeArgs)
@blp.alt_response(202, schema=TillChargeSchema, description="It waits for the resident")
def post_charge(args: dict[str, Any]) -> Response:
    """付款码收款 · Take points for what a resident buys. 200: paid. 202: pending, the resident is
    asked; query until it is decided. A refusal is kept under your number like a success."""
    here, now = wired(), wired().clock()
    asked = charging.Asked(
        g.merchant,
        args["out_request_no"],
        args["code"],
        int(args["points"]),
        args["till"],
        args.get("staff"),
    )
    face = at_once(here.engine, here.vault, asked, now, g.signed) if g.signed else None
    if face is None:
        asked = asked._replace(partner=paying.settled())
        face = charging.charge(here.engine, here.vault, asked, now)
    if face.charge.state == "failed":
        raise Problem(face.charge.code, face.charge.detail)
    return answer(_charge(face), 202 if face.charge.state == "pending" else 200)


@blp.serve("GET", "/charges/<out_request_no>", gives=TillChargeSchema, guard=merchant)
def get_charge(out_request_no: str) -> Response:
    """查询收款 · What became of a charge. 404: it never came; reverse it, and it never will."""
    with one_statement(wired().engine) as tx:
        return answer(_charge(query(tx, g.merchant.id, out_request_no)))


@blp.serve(
    "POST",
    "/charges/<out_request_no>/reverse",
    gives=ReversalSchema,
    guard=merchant,
    body=ReverseArgs,
)
def post_reverse(args: dict[str, Any], out_request_no: str) -> Response:
    """撤销收款 · Whatever became of a charge, leave nothing of it. Legal in every state, before
    the charge came too, and the same however often it is sent."""
    if not _NUMBER(out_request_no):
        raise Problem(
            "CHARGE_UNKNOWN", "no charge can have this number: 8 to 64 of A-Z a-z 0-9 _ -"
        )
    here, staff = wired(), args.get("staff")
    done = reverse(here.engine, here.vault, g.merchant, out_request_no, staff, here.clock())
    return answer(
        {
            "out_request_no": out_request_no,
            "state": "reversed",
            **_returned(done.returned),
            "charge": _charge(done.face),
        }
    )


@blp.serve("POST", "/refunds", gives=RefundSchema, guard=merchant, body=RefundArgs)
def post_refund(args: dict[str, Any]) -> Response:
    """退款 · Give back some of a charge, or all of it. Points go back to the months they would have
    expired in; what has expired meanwhile is good for 30 days more."""
    here = wired()
    asked = refunding.Asked(
        g.merchant,
        args["out_refund_no"],
        args["out_request_no"],
        int(args["points"]),
        args["reason"],
        args.get("staff"),
    )
    made, given = refunding.refund(here.engine, here.vault, asked, here.clock())
    if made.state == "failed":
        raise Problem(made.code, made.detail)
    return answer(_refund(made, given))


@blp.serve("GET", "/refunds/<out_refund_no>", gives=RefundSchema, guard=merchant)
def get_refund(out_refund_no: str) -> Response:
    """查询退款 · What became of a refund. 404: it never came; send it again."""
    with wired().engine.connect() as tx:
        return answer(_refund(*query_refund(tx, g.merchant.id, out_refund_no)))


def _charge(face: Face) -> dict[str, Any]:
    one = face.charge
    return {
        "charge_id": one.id,
        "out_request_no": one.number,
        "state": one.state,
        "points": str(one.points),
        "refunded_points": str(one.refunded),
        "store": face.store_code,
        "till": face.till_code,
        "staff": one.staff,
        "entry_id": one.entry,
        **why(one.code, one.detail),
        **stamp("created", one.at),
        "expires_at": instant(one.expires_at)
        if one.state == "pending" and one.expires_at
        else None,
    }


def _refund(made: Refund, given: Returned) -> dict[str, Any]:
    return {
        "out_refund_no": made.number,
        "out_request_no": made.charge,
        "state": made.state,
        "points": str(made.points),
        **_returned(given),
        "reason": made.reason,
        "staff": made.staff,
        "entry_id": made.entry,
        **why(made.code, made.detail),
        **stamp("created", made.at),
    }


def why(code: str, detail: str) -> dict[str, str | None]:
    """Why something failed; nothing if it did not."""
    return {
        "code": code or None,
        "title_zh": PROBLEMS[code][1] if code else None,
        "detail": detail or None,
    }


def _returned(given: Returned) -> dict[str, str | None]:
    to = "nobody" if given.to_nobody else "resident"
    return {"returned_points": str(given.points), "returned_to": to if given.points else None}
