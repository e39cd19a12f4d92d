"""Explain: which cap cut an act's points, and what its person had claimed before.

An entry says how many points caps withheld, and no more. The rest is counted again, as it was
counted then: out of what the same person did before in the same day or month, by its openings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.store import statements
from app.store.days import Days
from app.store.statements import Line, Wanted
from app.vault import opener
from ledger.accounts import Asset
from ledger.entries import Kind
from scenarios import Activity, Rejected, Usage, Version, claim, needs, read_time
from scenarios.activity import business_day


class Cut(NamedTuple):
    """The name of the cap that decided ("day.count"; None if it cannot be told any more, because
    what was done before was erased), and what was claimed before by period: "day" and "month"."""

    cap: str | None
    used: dict[str, Usage]


class _Act(NamedTuple):
    day: int
    reduction_mg: int
    points: int


def cut_by(
    tx: Connection,
    days: Days,
    key: bytes,
    line: Line,
    version: Version,
    activity: Activity,
    now: datetime,
) -> Cut:
    """Why an issue withheld points. `key` is the resident's own."""
    acts = list(_before(tx, days, key, line, version, activity, now))
    keys = needs(version, activity)
    used = {}
    for per in version.periods:
        width = 1 if per == "day" else 100
        same = [act for act in acts if act.day // width == activity.day // width]
        used[per] = Usage(
            len(same), sum(act.reduction_mg for act in same), sum(act.points for act in same)
        )
    mg = _given(line, Asset.CO2E)
    try:
        claimed = claim(version, activity, mg, keys, dict(zip(keys, used.values(), strict=False)))
    except Rejected:
        return Cut(None, used)
    agrees = claimed.withheld == line.fact["detail"].get("withheld", 0)
    return Cut(claimed.cap if agrees else None, used)


def _before(
    tx: Connection,
    days: Days,
    key: bytes,
    line: Line,
    version: Version,
    activity: Activity,
    now: datetime,
) -> Iterator[_Act]:
    """What stood of the same scenario when the act came, since its month began."""
    owner = statements.owner(line.fact)
    year, month = divmod(activity.month, 100)
    since = days.since(tx, datetime(year, month, 1, tzinfo=CITY_ZONE), now)
    span = Wanted(since=since, before=line.arrival)
    issues = statements.lines(tx, owner, None, span._replace(scenario=version.scenario))
    undone = {
        one.fact["detail"]["reverses"]
        for one in statements.lines(tx, owner, None, span._replace(kind=Kind.REVERSE))
    }
    opened = opener(key)
    sealed = statements.sealed_openings(tx, [one.arrival for one in issues])
    for one in issues:
        if one.fact["id"] not in undone and one.arrival in sealed:
            act = json.loads(opened(one.fact["id"], sealed[one.arrival]))
            points = _given(one, Asset.POINT) + one.fact["detail"].get("awaiting", 0)
            yield _Act(business_day(read_time(act["occurred_at"])), _given(one, Asset.CO2E), points)


def _given(line: Line, asset: Asset) -> int:
    """What an issue gives, to the wallet and in repayment of debt."""
    return sum(amount for _, of, _, amount in line.fact["postings"] if of == asset and amount > 0)
