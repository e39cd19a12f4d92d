"""For residents: what I hold, how it came about, and why to believe it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from functools import partial
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api import answers, statement, why_not
from app.api.belonging import progressed
from app.api.wire import (
    Blueprint,
    NearDay,
    PageArgs,
    answer,
    bad_cursor,
    calendar_day,
    cursor_of,
    page,
    place_of,
    stamp,
)
from app.auth import resident
from app.config import CITY_ZONE
from app.errors import PROBLEMS, Problem
from app.flows import challenge, explain, summary
from app.flows.reward.choose import next_one
from app.store import rewards, statements
from app.store.db import one_statement
from app.store.rewards import Offer
from app.store.statements import Full, Line, Wanted
from app.vault import Vault, open_opening
from app.wiring import wired
from ledger.accounts import AccountKind, Asset
from ledger.buckets import day_number
from ledger.encoding import MAX_INT
from ledger.entries import Kind, instant
from scenarios import AREAS

_RECENT = 5
_EXPIRING_DAYS = 90
_WEEK = timedelta(days=7)
_DAY = timedelta(days=1)
_ENTRY_ID = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC), "", "", 0)

blp = Blueprint(
    "residents",
    __name__,
    url_prefix="/api/v1/me",
    description="居民：余额、明细、计算过程与凭证。Residents read; the token says who.",
)


class HomeArgs(ma.Schema):
    """Since when."""

    since = ma.fields.String(
        validate=ma.validate.Length(1, 400),
        metadata={"description": "`cursor` of the last home that was shown"},
    )


class StatementArgs(PageArgs):
    """Which lines of the statement."""

    class Meta:
        """`from` is a word of Python's."""

        include = {  # noqa: RUF012 (marshmallow's own form)
            "from": NearDay(metadata={"description": "recorded on this day or later"}),
            "to": NearDay(metadata={"description": "recorded on this day or before"}),
        }

    kind = ma.fields.String(validate=ma.validate.OneOf([str(kind) for kind in Kind]))
    area = ma.fields.String(validate=ma.validate.OneOf(AREAS))
    scenario = ma.fields.String(validate=ma.validate.Length(1, 64))


@blp.serve("GET", "/balances", gives=answers.BalancesSchema, guard=resident)
def get_balances() -> Response:
    """余额 · Points by expiry, carbon by year."""
    here = wired()
    with one_statement(here.engine) as tx:
        rows = statements.balances(tx, g.resident)
    return answer(_balances(rows, here.clock()))


@blp.serve("GET", "/home", gives=answers.HomeSchema, guard=resident, query=HomeArgs)
def get_home(args: dict[str, Any]) -> Response:
    """首页 · Balances, what expires soon, what waits, today's and this month's carbon by area, what
    arrived since last time, the newest entries, and the next reward, in one call.

    Days are those on which entries were recorded. `arrived` is null without `since`; nothing of
    it is kept here.
    """
    here = wired()
    now, place = here.clock(), place_of(args.get("since"))
    today = datetime.combine(now.astimezone(CITY_ZONE).date(), clock_time(), CITY_ZONE)
    month = today.replace(day=1)
    with one_statement(here.engine) as tx:
        held = statements.standing(tx, g.resident)
        reach = here.days.since(tx, min(month, today - _WEEK), now)
        lines = statements.newest(tx, g.resident, reach)
        editions = partial(here.registry.edition, tx)
        recent = statement.lines(tx, g.resident, lines[:_RECENT], editions)
        challenges = challenge.progress(tx, here.vault, g.resident, now)
        reward = _next_reward(tx, here.shelf.offers(tx, now), now)
    balances = _balances(held.balances, now)
    return answer(
        {
            "resident": g.resident,
            "balances": balances,
            "expiring": _expiring(balances["buckets"], today),
            "waiting_points": str(held.waiting),
            "today": {"date": today.date().isoformat(), **_carbon(lines, today)},
            "month": {"month": f"{month:%Y-%m}", **_carbon(lines, month)},
            "arrived": None if place is None else _arrived(lines, _arrival(place)),
            "challenges": [progressed(one) for one in challenges],
            "next_reward": reward,
            "unread_messages": held.unread,
            "recent": recent,
            "cursor": cursor_of(str(lines[0].arrival if lines else 0)),
        }
    )


