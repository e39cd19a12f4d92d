"""A small town with real flows against a real database, and what must always hold of it."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from secrets import token_bytes, token_hex
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from app.config import Config
from app.flows import prove, redeem, tune
from app.flows.accept import Batch, accept
from app.flows.budget import fund_budget
from app.flows.changeset import ChangeSet
from app.flows.check import check_database
from app.flows.enroll import enroll
from app.flows.export import export_log
from app.flows.once import Answer, Repeat, once
from app.flows.publish import publish
from app.flows.seal import Sealer
from app.store import admins, budgets, entries, people, providers
from app.store.db import transact
from app.store.driver import Lean
from ledger.audit import Report, audit
from ledger.checkpoint import open as open_checkpoint
from ledger.entries import Entry, instant
from ledger.errors import Refused
from ledger.transfers import fund_merchant, redeemed
from scenarios import load

MERCHANT = "c" * 32
_numbers = count()

_TABLES = (
    "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)
_HASH = (
    "SELECT '{0}', md5(coalesce(string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\"), ''))"
    " FROM {0} t"
)
_SUMS = """
SELECT asset, sum(amount)::bigint FROM (
  SELECT asset, amount FROM balances
  UNION ALL SELECT asset, amount FROM postings WHERE account_kind > 10) a
GROUP BY asset HAVING sum(amount) <> 0"""


@dataclass
class Town:
    """A city's flows under short names; every action happens at the clock's time."""

    config: Config
    clock: Any
    vault: Any
    registry: Any
    engine: Any = field(init=False)
    sealer: Sealer = field(init=False)
    hashes: str = ""

    def __post_init__(self) -> None:
        self.engine = create_engine(self.config.database_url)
        self.sealer = Sealer(self.engine, self.vault, self.config.head_file)

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        return self.engine, self.vault, self.registry

    def admin(self) -> psycopg.Connection[Any]:
        """A superuser's connection, past every grant."""
        url = self.config.owner_url.replace("+psycopg", "").replace("puhui_owner@", "postgres@")
        return psycopg.connect(url, autocommit=True)

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(query), values)]

    def value(self, query: str, **values: Any) -> Any:
        return self.rows(query, **values)[0][0]

    def enroll(self, *subjects: str) -> list[str]:
        tokens = enroll(*self.parts, "bikes", subjects, "140403", self.clock())
        return [tokens[subject] for subject in subjects]

    def ride(self, number: object, subject: str = "rider-0", **changes: Any) -> dict[str, Any]:
        return {
            "id": f"ride-{number}",
            "subject": subject,
            "scenario": "travel.bike_shared",
            "occurred_at": "2026-11-20T08:00:00+08:00",
            "quantities": {"distance_km": "2.5"},
        } | changes

    def dated(self, number: int, **changes: Any) -> dict[str, Any]:
        """A ride on a day of its own (of 324), so that no daily cap binds."""
        day = f"2025-{number % 12 + 1:02}-{number // 12 % 27 + 1:02}T08:00:00Z"
        return self.ride(number, occurred_at=day, **changes)

    def batch(self, batch_id: str, *activities: Any) -> Batch:
        return Batch("bikes", batch_id, json.dumps(activities).encode(), activities)

    def send(self, batch_id: str, *activities: Any) -> list[dict[str, Any]]:
        batch = self.batch(batch_id, *activities)
        return json.loads(accept(*self.parts, batch, self.clock()))["outcomes"]

    def budget(self, scope: str) -> None:
        with self.engine.begin() as tx:
            budgets.create(tx, token_hex(16), scope, scope, self.clock())

    def fund(self, scope: str, points: int, reference: str) -> Any:
        return fund_budget(self.engine, self.vault, scope, points, reference, self.clock())

    def allow(self, points: int, reference: str = "a contract") -> None:
        """Let the merchant redeem so many points more."""
        parts = {"merchant": MERCHANT, "points": points, "reference": reference}
        known = {"id": token_hex(16), "at": instant(self.clock())}
        with self.engine.begin() as tx:
            entries.append(tx, [fund_merchant(**known, **parts)])

    def till(self, engine: Any = None) -> Till:
        """Where points are spent; `engine` is the caller's own, if it must be another."""
        return Till(self, engine or self.engine)

    def points(self, resident: str, kind: int = 1) -> int:
        """A resident's points: in the wallet (kind 1), on hold (2) or owed (3)."""
        return self.value(
            "SELECT coalesce(sum(amount), 0)::bigint FROM balances"
            " WHERE account = :id AND account_kind = :kind AND asset = 2",
            id=bytes.fromhex(resident),
            kind=kind,
        )

    def seal(self) -> int:
        """Seal all that is pending."""
        total = 0
        while sealed := self.sealer.seal(self.clock()):
            total += sealed
        return total

    def digest(self) -> dict[str, str]:
        """One hash a table. Sequences are left out: a number drawn in vain is no trace."""
        if not self.hashes:
            self.hashes = " UNION ALL ".join(_HASH.format(name) for (name,) in self.rows(_TABLES))
        return dict(self.rows(self.hashes))

    def unbalanced(self) -> list[tuple[Any, ...]]:
        """The assets whose accounts, guarded and open, do not sum to zero."""
        return self.rows(_SUMS)

    def faults(self) -> list[Any]:
        return list(check_database(self.engine, self.vault))

    def export(self, folder: Path, *, openings: bool = True) -> Path:
        export_log(self.engine, self.vault, folder, openings=openings)
        return folder

    def prove(self, folder: Path) -> Report:
        """Seal everything, then let every judge look: database, export, outside copy."""
        self.seal()
        assert self.unbalanced() == []
        assert self.faults() == []
        report = audit(self.export(folder), trusted=self.vault.ring.verifiers)
        assert report.recomputed is not None
        assert report.head.size == self.value("SELECT count(*) FROM entries")
        kept = open_checkpoint(self.config.head_file.read_text(), self.vault.ring.verifiers)
        assert kept == report.head
        return report


