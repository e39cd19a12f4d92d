"""Rewards on their merchant's side, and on the operators' who open them."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g, request
from sqlalchemy import Connection

from app.api.draft_forms import ReasonSchema
from app.api.reward_forms import (
    RewardSchema,
    RewardsSchema,
    WrittenRewardSchema,
    shown,
    terms_of,
)
from app.api.rewards import known
from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    answer_once,
    cursor_of,
    moment_of,
    page,
    tagged,
)
from app.auth import admin, head_office
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows.reward import change, codes
from app.flows.reward.make import make
from app.store import merchants, rewards
from app.store.db import transact
from app.store.rewards import STATES, Offer
from app.wiring import wired
from ledger.buckets import day_number

_CODE = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_FILE = {"type": "string", "description": "UTF-8, one code a line, at most 100000"}
OPERATE = admin("operator")

blp = Blueprint(
    "reward desks",
    __name__,
    url_prefix="/api/v1",
    description="奖励管理：商户起草与补货，运营开启。Rewards: drafted by merchants, opened here.",
)


class OwnRewardsArgs(PageArgs):
    """Which rewards."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))


class AllRewardsArgs(OwnRewardsArgs):
    """Which rewards, of which merchant."""

    merchant = ma.fields.String(
        validate=ma.validate.Length(2, 31), metadata={"description": "a merchant's code"}
    )


class TotalSchema(ma.Schema):
    """How many pieces there are in all, sold ones too."""

    total = ma.fields.String(
        required=True,
        validate=Pattern("^[1-9][0-9]{0,8}$", error="must be 1 to 999999999, as text"),
    )


class UploadedSchema(ma.Schema):
    """What became of a file of codes."""

    lines = ma.fields.Integer(required=True, metadata={"description": "lines that hold a code"})
    added = ma.fields.Integer(required=True)
    known = ma.fields.Integer(required=True, metadata={"description": "uploaded here before"})
    remaining = ma.fields.String(required=True, metadata={"description": "pieces left now"})


@blp.serve("GET", "/merchant/rewards", gives=RewardsSchema, guard=head_office, query=OwnRewardsArgs)
def list_own_rewards(args: dict[str, Any]) -> Response:
    """本商户的奖励 · Your rewards, newest first."""
    return _page(g.merchant.id, args)


@blp.serve("GET", "/merchant/rewards/<code>", gives=RewardSchema, guard=head_office)
def get_own_reward(code: str) -> Response:
    """读取奖励 · One of your rewards."""
    with wired().engine.connect() as tx:
        return answer(shown(_own(tx, code)))


@blp.serve(
    "PUT",
    "/merchant/rewards/<code>",
    gives=RewardSchema,
    guard=head_office,
    body=WrittenRewardSchema,
)
def put_own_reward(body: dict[str, Any], code: str) -> Response:
    """起草奖励 · Write a reward under a code of your own; an operator opens it.

    The same again changes nothing. A draft may be written anew; once it was opened its terms stay,
    and another reward takes another code.
    """
    here, merchant, now = wired(), g.merchant.id, wired().clock()
    terms, pieces = terms_of(body)

    def work(tx: Connection) -> Offer:
        make(tx, here.vault, merchant, _known(code), terms, pieces, now)
        return _own(tx, code)

    return answer(shown(transact(here.engine, work)))


@blp.serve(
    "PUT",
    "/merchant/rewards/<code>/stock",
    gives=RewardSchema,
    guard=head_office,
    body=TotalSchema,
)
def put_stock(body: dict[str, Any], code: str) -> Response:
    """补充库存 · Let there be more pieces; the total counts those that are sold too."""
    here, merchant = wired(), g.merchant.id

    def work(tx: Connection) -> Offer:
        change.add_stock(tx, merchant, _known(code), int(body["total"]))
        return _own(tx, code)

    made = transact(here.engine, work)
    here.shelf.look_again()
    return answer(shown(made))