@blp.serve("GET", "/statement", gives=answers.StatementSchema, guard=resident, query=StatementArgs)
def get_statement(args: dict[str, Any]) -> Response:
    """明细 · Entries, newest first; filters for acts and for the days they were recorded on.

    `area` and `scenario` keep entries that credit such an act, `from` and `to` those recorded on
    these days or between.
    """
    here, limit = wired(), args["limit"]
    place = place_of(args.get("cursor"))
    wanted = Wanted(
        before=MAX_INT if place is None else _arrival(place),
        kind=Kind(args["kind"]) if "kind" in args else None,
        scenario=args.get("scenario", ""),
        area=args.get("area", ""),
    )
    with one_statement(here.engine) as tx:
        if "from" in args:
            first = datetime.combine(args["from"], clock_time(), CITY_ZONE)
            since = here.days.since(tx, first, here.clock())
            wanted = wanted._replace(since=since, first=instant(first))
        if "to" in args:
            end = datetime.combine(args["to"] + _DAY, clock_time(), CITY_ZONE)
            before = min(wanted.before, here.days.until(tx, end, here.clock()))
            wanted = wanted._replace(before=before, end=instant(end))
        rows = statements.lines(tx, g.resident, limit + 1, wanted)
        editions = partial(here.registry.edition, tx)
        items = statement.lines(tx, g.resident, rows[:limit], editions)
    more = cursor_of(str(rows[limit - 1].arrival)) if len(rows) > limit else None
    return answer(page(items, more))


@blp.serve("GET", "/entries/<entry_id>", gives=answers.EntrySchema, guard=resident)
def get_entry(entry_id: str) -> Response:
    """一笔明细的计算过程 · One entry: what I did, by which rule, with whose number, to what result.

    `calculation` is null for entries that reckon no activity, such as a redemption. `reason` says
    why there are fewer points than were earned, and what became of those that wait.
    """
    here = wired()
    with one_statement(here.engine) as tx:
        own = _own(tx, here.vault, entry_id)
        line, editions = own.line, partial(here.registry.edition, tx)
        (shown,) = statement.lines(tx, g.resident, [line], editions)
        version, opened = statement.rule_of(line.fact, editions), _open(here.vault, own)
        reckoned = statement.reckon(version, opened[1]) if version and opened else None
        cut = None
        if version and reckoned and own.wrapped_key and "withheld" in line.fact["detail"]:
            key = here.vault.subject_key(g.resident, own.wrapped_key)
            act, now = reckoned.activity, here.clock()
            cut = explain.cut_by(tx, here.days, key, line, version, act, now)
    return answer(
        {
            **shown,
            **_follow_up(here.vault, own),
            "postings": statement.postings(line.fact),
            "calculation": statement.calculation(version, reckoned, cut)
            if version and reckoned
            else None,
        }
    )


@blp.serve("GET", "/entries/<entry_id>/opening", gives=answers.OpeningSchema, guard=resident)
def get_opening(entry_id: str) -> Response:
    """承诺的原文 · What the entry's commitment hides: SHA-256(salt followed by opening)."""
    here = wired()
    with one_statement(here.engine) as tx:
        own = _own(tx, here.vault, entry_id)
    opened = _open(here.vault, own)
    if opened is None:
        raise Problem("NOT_FOUND", "this entry commits to nothing that could be opened")
    salt, opening = opened
    return answer(
        {
            "entry_id": entry_id,
            "commitment": own.line.fact["detail"]["commitment"],
            "salt": salt.hex(),
            "opening": opening.decode(),
        }
    )


@blp.serve("GET", "/rejections", gives=answers.RejectionsSchema, guard=resident, query=PageArgs)
def get_rejections(args: dict[str, Any]) -> Response:
    """未计入的行为 · Activities that were reported of me and refused, why, and what can be done."""
    limit = args["limit"]
    before = _refusal_place(place_of(args.get("cursor")))
    here = wired()
    with here.engine.connect() as tx:
        rows = statements.refusals(tx, g.resident, before, limit + 1)
        catalogue = here.registry.current(tx)
    items = [
        {
            **stamp("recorded", row.recorded_at),
            "provider": row.provider,
            "activity_id": row.activity_id,
            "scenario": row.scenario,
            "scenario_zh": (
                catalogue.versions(row.scenario)[-1].title.zh if row.scenario else None
            ),
            "code": row.code,
            "title_zh": PROBLEMS.get(row.code, (0, row.code))[1],
            "reason_zh": why_not.REASONS.get(row.code, why_not.OTHER),
            "detail": row.detail,
        }
        for row in rows[:limit]
    ]
    more = cursor_of(_place(rows[limit - 1])) if len(rows) > limit else None
    return answer(page(items, more))


def _balances(rows: list[statements.Balance], now: datetime) -> dict[str, Any]:
    """Points past their last day are left out, though the entry that expires them may follow."""
    today = day_number(now.astimezone(CITY_ZONE).date())
    totals = {AccountKind.HELD.code: 0, AccountKind.DEBT.code: 0}
    buckets: list[dict[str, str]] = []
    vintages: list[dict[str, str]] = []
    points = reduction = 0
    for kind, asset, bucket, amount in rows:
        if kind != AccountKind.RESIDENT.code:
            totals[kind] += amount if asset == Asset.POINT.code else 0
        elif asset == Asset.CO2E.code:
            reduction += amount
            vintages.append({"year": str(bucket), "reduction_mg": str(amount)})
        elif bucket >= today:
            points += amount
            buckets.append({"expires_on": calendar_day(bucket), "points": str(amount)})
    return {
        "points": str(points),
        "held_points": str(totals[AccountKind.HELD.code]),
        "debt_points": str(totals[AccountKind.DEBT.code]),
        "buckets": buckets,
        "next_expiry": buckets[0] if buckets else None,
        "reduction_mg": str(reduction),
        "vintages": vintages,
    }


