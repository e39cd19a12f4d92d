"""One slice of the people, replayed: what a process of a backtest does, again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from app.flows.backtest.life import Act, Life, lives
from app.flows.backtest.line import Step, write
from app.flows.backtest.replay import (
    Case,
    Rules,
    Worth,
    begin,
    cases,
    run,
    wanted,
    warm_up,
)
from app.flows.backtest.tally import Tally
from app.flows.backtest.wallet import ended, may_end, opening_wallet
from app.store import budgets, history, usage
from app.store.catalogue import Registry
from app.store.db import by_index, snapshot
from app.vault import Vault
from scenarios import Key, Usage, Version

TOKEN_BITS = 128


@dataclass(frozen=True, slots=True)
class Job:
    """All that a process needs: one database snapshot, keys, the draft's editions as published
    bytes, the first arrival of the window and of what warms it up, the first day after it, how
    many slices there are, and the folder for claims on budgets."""

    url: str
    snapshot: str
    vault: Vault
    draft: tuple[bytes, ...]
    first: int
    warm: int
    end: int
    slices: int
    folder: Path


class Slicer:
    """Replays slices over one connection that sees the job's snapshot."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._engine = create_engine(job.url)
        self._tx = snapshot(self._engine)
        self._tx.begin()
        self._tx.execute(text(f"SET TRANSACTION SNAPSHOT '{job.snapshot}'"))
        by_index(self._tx)
        draft = [Version.from_canonical(data) for data in job.draft]
        self._rules = Rules(
            Registry().current(self._tx), {version.scenario: version for version in draft}
        )
        self._scopes = budgets.scopes(self._tx)
        self._tokens = {token: n for n, token in enumerate(sorted(set(self._scopes.values())))}

    def close(self) -> None:
        """Give the connection back."""
        self._tx.close()
        self._engine.dispose()

    def replay(self, number: int) -> Tally:
        """The sums of slice `number`; its claims on budgets go to a file of that number."""
        tally, steps = Tally(), list[Step]()
        people = self._people(number)
        owners = history.owners(self._tx, [life.resident for life in people])
        wallets = history.wallets(self._tx, [life.resident for life in people])
        opened = [self._open(life, owners[life.resident].wrapped_key) for life in people]
        keys: dict[Key, list[bytes]] = {}
        for life, known in zip(people, opened, strict=True):
            for key in wanted(known):
                keys.setdefault(key, []).append(life.resident)
        counters = usage.read(self._tx, keys)
        for life, known in zip(people, opened, strict=True):
            events = life.trace()
            start = begin(life, known, counters.get(life.resident, {}))
            now, then = self._both(life, events, known, start)
            tally.life(life, known, now, then, owners[life.resident].district or "")
            self._end(tally, life, now, then, wallets.get(life.resident, {}))
            steps += self._steps(tally, life, now, then)
            tally.count("residents", bool(life.acts))
            tally.count("acts", len(life.acts))
            tally.count("erased", sum(act.sealed is None for act in life.acts.values()))
            tally.count("reversed", sum(act.gone > 0 for act in life.acts.values()))
        write(self._job.folder / str(number), sorted(steps))
        return tally

    def _people(self, number: int) -> list[Life]:
        low, high = bounds(number, self._job.slices)
        people = lives(history.lines(self._tx, low, high, self._job.warm), self._job.first)
        unknown = {entry: life for life in people for entry in life.unknown}
        found = history.by_id(self._tx, unknown)
        for life in people:
            if mine := [found[entry] for entry in life.unknown if entry in found]:
                life.adopt(mine)
        return people

    def _open(self, life: Life, wrapped: bytes | None) -> dict[str, Case]:
        if wrapped is None:
            return {}
        key = self._job.vault.subject_key(life.resident.hex(), wrapped)
        return cases(self._rules, life, key)

    def _both(
        self,
        life: Life,
        events: list[tuple[str, Act]],
        opened: Mapping[str, Case],
        start: dict[Key, Usage],
    ) -> tuple[dict[str, Worth], dict[str, Worth]]:
        """What both rule sets make of each act; what was erased keeps what was recorded."""
        readings = {entry: case.now for entry, case in opened.items()}
        touched = {entry: case.then for entry, case in opened.items() if case.then is not None}
        counters = dict(start) if touched else start
        now = {
            entry: self._rules.recorded(act)
            for entry, act in life.acts.items()
            if entry not in opened
        } | run(events, readings, start)
        if not touched:
            return now, now
        warm_up(life, opened, counters)
        return now, now | run(events, touched, counters)

    def _end(
        self,
        tally: Tally,
        life: Life,
        now: Mapping[str, Worth],
        then: Mapping[str, Worth],
        wallet: Mapping[int, int],
    ) -> None:
        """What expired, of those whose points can."""
        start, end = opening_wallet(life, wallet), self._job.end
        if may_end(life, now, start, end) or may_end(life, then, start, end):
            one = ended(life, now, start, end)
            tally.ends(one, one if then is now else ended(life, then, start, end))

    def _steps(
        self, tally: Tally, life: Life, now: Mapping[str, Worth], then: Mapping[str, Worth]
    ) -> list[Step]:
        """What a person's window asks of budgets under both rule sets, and gives back to them."""
        steps = []

        def put(step: Step, token: str, *, stands: bool = True) -> None:
            steps.append(step)
            tally.step(step, token, stands=stands)

        for entry, act in life.acts.items():
            one, other = now[entry], then[entry]
            costs = max(0, one.points - act.repaid), max(0, other.points - act.repaid)
            token = act.budget or budgets.payer(self._scopes, act.scenario)
            if act.cost and not act.waited:
                tally.budgets[act.budget][0] -= act.cost
            if token is None or not any(costs):
                continue
            put(self._step(token, act.arrival, act.arrival, *costs), token, stands=not act.gone)
            if act.gone:
                back = (max(0, cost - act.short) for cost in costs)
                put(self._step(token, act.gone, act.arrival, *back), token)
        for act in (*life.older.values(), *life.warm.values()):
            for step in self._older(act):
                put(step, act.budget, stands=not act.gone)
        for move in life.moves:
            if move.paid:
                tally.budgets[move.budget][0] -= move.paid
        for move in life.outside:
            put(self._step(move.budget, move.arrival, 0, -move.paid, -move.paid), move.budget)
        return steps

    def _step(self, token: str, arrival: int, target: int, now: int, then: int) -> Step:
        return Step(arrival, target, self._tokens[token], (now, then))

    def _older(self, act: Act) -> list[Step]:
        """An act from before the window that it pays or takes back; both rule sets owe it alike."""
        steps = []
        if act.waited and (act.settled or act.gone):
            steps.append(self._step(act.budget, act.arrival, act.arrival, act.cost, act.cost))
        if act.gone and act.budget:
            target, back = (act.arrival, act.cost - act.short) if act.waited else (0, act.returned)
            steps.append(self._step(act.budget, act.gone, target, back, back))
        return steps


def bounds(number: int, slices: int) -> tuple[bytes, bytes]:
    """The first token of slice `number`, and the first after it: of the last, one beyond all."""
    size = TOKEN_BITS // 8
    low, high = ((n << TOKEN_BITS) // slices for n in (number, number + 1))
    beyond = number + 1 == slices
    return low.to_bytes(size, "big"), b"\xff" * (size + 1) if beyond else high.to_bytes(size, "big")
