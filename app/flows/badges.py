"""Badges: what a resident's own acts amount to, reckoned whenever somebody looks.

No badge is kept anywhere. One is earned on the business day on which the acts, in the order they
were done, first came to what it asks for; an act that is reversed takes its part away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from app.flows.standing import Act
from scenarios import AREAS

_KG: Final = 1_000_000  # mg


class Badge(NamedTuple):
    """A badge: its code, its names, and what it is given for."""

    code: str
    title_zh: str
    title_en: str
    for_zh: str


_AREAS_ZH: Final = dict(zip(AREAS, "衣食住行银购游", strict=True))
_DAYS: Final = (30, 100, 365)
_KILOS: Final = (10, 100, 1000)

BADGES: Final = (
    *(
        Badge(f"first.{area}", f"{zh}·初次", f"First in {area}", f"第一次计入「{zh}」类低碳行为")
        for area, zh in _AREAS_ZH.items()
    ),
    Badge("all_areas", "七色全能", "All seven areas", "衣食住行银购游七类都有行为计入"),
    *(
        Badge(f"days.{n}", f"绿色 {n} 天", f"{n} days", f"累计 {n} 个不同的日子有行为计入")
        for n in _DAYS
    ),
    *(
        Badge(f"kg.{n}", f"减碳 {n} 千克", f"{n} kg", f"累计减少二氧化碳当量 {n} 千克")
        for n in _KILOS
    ),
    Badge("challenge", "挑战达成", "Challenge reached", "达成一次参加的月度挑战"),
)
"""Every badge there is, in the order in which they are shown."""


def earned(acts: Sequence[Act], challenges: Sequence[int]) -> dict[str, int]:
    """The day YYYYMMDD on which each badge was earned, of those that were.

    `challenges` are the days on which challenges were reached. The order of `acts` says nothing.
    """
    found: dict[str, int] = {}
    areas: set[str] = set()
    days: set[int] = set()
    total_mg = 0
    for act in sorted(acts, key=lambda act: act.day):
        areas.add(act.area)
        days.add(act.day)
        total_mg += act.reduction_mg
        reached = [f"first.{act.area}"]
        reached += ["all_areas"] * (len(areas) == len(AREAS))
        reached += [f"days.{n}" for n in _DAYS if len(days) >= n]
        reached += [f"kg.{n}" for n in _KILOS if total_mg >= n * _KG]
        for code in reached:
            found.setdefault(code, act.day)
    if challenges:
        found["challenge"] = min(challenges)
    return found
