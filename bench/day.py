"""A full day of a city: `python -m bench.day [--people N] [--reads]`, three million unless told.

Ten acts each, of three areas, come in signed batches of 5,000 over four connections, in the order
of the day, with every check on. One in ten is shown in rankings and one in ten has joined a
challenge, so that the worker has to follow what it seals. With `--reads` residents read their
balances all the while. Clients, web, worker and PostgreSQL share the machine. By what fewer
people take, three million take 60 GB of disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from secrets import token_hex
from statistics import quantiles
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sqlalchemy import create_engine, text

from app.cli.client import read_private_key
from app.cli.local import running
from app.cli.operate import add_provider_key
from app.clock import utc_now
from app.config import CITY_ZONE, Config
from app.flows.budget import fund_budget
from app.flows.consent import open_scenarios
from app.flows.enroll import connect
from app.flows.join import DISTRICTS
from app.flows.process import collect_seldom
from app.flows.seal import Sealer
from app.flows.standing import month_of
from app.flows.tokens import issue_access_token
from app.store import budgets, challenges, friends, providers
from app.store.catalogue import Registry
from app.store.db import bytea_array
from app.vault import open_vault, seal
from bench.ingest import INTAKE, post_batch, watching
from bench.life import console
from bench.load import connected, get
from bench.pressure import reading
from bench.stage import BATCH, Provider, Stage, analyze, bare_city

PEOPLE = 3_000_000
_PAGE = 10_000  # people enrolled in one transaction
_SHARE = 10  # one in so many is in the rankings, and one in the challenge
_PARTS = 20  # of the day: the rate of each is told
_READERS = 500
_CHALLENGE = "c0" * 16
_STEP = 1_000_003  # a prime: by it each round goes through all people, in an order of no meaning


class Kind(NamedTuple):
    """What a provider reports: so many a day of each person."""

    code: str
    scenario: str
    quantity: str
    each: int


KINDS = (
    Kind("bus", "travel.bus_ride", "count", 3),
    Kind("bank", "banking.mobile_pay", "count", 5),
    Kind("shops", "shopping.e_receipt", "count", 2),
)
_ADD = text("""
INSERT INTO residents (id, wrapped_key, district, joined_at)
SELECT r.*, :now FROM unnest(
  CAST(:ids AS bytea[]), CAST(:keys AS bytea[]), CAST(:districts AS text[])) AS r""")


class Work(NamedTuple):
    """One batch: the acts from number `first` on, of all that a provider reports."""

    provider: Provider
    offset: int  # of its order of people
    first: int
    size: int
    of: int


class Sent(NamedTuple):
    """What became of a batch: activities accepted, and of how many."""

    accepted: int
    size: int


def main(people: int, reads: bool) -> None:
    """Enrol so many people, let their day come in, tell how it went."""
    with tempfile.TemporaryDirectory(prefix="puhui-bench-") as name:
        made = _city(Path(name), people)
        config = replace(made.config, intake=INTAKE)
        began_bytes = _bytes(made)
        with (
            running(config) as url,
            watching(made) as unsealed_s,
            reading(url, _reads(made, url)) if reads else nullcontext([]) as taken,
        ):
            rates, seconds, accepted = _day(made, url, people)
        _tell(rates)
        acts = sum(kind.each for kind in KINDS) * people
        size = (_bytes(made) - began_bytes) / accepted
        console.print(
            f"{accepted:,} of {acts:,} activities of {people:,} people accepted in"
            f" {seconds / 60:.1f} minutes: {acts / seconds:,.0f} a second."
            f" The oldest unsealed waited {max(unsealed_s):.2f} s. {size:,.0f} bytes each."
        )
        if taken:
            p50, p99 = (1000 * quantiles(taken, n=100)[n] for n in (49, 98))
            console.print(f"{len(taken):,} reads: {p50:.1f} ms, 99th percentile {p99:.1f} ms.")
        made.engine.dispose()


def _city(folder: Path, people: int) -> Stage:
    """Everybody enrolled with every provider, and the servers up."""
    config = bare_city(folder)
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    now, made = utc_now(), []
    for kind in KINDS:
        area = kind.scenario.partition(".")[0]
        with engine.begin() as tx:
            providers.add(tx, kind.code, kind.code, now)
            budgets.create(tx, token_hex(16), area, area, now)
        fund_budget(engine, vault, area, 10**12, "bench", now)
        key = folder / f"{kind.code}.pem"
        key_id = add_provider_key(engine, kind.code, key, now)
        made.append(Provider(kind.code, key_id, key, (), kind.scenario, kind.quantity, 100))
    goal = {"of": "acts", "at_least": 100, "area": None, "scenarios": None}
    with engine.begin() as tx:
        challenges.add(tx, _CHALLENGE, month_of(now), {"title_zh": "百次", "goal": goal}, now)
        challenges.bring(tx, _CHALLENGE, "open", now)
    enrol = partial(_enrol, config, people)
    with (
        _progress("people", people) as advance,
        ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), collect_seldom) as pool,
    ):
        for count in pool.map(enrol, range(0, people, _PAGE)):
            advance(count)
    analyze(config)
    sealer = Sealer(engine, vault, config.head_file)
    return Stage(config, engine, vault, sealer, tuple(made), ())


def _enrol(config: Config, people: int, first: int) -> int:
    """A page of people; how many."""
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    now, numbers = utc_now(), range(first, min(people, first + _PAGE))
    tokens = {n: token_hex(16) for n in numbers}
    wrapped = {n: vault.new_subject_key(token) for n, token in tokens.items()}
    names = list(DISTRICTS)
    added = {
        "ids": bytea_array(map(bytes.fromhex, tokens.values())),
        "keys": bytea_array(wrapped.values()),
        "districts": [names[n % len(names)] for n in numbers],
        "now": now,
    }
    with engine.begin() as tx:
        versions = open_scenarios(Registry().current(tx), now)
        tx.execute(_ADD, added)
        for kind in KINDS:
            bonds = {vault.subject(kind.code, f"p{n}"): token for n, token in tokens.items()}
            connect(tx, kind.code, bonds, {kind.scenario: versions[kind.scenario]}, now)
        for n, token in tokens.items():
            if n % _SHARE == 0:
                key = vault.subject_key(token, wrapped[n])
                friends.show(tx, token, seal(key, b"N", f"nickname {token}".encode()), now)
            elif n % _SHARE == 1:
                challenges.join(tx, _CHALLENGE, token, now)
    engine.dispose()
    return len(numbers)


def _day(made: Stage, url: str, people: int) -> tuple[list[tuple[str, float]], float, int]:
    """Activities a second in each part of the day; seconds in all; activities accepted."""
    todo = sorted(
        (
            Work(provider, people * n // len(KINDS), first, min(BATCH, of - first), of)
            for n, provider in enumerate(made.providers)
            for of in (KINDS[n].each * people,)
            for first in range(0, of, BATCH)
        ),
        key=lambda work: work.first / work.of,
    )
    total, done, accepted = sum(work.size for work in todo), 0, 0
    rates: list[tuple[str, float]] = []
    began = since = time.perf_counter()
    before = 0
    day = utc_now().astimezone(CITY_ZONE).date() - timedelta(days=1)
    with (
        _progress("the day", total) as advance,
        multiprocessing.get_context("spawn").Pool(INTAKE) as pool,
    ):
        for sent in pool.imap_unordered(partial(_send, url, people, day), todo):
            done, accepted = done + sent.size, accepted + sent.accepted
            advance(sent.size)
            if done * _PARTS // total > len(rates):
                now = time.perf_counter()
                rates.append((_hour(done / total), (done - before) / (now - since)))
                since, before = now, done
    return rates, time.perf_counter() - began, accepted


def _send(url: str, people: int, day: date, work: Work) -> Sent:
    """One batch, over a connection of its own."""
    provider = work.provider
    acts = ",".join(_acts(work, people, day))
    body = f'{{"batch_id":"{provider.code}-{work.first}","activities":[{acts}]}}'.encode()
    with connected(url) as link:
        key = read_private_key(provider.key.read_bytes())
        return Sent(post_batch(link, url, provider, key, body), work.size)


def _acts(work: Work, people: int, day: date) -> Iterator[str]:
    """The acts of a batch as JSON: one of each person, before the next one of anybody."""
    scenario, quantity = work.provider.scenario, work.provider.quantity
    for n in range(work.first, work.first + work.size):
        yield (
            f'{{"id":"{n}","subject":"p{(n * _STEP + work.offset) % people}",'
            f'"scenario":"{scenario}","quantities":{{"{quantity}":"1"}},'
            f'"occurred_at":"{day}T{_hour(n / work.of)}:00+08:00"}}'
        )


def _hour(part: float) -> str:
    """The time of day, HH:MM, at which such a part of it is over; it lasts from six to ten."""
    return "{:02d}:{:02d}".format(*divmod(int(60 * (6 + 16 * part)), 60))


def _reads(made: Stage, url: str) -> Iterator[bytes]:
    """Requests of residents for their balances, each with a token of that moment."""
    with made.engine.connect() as tx:
        found = tx.execute(text("SELECT id FROM residents LIMIT :count"), {"count": _READERS})
        people = [one.hex() for one in found.scalars()]
    for one in cycle(people):
        token = issue_access_token(made.vault.token, one, utc_now())
        yield get(f"{url}/api/v1/me/balances", Authorization=f"Bearer {token}")


def _bytes(made: Stage) -> int:
    """Of the database on disk."""
    with made.engine.connect() as tx:
        return int(tx.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def _tell(rates: list[tuple[str, float]]) -> None:
    table = Table("until", "activities a second", title="the day as it came in")
    for hour, rate in rates:
        table.add_row(hour, f"{rate:,.0f}")
    console.print(table)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(name, total=total)
        yield partial(progress.advance, bar)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.day")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--reads", action="store_true")
    asked = parser.parse_args()
    main(asked.people, asked.reads)
