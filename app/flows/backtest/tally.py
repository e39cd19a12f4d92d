"""Sums of both rule sets: lists of whole numbers under keys, so that parts add up in any order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from app.flows.backtest.life import Act, Life
from app.flows.backtest.line import Step
from app.flows.backtest.replay import Case, Reading, Worth
from app.flows.backtest.wallet import Ended, bucket_of

_EXAMPLES = 20


class Drift(NamedTuple):
    """The ledger has this of an act, and the rules in force say that."""

    arrival: int
    entry: str
    scenario: str
    recorded: str
    replayed: str


class Sums(dict[Any, list[int]]):
    """Lists of so many numbers, all zero to begin with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def __missing__(self, key: Any) -> list[int]:
        self[key] = made = [0] * self._width
        return made

    def add(self, other: Sums) -> None:
        """Add another's numbers to those under the same keys."""
        for key, values in other.items():
            plus(self[key], values)


class Tally:
    """What acts came to. Of each pair the rules in force come first, then the draft.

    `worth` by (scenario, day) and `districts`: acts, mg, points, withheld, for both. `ranks` by a
    resident's points in force: residents, change in points, better, worse. `capped` by scenario
    ("" for any): residents capped under both, only now, only then. `budgets` by token: what the
    ledger moved in or out (below zero), asked for by both, given by both, asked for in vain by
    both: by acts that were reversed or erased since.
    """

    def __init__(self) -> None:
        self.worth, self.districts = Sums(8), Sums(8)
        self.ranks, self.capped, self.refused, self.shadow = Sums(4), Sums(3), Sums(1), Sums(2)
        self.ending, self.ended, self.budgets, self.counts = Sums(2), Sums(4), Sums(7), Sums(1)
        self.drift: list[Drift] = []
        self.drifted = 0

    def add(self, other: Tally) -> None:
        """Take in another part's sums."""
        for name, mine in vars(self).items():
            if isinstance(mine, Sums):
                mine.add(getattr(other, name))
        self.drifted += other.drifted
        self.drift = sorted(self.drift + other.drift)[:_EXAMPLES]

    def count(self, name: str, n: int = 1) -> None:
        """One more of something."""
        self.counts[name][0] += n

    def life(
        self, life: Life, opened: Mapping[str, Case], now: Mapping[str, Worth],
        then: Mapping[str, Worth], district: str,
    ) -> None:  # fmt: skip
        """A person's acts; those that were reversed inside the window count for nothing."""
        totals, capped = [0] * 8, defaultdict[str, list[bool]](lambda: [False, False])
        for entry, act in life.acts.items():
            case = opened.get(entry)
            one = now[entry]
            if case:
                self._compare(act, case, one)
            if act.gone:
                continue
            other = then[entry]
            row = (*_row(one), *_row(other))
            if other.code:
                self.refused[other.code, act.scenario][0] += 1
            plus(self.worth[act.scenario, act.day], row)
            plus(totals, row)
            self._endings(act.day, one, other)
            if one.withheld or other.withheld:
                for name in ("", act.scenario):
                    capped[name][0] |= one.withheld > 0
                    capped[name][1] |= other.withheld > 0
            if one.shadow or other.shadow:
                self._shadows(act.scenario, one, other)
        for name, (before, after) in capped.items():
            self.capped[name][0 if before and after else 1 if before else 2] += 1
        plus(self.districts[district], totals)
        change = totals[6] - totals[2]
        if totals[0]:
            plus(self.ranks[totals[2]], (1, change, int(change > 0), int(change < 0)))

    def ends(self, now: Ended, then: Ended) -> None:
        """Points that ended inside the window."""
        plus(self.ended[""], (now.expired, then.expired, now.uncovered, then.uncovered))

    def step(self, step: Step, token: str, *, stands: bool = True) -> None:
        """What a budget is asked for, or is given."""
        row = self.budgets[token]
        for side, points in enumerate(step.amounts):
            asked = points if step.claims else max(0, -points)
            row[1 + side] += asked
            row[3 + side] += 0 if step.claims else max(0, points)
            row[5 + side] += 0 if stands else asked

    def _shadows(self, scenario: str, one: Worth, other: Worth) -> None:
        for side, worth in enumerate((one, other)):
            for rule in worth.shadow:
                self.shadow[scenario, rule][side] += 1

    def _endings(self, day: int, one: Worth, other: Worth) -> None:
        for side, worth in enumerate((one, other)):
            if worth.points:
                self.ending[bucket_of(day, worth.months) // 10_000][side] += worth.points

    def _compare(self, act: Act, case: Case, worth: Worth) -> None:
        """Hold the rules in force against what the ledger has."""
        number = case.now.version.number if isinstance(case.now, Reading) else 0
        bucket = bucket_of(act.day, worth.months) if act.bucket and worth.months else act.bucket
        replayed = (number, worth.mg, worth.points, worth.withheld, bucket)
        recorded = (act.number, act.mg, act.due, act.withheld, act.bucket)
        if replayed != recorded:
            self.drifted += 1
            if len(self.drift) < _EXAMPLES:
                said = worth.code or _words(replayed)
                self.drift.append(Drift(act.arrival, act.id, act.scenario, _words(recorded), said))


def _row(worth: Worth) -> tuple[int, int, int, int]:
    return int(not worth.code), worth.mg, worth.points, worth.withheld


def _words(parts: tuple[int, ...]) -> str:
    return "version {}, {} mg, {} points, {} withheld, until {}".format(*parts)


def plus(into: list[int], values: Iterable[int]) -> None:
    """Add numbers to those in the same places."""
    for place, value in enumerate(values):
        into[place] += value
