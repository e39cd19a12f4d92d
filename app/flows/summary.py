"""Sum up: what a resident's entries come to, by month and area.

An entry belongs to the day on which it was recorded, as in the statement; what a later entry takes
back or pays is taken from, or added to, the month of that later entry and the area of the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from app.store import statements
from app.store.statements import Fact, Line
from ledger.accounts import AccountKind, Asset
from ledger.buckets import day_of

_WALLET, _SOURCE = f"{AccountKind.RESIDENT}:", f"{AccountKind.REDUCTION}:"


@dataclass(slots=True)
class Sum:
    """Acts that count, carbon in mg and points that came (less those taken back), points above a
    cap, and points that still wait for a budget."""

    acts: int = 0
    reduction_mg: int = 0
    points: int = 0
    withheld_points: int = 0
    waiting_points: int = 0

    def add(self, other: Sum) -> None:
        """Add another sum to this one."""
        for name in Sum.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(slots=True)
class Month:
    """The sums of each area, and the points that moved otherwise, by kind of entry."""

    areas: defaultdict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    moved: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def total(self) -> Sum:
        """All areas together."""
        total = Sum()
        for one in self.areas.values():
            total.add(one)
        return total


def gained(fact: Fact, asset: Asset) -> int:
    """What the wallet gained of an asset, negative when it lost."""
    return sum(
        amount
        for name, of, _, amount in fact["postings"]
        if of == asset and name.startswith(_WALLET)
    )


def carbon(facts: Iterable[Fact]) -> dict[str, int]:
    """Milligrams by area that these entries brought to their wallets, less those taken back."""
    areas: dict[str, int] = {}
    for fact in facts:
        for name, _, _, amount in fact["postings"]:
            if name.startswith(_SOURCE):
                area = name[len(_SOURCE) :].partition(".")[0]
                areas[area] = areas.get(area, 0) - amount
    return areas


def months(
    tx: Connection, lines: Sequence[Line], waits: Mapping[int, int]
) -> defaultdict[int, Month]:
    """The sums of these entries by month YYYYMM; `waits` are the points still due by arrival."""
    areas = _areas(tx, [line.fact for line in lines])
    found: defaultdict[int, Month] = defaultdict(Month)
    for arrival, fact, _ in lines:
        month, detail = found[day_of(fact["at"]) // 100], fact["detail"]
        points = gained(fact, Asset.POINT)
        area, acts = areas.get(fact["id"], ("", 0))
        if not area:
            month.moved[fact["kind"]] += points
            continue
        withheld, waiting = detail.get("withheld", 0), waits.get(arrival, 0)
        month.areas[area].add(Sum(acts, gained(fact, Asset.CO2E), points, withheld, waiting))
    return found


def _areas(tx: Connection, facts: Sequence[Fact]) -> dict[str, tuple[str, int]]:
    """(area, acts) of each entry that comes from an act: 1 that credits it, -1 that takes it back,
    0 that moves its points later."""
    known = {fact["id"]: fact for fact in facts}
    asked = facts
    while missing := {name for fact in asked if (name := _first(fact)) and name not in known}:
        fetched = statements.facts(tx, missing)
        known |= fetched
        asked = list(fetched.values())
    return {fact["id"]: found for fact in facts if (found := _area(fact, known))[0]}


def _area(fact: Fact, known: Mapping[str, Fact]) -> tuple[str, int]:
    sign = 1
    while name := _first(fact):
        sign = -sign if fact["kind"] == "reverse" else 0
        fact = known[name]
    rule = fact["detail"].get("rule")
    return (rule[0].partition(".")[0], sign) if rule else ("", 0)


def _first(fact: Fact) -> str:
    """The entry that this one settles or reverses; "" if it does neither."""
    detail = fact["detail"]
    return str(detail.get("settles") or detail.get("reverses") or "")
