"""Check: may this resident spend here, now? A refusal, or a case that nobody at the till notices.

Asked within the transaction that spends, after the resident was locked, so that two tills cannot
both be the last one under a limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows.fraud.rules import RULES, name_of
from app.store import cases, fraud

_HOUR: Final = timedelta(hours=1)
_SAYS: Final = {
    "hour_count": "a resident may make at most {} charges and orders in an hour; try again later",
    "day_count": "a resident may make at most {} charges and orders in a day; try tomorrow",
    "day_points": "a resident may spend at most {} points in a day; try less, or tomorrow",
    "day_devices": "a resident may show codes on at most {} devices in a day; try tomorrow",
}


class Attempt(NamedTuple):
    """What is about to be spent. `resident` and `merchant` are ids (32 hex digits); `device` is
    what showed the code, if that is known; `kind` is charge or order."""

    resident: str
    device: bytes | None
    merchant: str
    points: int
    kind: str


class Verdict(NamedTuple):
    """A refusal: its code (of app.errors.PROBLEMS) and its sentence."""

    code: str
    detail: str


class _Broken(NamedTuple):
    rule: str
    limit: str
    found: int
    verdict: Verdict


def check(tx: Connection, attempt: Attempt, now: datetime) -> Verdict | None:
    """The refusal of the first rule that is broken and refuses; None: go on. Cases are opened
    here, also those of rules that only watch, and are kept if `tx` commits."""
    local = now.astimezone(CITY_ZONE)
    resident, device, merchant, *_ = attempt
    seen = fraud.seen(tx, resident, merchant, device, *since(now))
    refusal = None
    for rule, limit, found, verdict in _broken(attempt, seen):
        mode = _value(seen, rule)["mode"]
        if mode == "off":
            continue
        facts = {"day": f"{local:%Y-%m-%d}", "limit": limit, "found": str(found)}
        key = f"{seen.salt.hex()} {merchant} {local:%Y%m%d}"
        parts = (merchant, facts | {"kind": attempt.kind}, resident, mode == "shadow")
        cases.open_case(tx, cases.Finding("fraud", rule, key, *parts), now)
        if mode == "refuse" and refusal is None:
            refusal = verdict
    return refusal


def since(now: datetime) -> tuple[datetime, datetime]:
    """When the day and the hour began that the rules count in."""
    begins = now.astimezone(CITY_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    return begins, now - _HOUR


def is_clean(attempt: Attempt, seen: fraud.Seen) -> bool:
    """Whether no rule has anything to say: `check` would open no case and refuse nothing."""
    return all(_value(seen, one.rule)["mode"] == "off" for one in _broken(attempt, seen))


def _broken(attempt: Attempt, seen: fraud.Seen) -> Iterator[_Broken]:
    """Each rule that is broken, once, with the first of its limits that is."""
    totals = {
        ("resident", "hour_count"): seen.hour_count + 1,
        ("resident", "day_count"): seen.day_count + 1,
        ("resident", "day_points"): seen.day_points + attempt.points,
    }
    if attempt.device is not None:
        totals["device", "day_devices"] = seen.day_devices + 1
    broken = set()
    for (rule, limit), total in totals.items():
        most = _value(seen, rule)[limit]
        if total > most and rule not in broken:
            broken.add(rule)
            yield _Broken(rule, limit, total, Verdict("VELOCITY_LIMIT", _SAYS[limit].format(most)))
    if seen.staff:
        detail = "this resident works for this merchant and cannot redeem points here"
        yield _Broken("staff", "staff", 1, Verdict("OWN_STAFF", detail))


def _value(seen: fraud.Seen, rule: str) -> dict[str, Any]:
    value: dict[str, Any] = seen.rules.get(name_of(rule)) or RULES[rule].default
    return value
