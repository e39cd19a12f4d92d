"""Caps and exclusivity: how much of a reduction earns points, and what may not be claimed twice.

A cap cuts points, never carbon. A group refuses the activity: it would count one act twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from scenarios.activity import Activity
from scenarios.caps import Cap
from scenarios.errors import Rejected, ScenarioError
from scenarios.points import Rate
from scenarios.reduction import Reduction
from scenarios.version import Version

Key = tuple[str, int]
"""(scenario, period): the period is a day YYYYMMDD or a month YYYYMM."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a resident has claimed under one key.

    `count` is the activities that earned points, `reduction_mg` the carbon of all claims (capped
    or not), `points` what was granted.
    """

    count: int = 0
    reduction_mg: int = 0
    points: int = 0


class Grant(NamedTuple):
    """The points of one activity, those lost to a cap, and that cap's name ("day.count")."""

    points: int
    withheld: int
    cap: str | None


_NOTHING = Usage()


def needs(version: Version, activity: Activity) -> tuple[Key, ...]:
    """The keys of the usage `grant` must see: empty without caps and group."""
    if not version.periods:
        return ()
    own = _own(version, activity)
    if version.group is None:
        return own
    period = _period(version.group.per, activity)
    others = ((name, period) for name in version.group.members if name != version.scenario)
    return (*own, *others)


def grant(
    version: Version, activity: Activity, reduction: Reduction, usage: Mapping[Key, Usage]
) -> Grant:
    """The points for a reduction after what `usage` shows was claimed before.

    A key missing from `usage` means nothing was claimed. Raises Rejected EXCLUDED_BY_GROUP.
    """
    due = version.rate.points(reduction.mg)
    if not version.periods:
        return Grant(due, 0, None)
    _refuse_other_members(version, activity, usage)
    points, name = due, None
    for cap in version.caps:
        used = usage.get((version.scenario, _period(cap.per, activity)), _NOTHING)
        left = _left(cap, version.rate, used)
        if left is not None and left < points:
            points, name = left, cap.name
    return Grant(points, due - points, name)


def record(
    version: Version,
    activity: Activity,
    reduction_mg: int,
    points: int,
    usage: Mapping[Key, Usage],
) -> dict[Key, Usage]:
    """The changed usage after a claim that was granted `points`: to be stored under its keys."""
    return _change(version, activity, Usage(int(points > 0), reduction_mg, points), usage)


def undo(
    version: Version,
    activity: Activity,
    reduction_mg: int,
    points: int,
    usage: Mapping[Key, Usage],
) -> dict[Key, Usage]:
    """The changed usage after that claim is reversed: exactly what `record` added is taken off.

    Raises ScenarioError USAGE_UNDERFLOW when the claim was never recorded.
    """
    taken = Usage(-int(points > 0), -reduction_mg, -points)
    changed = _change(version, activity, taken, usage)
    if any(min(after.count, after.reduction_mg, after.points) < 0 for after in changed.values()):
        raise ScenarioError(
            "USAGE_UNDERFLOW", f"More of {version.scenario} is taken back than was claimed."
        )
    return changed


def _change(
    version: Version, activity: Activity, change: Usage, usage: Mapping[Key, Usage]
) -> dict[Key, Usage]:
    changed = {}
    for key in _own(version, activity):
        before = usage.get(key, _NOTHING)
        changed[key] = Usage(
            before.count + change.count,
            before.reduction_mg + change.reduction_mg,
            before.points + change.points,
        )
    return changed


def _own(version: Version, activity: Activity) -> tuple[Key, ...]:
    return tuple((version.scenario, _period(per, activity)) for per in version.periods)


def _period(per: str, activity: Activity) -> int:
    return activity.day if per == "day" else activity.month


def _left(cap: Cap, rate: Rate, used: Usage) -> int | None:
    """The points a cap still allows; None when it does not bind.

    A cap in grams is the cap in points those grams give: the rate is the same for every act.
    """
    if cap.of == "count":
        return 0 if used.count >= cap.limit else None
    limit = rate.points(cap.limit * 1000) if cap.of == "grams" else cap.limit
    return max(0, limit - used.points)


def _refuse_other_members(version: Version, activity: Activity, usage: Mapping[Key, Usage]) -> None:
    if version.group is None:
        return
    period = _period(version.group.per, activity)
    for member in version.group.members:
        if member != version.scenario and usage.get((member, period), _NOTHING).reduction_mg:
            raise Rejected(
                "EXCLUDED_BY_GROUP",
                f"{member} was already claimed in this {version.group.per} ({period}); only one "
                f"of {', '.join(version.group.members)} counts.",
            )
