"""Bring the sample city to life: its people join, its budgets are funded, its providers report."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import sha256
from secrets import token_hex
from typing import Any, Final

import httpx
import orjson
from rich.progress import Progress
from sqlalchemy import Engine

from app.cli.client import TIMEOUT_S, ProviderClient
from app.cli.sample_city import PROVIDERS, Person, SampleCity
from app.cli.tally import Tally
from app.cli.tryout import provider_key
from app.clock import city_clock
from app.config import Config
from app.flows.budget import fund_budget
from app.flows.enroll import connect
from app.flows.join import add_resident
from app.store import budgets, people, providers
from app.vault import Vault
from scenarios import AREAS

MAX_BATCH: Final = 5000
SENDERS: Final = 2  # providers that report at the same time

# Points for each resident and day, made up. Tourism gets too little on purpose, so that it is seen
# what happens when the money runs out.
SHORT_AREA: Final = "tourism"
_FUNDED: Final = dict.fromkeys(AREAS, 10_000) | {SHORT_AREA: 3}


@dataclass(frozen=True, slots=True)
class Report:
    """One batch of a provider: its exact bytes, and what they list."""

    provider: str
    body: bytes
    activities: Sequence[dict[str, Any]]


@dataclass(slots=True)
class Sent:
    """What became of the reports: a tally an area, and how much was new in this run."""

    areas: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    fresh: int = 0
    seconds: float = 0

    def add(self, report: Report, receipt: dict[str, Any], since: datetime) -> None:
        """Count a receipt; one from before `since` is a batch that an earlier run has sent."""
        for activity, outcome in zip(report.activities, receipt["outcomes"], strict=True):
            tally = self.areas[activity["scenario"].partition(".")[0]]
            tally.rows += 1
            tally.add({"outcomes": [outcome]})
        if datetime.fromisoformat(receipt["received_at"]) >= since:
            self.fresh += len(report.activities)


def settle_in(
    engine: Engine, vault: Vault, city: SampleCity, crowd: Sequence[Person], now: datetime
) -> int:
    """Join everybody who has not yet, consenting to each provider they use; return how many."""
    joined = 0
    bonds = {
        (person.number, provider): vault.subject(provider, city.subject(provider, person.number))
        for person in crowd
        for provider in PROVIDERS
        if any(habit.provider == provider for habit in person.habits)
    }
    with engine.begin() as tx:
        known = people.bound_to(tx, list(bonds.values()))
        tokens: dict[int, str] = {
            number: known[subject] for (number, _), subject in bonds.items() if subject in known
        }
        for person in crowd:
            if person.number not in tokens:
                tokens[person.number] = add_resident(tx, vault, person.district, now)
                joined += 1
        for provider in PROVIDERS:
            fresh = {
                subject: tokens[number]
                for (number, code), subject in bonds.items()
                if code == provider and subject not in known
            }
            connect(tx, provider, fresh, city.reported_by(provider), now)
    return joined


def open_doors(engine: Engine, vault: Vault, city: SampleCity, days: int, now: datetime) -> None:
    """Register the providers and fund a budget for each area.

    The reference makes the same city's money count once.
    """
    with engine.begin() as tx:
        for code, name in PROVIDERS.items():
            providers.add(tx, code, name, now)
        for area in AREAS:
            budgets.create(tx, token_hex(16), f"sample {area}", area, now)
    for area in AREAS:
        points = _FUNDED[area] * city.size * days
        reference = f"sample city {city.seed}, {city.size} people, {days} days"
        fund_budget(engine, vault, area, points, reference, now)


def reports(city: SampleCity, crowd: list[Person], days: Sequence[date]) -> Iterator[Report]:
    """The batches of these days, in order. Their ids follow from their content, so that whatever
    was sent before is recognised, and a run that was cut short is simply run again."""
    for day in days:
        for provider, activities in sorted(city.day(crowd, day).items()):
            for first in range(0, len(activities), MAX_BATCH):
                part = activities[first : first + MAX_BATCH]
                digest = sha256(orjson.dumps(part)).hexdigest()[:12]
                batch_id = f"{day}-{digest}"
                body = orjson.dumps({"batch_id": batch_id, "activities": part})
                yield Report(provider, body, part)


def send(
    config: Config, engine: Engine, url: str, todo: Sequence[Report], progress: Progress
) -> Sent:
    """Send every report over HTTP, signed by its provider. Raises ProviderError."""
    clock = city_clock(config)
    start, sent = clock(), Sent()
    begin = time.monotonic()
    total = sum(len(one.activities) for one in todo)
    bar = progress.add_task("activities", total=total)
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        clients = {
            code: ProviderClient(url, *provider_key(config, engine, code), http, clock=clock)
            for code in PROVIDERS
        }
        pool = ThreadPoolExecutor(SENDERS)
        try:
            receipts = pool.map(lambda one: clients[one.provider].send_body(one.body), todo)
            for report, receipt in zip(todo, receipts, strict=True):
                sent.add(report, receipt, start)
                progress.advance(bar, len(report.activities))
        finally:
            pool.shutdown(cancel_futures=True)
    sent.seconds = time.monotonic() - begin
    return sent
