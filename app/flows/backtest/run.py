"""Run a backtest: one snapshot of the database, the people divided among processes, one result."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.config import CITY_ZONE
from app.flows.backtest.life import Act, read
from app.flows.backtest.line import Line, Step, pay, steps_of, write
from app.flows.backtest.replay import Rules
from app.flows.backtest.result import Budget, Window, report
from app.flows.backtest.slices import Job, Slicer
from app.flows.backtest.tally import Tally
from app.flows.process import collect_seldom, end_with_parent
from app.store import budgets, entries, history
from app.store.catalogue import Registry
from app.store.db import snapshot
from app.vault import Vault
from ledger.buckets import day_number
from ledger.entries import instant
from scenarios import Version

PROCESSES = 2
_SLICE = 5_000  # acts, about: what a process holds in memory at a time, some 20 MB
_AHEAD = 4  # slices in flight for each process

Progress = Callable[[int, int], None]
"""Told how many of how many acts are replayed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is replayed: a draft's editions (none: the rules in force alone) over so many days."""

    editions: Sequence[Version]
    days: int
    now: datetime
    processes: int = PROCESSES

    @property
    def since(self) -> date:
        """The window's first day."""
        return self.now.astimezone(CITY_ZONE).date() - timedelta(days=self.days)


def backtest(engine: Engine, vault: Vault, plan: Plan, progress: Progress) -> dict[str, Any]:
    """The result as JSON values. Nothing is written; whoever writes meanwhile is not held up.

    Raises VaultError if an opening does not open.
    """
    with (
        TemporaryDirectory(prefix="puhui-backtest-") as folder,
        snapshot(engine) as tx,
        tx.begin(),
    ):
        job = job_of(engine, vault, tx, plan, Path(folder))
        acts = history.count(tx, job.first)
        total, tally = 0, Tally()
        progress(0, acts)
        with _replayed(job, plan.processes) as parts:
            for part in parts:
                tally.add(part)
                total += part.counts["acts"][0]
                progress(min(total, acts), acts)
        window = Window(plan.since, plan.now, plan.days, acts, history.refused(tx, _start(plan)))
        return report(window, tally, _budgets(tx, vault, job, plan, tally))


def _start(plan: Plan) -> datetime:
    return datetime.combine(plan.since, time(), CITY_ZONE)


