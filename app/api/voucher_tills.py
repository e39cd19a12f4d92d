"""For merchants: use a voucher, undo that, void one; and report what tills took without network.

Each request goes by a number of the merchant's own; uses, returns and voids share one set of
numbers. A refusal is kept under its number like a success.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from flask import Response, g

from app.api.tills import coded, numbered, why
from app.api.wire import Blueprint, Pattern, answer, line, stamp
from app.auth import merchant
from app.errors import Problem
from app.flows.partner.standing import PartnerError, at_till, needs_manager
from app.flows.voucher import offline
from app.flows.voucher.asked import VoucherError
from app.flows.voucher.give_back import give_back
from app.flows.voucher.use import Scan, use
from app.flows.voucher.void import Ask, void
from app.store import voucher_moves
from app.store.voucher_moves import Move, Seen
from app.wiring import wired

MAX_OFFLINE = 500
_FIRST, _LAST = datetime(2020, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

blp = Blueprint(
    "voucher_tills",
    __name__,
    url_prefix="/api/v1/merchant",
    description="商户核销：使用、撤销、作废、离线补报。Vouchers at the till; requests are signed.",
)


def _code(*, required: bool) -> ma.fields.String:
    return ma.fields.String(
        required=required,
        validate=Pattern("^[0-9A-Za-z_ -]{4,40}$", error="must be what the till has read"),
        metadata={"description": "20 digits beginning with 96, or the code as it is printed"},
    )


class UseArgs(ma.Schema):
    """A voucher that a till has read."""

    out_use_no = numbered("your number for this use, used once")
    code = _code(required=True)
    till = coded("your code of the till", required=True)


class GiveBackArgs(ma.Schema):
    """A use that is to be undone."""

    out_return_no = numbered("your number for this return, used once")


class VoidArgs(ma.Schema):
    """A voucher that is to be ended, by its id or by what a till has read."""

    out_void_no = numbered("your number for this void, used once")
    voucher = ma.fields.String(
        validate=Pattern("^[0-9a-f]{32}$", error="must be a voucher's id, 32 hex digits")
    )
    code = _code(required=False)
    reason = ma.fields.String(
        required=True, validate=line(100), metadata={"description": "name no person in it"}
    )
    staff = coded("a manager's or owner's number, if you have named staff to us")

    @ma.validates_schema
    def one_of_both(self, data: dict[str, Any], **_: Any) -> None:
        """A voucher is named once."""
        if ("voucher" in data) == ("code" in data):
            raise ma.ValidationError("send voucher or code, one of both", "voucher")


class OfflineUseArgs(ma.Schema):
    """What a till took without network."""

    out_use_no = numbered("your number for this use, used once")
    token = ma.fields.String(required=True, validate=ma.validate.Length(1, 400))
    till = coded("your code of the till", required=True)
    used_at = ma.fields.AwareDateTime(
        required=True, format="iso", validate=ma.validate.Range(_FIRST, _LAST)
    )


class OfflineUsesArgs(ma.Schema):
    """What tills took without network, each judged by itself."""

    items = ma.fields.List(
        ma.fields.Nested(OfflineUseArgs),
        required=True,
        validate=ma.validate.Length(1, MAX_OFFLINE, error=f"must be 1 to {MAX_OFFLINE} uses"),
    )


class OfflineOutcomeSchema(ma.Schema):
    """What became of one of them."""

    out_use_no = ma.fields.String(required=True)
    outcome = ma.fields.String(required=True, metadata={"enum": ["used", "duplicate", "refused"]})
    voucher = ma.fields.String(required=True, allow_none=True)
    code = ma.fields.String(required=True, allow_none=True)
    title_zh = ma.fields.String(required=True, allow_none=True)
    detail = ma.fields.String(required=True, allow_none=True)


class OfflineOutcomesSchema(ma.Schema):
    """An outcome for each, in the order sent."""

    outcomes = ma.fields.List(ma.fields.Nested(OfflineOutcomeSchema), required=True)


class _MoveSchema(ma.Schema):
    state = ma.fields.String(required=True, metadata={"enum": ["succeeded", "failed"]})
    voucher = ma.fields.String(required=True, allow_none=True)
    reward = ma.fields.String(required=True, allow_none=True)
    title = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "the reward's, in Chinese"}
    )
    points = ma.fields.String(required=True, allow_none=True)
    voucher_state = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "as the voucher is now"}
    )
    code = ma.fields.String(required=True, allow_none=True)
    title_zh = ma.fields.String(required=True, allow_none=True)
    detail = ma.fields.String(required=True, allow_none=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)


class UseSchema(_MoveSchema):
    """A use. `returned` if it was undone; `offline` if it was reported later."""

    out_use_no = ma.fields.String(required=True)
    store = ma.fields.String(required=True, allow_none=True)
    till = ma.fields.String(required=True, allow_none=True)
    offline = ma.fields.Boolean(required=True)
    returned = ma.fields.Boolean(required=True)


class GivenBackSchema(_MoveSchema):
    """A return: the voucher can be used again until its last day."""

    out_return_no = ma.fields.String(required=True)
    out_use_no = ma.fields.String(required=True)


class VoidSchema(_MoveSchema):
    """A void: the voucher is ended, its points went back."""

    out_void_no = ma.fields.String(required=True)
    reason = ma.fields.String(required=True)
    staff = ma.fields.String(required=True, allow_none=True)


@blp.serve("POST", "/uses", gives=UseSchema, guard=merchant, body=UseArgs)
def post_use(args: dict[str, Any]) -> Response:
    """核销卡券 · Use a voucher. If two tills read it at once, one gets it and the other is told
    when and where it was used."""
    here = wired()
    with here.engine.connect() as tx:
        till = at_till(tx, g.merchant, args["till"])
    scan = Scan(g.merchant.id, args["out_use_no"], args["code"], till)
    return _answer(*use(here.engine, here.vault, scan, here.clock()))


@blp.serve("GET", "/uses/<out_use_no>", gives=UseSchema, guard=merchant)
def get_use(out_use_no: str) -> Response:
    """查询核销 · What became of a use. 404: it never came; send it again."""
    return answer(_read(out_use_no, "use"))


@blp.serve(
    "POST", "/uses/<out_use_no>/return", gives=GivenBackSchema, guard=merchant, body=GiveBackArgs
)
def post_return(args: dict[str, Any], out_use_no: str) -> Response:
    """撤销核销 · Undo a use: the voucher is issued again, until its last day."""
    here = wired()
    returned = args["out_return_no"]
    made = give_back(here.engine, here.vault, g.merchant, out_use_no, returned, here.clock())
    return _answer(*made)


@blp.serve("GET", "/returns/<out_return_no>", gives=GivenBackSchema, guard=merchant)
def get_return(out_return_no: str) -> Response:
    """查询撤销核销 · What became of a return. 404: it never came; send it again."""
    return answer(_read(out_return_no, "return"))


@blp.serve("POST", "/voids", gives=VoidSchema, guard=merchant, body=VoidArgs)
def post_void(args: dict[str, Any]) -> Response:
    """作废卡券 · End a voucher that was not used; its points go back to the resident."""
    here = wired()
    with here.engine.connect() as tx:
        needs_manager(tx, g.merchant, args.get("staff"))
    ask = Ask(
        merchant=g.merchant.id,
        number=args["out_void_no"],
        voucher=args.get("voucher"),
        code=args.get("code"),
        reason=args["reason"],
        staff=args.get("staff"),
    )
    return _answer(*void(here.engine, here.vault, ask, here.clock()))


@blp.serve("GET", "/voids/<out_void_no>", gives=VoidSchema, guard=merchant)
def get_void(out_void_no: str) -> Response:
    """查询作废 · What became of a void. 404: it never came; send it again."""
    return answer(_read(out_void_no, "void"))


@blp.serve(
    "POST", "/uses/offline", gives=OfflineOutcomesSchema, guard=merchant, body=OfflineUsesArgs
)
def post_offline(args: dict[str, Any]) -> Response:
    """离线补报 · Report what tills took without network. Of two uses of one voucher the first to
    be reported counts; the other becomes a case."""
    return answer({"outcomes": [_judged(item) for item in args["items"]]})


def _judged(item: dict[str, Any]) -> dict[str, Any]:
    here, number = wired(), item["out_use_no"]
    try:
        with here.engine.connect() as tx:
            till = at_till(tx, g.merchant, item["till"])
        taken = offline.Taken(g.merchant.id, number, item["token"], till, item["used_at"])
        made, _ = offline.report(here.engine, here.vault, taken, here.clock())
    except (PartnerError, VoucherError) as refusal:
        return _outcome(number, "refused", None, refusal.code, str(refusal))
    if made.state == "succeeded":
        return _outcome(number, "used", made.voucher, "", "")
    outcome = "duplicate" if made.code == "VOUCHER_USED" else "refused"
    return _outcome(number, outcome, made.voucher, made.code, made.detail)


def _outcome(
    number: str, outcome: str, voucher: str | None, code: str, detail: str
) -> dict[str, Any]:
    named = {"out_use_no": number, "outcome": outcome, "voucher": voucher}
    return named | why(code, detail)


def _answer(made: Move, again: bool) -> Response:
    if made.state == "failed":
        raise Problem(made.code, made.detail)
    given = answer(_read(made.number, made.kind))
    if again:
        given.headers["Idempotency-Replayed"] = "true"
    return given


def _read(number: str, kind: str) -> dict[str, Any]:
    with wired().engine.connect() as tx:
        seen = voucher_moves.seen(tx, g.merchant.id, number, kind)
    if seen is None:
        raise Problem("NOT_FOUND", f"no {kind} of this number came here; send it again")
    return _shown(seen)


def _shown(seen: Seen) -> dict[str, Any]:
    move = seen.move
    named: dict[str, Any] = {"out_use_no": move.number}
    if move.kind == "use":
        place = {"store": seen.store, "till": seen.till}
        named |= place | {"offline": move.offline, "returned": seen.returned}
    elif move.kind == "return":
        named = {"out_return_no": move.number, "out_use_no": move.use}
    else:
        named = {"out_void_no": move.number, "reason": move.reason, "staff": move.staff}
    return {
        **named,
        "state": move.state,
        "voucher": move.voucher,
        "reward": seen.reward,
        "title": seen.title,
        "points": None if seen.points is None else str(seen.points),
        "voucher_state": seen.voucher_state,
        **why(move.code, move.detail),
        **stamp("created", move.at),
    }
