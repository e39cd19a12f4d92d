"""For activity providers: signed batches in, receipts out, corrections, what nobody claimed yet."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any

import marshmallow as ma
from flask import Response, current_app, g, request

from app import limits
from app.api.strict_json import read_body
from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    cursor_of,
    page,
    place_of,
    stamp,
)
from app.auth import received, signed
from app.errors import Problem
from app.flows.accept import Batch, accept
from app.flows.backlog import Backlog
from app.flows.correct import correct
from app.signature import canonical_request, parse_signature
from app.store import batches
from app.wiring import wired

MAX_ACTIVITIES = 5000

blp = Blueprint(
    "providers",
    __name__,
    url_prefix="/api/v1",
    description="运营方：签名提交低碳行为批次。Activity providers; every request is signed.",
)
_BATCH_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def _text(description: str, *, required: bool = True, **metadata: Any) -> ma.fields.String:
    return ma.fields.String(required=required, metadata={"description": description, **metadata})


class ActivitySchema(ma.Schema):
    """One activity as reported. It is judged by itself: a bad one is one rejection."""

    id = _text("the provider's own id, once", pattern="^[!-~]{1,64}$")
    subject = _text("the provider's identifier of the person", minLength=1, maxLength=128)
    scenario = _text("an id of the registry", example="travel.bike_shared")
    occurred_at = _text("with an offset", example="2026-01-02T08:00:00+08:00", format="date-time")
    quantities = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.String(),
        required=True,
        metadata={
            "description": "decimals in text, by input name",
            "example": {"distance_km": "2.5"},
        },
    )


class _Activities(ma.fields.List[Any]):
    """A list whose length is checked here, and whose items are left to the flow to judge."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ma.ValidationError("must be a list")
        return value


class BatchSchema(ma.Schema):
    """The envelope of a batch."""

    batch_id = ma.fields.String(
        required=True,
        validate=Pattern("^[A-Za-z0-9._-]{1,64}$", error="must be 1 to 64 of A-Z a-z 0-9 . _ -"),
    )
    activities = _Activities(
        ma.fields.Nested(ActivitySchema),
        required=True,
        validate=ma.validate.Length(
            1, MAX_ACTIVITIES, error=f"must hold 1 to {MAX_ACTIVITIES} activities"
        ),
    )


class OutcomeSchema(ma.Schema):
    """What became of one activity."""

    id = ma.fields.String(required=True, allow_none=True)
    outcome = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(["accepted", "duplicate", "unclaimed", "rejected", "reversed"]),
    )
    entry_id = _text("of an accepted or duplicate one", required=False)
    reduction_mg = _text("milligrams of CO2e", required=False)
    points = _text("credited now", required=False)
    waiting_points = _text("earned; paid in order once the budget is funded", required=False)
    withheld_points = _text("above a cap, not given", required=False)
    cap = _text("which cap: day.count, month.points …", required=False)
    reason = _text("WAITING_FOR_BUDGET or CAP_REACHED, why points are fewer", required=False)
    code = _text("why it was rejected, for programs", required=False)
    detail = _text("why it was rejected, as a sentence", required=False)


class ReceiptSchema(ma.Schema):
    """The stored answer to a batch: the same bytes however often it is asked for."""

    batch_id = ma.fields.String(required=True)
    received_at = ma.fields.String(required=True)
    counts = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.Integer(),
        required=True,
        metadata={"description": "activities by outcome"},
    )
    outcomes = ma.fields.List(ma.fields.Nested(OutcomeSchema), required=True)


class UnclaimedSchema(ma.Schema):
    """An activity whose person is not bound to any resident yet; credited when that happens."""

    activity_id = ma.fields.String(required=True)
    received_at = ma.fields.String(required=True)
    received_date = ma.fields.String(required=True)


