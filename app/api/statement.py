"""A resident's entries as JSON: one line each, and one in full with its calculation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from app.api.wire import calendar_day, instant, stamp
from app.flows.explain import Cut
from app.flows.summary import gained
from app.store import charges
from app.store.charges import Spending
from app.store.statements import Fact, Line
from ledger.accounts import Asset
from ledger.entries import Kind
from scenarios import Activity, Reduction, Version, quantify
from scenarios.activity import measure, read_time
from scenarios.caps import Cap

Editions = Callable[[str, int], Version]
"""The edition of a scenario's number, of those that were ever published."""

_TITLES: dict[str, str] = {
    Kind.ISSUE: "获得",
    Kind.HOLD: "冻结",
    Kind.RELEASE: "解冻",
    Kind.REDEEM: "兑换",
    Kind.REFUND: "退回",
    Kind.REVERSE: "冲正",
    Kind.EXPIRE: "过期",
    Kind.ADJUST: "调整",
}
_SPENT = frozenset(map(str, (Kind.HOLD, Kind.RELEASE, Kind.REDEEM, Kind.REFUND)))
_SHOWN = (("awaiting", "waiting_points"), ("withheld", "withheld_points"))


class Reckoned(NamedTuple):
    """An act reckoned again from its opening."""

    act: dict[str, Any]
    activity: Activity
    reduction: Reduction


def lines(
    tx: Connection, resident: str, items: Sequence[Line], editions: Editions
) -> list[dict[str, Any]]:
    """Lines of a resident's statement: amounts are what the wallet gained, or lost if negative.
    Where points were spent is looked up, if any were."""
    spent = {_spent(item.fact): item.fact for item in items if item.fact["kind"] in _SPENT}
    known: dict[str, Spending] = {}
    if spent:
        # What an entry of its own asked for was asked for when it was written; most are such.
        alone = all(name == fact["id"] for name, fact in spent.items())
        since = {"since": min(fact["at"] for fact in spent.values())} if alone else {}
        known = charges.spendings(tx, resident, spent, **since)
    return [_line(item, editions, known) for item in items]


def _spent(fact: Fact) -> str:
    """The hold or redemption that an entry is, resolves or gives back."""
    detail = fact["detail"]
    return str(detail.get("redeem") or detail.get("hold") or fact["id"])


def _line(item: Line, editions: Editions, spendings: Mapping[str, Spending]) -> dict[str, Any]:
    fact, detail = item.fact, item.fact["detail"]
    version = rule_of(fact, editions)
    made: dict[str, Any] = {
        "entry_id": fact["id"],
        "kind": fact["kind"],
        "title_zh": version.title.zh if version else _TITLES.get(fact["kind"], fact["kind"]),
        "scenario": version.scenario if version else None,
        **stamp("recorded", datetime.fromisoformat(fact["at"])),
        "points": str(gained(fact, Asset.POINT)),
        "reduction_mg": str(gained(fact, Asset.CO2E)),
        "sealed": item.sealed,
    }
    for name, shown in _SHOWN:
        if name in detail:
            made[shown] = str(detail[name])
    for name in ("settles", "reverses", "redeem", "hold"):
        if name in detail:
            made["concerns_entry_id"] = detail[name]
    if fact["kind"] in _SPENT and (spending := spendings.get(_spent(fact))):
        made["merchant"] = spending.merchant_name
        if spending.title is None:
            made["out_request_no"] = spending.number
        else:
            made["order"], made["reward_zh"] = spending.number, spending.title
    return made


def rule_of(fact: Fact, editions: Editions) -> Version | None:
    """The edition an issue was reckoned by; None for entries without a rule."""
    if "rule" not in fact["detail"]:
        return None
    scenario, number, _ = fact["detail"]["rule"]
    return editions(scenario, number)


def postings(fact: Fact) -> list[dict[str, str]]:
    """The entry's balanced lines."""
    return [
        {
            "account": name.partition(":")[0],
            "asset": asset,
            "bucket": _bucket(asset, bucket),
            "amount": str(amount),
        }
        for name, asset, bucket, amount in fact["postings"]
    ]


def reckon(version: Version, opening: bytes) -> Reckoned:
    """How the reduction came about, reckoned again from what the resident did."""
    act = json.loads(opening)
    activity = measure(version, read_time(act["occurred_at"]), act["quantities"])
    return Reckoned(act, activity, quantify(version, activity))


def calculation(version: Version, reckoned: Reckoned, cut: Cut | None) -> dict[str, Any]:
    """From what was done to grams and points; `cut` if caps withheld some."""
    act, activity, reduction = reckoned
    workings = reduction.workings
    return {
        "provider": act["provider"],
        "activity_id": act["activity"],
        "occurred_at": instant(activity.occurred_at),
        "occurred_date": calendar_day(activity.day),
        "scenario": version.scenario,
        "version": version.number,
        "digest": version.digest,
        "inputs": [
            {
                "title_zh": one.title.zh,
                "title_en": one.title.en,
                "value": one.value,
                "unit": one.unit,
            }
            for one in workings.inputs
        ],
        "coefficients": [
            {
                "title_zh": one.title.zh,
                "title_en": one.title.en,
                "value": one.value,
                "unit": one.unit,
                "source": one.source,
                "url": one.url,
                "year": one.year,
                "confidence": one.confidence,
            }
            for one in workings.coefficients
        ],
        "formula_zh": workings.formula.zh,
        "formula_en": workings.formula.en,
        "arithmetic": workings.arithmetic,
        "reduction_mg": str(reduction.mg),
        "reduction_g": workings.result_g,
        "points_per_kg": version.rate.points_per_kg,
        "points_before_caps": str(version.rate.points(reduction.mg)),
        "caps": [_cap(cap, cut) for cap in version.caps],
    }


def _cap(cap: Cap, cut: Cut | None) -> dict[str, Any]:
    made: dict[str, Any] = {
        "per": cap.per,
        "of": cap.of,
        "limit": cap.limit,
        "source": cap.source,
        "applied": cut is not None and cut.cap == cap.name,
    }
    if cut is not None:
        used = cut.used[cap.per]
        made["used_before"] = {
            "acts": str(used.count),
            "reduction_mg": str(used.reduction_mg),
            "points": str(used.points),
        }
    return made


def _bucket(asset: str, bucket: int) -> str:
    if bucket == 0:
        return ""
    return calendar_day(bucket) if asset == Asset.POINT else str(bucket)
