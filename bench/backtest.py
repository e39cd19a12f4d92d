"""A backtest of a month's acts on two processes, against the same reading with no rules in it.

The sample city's month is taken in by the very flow that takes in batches (its own encryption,
counters and budgets, one of them short), each day at that day's end. Then a draft that gives every
behaviour another rate is backtested: both rule sets run over every act, and budgets that run dry
are paid in order. The floor reads, joins and opens the same acts in as many processes and asks no
rule. Memory is the most that all processes held together, and that the largest of those that replay
held, of a month beside a tenth of it.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import orjson
import psutil
from sqlalchemy import Engine, create_engine

from app.cli.populate import MAX_BATCH, open_doors, settle_in
from app.cli.sample_city import SampleCity
from app.config import CITY_ZONE, Config
from app.flows.accept import Batch, accept
from app.flows.backtest.run import PROCESSES, Plan, backtest, job_of
from app.flows.backtest.slices import Job, Slicer, bounds
from app.flows.process import collect_seldom
from app.store import history
from app.store.catalogue import Registry
from app.store.db import snapshot
from app.vault import Vault, open_vault, opener
from bench.stage import Result, Stage, analyze, bare_city
from scenarios import Version, load

ACTS = 1_000_000
DAYS = 30
_A_DAY = 2.3  # acts that are credited to one of the sample city's residents


def measure(_stage: Stage | None, acts: int = ACTS) -> list[Result]:
    """Acts a second, and the most memory in MB: of all processes and of the largest."""
    residents = int(acts / DAYS / _A_DAY)
    with TemporaryDirectory(prefix="puhui-bench-") as name:
        config = bare_city(Path(name))
        city = SampleCity(1, residents, load())
        _live(config, city)
        engine = create_engine(config.database_url or "")
        draft, now = _other_rate(engine), datetime.now(UTC)
        engine.dispose()
        _, _, few = _watched(_run, config, Plan(draft, DAYS // 10, now))
        count, seconds, many = _watched(_run, config, Plan(draft, DAYS, now))
        read, bare, _ = _watched(_read, config, Plan(draft, DAYS, now))
    if read != count:
        raise RuntimeError(f"{count} acts were replayed and {read} read")
    value, floor = count / seconds, read / bare
    return [
        Result("backtest", value, "acts/s", floor, value / floor),
        Result("backtest, memory", many.whole, "MB", few.whole, many.whole / few.whole),
        Result(
            "backtest, largest process", many.largest, "MB", few.largest, many.largest / few.largest
        ),
    ]


def _run(engine: Engine, vault: Vault, plan: Plan) -> int:
    result = backtest(engine, vault, plan, lambda _done, _total: None)
    if result["drift"]["acts"] or result["drift"]["budgets"]:
        raise RuntimeError(f"the rules in force do not give the ledger: {result['drift']}")
    count: int = result["window"]["acts"]
    return count


class Held(NamedTuple):
    """The most MB that all processes held together, and that any one of them held."""

    whole: float
    largest: float


Work = Callable[[Engine, Vault, Plan], int]


def _watched(work: Work, config: Config, plan: Plan) -> tuple[int, float, Held]:
    """What it returns, its seconds, and what it held: a process of its own, and its children."""
    most, me = Held(0, 0), psutil.Process()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        running = pool.submit(_timed, work, config, plan)
        while not running.done():
            held = [0.0]
            for child in me.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if child.name().startswith("python"):
                        held.append(child.memory_info().rss / 2**20)
            most = Held(max(most.whole, sum(held)), max(most.largest, *held))
            time.sleep(0.05)
    return *running.result(), most


def _timed(work: Work, config: Config, plan: Plan) -> tuple[int, float]:
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    started = time.perf_counter()
    result = work(engine, vault, plan)
    seconds = time.perf_counter() - started
    engine.dispose()
    return result, seconds


def _other_rate(engine: Engine) -> list[Version]:
    """Every behaviour's edition with fewer points for a kilogram."""
    with engine.connect() as tx:
        catalogue = Registry().current(tx)
    made = []
    for name in catalogue.scenarios:
        version = catalogue.versions(name)[-1]
        table = json.loads(version.canonical())
        table |= {"number": version.number + 1, "effective_from": "2099-01-01"}
        table["rate"] |= {"number": 2, "effective_from": "2099-01-01", "points_per_kg": 900}
        made.append(Version.parse(table))
    return made


def _live(config: Config, city: SampleCity) -> None:
    """The city's month, half of the people in each of two processes."""
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    now = datetime.now(UTC)
    open_doors(engine, vault, city, DAYS, now)
    settle_in(engine, vault, city, city.people(), now)
    engine.dispose()
    analyze(config)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context) as pool:
        list(pool.map(_report, [config] * PROCESSES, [city] * PROCESSES, range(PROCESSES)))
    analyze(config)


def _report(config: Config, city: SampleCity, part: int) -> None:
    collect_seldom()
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    registry, crowd = Registry(), city.people()[part::PROCESSES]
    today = datetime.now(CITY_ZONE).date()
    for ago in range(DAYS, 0, -1):
        day = today - timedelta(days=ago)
        now = datetime.combine(day, clock_time(23, 59), CITY_ZONE)
        for provider, acts in sorted(city.day(crowd, day).items()):
            for first in range(0, len(acts), MAX_BATCH):
                some = acts[first : first + MAX_BATCH]
                batch = Batch(provider, f"{day}-{part}-{first}", orjson.dumps(some), some)
                accept(engine, vault, registry, batch, now)
    engine.dispose()


class _Reader(Slicer):
    """Reads and opens what a slice's replay would, and no more."""

    def read(self, number: int) -> int:
        job = self._job
        lines = history.lines(self._tx, *bounds(number, job.slices), job.first)
        owners = history.owners(self._tx, sorted({line.resident for line in lines}))
        count = 0
        for resident, own in groupby(lines, key=attrgetter("resident")):
            wrapped = owners[resident].wrapped_key
            if wrapped is None:
                continue
            open_sealed = opener(job.vault.subject_key(resident.hex(), wrapped))
            for line in own:
                if line.sealed:
                    orjson.loads(open_sealed(orjson.loads(line.payload)["id"], line.sealed))
                    count += 1
        return count


_readers: list[_Reader] = []


def _begin(job: Job) -> None:
    collect_seldom()
    _readers.append(_Reader(job))


def _count(number: int) -> int:
    return _readers[0].read(number)


def _read(engine: Engine, vault: Vault, plan: Plan) -> int:
    context = multiprocessing.get_context("spawn")
    with (
        TemporaryDirectory() as folder,
        snapshot(engine) as tx,
        tx.begin(),
    ):
        job = job_of(engine, vault, tx, plan, Path(folder))
        with ProcessPoolExecutor(PROCESSES, context, _begin, (job,)) as pool:
            return sum(pool.map(_count, range(job.slices)))
