"""The arrival clock: how long after an act happened its provider reports it, from counts in bins.

A delay in whole seconds falls into one of four bins a doubling, so a figure read off the bins is at
most a quarter too long and never too short. Counts are added once a batch, in a short transaction
after the batch's own: inside it, two batches of one provider would wait for each other over a
count. A process killed between the two leaves one batch out of a statistic, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.store import delays
from app.store.db import transact
from ledger.buckets import day_number
from scenarios import SHANGHAI

DAYS: Final = 30  # what is published looks back so far
_DAY_S = 86_400
_STEP_BITS = 2  # four bins a doubling


class Punctuality(NamedTuple):
    """A provider's arrivals of the last `DAYS` days: half of them came within `median_s` seconds,
    19 of 20 within `p95_s` (None without any); and how many acts nobody has claimed yet."""

    code: str
    name: str
    acts: int
    median_s: int | None
    p95_s: int | None
    unclaimed: int


def bin_of(delay_s: int) -> int:
    """The bin of a delay; what a provider's clock puts before the act counts as no delay."""
    delay = max(0, delay_s)
    above = max(0, delay.bit_length() - 1 - _STEP_BITS)
    return (above << _STEP_BITS) + (delay >> above)


def longest(number: int) -> int:
    """The longest delay of a bin, in seconds."""
    above = max(0, (number >> _STEP_BITS) - 1)
    return ((number - (above << _STEP_BITS) + 1) << above) - 1


def within(counts: Mapping[int, int], percent: int) -> int | None:
    """Seconds within which so many percent of the acts came; None if there were none."""
    wanted = sum(counts.values()) * percent
    reached = 0
    for number, acts in sorted(counts.items()):
        reached += acts * 100
        if reached >= wanted:
            return longest(number)
    return None


def count(occurred_at: Iterable[datetime], now: datetime) -> Counter[int]:
    """Acts a bin, of acts that are received now."""
    here = now.astimezone(SHANGHAI)  # as acts' times are: much less to subtract
    delays = [here - moment for moment in occurred_at]
    return Counter([bin_of(late.days * _DAY_S + late.seconds) for late in delays])


def record(engine: Engine, provider: str, found: Mapping[int, int], now: datetime) -> None:
    """Add a batch's counts, in a transaction of their own."""
    if found:
        day = day_number(now.astimezone(CITY_ZONE).date())
        transact(engine, lambda tx: delays.add(tx, provider, day, found))


def clock(tx: Connection, now: datetime) -> list[Punctuality]:
    """Every provider's, by code."""
    first = now.astimezone(CITY_ZONE).date() - timedelta(days=DAYS - 1)
    counts = delays.counts(tx, day_number(first))
    made = []
    for code, name, unclaimed in delays.backlog(tx):
        own = counts.get(code, {})
        acts = sum(own.values())
        made.append(Punctuality(code, name, acts, within(own, 50), within(own, 95), unclaimed))
    return made