def job_of(engine: Engine, vault: Vault, tx: Connection, plan: Plan, folder: Path) -> Job:
    """What the processes of a plan need to know; good while `tx`, their snapshot, is open."""
    name = tx.execute(text("SELECT pg_export_snapshot()")).scalar_one()
    draft = {version.scenario: version for version in plan.editions}
    first = warm = history.first_since(tx, instant(_start(plan)))
    if Rules(Registry().current(tx), draft).counts_anew:
        month = _start(plan).replace(day=1)
        warm = history.first_since(tx, instant(month))
    tomorrow = plan.now.astimezone(CITY_ZONE).date()
    slices = -(-history.count(tx, warm) // _SLICE)
    return Job(
        url=engine.url.render_as_string(hide_password=False),
        snapshot=name,
        vault=vault,
        draft=tuple(version.canonical() for version in plan.editions),
        first=first,
        warm=warm,
        end=day_number(tomorrow),
        slices=max(1, slices),
        folder=folder,
    )


@contextmanager
def _replayed(job: Job, processes: int) -> Iterator[Iterator[Tally]]:
    """The slices' sums, in order; a single slice is not worth a process."""
    if processes == 1 or job.slices == 1:
        slicer = Slicer(job)
        try:
            yield map(slicer.replay, range(job.slices))
        finally:
            slicer.close()
        return
    context = get_context("spawn")  # a forked child would share our connections
    pool = ProcessPoolExecutor(processes, context, _begin, (job,))
    try:
        yield _each(pool, job.slices, processes * _AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


def _each(pool: ProcessPoolExecutor, slices: int, ahead: int) -> Iterator[Tally]:
    waiting: deque[Future[Tally]] = deque()
    for number in range(slices):
        if len(waiting) == ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(_replay, number))
    while waiting:
        yield waiting.popleft().result()


_slicers: list[Slicer] = []  # of a child process: its only one


def _begin(job: Job) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    end_with_parent()
    collect_seldom()
    _slicers.append(Slicer(job))


def _replay(number: int) -> Tally:
    return _slicers[0].replay(number)


def _budgets(tx: Connection, vault: Vault, job: Job, plan: Plan, tally: Tally) -> list[Budget]:
    """Every budget over the window: what it had, got and was asked for, and who waits in the end.

    Only those that could not have paid for all of it from the start are gone through in order.
    """
    scopes = budgets.scopes(tx)
    tokens = {token: n for n, token in enumerate(sorted(set(scopes.values())))}
    held = history.budgets(tx)
    funded, waiting = dict.fromkeys(tokens, 0), _Waiting(held)
    fundings = sorted(history.fundings(tx, job.first))
    for _, token, points in fundings:
        funded[token] += points
    given = (Step(arrival, 0, tokens[to], (points, points)) for arrival, to, points in fundings)
    write(job.folder / "funded", given)
    write(job.folder / "waited", _waited(tx, job, waiting, tally, tokens))
    write(job.folder / "lapsed", sorted(_lapsed(tx, vault, job, plan, tally, tokens)))
    opening = {
        token: held.get(token, 0) - funded[token] - tally.budgets[token][0] for token in tokens
    }
    short = {
        n: opening[token]
        for token, n in tokens.items()
        if opening[token] < max(tally.budgets[token][1:3])
    }
    lines = pay(steps_of(job.folder), short) if short else {}
    made = []
    for scope, token in sorted(scopes.items()):
        row, n = tally.budgets[token], tokens[token]
        both = lines.get(n) or tuple(
            Line(opening[token] + funded[token] + row[3 + side] - row[1 + side]) for side in (0, 1)
        )
        made.append(
            Budget(
                scope,
                opening[token],
                funded[token],
                (row[1] - row[5], row[2] - row[6]),
                (both[0].waiting, both[1].waiting),
                (both[0].left, both[1].left),
                (waiting.points.get(token, 0), waiting.left.get(token, 0)),
            )
        )
    return made


class _Waiting:
    """Who waits in the ledger, less those who are paid as soon as a worker looks."""

    def __init__(self, held: dict[str, int]) -> None:
        self.left, self.points = dict(held), dict[str, int]()

    def add(self, token: str, points: int) -> None:
        """The next in the line of a budget."""
        if token not in self.points and points <= self.left.get(token, 0):
            self.left[token] -= points
        else:
            self.points[token] = self.points.get(token, 0) + points


def _waited(
    tx: Connection, job: Job, waiting: _Waiting, tally: Tally, tokens: dict[str, int]
) -> Iterator[Step]:
    """Everybody who waits is told to `waiting`; steps are those who came before the window."""
    for arrival, token, points in history.waiting(tx):
        waiting.add(token, points)
        if arrival < job.first:
            step = Step(arrival, arrival, tokens[token], (points, points))
            tally.step(step, token)
            yield step


def _lapsed(
    tx: Connection, vault: Vault, job: Job, plan: Plan, tally: Tally, tokens: dict[str, int]
) -> Iterator[Step]:
    """Those who were erased inside the window left every line they stood in."""
    for resident in history.erased(tx, _start(plan) - timedelta(days=1)):
        entry = vault.entry_id("erase", resident)
        erased = entries.known(tx, [entry]).get(entry, 0)
        if erased < job.first:
            continue
        for arrival, payload in history.awaited(tx, resident):
            act = read(arrival, payload, None)
            if not isinstance(act, Act):
                continue
            ends = [vault.entry_id(name, act.id) for name in ("settle", "reverse")]
            if entries.known(tx, ends):
                continue
            budget, costs = tokens[act.budget], (act.cost, act.cost)
            claim = Step(arrival, arrival, budget, costs)
            if arrival < job.first:
                tally.step(claim, act.budget, stands=False)
                yield claim
            else:
                for side in (5, 6):
                    tally.budgets[act.budget][side] += act.cost
            yield Step(erased, arrival, budget, (0, 0))