@dataclass
class Till:
    """The moves of charges and orders, each in a transaction of its own that begins, as theirs do,
    by locking the resident."""

    town: Town
    engine: Any

    def hold(self, resident: str, points: int, request: str) -> Entry:
        return self._move(resident, redeem.hold, resident, points, request)

    def charge(self, resident: str, points: int, request: str) -> Entry:
        return self._move(resident, redeem.charge, resident, points, MERCHANT, request)

    def release(self, hold: str) -> Entry:
        return self._move("", redeem.release, hold)

    def redeem(self, hold: str, merchant: str = MERCHANT) -> Entry:
        return self._move("", redeem.redeem, hold, merchant)

    def refund(self, sold: str, points: int, request: str) -> Entry:
        def work(tx: Any) -> Entry:
            # in the place of the row that a caller locks, and that says what it gave back
            entries.take_turn(tx, sold)
            refunds = "SELECT payload FROM entries WHERE kind = 'refund'"
            earlier = map(Entry.parse, tx.execute(text(refunds)).scalars())
            done = -sum(redeemed(one) for one in earlier if one.detail["redeem"] == sold)
            known = self.town.vault, sold, points, done, request
            return redeem.refund(tx, *known, self.town.clock()).entry

        return transact(self.engine, work)

    def _move(self, resident: str, verb: Callable[..., redeem.Moved], *known: Any) -> Entry:
        def work(tx: Any) -> Entry:
            if resident and people.lock(tx, resident) is None:
                raise Refused("There is no such resident.")
            return verb(tx, self.town.vault, *known, self.town.clock()).entry

        return transact(self.engine, work)


@pytest.fixture
def open_town(empty) -> Iterator[Callable[[Config], Town]]:
    """Opens towns of a configuration; all are closed when the test ends."""
    opened = []

    def make(config: Config) -> Town:
        opened.append(Town(config, empty.clock, empty.vault, empty.registry))
        return opened[-1]

    yield make
    for one in opened:
        one.engine.dispose()


