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
    begins = local.replace(hour=0, minute=0, second=0, microsecond=0)
    resident, device, merchant, *_ = attempt
    seen = fraud.seen(tx, resident, merchant, device, begins, now - _HOUR)
    refusal = None
    for rule, limit, found, verdict in _broken(attempt, seen):
        mode = _value(seen, rule)["mode"]
        if mode == "off":
            continue
        facts = {"day": f"{local:%Y-%m-%d}", "limit": limit, "found": str(found)}
        cases.open_case(
            tx,
            "fraud",
            rule,
            key=f"{seen.salt.hex()} {merchant} {local:%Y%m%d}",
            merchant=merchant,
            resident=resident,
            facts=facts | {"kind": attempt.kind},
            shadow=mode == "shadow",
            now=now,
        )
        if mode == "refuse" and refusal is None:
            refusal = verdict
    return refusal


def _broken(attempt: Attempt, seen: fraud.Seen) -> Iterator[_Broken]:
    """Each rule that is broken, once, with the first of its limits that is."""
    totals = {
        "hour_count": (seen.hour_count + 1, "charges and orders within an hour"),
        "day_count": (seen.day_count + 1, "charges and orders in a day"),
        "day_points": (seen.day_points + attempt.points, "points in a day"),
    }
    limits = _value(seen, "resident")
    for name, (total, what) in totals.items():
        if total > limits[name]:
            detail = f"this resident may make at most {limits[name]} {what}; try again later"
            if name == "day_points":
                detail = f"this resident may spend at most {limits[name]} {what}; try tomorrow"
            yield _Broken("resident", name, total, Verdict("VELOCITY_LIMIT", detail))
            break
    most = _value(seen, "device")["day_residents"]
    if seen.day_residents + 1 > most:
        detail = f"this device has shown codes of {most} other residents today; try tomorrow"
        verdict = Verdict("VELOCITY_LIMIT", detail)
        yield _Broken("device", "day_residents", seen.day_residents + 1, verdict)
    if seen.staff:
        detail = "this resident works for this merchant and cannot redeem points here"
        yield _Broken("staff", "staff", 1, Verdict("OWN_STAFF", detail))


def _value(seen: fraud.Seen, rule: str) -> dict[str, Any]:
    value: dict[str, Any] = seen.rules.get(name_of(rule)) or RULES[rule].default
    return value
