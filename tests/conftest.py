"""Real servers for every test: one embedded PostgreSQL and one Valkey a run, a database a test."""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, create_engine

from app.cli import stand_in
from app.config import Config, Mode
from app.flows.budget import fund_budget
from app.flows.publish import publish
from app.flows.seal import Sealer
from app.store import embedded
from app.store.catalogue import Registry
from app.store.db import migrate
from app.vault import Vault, create_keys, open_vault
from scenarios import load

ORIGIN = "log.test.example/puhui"
_numbers = itertools.count()


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    now: datetime = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass(frozen=True)
class City:
    """A migrated database with the catalogue published and the general budget funded."""

    config: Config
    engine: Engine
    vault: Vault
    sealer: Sealer
    clock: Clock
    registry: Registry = field(default_factory=Registry)

    @property
    def owner_url(self) -> str:
        assert self.config.owner_url
        return self.config.owner_url


@pytest.fixture(scope="session")
def wechat_server() -> Iterator[stand_in.Server]:
    """This process's stand-in for WeChat's servers."""
    with stand_in.standing(stand_in.StandIn()) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    """The test's clock, and the city's."""
    return Clock()


@pytest.fixture
def wechat(wechat_server: stand_in.Server, clock: Clock) -> stand_in.StandIn:
    """WeChat as nobody has used it yet, by the test's clock."""
    wechat_server.stand_in = stand_in.StandIn(clock=clock)
    return wechat_server.stand_in


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, wechat_server: stand_in.Server) -> Config:
    """The run's servers, shared by all test processes; `database_url` names the template."""
    root = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        root = root.parent
    root.chmod(0o755)
    with (root / "servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes start at once; the first makes it all
        url, owner = embedded.start_postgres(root / "postgres", "template_puhui")
        migrate(owner)
        redis_url = embedded.start_valkey(root / "valkey")
        if not (root / "keys").exists():
            create_keys(root / "keys", ORIGIN)
    return Config(
        mode=Mode.TEST,
        data_dir=root,
        keys_dir=root / "keys",
        head_file=root / "head",
        log_origin=ORIGIN,
        database_url=url,
        owner_url=owner,
        redis_url=redis_url,
        wechat_base=wechat_server.url,
        wechat_app_id=wechat_server.stand_in.app_id,
        wechat_secret=wechat_server.stand_in.secret,
    )


@pytest.fixture(scope="session")
def database(servers: Config) -> Callable[[Path], AbstractContextManager[Config]]:
    """Makes a fresh, migrated, empty database: `with database(folder) as config`. The copy of the
    last checkpoint goes into the folder."""

    @contextmanager
    def made(folder: Path) -> Iterator[Config]:
        name = f"t_{os.getpid()}_{next(_numbers)}"
        assert servers.owner_url
        assert servers.database_url
        template = servers.owner_url.replace("/template_puhui?", "/postgres?").replace(
            "puhui_owner@", "postgres@"
        )
        admin = psycopg.connect(template.replace("+psycopg", ""), autocommit=True)
        admin.execute(f"CREATE DATABASE {name} TEMPLATE template_puhui OWNER puhui_owner")
        yield replace(
            servers,
            head_file=folder / "head",
            database_url=servers.database_url.replace("/template_puhui?", f"/{name}?"),
            owner_url=servers.owner_url.replace("/template_puhui?", f"/{name}?"),
        )
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        admin.close()

    return made


@pytest.fixture
def config(database, tmp_path: Path) -> Iterator[Config]:
    """Settings of a fresh, migrated, empty database."""
    with database(tmp_path) as made:
        yield made


@pytest.fixture
def empty(config: Config, clock: Clock) -> Iterator[City]:
    """A city with nothing in it."""
    assert config.database_url
    engine = create_engine(config.database_url)
    vault = open_vault(config.keys_dir)
    yield City(config, engine, vault, Sealer(engine, vault, config.head_file), clock)
    engine.dispose()


@pytest.fixture
def city(empty: City) -> City:
    """A city whose rules are published and whose general budget holds ten million points."""
    publish(empty.engine, empty.vault, load(), empty.clock())
    fund_budget(empty.engine, empty.vault, "*", 10_000_000, "decision 1", empty.clock())
    return empty
