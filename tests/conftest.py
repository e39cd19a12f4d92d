"""Real servers for every test: one embedded PostgreSQL and one Valkey a run, a database a test."""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

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
from app.wiring import POOL, open_redis
from scenarios import load

ORIGIN = "log.test.example/puhui"
EMPTY, FOUNDED = "template_puhui", "template_city"  # migrated; and with rules and a budget
VALKEY_DATABASES = 16
SHOWN_LINES = 40  # of what a failed test printed: its end, and of what it says of itself
MEMORY, ROOM_BYTES = Path("/dev/shm"), 4 << 30
_numbers = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the end of what was printed: a server's request log would bury the assertion."""
    report = yield
    report.sections = [(name, ended(text)) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once more at the end why tests failed, where a record that shows only an end has it."""
    for report in terminalreporter.getreports("failed") + terminalreporter.getreports("error"):
        crash = getattr(report.longrepr, "reprcrash", None)
        terminalreporter.section(report.nodeid, "-")
        terminalreporter.line(f"{crash.path}:{crash.lineno}" if crash else "")
        terminalreporter.line(ended(crash.message if crash else report.longreprtext))


def ended(text: str) -> str:
    """The last lines of a long text."""
    lines = text.splitlines(keepends=True)
    left_out = len(lines) - SHOWN_LINES
    return "".join([f"({left_out} lines before)\n", *lines[left_out:]]) if left_out > 0 else text


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
    """The run's servers, shared by all test processes; `database_url` names the template, and
    `redis_url` a part of Valkey that is this process's own."""
    root = tmp_path_factory.getbasetemp()
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root.chmod(0o755)
    with (root / "servers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test processes start at once; the first makes it all
        url, owner = embedded.start_postgres(folder_in_memory(root), EMPTY)
        valkey = embedded.start_valkey(root / "valkey")
        made = Config(
            mode=Mode.TEST,
            data_dir=root,
            keys_dir=root / "keys",
            head_file=root / "head",
            log_origin=ORIGIN,
            database_url=url,
            owner_url=owner,
            redis_url=f"{valkey}?db={int(worker[2:]) % VALKEY_DATABASES}",
            wechat_base=wechat_server.url,
            wechat_app_id=wechat_server.stand_in.app_id,
            wechat_secret=wechat_server.stand_in.secret,
        )
        if not made.keys_dir.exists():
            migrate(owner)
            create_keys(made.keys_dir, ORIGIN)
            make_templates(made)
    return made


def folder_in_memory(root: Path) -> Path:
    """The run's folder for PostgreSQL, in memory where there is room: it makes 700 files for each
    database, which on a disk cost more than most tests do. It goes with the last process; what a
    run left that was killed goes now."""
    for left in MEMORY.glob("puhui-tests-*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            embedded.stop(left)
            shutil.rmtree(left, ignore_errors=True)
    folder = root / "postgres"
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    if not folder.exists() and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        made = Path(tempfile.mkdtemp(prefix=f"puhui-tests-{run}-", dir=MEMORY))
        made.chmod(0o755)
        folder.symlink_to(made / "postgres")

    def forget() -> None:  # registered before PostgreSQL's own end, and so run after it
        if folder.is_symlink() and not (folder / "postmaster.pid").exists():
            shutil.rmtree(folder.readlink().parent, ignore_errors=True)

    atexit.register(forget)
    return folder


def make_templates(config: Config) -> None:
    """Write what every city begins with once, for tests to copy; and let PostgreSQL not wait for
    the disk: what is killed here are processes, and these lose nothing by it."""
    with administrator(config) as admin:
        for setting in ("fsync", "full_page_writes"):
            admin.execute(f"ALTER SYSTEM SET {setting} = off")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute(f"CREATE DATABASE {FOUNDED} TEMPLATE {EMPTY} OWNER puhui_owner")
    engine, vault = create_engine(within(config.database_url, FOUNDED)), open_vault(config.keys_dir)
    now = Clock().now
    publish(engine, vault, load(), now)
    fund_budget(engine, vault, "*", 10_000_000, "decision 1", now)
    engine.dispose()


def administrator(config: Config) -> psycopg.Connection[Any]:
    """A superuser's connection to no database of a test's."""
    url = within(config.owner_url, "postgres").replace("puhui_owner@", "postgres@")
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def within(url: str | None, database: str) -> str:
    """The address of another database beside the template."""
    assert url
    return url.replace(f"/{EMPTY}?", f"/{database}?")


@pytest.fixture(scope="session")
def database(servers: Config) -> Iterator[Callable[..., AbstractContextManager[Config]]]:
    """Makes a fresh, migrated, empty database: `with database(folder) as config`, or the copy of
    another with `template`. The copy of the last checkpoint goes into the folder; the counters and
    caches of this process's Valkey are forgotten."""
    with administrator(servers) as admin, open_redis(servers.redis_url) as valkey:

        @contextmanager
        def made(folder: Path, template: str = EMPTY) -> Iterator[Config]:
            name = f"t_{os.getpid()}_{next(_numbers)}"
            valkey.flushdb()
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER puhui_owner")
            yield replace(
                servers,
                head_file=folder / "head",
                database_url=within(servers.database_url, name),
                owner_url=within(servers.owner_url, name),
            )
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

        yield made


@pytest.fixture
def config(database, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Config]:
    """Settings of a fresh, migrated database: an empty one, or what the test's city begins with."""
    with database(tmp_path, FOUNDED if "city" in request.fixturenames else EMPTY) as made:
        yield made


@pytest.fixture
def empty(config: Config, clock: Clock) -> Iterator[City]:
    """A city with nothing in it."""
    assert config.database_url
    engine = create_engine(config.database_url, **POOL)
    vault = open_vault(config.keys_dir)
    yield City(config, engine, vault, Sealer(engine, vault, config.head_file), clock)
    engine.dispose()


@pytest.fixture
def city(empty: City) -> City:
    """A city whose rules are published and whose general budget holds ten million points."""
    return empty