@blp.serve(
    "POST",
    "/merchant/rewards/<code>/codes",
    gives=UploadedSchema,
    guard=head_office,
    raw={"text/csv": _FILE, "text/plain": _FILE},
)
def post_codes(code: str) -> Response:
    """上传券码 · Add a file of your own codes, one a line; all of them or none.

    Each new code is a piece more in stock. Sent again, a file adds nothing: its lines are known.
    """
    if request.mimetype not in ("text/csv", "text/plain"):
        raise Problem("CONTENT_TYPE", "send the codes as text/csv or text/plain, one a line")
    here, merchant, file = wired(), g.merchant.id, request.get_data()

    def work(tx: Connection) -> dict[str, Any]:
        done = codes.upload(tx, here.vault, merchant, _known(code), file)
        return {**done._asdict(), "remaining": str(_own(tx, code).remaining)}

    made = transact(here.engine, work)
    here.shelf.look_again()
    return answer(made)


@blp.serve("GET", "/admin/rewards", gives=RewardsSchema, guard=admin(), query=AllRewardsArgs)
def list_rewards(args: dict[str, Any]) -> Response:
    """奖励列表 · Rewards of all merchants, newest first."""
    merchant = None
    if "merchant" in args:
        with wired().engine.connect() as tx:
            found = merchants.find(tx, args["merchant"])
        if found is None:
            raise Problem("NOT_FOUND", "there is no merchant of this code")
        merchant = found.id
    return _page(merchant, args)


@blp.serve("GET", "/admin/rewards/<reward>", gives=RewardSchema, guard=admin())
def get_reward(reward: str) -> Response:
    """读取奖励 · One reward. Mind its ETag."""
    with wired().engine.connect() as tx:
        made = _found(tx, known(reward))
    return tagged(answer(made), str(made["revision"]))


@blp.serve(
    "POST",
    "/admin/rewards/<reward>/open",
    gives=RewardSchema,
    guard=OPERATE,
    repeat=True,
    match=True,
)
def post_open(reward: str) -> Response:
    """开启奖励 · Show it to residents, first or again; its terms stay as they are from here on."""
    return _bring(reward, "open", "")


@blp.serve(
    "POST",
    "/admin/rewards/<reward>/pause",
    gives=RewardSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_pause(body: dict[str, Any], reward: str) -> Response:
    """暂停奖励 · Take no orders for it; what is held or issued stays good."""
    return _bring(reward, "paused", body["reason"])


@blp.serve(
    "POST",
    "/admin/rewards/<reward>/close",
    gives=RewardSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_close(body: dict[str, Any], reward: str) -> Response:
    """关闭奖励 · Take no orders for it ever again; what is held or issued stays good."""
    return _bring(reward, "closed", body["reason"])


def _bring(reward: str, state: str, reason: str) -> Response:
    here, who, revision, now = wired(), g.admin.name, g.revision, wired().clock()

    def work(tx: Connection) -> dict[str, Any]:
        change.bring(tx, who, known(reward), state, revision, reason, now)
        return _found(tx, reward)

    made = answer_once(work)
    here.shelf.look_again()
    return tagged(made, str(orjson.loads(made.data)["revision"]))


def _page(merchant: str | None, args: dict[str, Any]) -> Response:
    limit, before = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = rewards.page(tx, merchant, args.get("state"), _today(), before, limit + 1)
    last = found[limit - 1].reward if len(found) > limit else None
    more = cursor_of(f"{last.made_at.isoformat()} {last.id}") if last else None
    return answer(page([shown(one) for one in found[:limit]], more))


def _found(tx: Connection, reward: str) -> dict[str, Any]:
    found = rewards.offer(tx, reward, _today())
    if found is None:
        raise Problem("NOT_FOUND", "there is no reward of this id")
    return shown(found)


def _own(tx: Connection, code: str) -> Offer:
    found = rewards.own_offer(tx, g.merchant.id, _known(code), _today())
    if found is None:
        raise Problem("NOT_FOUND", "you have no reward of this code")
    return found


def _known(code: str) -> str:
    if not _CODE.fullmatch(code):
        raise Problem("NOT_FOUND", "a reward's code has 1 to 32 of A-Z a-z 0-9 _ -")
    return code


def _today() -> int:
    return day_number(wired().clock().astimezone(CITY_ZONE).date())