@pytest.fixture
def copy_of(open_town, tmp_path) -> Iterator[Callable[[Town], Town]]:
    """Copies a town as a backup is taken: its database as it stands, and its outside copy."""
    made = []

    def make(town: Town) -> Town:
        name = f"{town.config.database_url.rpartition('?')[0].rpartition('/')[2]}_{next(_numbers)}"
        source = name.rpartition("_")[0]
        town.engine.dispose()
        with town.admin() as admin:
            postgres = admin.info.dsn.replace(f"dbname={source}", "dbname=postgres")
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {source} OWNER puhui_owner")
        made.append((postgres, name))
        head = tmp_path / name
        if town.config.head_file.exists():
            head.write_text(town.config.head_file.read_text())
        return open_town(
            replace(
                town.config,
                head_file=head,
                database_url=town.config.database_url.replace(f"/{source}?", f"/{name}?"),
                owner_url=town.config.owner_url.replace(f"/{source}?", f"/{name}?"),
            )
        )

    yield make
    for postgres, name in made:
        with psycopg.connect(postgres, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def town(empty, open_town) -> Town:
    """Rules published, a provider, and a general budget of ten million points."""
    made = open_town(empty.config)
    publish(made.engine, made.vault, load(), made.clock())
    made.fund("*", 10_000_000, "decision 1")
    with made.engine.begin() as tx:
        providers.add(tx, "bikes", "Bikes", made.clock())
    return made


@pytest.fixture
def begin_again(town):
    """Puts the town back as it stood when this was first called."""
    start, tables = town.clock.now, list(town.digest())
    with town.admin() as admin:
        admin.execute("CREATE SCHEMA kept")
        for name in tables:
            admin.execute(f"CREATE TABLE kept.{name} AS TABLE public.{name}")

    def reset():
        town.clock.now = start
        town.config.head_file.unlink(missing_ok=True)
        town.sealer = Sealer(town.engine, town.vault, town.config.head_file)
        prove._known.clear()  # a process keeps nodes of its log; here another log begins
        with town.admin() as admin, admin.transaction():
            admin.execute("SET LOCAL session_replication_role = replica")
            for name in tables:
                admin.execute(f"DELETE FROM public.{name}")
                admin.execute(
                    f"INSERT INTO public.{name} OVERRIDING SYSTEM VALUE TABLE kept.{name}"
                )
        return town

    return reset


class Drafts:
    """Submitted drafts of two scenarios, the n-th to begin on the n-th day of December 2026."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.ids: dict[int, str] = {}
        self.people: dict[str, admins.Admin] = {}
        with town.engine.begin() as tx:
            for role in ("editor", "reviewer"):
                who = self.people[role] = admins.Admin(token_bytes(16), role, (role,))
                admins.add(tx, who, "no password", b"no code", town.clock())

    def desk(self, role: str) -> tune.Desk:
        who, town = self.people[role], self.town
        return tune.Desk(town.vault, town.registry, 7, who.id, who.name, town.clock())

    def begin(self, n: int) -> None:
        first = date(2026, 11, 30) + timedelta(days=n)
        names = ["travel.bus_km", "travel.bus_ride"]
        with self.town.engine.begin() as tx:
            change = ChangeSet("t", "r", first, [])
            self.ids[n] = tune.open_draft(tx, self.desk("editor"), change, names)
            tx.execute(text("UPDATE drafts SET state = 'submitted' WHERE state = 'draft'"))

    def act(self, engine: Any, n: int, verb: Any, *reason: str) -> None:
        """The reviewer's request as the API runs it, which may be sent again."""

        def work(tx: Any) -> Answer:
            verb(tx, self.desk("reviewer"), self.ids[n], "1", *reason)
            return Answer(200, b"{}")

        repeat = Repeat("admin reviewer", f"{verb.__name__}-{n}", b"digest")
        once(engine, self.town.vault, repeat, self.town.clock(), work)

    def state(self, n: int) -> str:
        return self.town.value(
            "SELECT state FROM drafts WHERE id = :id", id=bytes.fromhex(self.ids[n])
        )


@pytest.fixture
def drafts(town) -> Drafts:
    """Drafts of a town."""
    return Drafts(town)


class Fuse:
    """Kills its process when it has been told of enough events."""

    def __init__(self, events: int) -> None:
        self.left = events

    def tick(self, *_args: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: type, name: str, *, end=lambda _self: False) -> None:
        """Count the beginning of a method's calls, and their end if something lasting was done."""
        original = getattr(owner, name)

        def counted(*args, **named):
            self.tick()
            result = original(*args, **named)
            if end(args[0]):
                self.tick()
            return result

        setattr(owner, name, counted)


def survives(url: str, events: int, job) -> bool:
    """Run job(engine) in a child that dies at the given event; whether it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fuse = Fuse(events)
            engine = create_engine(url)
            fuse.watch(psycopg.Cursor, "execute", end=lambda it: it.connection.autocommit)
            fuse.watch(psycopg.Cursor, "executemany")
            fuse.watch(psycopg.Cursor, "copy")
            fuse.watch(psycopg.Copy, "finish")
            fuse.watch(Lean, "rows", end=lambda it: it.autocommit)
            fuse.watch(Lean, "commit", end=bool)
            fuse.watch(Path, "replace", end=bool)
            job(engine)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the job failed by itself"
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


@pytest.fixture
def deaths(town):
    """Runs job(engine, n) to its n-th event for n = 1, 2, ... and yields after each death, with
    whether the database shows any trace. Ends when the job survives.

    A job runs in a child process that counts its statements, COPYs, commits and file replacements
    and kills itself (SIGKILL) at the n-th of them."""

    def run(job, prepare=lambda n: None, least=8):
        traces = []
        for n in itertools.count(1):
            prepare(n)
            before = town.digest()
            town.engine.dispose()  # the child must not share a connection
            if survives(town.config.database_url, n, partial(call, job, n)):
                break
            traces.append(town.digest() != before)
            yield n, traces[-1]
        assert len(traces) > least
        assert traces == sorted(traces), "once something was written, it stayed"
        assert traces[-1], "the last death comes after the commit"

    def call(job, n, engine):
        job(engine, n)

    return run
