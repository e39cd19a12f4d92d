"""The stage every benchmark plays on: real servers in a temporary folder, a city of residents."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Engine, create_engine

from app.cli.local import prepare
from app.cli.operate import add_provider_key
from app.config import Config, Mode
from app.flows.budget import fund_budget
from app.flows.enroll import enroll
from app.flows.seal import Sealer
from app.store import budgets, providers
from app.store.catalogue import Registry
from app.vault import Vault, open_vault

BATCH = 5_000


class Result(NamedTuple):
    """One line of the table. `floor` is in the same unit; `ratio` is value to floor."""

    name: str
    value: float
    unit: str
    floor: float
    ratio: float


class Provider(NamedTuple):
    """A provider with customers of its own, who all do one thing."""

    code: str
    key_id: str
    key: Path
    customers: tuple[str, ...]
    scenario: str
    quantity: str
    most: int  # of the quantity, in hundredths


# Two behaviours with daily caps, of two areas with a budget each.
_KINDS = (
    ("bikes", "travel.bike_shared", "distance_km", 900),
    ("bank", "banking.mobile_pay", "count", 100),
)


@dataclass(frozen=True)
class Stage:
    """A prepared city: settings with every address, and providers with consenting riders."""

    config: Config
    engine: Engine
    vault: Vault
    sealer: Sealer
    providers: tuple[Provider, ...]
    residents: tuple[str, ...]
    registry: Registry = field(default_factory=Registry)

    def now(self) -> datetime:
        return datetime.now(UTC)


@contextmanager
def stage(customers: int) -> Iterator[Stage]:
    """Build a city with so many customers a provider, yield it, throw it away."""
    with tempfile.TemporaryDirectory(prefix="puhui-bench-") as name:
        folder = Path(name)
        config = bare_city(folder)
        assert config.database_url
        engine, vault = create_engine(config.database_url), open_vault(config.keys_dir)
        now, registry = datetime.now(UTC), Registry()
        made, residents = [], []
        for code, scenario, quantity, most in _KINDS:
            area = scenario.partition(".")[0]
            with engine.begin() as tx:
                providers.add(tx, code, code, now)
                budgets.create(tx, token_hex(16), area, area, now)
            fund_budget(engine, vault, area, 10**12, "bench", now)
            key = folder / f"{code}.pem"
            key_id = add_provider_key(engine, code, key, now)
            names = tuple(f"{code}-customer-{n}" for n in range(customers))
            for first in range(0, len(names), BATCH):
                some = names[first : first + BATCH]
                parts = (engine, vault, registry, code, some, "140403", now)
                residents += enroll(*parts, only=[scenario]).values()
            made.append(Provider(code, key_id, key, names, scenario, quantity, most))
        analyze(config)
        sealer = Sealer(engine, vault, config.head_file)
        yield Stage(config, engine, vault, sealer, tuple(made), tuple(residents))
        engine.dispose()


def bare_city(folder: Path) -> Config:
    """Servers in a folder, the schema, keys, and the published rules; nobody lives there yet."""
    folder.chmod(0o755)
    return prepare(
        Config(
            mode=Mode.TEST,
            data_dir=folder,
            keys_dir=folder / "keys",
            head_file=folder / "head",
            log_origin="bench.example/log",
            database_url=None,
            owner_url=None,
            redis_url=None,
        )
    )


def analyze(config: Config) -> None:
    """What autovacuum does within a minute of a city's life: the planner needs statistics."""
    assert config.owner_url
    with psycopg.connect(config.owner_url.replace("+psycopg", ""), autocommit=True) as owner:
        owner.execute("ANALYZE")


def copy_shape(owner: psycopg.Connection[Any], prefix: str, tables: Iterable[str]) -> None:
    """Make empty tables of the same columns, checks and indexes, for what a floor writes: without
    triggers and foreign keys. Those that are there stay as they are."""
    for table in tables:
        owner.execute(
            f"CREATE TABLE IF NOT EXISTS {prefix}_{table} (LIKE {table} INCLUDING DEFAULTS"
            " INCLUDING CONSTRAINTS INCLUDING INDEXES INCLUDING STORAGE)"
        )


def activities(provider: Provider, first: int, count: int, seed: int) -> list[dict[str, object]]:
    """Made-up acts of November 2026, from number `first` on."""
    draw = random.Random(seed)
    return [
        {
            "id": f"{provider.code}-{first + n}",
            "subject": draw.choice(provider.customers),
            "scenario": provider.scenario,
            "occurred_at": f"2026-11-{draw.randrange(1, 21):02d}"
            f"T{draw.randrange(6, 22):02d}:{draw.randrange(60):02d}:00+08:00",
            "quantities": {provider.quantity: decimal(draw.randint(100, provider.most))},
        }
        for n in range(count)
    ]


def decimal(hundredths: int) -> str:
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02d}" if rest else str(whole)
