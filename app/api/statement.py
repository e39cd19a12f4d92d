"""A resident's entries as JSON: one line each, and one in full with its calculation."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from app.api.wire import calendar_day, instant, stamp
from app.store.statements import Line
from ledger.accounts import AccountKind, Asset
from ledger.entries import Entry, Kind
from scenarios import Catalogue, Version, quantify
from scenarios.activity import measure, read_time

_TITLES = {
    Kind.ISSUE: "获得",
    Kind.HOLD: "冻结",
    Kind.RELEASE: "解冻",
    Kind.REDEEM: "兑换",
    Kind.REFUND: "退回",
    Kind.REVERSE: "冲正",
    Kind.EXPIRE: "过期",
    Kind.ADJUST: "调整",
}


def line(item: Line, catalogue: Catalogue) -> dict[str, Any]:
    """One line of a statement: amounts are what the wallet gained, or lost if negative."""
    entry, detail = item.entry, item.entry.detail
    version = rule_of(entry, catalogue)
    made: dict[str, Any] = {
        "entry_id": entry.id,
        "kind": str(entry.kind),
        "title_zh": version.title.zh if version else _TITLES.get(entry.kind, str(entry.kind)),
        "scenario": version.scenario if version else None,
        **stamp("recorded", datetime.fromisoformat(entry.at)),
        "points": str(_gained(entry, Asset.POINT)),
        "reduction_mg": str(_gained(entry, Asset.CO2E)),
        "sealed": item.sealed,
    }
    for name, shown in (("awaiting", "waiting_points"), ("withheld", "withheld_points")):
        if name in detail:
            made[shown] = str(detail[name])
    for name in ("settles", "reverses", "redeem", "hold"):
        if name in detail:
            made["concerns_entry_id"] = detail[name]
    return made


def rule_of(entry: Entry, catalogue: Catalogue) -> Version | None:
    """The edition an issue was reckoned by; None for entries without a rule."""
    if "rule" not in entry.detail:
        return None
    scenario, number, _ = entry.detail["rule"]
    edition: Version = catalogue.versions(scenario)[number - 1]
    return edition


def postings(entry: Entry) -> list[dict[str, str]]:
    """The entry's balanced lines."""
    return [
        {
            "account": str(one.account.kind),
            "asset": str(one.asset),
            "bucket": _bucket(one.asset, one.bucket),
            "amount": str(one.amount),
        }
        for one in entry.postings
    ]


def calculation(version: Version, opening: bytes) -> dict[str, Any]:
    """How the reduction came about, reckoned again from what the resident did."""
    act = json.loads(opening)
    activity = measure(version, read_time(act["occurred_at"]), act["quantities"])
    reduction = quantify(version, activity)
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
        "caps": [
            {"per": cap.per, "of": cap.of, "limit": cap.limit, "source": cap.source}
            for cap in version.caps
        ],
    }


def _gained(entry: Entry, asset: Asset) -> int:
    return sum(
        one.amount
        for one in entry.postings
        if one.account.kind is AccountKind.RESIDENT and one.asset is asset
    )


def _bucket(asset: Asset, bucket: int) -> str:
    if bucket == 0:
        return ""
    return calendar_day(bucket) if asset is Asset.POINT else str(bucket)
