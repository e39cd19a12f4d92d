"""The stage every benchmark plays on: real servers in a temporary folder, a city of residents."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine, create_engine

from app.cli.local import prepare
from app.cli.operate import add_provider_key
from app.config import Config, Mode
from app.flows.budget import fund_budget
from app.flows.enroll import enroll
from app.flows.seal import Sealer
from app.store import providers
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
    """A provider with its own riders."""

    code: str
    key_id: str
    key: Path
    riders: tuple[str, ...]


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
def stage(riders: int, provider_count: int = 2) -> Iterator[Stage]:
    """Build the city, yield it, throw it away."""
    with tempfile.TemporaryDirectory(prefix="puhui-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = prepare(
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
        assert config.database_url
        engine, vault = create_engine(config.database_url), open_vault(config.keys_dir)
        now, registry = datetime.now(UTC), Registry()
        fund_budget(engine, vault, "*", 10**12, "bench", now)
        made, residents = [], []
        for code in [f"bikes-{n}" for n in range(provider_count)]:
            with engine.begin() as tx:
                providers.add(tx, code, code, now)
            key = folder / f"{code}.pem"
            key_id = add_provider_key(engine, code, key)
            names = tuple(f"{code}-rider-{n}" for n in range(riders // provider_count))
            for first in range(0, len(names), BATCH):
                some = names[first : first + BATCH]
                residents += enroll(engine, vault, registry, code, some, "140403", now).values()
            made.append(Provider(code, key_id, key, names))
        sealer = Sealer(engine, vault, config.head_file)
        yield Stage(config, engine, vault, sealer, tuple(made), tuple(residents))
        engine.dispose()


def rides(provider: Provider, first: int, count: int, seed: int) -> list[dict[str, object]]:
    """Made-up rides of November 2026, from ride number `first` on."""
    draw = random.Random(seed)
    return [
        {
            "id": f"{provider.code}-{first + n}",
            "subject": draw.choice(provider.riders),
            "scenario": "travel.bike_shared",
            "occurred_at": f"2026-11-{draw.randrange(1, 21):02d}"
            f"T{draw.randrange(6, 22):02d}:{draw.randrange(60):02d}:00+08:00",
            "quantities": {"distance_km": f"{draw.randrange(100, 900) / 100:.2f}"},
        }
        for n in range(count)
    ]
