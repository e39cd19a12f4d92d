"""For residents: what points can be had for, and by whom."""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.reward_forms import FullOfferSchema, OffersSchema, full, listed
from app.api.wire import (
    Blueprint,
    PageArgs,
    Pattern,
    answer,
    bad_cursor,
    cursor_of,
    page,
    place_of,
)
from app.auth import resident
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows.reward.choose import Choice, Wanted, choose, place
from app.flows.reward.terms import why_not
from app.store import rewards
from app.store.db import one_statement
from app.store.rewards import KINDS, Shopper
from app.wiring import wired
from ledger.buckets import day_number

_ID = re.compile("[0-9a-f]{32}")

blp = Blueprint(
    "rewards",
    __name__,
    url_prefix="/api/v1/me/rewards",
    description="积分兑换：可兑的奖励。What points can be had for.",
)


def _flag(description: str) -> ma.fields.Boolean:
    return ma.fields.Boolean(
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        metadata={"description": description},
    )


class RewardsArgs(PageArgs):
    """Which rewards."""

    kind = ma.fields.String(validate=ma.validate.OneOf(KINDS))
    q = ma.fields.String(
        validate=ma.validate.Length(1, 60),
        metadata={"description": "a part of the Chinese title"},
    )
    district = ma.fields.String(
        validate=Pattern("^[1-9][0-9]{5}$", error="must be a code of GB/T 2260, six digits"),
        metadata={"description": "those that residents of this district may have"},
    )
    merchant = ma.fields.String(
        validate=ma.validate.Length(2, 31), metadata={"description": "a merchant's code"}
    )
    affordable = _flag("only what you hold points enough for")
    all = _flag("also what you cannot have, with `why_not`")


@blp.serve("GET", "", gives=OffersSchema, guard=resident, query=RewardsArgs)
def list_rewards(args: dict[str, Any]) -> Response:
    """奖励列表 · Rewards that you may have, by rising price; a list is two seconds old at most.

    Those you hold too few points for are among them, with `missing_points`.
    """
    here, limit = wired(), args["limit"]
    now = here.clock()
    today = now.astimezone(CITY_ZONE).date()
    wanted = Wanted(
        kind=args.get("kind", ""),
        text=args.get("q", ""),
        district=args.get("district", ""),
        merchant=args.get("merchant", ""),
        affordable=args["affordable"],
        everything=args["all"],
    )
    after = _after(place_of(args.get("cursor")))
    with one_statement(here.engine) as tx:
        who = shopper(tx, g.resident, day_number(today))
        offers = here.shelf.offers(tx, now)
    found = list(islice(choose(offers, who, wanted, after, today, now), limit + 1))
    items = [listed(one, who.points) for one in found[:limit]]
    more = None
    if len(found) > limit:
        price, last = place(found[limit - 1].offer)
        more = cursor_of(f"{price} {last}")
    return answer(page(items, more))


@blp.serve("GET", "/<reward>", gives=FullOfferSchema, guard=resident)
def get_reward(reward: str) -> Response:
    """奖励详情 · A reward with all its terms, as it stands now, and why you cannot order it."""
    here = wired()
    now = here.clock()
    today = now.astimezone(CITY_ZONE).date()
    with one_statement(here.engine) as tx:
        who = shopper(tx, g.resident, day_number(today))
        offer = rewards.offer(tx, known(reward), day_number(today))
    if offer is None or offer.reward.state == "draft":
        raise Problem("NOT_FOUND", "there is no reward of this id")
    return answer(full(Choice(offer, why_not(offer, who, 1, today, now)), who.points))


def shopper(tx: Connection, resident: str, today: int) -> Shopper:
    """What rewards ask of a resident. Raises Problem SUBJECT_ERASED."""
    found = rewards.shopper(tx, resident, today)
    if found is None:
        raise Problem("SUBJECT_ERASED", "this account was closed")
    return found


def known(id: str) -> str:
    """An id that may be a reward's. Raises Problem NOT_FOUND."""
    if not _ID.fullmatch(id):
        raise Problem("NOT_FOUND", "there is no reward of this id")
    return id


def _after(place: str | None) -> tuple[int, str]:
    if place is None:
        return 0, ""
    found = re.fullmatch("([0-9]{1,10}) ([0-9a-f]{32})", place)
    if not found:
        raise bad_cursor()
    return int(found[1]), found[2]