def _next_reward(tx: Connection, offers: list[Offer], now: datetime) -> dict[str, str] | None:
    """The cheapest reward still out of reach, else the dearest within it."""
    if not offers:
        return None
    today = now.astimezone(CITY_ZONE).date()
    who = rewards.shopper(tx, g.resident, day_number(today))
    found = who and next_one(offers, who, today, now)
    if not who or not found:
        return None
    return {
        "id": found.reward.id,
        "title_zh": found.reward.title_zh,
        "points": str(found.reward.points),
        "missing_points": str(max(0, found.reward.points - who.points)),
    }


def _expiring(buckets: list[dict[str, str]], today: datetime) -> dict[str, Any]:
    """Points whose last day is near, and the first such day."""
    last = (today.date() + timedelta(days=_EXPIRING_DAYS)).isoformat()
    soon = [one for one in buckets if one["expires_on"] <= last]
    return {
        "points": str(sum(int(one["points"]) for one in soon)),
        "first_on": soon[0]["expires_on"] if soon else None,
        "within_days": _EXPIRING_DAYS,
    }


def _carbon(lines: list[Line], first: datetime) -> dict[str, Any]:
    """Carbon by area of what was recorded from a moment on."""
    at = instant(first)
    areas = summary.carbon(line.fact for line in lines if line.fact["at"] >= at)
    return {
        "reduction_mg": str(sum(areas.values())),
        "areas": [
            {"area": area, "reduction_mg": str(areas[area])} for area in AREAS if area in areas
        ],
    }


def _arrived(lines: list[Line], since: int) -> dict[str, Any]:
    """What was written after an arrival; of a longer absence only what these lines reach."""
    fresh = [line.fact for line in lines if line.arrival > since]
    return {
        "entries": len(fresh),
        "points": str(sum(summary.gained(fact, Asset.POINT) for fact in fresh)),
        "reduction_mg": str(sum(summary.gained(fact, Asset.CO2E) for fact in fresh)),
        "more": len(fresh) == len(lines) >= statements.PAGE,
    }


def _own(tx: Connection, vault: Vault, entry_id: str) -> Full:
    """An entry of the resident who asks; another's is as good as none."""
    if _ENTRY_ID.fullmatch(entry_id):
        found = statements.full(tx, g.resident, entry_id, _later(vault, entry_id))
        if found is not None:
            return found
    raise _unknown()


def _unknown() -> Problem:
    return Problem("NOT_FOUND", "you have no entry of this id")


def _later(vault: Vault, entry_id: str) -> tuple[str, str]:
    """The ids of the entries that would settle and reverse this one."""
    return vault.entry_id("settle", entry_id), vault.entry_id("reverse", entry_id)


def _follow_up(vault: Vault, own: Full) -> dict[str, str | None]:
    """Why points are fewer than were earned, and which later entries say what came of it."""
    detail = own.line.fact["detail"]
    settled, reversed_ = (
        name if name in own.later else None for name in _later(vault, own.line.fact["id"])
    )
    reason, state = None, None
    if "awaiting" in detail:
        reason = "WAITING_FOR_BUDGET"
        state = "paid" if settled else "waiting" if own.waiting else "lapsed"
    elif "withheld" in detail:
        reason = "CAP_REACHED"
    return {
        "reason": reason,
        "waiting": state,
        "settled_by_entry_id": settled,
        "reversed_by_entry_id": reversed_,
    }


def _open(vault: Vault, own: Full) -> tuple[bytes, bytes] | None:
    """Salt and bytes behind an entry's commitment; None if it has none or they were erased."""
    if own.sealed is None or own.wrapped_key is None:
        return None
    key = vault.subject_key(g.resident, own.wrapped_key)
    return open_opening(key, own.line.fact["id"], own.sealed)


def _arrival(place: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", place):
        raise bad_cursor()
    return int(place)


def _place(row: statements.Refusal) -> str:
    micros = (row.recorded_at - _EPOCH) // timedelta(microseconds=1)
    return f"{micros}|{row.provider}|{row.batch_id}|{row.position}"


def _refusal_place(place: str | None) -> tuple[datetime, str, str, int]:
    if place is None:
        return _LAST
    found = re.fullmatch(r"([0-9]{1,17})\|([a-z0-9-]+)\|([A-Za-z0-9._-]+)\|([0-9]{1,5})", place)
    if not found:
        raise bad_cursor()
    return _EPOCH + timedelta(microseconds=int(found[1])), found[2], found[3], int(found[4])
