"""One person's entries of a window: acts with what the ledger recorded for them, and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import orjson

from app.store.history import Line
from ledger.buckets import day_of

_REFERENCES = ("settles", "reverses", "hold", "redeem")


@dataclass(slots=True)
class Act:
    """A credited act as it was recorded; `day` is the business day of crediting.

    `due` are the points that caps left, paid at once or later; `cost` what they take from the
    budget: less than `due` where they `repaid` a debt. `bucket` is 0 unless points were paid at
    once, and `waited` says that they were not for want of money. `returned` is what the budget got
    back by the reversal of arrival `gone`.
    """

    id: str
    arrival: int
    day: int
    scenario: str
    number: int
    mg: int
    due: int
    withheld: int
    bucket: int
    budget: str
    cost: int
    repaid: int
    waited: bool
    sealed: bytes | None
    settled: bool = False
    returned: int = 0
    gone: int = 0

    @property
    def short(self) -> int:
        """What the reversal could not take back, and was owed instead."""
        paid = self.settled or not self.waited
        return self.cost - self.returned if self.gone and paid else 0

    def settle(self, move: Move) -> None:
        """It is paid now, part of it maybe in repayment of debt."""
        self.settled, self.cost, self.repaid = True, move.paid, self.due - move.paid


class Move(NamedTuple):
    """Anything else that touched a person: `points` into the wallet by bucket (below zero: out of
    it), what a budget `paid` (below zero: got), and the entry it `refers` to, if any."""

    id: str
    kind: str
    arrival: int
    day: int
    refers: str
    points: tuple[tuple[int, int], ...]
    budget: str
    paid: int


@dataclass(slots=True)
class Life:
    """A person's window, by entry id and in order of arrival.

    `warm` are acts from before it, read to warm up counters, and `older` those from before it that
    it settles or reverses. `outside` are moves of budgets that have to do with no act.
    """

    resident: bytes
    acts: dict[str, Act] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    warm: dict[str, Act] = field(default_factory=dict)
    older: dict[str, Act] = field(default_factory=dict)
    settlements: dict[str, Act] = field(default_factory=dict)
    outside: list[Move] = field(default_factory=list)

    @property
    def unknown(self) -> set[str]:
        """The ids of entries from before that this window settles or reverses."""
        known = {move.id for move in self.moves}.union(self.acts, self.warm, self.settlements)
        kinds = ("settle", "reverse")
        return {move.refers for move in self.moves if move.kind in kinds} - known

    def adopt(self, found: Iterable[tuple[int, bytes, bytes | None]]) -> None:
        """Take in those entries: (arrival, payload, sealed opening)."""
        entries = [read(*one) for one in found]
        self.older |= {one.id: one for one in entries if isinstance(one, Act)}
        for one in entries:
            if isinstance(one, Move) and one.kind == "settle":
                self._settled_before(one)

    def warm_up(self, one: Act | Move) -> None:
        """Take in an entry from shortly before the window."""
        if isinstance(one, Act):
            self.warm[one.id] = one
        elif one.kind == "settle":
            self._settled_before(one)
        elif one.kind == "reverse":
            self.warm.pop(one.refers, None)

    def _settled_before(self, move: Move) -> None:
        act = self.older.get(move.refers) or self.warm.get(move.refers)
        if act is not None:
            act.settle(move)
            act.waited = False  # not any more, when the window began
            self.settlements[move.id] = act

    def trace(self) -> list[tuple[str, Act]]:
        """What happened to the acts, in order: ("claim" or "undo", act). To be called once: on the
        way each act learns what became of it."""
        known = self.warm | self.older | self.acts
        events = [(act.arrival, "claim", act) for act in self.acts.values()]
        for move in self.moves:
            act = known.get(move.refers) or self.settlements.get(move.refers)
            if move.kind == "settle" and act:
                act.settle(move)
                self.settlements[move.id] = act
            elif move.kind == "reverse" and act:
                act.returned -= move.paid
                if move.refers == act.id:
                    act.gone = move.arrival
                    events.append((move.arrival, "undo", act))
            elif move.paid:
                self.outside.append(move)
        return [(name, act) for _, name, act in sorted(events, key=itemgetter(0))]


def lives(lines: Iterable[Line], first: int) -> list[Life]:
    """Everybody of these lines; what arrived before `first` only warms up."""
    made = []
    for resident, own in groupby(lines, key=attrgetter("resident")):
        life = Life(resident)
        for _, arrival, payload, sealed in own:
            one = read(arrival, payload, sealed)
            if arrival < first:
                life.warm_up(one)
            elif isinstance(one, Act):
                life.acts[one.id] = one
            else:
                life.moves.append(one)
        made.append(life)
    return made


def read(arrival: int, payload: bytes, sealed: bytes | None) -> Act | Move:
    """An entry that touches a person, from its canonical bytes."""
    entry = orjson.loads(payload)
    detail, day = entry["detail"], day_of(f"{entry['at'][:13]}:00:00Z")  # by the hour: few, cached
    if "rule" in detail:
        return _act(entry["id"], arrival, day, detail, entry["postings"], sealed)
    points, budget, paid = [], "", 0
    for account, asset, bucket, amount in entry["postings"]:
        if asset == "POINT" and account.startswith("resident:"):
            points.append((bucket, amount))
        elif account.startswith("budget:"):
            budget, paid = account[7:], paid - amount
    kind = "settle" if "settles" in detail else entry["kind"]
    refers = next((detail[name] for name in _REFERENCES if name in detail), "")
    return Move(entry["id"], kind, arrival, day, refers, tuple(points), budget, paid)


def _act(
    id: str,
    arrival: int,
    day: int,
    detail: Mapping[str, Any],
    postings: Iterable[tuple[str, str, int, int]],
    sealed: bytes | None,
) -> Act:
    mg = points = bucket = cost = 0
    budget: str = detail.get("budget", "")
    for account, asset, at, amount in postings:
        if amount < 0:
            if account[0] == "b":
                budget, cost = account[7:], -amount
        elif asset == "CO2E":
            mg += amount
        else:
            points += amount
            if account[0] == "r":
                bucket = at
    awaiting = detail.get("awaiting", 0)
    scenario, number, _ = detail["rule"]
    return Act(
        id,
        arrival,
        day,
        scenario,
        number,
        mg,
        points + awaiting,
        detail.get("withheld", 0),
        bucket,
        budget,
        cost + awaiting,
        points - cost,
        awaiting > 0,
        sealed,
    )
