"""What residents read most, with a million entries and a hundred thousand residents loaded.

The town is written in bulk by what writes entries in earnest: openings encrypted under each
person's own key, plain issues through the one door into the ledger, sealed by the sealer. Two
months of acts, ten a resident. A thousand residents then read, beside a bare Flask view that does
one primary-key SELECT on the same server. The same is done with a hundredth of it, for how much the
slowest requests gain by growth: there the floor is the 99th percentile of the small town.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psycopg
from sqlalchemy import Connection, Engine, create_engine

from app.cli.local import running
from app.config import CITY_ZONE, Config
from app.flows.budget import fund_budget
from app.flows.document import Document
from app.flows.seal import Sealer
from app.flows.tokens import issue_access_token
from app.store import budgets, entries, people
from app.store.catalogue import Registry
from app.store.db import copy_in
from app.vault import SALT_BYTES, Vault, open_vault, seal_opening
from bench.balance import bare
from bench.load import get, times
from bench.stage import BATCH, Result, Stage, bare_city
from ledger import plain
from ledger.buckets import expiry_bucket
from ledger.encoding import commit
from ledger.entries import instant
from scenarios import Catalogue, quantify, read

ENTRIES = 1_000_000
SMALL = 10_000
EACH = 10  # entries a resident
READERS = 1_000  # a resident may ask 600 times a minute
DAYS = 60
SECONDS = 3.0
CLIENTS = 4
ROUNDS = 3

# What people do in this town: behaviours of three areas, and quantities each.
_ACTS = (
    ("travel.bike_shared", "distance_km", ("1.2", "2.5", "3.75")),
    ("travel.walk_steps", "steps", ("4100", "6500", "9800")),
    ("banking.mobile_pay", "count", ("1",)),
)
_READS = {
    "home": "home",
    "statement page": "statement",
    "entry detail": "entries/{}",
    "receipt": "entries/{}/receipt",
}


class Reader(NamedTuple):
    """A resident who reads, and an entry of theirs."""

    resident: str
    entry_id: str


class Town(NamedTuple):
    """A loaded city, and who reads in it."""

    config: Config
    vault: Vault
    readers: list[Reader]


def measure(_stage: Stage | None, most: int = ENTRIES, least: int = SMALL) -> list[Result]:
    """Requests a second of each read, and its 99th percentile in microseconds."""
    with TemporaryDirectory(prefix="puhui-bench-") as name:
        small, _, _ = _read(_load(Path(name), least))
    with TemporaryDirectory(prefix="puhui-bench-") as name:
        large, rates, floor = _read(_load(Path(name), most))
    made = [
        Result(f"{name}", rates[name], "requests/s", floor, rates[name] / floor) for name in _READS
    ]
    return made + [
        Result(f"{name}, p99", large[name], "µs", small[name], large[name] / small[name])
        for name in _READS
    ]


def _read(town: Town) -> tuple[dict[str, float], dict[str, float], float]:
    """p99 of each read with one client, requests a second with several, and those of the floor."""
    now = datetime.now(UTC)
    tails: dict[str, list[float]] = {name: [] for name in _READS}
    rates: dict[str, list[float]] = {name: [] for name in _READS}
    floors = []
    with (
        running(town.config, workers=1, threads=2, worker=False) as url,
        bare(town.config, town.readers[0].resident) as floor_url,
    ):
        tokens = [issue_access_token(town.vault.token, one.resident, now) for one in town.readers]
        asked = {
            name: [
                get(f"{url}/api/v1/me/{path.format(one.entry_id)}", Authorization=f"Bearer {token}")
                for one, token in zip(town.readers, tokens, strict=True)
            ]
            for name, path in _READS.items()
        }
        plain_reads = [get(f"{floor_url}/{one.resident}") for one in town.readers]
        for requests in asked.values():
            times(url, requests, 1.0, CLIENTS)  # what is read once a process is read here
        for _ in range(ROUNDS):
            floors.append(len(times(floor_url, plain_reads, SECONDS, CLIENTS)) / SECONDS)
            for name, requests in asked.items():
                rates[name].append(len(times(url, requests, SECONDS, CLIENTS)) / SECONDS)
                tails[name].append(quantiles(times(url, requests, SECONDS, 1), n=100)[98] * 1e6)
    return (
        {name: median(some) for name, some in tails.items()},
        {name: median(some) for name, some in rates.items()},
        median(floors),
    )


def _load(folder: Path, count: int) -> Town:
    """A town of so many entries, sealed."""
    config = bare_city(folder)
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    now = datetime.now(UTC)
    fund_budget(engine, vault, budgets.ANY_SCOPE, 10**12, "bench", now)
    with engine.begin() as tx:
        catalogue, budget = Registry().current(tx), budgets.scopes(tx)[budgets.ANY_SCOPE]
        keys = _settle(tx, vault, count // EACH, now)
    draw = random.Random(1)
    crowd, entry_of = list(keys), dict[str, str]()
    for first in range(0, count, BATCH):
        at = now - timedelta(days=DAYS) * (1 - first / count)
        with engine.begin() as tx:
            who = draw.choices(crowd, k=BATCH)
            made = list(_issues(catalogue, budget, at, draw, [(one, keys[one]) for one in who]))
            arrivals = entries.append(tx, [issue for issue, _ in made])
            people.put_openings(
                tx,
                (
                    (arrival, bytes.fromhex(one), sealed)
                    for arrival, one, (_, sealed) in zip(arrivals, who, made, strict=True)
                ),
            )
        entry_of.update((one, issue.id) for one, (issue, _) in zip(who, made, strict=True))
    _seal(config, engine, vault, now)
    engine.dispose()
    some = draw.sample(sorted(entry_of), min(READERS, len(entry_of)))
    return Town(config, vault, [Reader(one, entry_of[one]) for one in some])


def _settle(tx: Connection, vault: Vault, count: int, now: datetime) -> dict[str, bytes]:
    """Residents in bulk; the key of each."""
    wrapped = {(name := token_hex(16)): vault.new_subject_key(name) for _ in range(count)}
    columns = {
        "id": "bytea",
        "wrapped_key": "bytea",
        "district": "text",
        "joined_at": "timestamptz",
    }
    rows = ((bytes.fromhex(name), key, "140403", now) for name, key in wrapped.items())
    copy_in(tx, "residents", columns, rows)
    return {name: vault.subject_key(name, key) for name, key in wrapped.items()}


def _issues(
    catalogue: Catalogue,
    budget: str,
    now: datetime,
    draw: random.Random,
    people: list[tuple[str, bytes]],
) -> Iterator[tuple[plain.Issue, bytes]]:
    """An act of each of these people, at most a day ago, and its sealed opening."""
    at = instant(now)
    for resident, key in people:
        scenario, quantity, values = draw.choice(_ACTS)
        done = (now - timedelta(seconds=draw.randrange(86_400))).astimezone(CITY_ZONE)
        act = Document(
            token_hex(8), b"", scenario, done.isoformat(timespec="seconds"),
            {quantity: draw.choice(values)}, "",
        )  # fmt: skip
        version, activity = read(catalogue, scenario, act.occurred_at, act.quantities, now)
        mg = quantify(version, activity).mg
        salt, entry_id = draw.randbytes(SALT_BYTES), token_hex(16)
        opening = act.opening("bench")
        bucket = expiry_bucket(now.astimezone(CITY_ZONE).date(), version.rate.validity_months)
        terms = plain.Terms(scenario, version.number, version.digest, activity.year, budget, bucket)
        issue = plain.write(
            terms, id=entry_id, at=at, resident=resident, commitment=commit(salt, opening),
            reduction_mg=mg, points=version.rate.points(mg), awaiting=0, withheld=0,
        )  # fmt: skip
        yield issue, seal_opening(key, entry_id, salt, opening)


def _seal(config: Config, engine: Engine, vault: Vault, now: datetime) -> None:
    """Seal all, and do what autovacuum does within minutes."""
    sealer = Sealer(engine, vault, config.head_file)
    while sealer.seal(now):
        pass
    assert config.owner_url
    with psycopg.connect(config.owner_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("VACUUM ANALYZE")