class UnclaimedPageSchema(ma.Schema):
    """A page of unclaimed activities."""

    items = ma.fields.List(ma.fields.Nested(UnclaimedSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class EchoSchema(ma.Schema):
    """The five lines this server built, and what it makes of the header."""

    method = ma.fields.String(required=True)
    path_query = ma.fields.String(required=True)
    timestamp = ma.fields.String(required=True)
    nonce = ma.fields.String(required=True)
    body_bytes = ma.fields.Integer(required=True)
    body_sha256 = ma.fields.String(required=True)
    canonical_sha256 = ma.fields.String(required=True)


@blp.serve("POST", "/batches", gives=ReceiptSchema, guard=signed, body=BatchSchema)
def post_batch(envelope: dict[str, Any]) -> Response:
    """提交批次 · Send a batch of activities.

    `batch_id` is the request number: the same bytes again get the same receipt, other bytes under
    the same id a 409. Each activity has an outcome of its own, in the order sent. With 429
    CITY_BUSY nothing was read of it: send the same again after Retry-After.
    """
    here = wired()
    backlog: Backlog = current_app.extensions.setdefault("puhui.backlog", Backlog())
    backlog.check(here.engine)
    batch = Batch(g.provider, envelope["batch_id"], request.get_data(), envelope["activities"])
    return _receipt(accept(here.engine, here.vault, here.registry, batch, here.clock()))


@blp.serve("GET", "/batches/<batch_id>", gives=ReceiptSchema, guard=signed)
def get_batch(batch_id: str) -> Response:
    """读取回执 · Read a receipt again."""
    known = None
    if _BATCH_ID.fullmatch(batch_id):
        with wired().engine.connect() as tx:
            known = batches.find(tx, g.provider, batch_id)
    if known is None:
        raise Problem("NOT_FOUND", "this provider sent no batch of this id")
    return _receipt(known.receipt)


def _receipt(stored: bytes) -> Response:
    made = Response(stored, mimetype="application/json")
    made.headers["Cache-Control"] = "no-store"
    return made


@blp.serve(
    "PUT",
    "/activities/<printable:activity_id>/correction",
    gives=OutcomeSchema,
    guard=signed,
    raw={"application/json": {"anyOf": [ActivitySchema, {"type": "null"}]}},
)
def put_correction(activity_id: str) -> Response:
    """更正 · Put another activity in the place of a credited one, or void it.

    The body is the activity as it should have been (its `id` unchanged), or `null` to void it. The
    first entry is reversed and a new one issued; the same correction again changes nothing.
    """
    here = wired()
    replacement = read_body(request)
    parts = (here.engine, here.vault, here.registry, g.provider, activity_id, replacement)
    return answer(correct(*parts, here.clock()))


@blp.serve("GET", "/activities/unclaimed", gives=UnclaimedPageSchema, guard=signed, query=PageArgs)
def get_unclaimed(args: dict[str, Any]) -> Response:
    """待认领行为 · Activities whose person is not bound to a resident yet."""
    limit, after = args["limit"], place_of(args.get("cursor")) or ""
    with wired().engine.connect() as tx:
        rows = batches.unclaimed_page(tx, g.provider, after, limit + 1)
    items = [{"activity_id": name, **stamp("received", at)} for name, at in rows[:limit]]
    more = cursor_of(rows[limit - 1][0]) if len(rows) > limit else None
    return answer(page(items, more))


@blp.serve("POST", "/echo-signature", gives=EchoSchema, raw={"*/*": {}})
def echo_signature() -> Response:
    """签名调试 · Which lines this server signs for the request as it arrived.

    Takes any body; the header must read but need not verify. The body is answered as its length and
    SHA-256 only, and nothing is stored.
    """
    limits.spend(limits.PUBLIC, request.remote_addr or "-")
    header, arrived = parse_signature(request.headers.get("Authorization")), received()
    message = canonical_request(
        arrived.method, arrived.path_query, header.timestamp, header.nonce, arrived.body
    )
    return answer(
        {
            "method": arrived.method,
            "path_query": arrived.path_query,
            "timestamp": header.timestamp,
            "nonce": header.nonce,
            "body_bytes": len(arrived.body),
            "body_sha256": sha256(arrived.body).hexdigest(),
            "canonical_sha256": sha256(message).hexdigest(),
        }
    )
