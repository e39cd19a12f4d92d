"""Quantifying in one process against a floor that only parses each activity's time and decimals.

A mixed batch over every behaviour that takes activities, as the sample city does them: read by the
edition in force, quantified, and claimed under caps, exclusivity and plausibility rules, with the
counters of each resident carried on as intake does.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Any

from app.cli.sample_city import SampleCity
from app.flows.process import collect_seldom
from bench.stage import Result, Stage
from scenarios import Key, Rejected, Usage, claim, load, needs, quantify, read

RESIDENTS = 2_000
DAYS = 7
ROUNDS = 5
_FIRST = date(2026, 11, 1)


def measure(_stage: Stage) -> list[Result]:
    """Activities a second; the median of several rounds, the two in turn."""
    catalogue = load()
    city = SampleCity(1, RESIDENTS, catalogue)
    crowd = city.people()
    days = [_FIRST + timedelta(days=n) for n in range(DAYS)]
    batch = [act for day in days for acts in city.day(crowd, day).values() for act in acts]
    now = datetime(2026, 11, 22, tzinfo=UTC)
    collect_seldom()
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(len(batch) / _timed(lambda: _quantify(catalogue, batch, now)))
        bare.append(len(batch) / _timed(lambda: _parse(batch)))
    value, floor = median(ours), median(bare)
    return [Result("quantify", value, "activities/s", floor, value / floor)]


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _quantify(catalogue: Any, batch: list[dict[str, Any]], now: datetime) -> None:
    counters: dict[str, dict[Key, Usage]] = {}
    for act in batch:
        try:
            version, activity = read(
                catalogue, act["scenario"], act["occurred_at"], act["quantities"], now
            )
            mg = quantify(version, activity).mg
            own = counters.setdefault(act["subject"], {})
            due = claim(version, activity, mg, needs(version, activity), own)
        except Rejected:
            continue
        own.update(due.changed)


def _parse(batch: list[dict[str, Any]]) -> None:
    for act in batch:
        datetime.fromisoformat(act["occurred_at"])
        for value in act["quantities"].values():
            if value[0].isdigit():
                Decimal(value)
