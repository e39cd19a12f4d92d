"""Exclusivity, plausibility and caps: what may not be claimed, and how much of it earns points.

A group refuses the activity: it would count one act twice. A rule refuses what is not plausible, or
in shadow mode only tells. A cap cuts points, never carbon.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from scenarios.activity import Activity
from scenarios.caps import Group
from scenarios.errors import Rejected, ScenarioError
from scenarios.formulas import EXACT
from scenarios.rules import Rule
from scenarios.version import Version

Key = tuple[str, int]
"""(scenario, period): the period is a day YYYYMMDD or a month YYYYMM."""

_SECONDS_PER_HOUR: Final = 3600


class Usage(NamedTuple):
    """What a resident has claimed under one key: `count` of all acts, the carbon of all of them in
    mg, and the points granted for them."""

    count: int = 0  # type: ignore[assignment]  # the word; nobody looks for items in a usage
    reduction_mg: int = 0
    points: int = 0


class Claimed(NamedTuple):
    """The worth of one activity: its points, those lost to a cap and that cap's name ("day.count"),
    the shadow rules that would have refused it, and the usage that now stands under its keys."""

    points: int
    withheld: int
    cap: str | None
    shadow: tuple[str, ...]
    changed: dict[Key, Usage]


_NOTHING: Final = Usage()
_tuple: Final = tuple.__new__  # the hot path: a named tuple is a tuple


def needs(version: Version, activity: Activity) -> tuple[Key, ...]:
    """The keys of the usage `claim` must see: empty without caps, group and counting rules.

    The behaviour's own come first, one a period of `version.periods`; then its group's others.
    """
    periods = version.periods
    if not periods:
        return ()
    name, day = version.scenario, activity.day
    if len(periods) == 2:
        own: tuple[Key, ...] = (name, day), (name, day // 100)
    else:
        own = ((name, day if periods[0] == "day" else day // 100),)
    group = version.group
    if group is None:
        return own
    period = day if group.per == "day" else day // 100
    return own + tuple([(member, period) for member in group.members if member != name])


def claim(
    version: Version,
    activity: Activity,
    mg: int,
    keys: tuple[Key, ...],
    usage: Mapping[Key, Usage],
) -> Claimed:
    """What `mg` earn after what `usage` shows was claimed before, and the usage after it.

    `keys` are `needs(version, activity)`; one that is missing from `usage` was never claimed.
    Raises Rejected EXCLUDED_BY_GROUP, or the code of a rule in mode "refuse".
    """
    due = points = version.rate.points(mg)
    own = keys
    if version.group is not None:
        own = keys[: len(version.periods)]
        _refuse_other_members(version.group, keys[len(own) :], usage)
    used = []
    for key in own:
        used.append(usage.get(key, _NOTHING))  # noqa: PERF401 (costs less for one or two)
    shadow = _implausible(version, activity, mg, used) if version.checks else ()
    name = None
    for place, by_count, limit, cap in version.cuts:
        count, _, granted = used[place]
        left = max(0, limit - granted) if not by_count else points if count < limit else 0
        if left < points:
            points, name = left, cap
    changed: dict[Key, Usage] = {}
    for key in own:
        count, total_mg, granted = used[len(changed)]
        changed[key] = _tuple(Usage, (count + 1, total_mg + mg, granted + points))
    return _tuple(Claimed, (points, due - points, name, shadow, changed))


def undo(
    version: Version,
    activity: Activity,
    reduction_mg: int,
    points: int,
    usage: Mapping[Key, Usage],
) -> dict[Key, Usage]:
    """The changed usage after a claim is reversed: exactly what `claim` added is taken off.

    Raises ScenarioError USAGE_UNDERFLOW when the claim was never made.
    """
    changed = {}
    for key in needs(version, activity)[: len(version.periods)]:
        before = usage.get(key, _NOTHING)
        after = Usage(before.count - 1, before.reduction_mg - reduction_mg, before.points - points)
        if min(after) < 0:
            raise ScenarioError(
                "USAGE_UNDERFLOW", f"More of {version.scenario} is taken back than was claimed."
            )
        changed[key] = after
    return changed


def _refuse_other_members(
    group: Group, others: tuple[Key, ...], usage: Mapping[Key, Usage]
) -> None:
    for key in others:
        if usage.get(key, _NOTHING).count:
            member, period = key
            raise Rejected(
                "EXCLUDED_BY_GROUP",
                f"{member} was already claimed in this {group.per} ({period}); only one of "
                f"{', '.join(group.members)} counts.",
            )


def _implausible(
    version: Version, activity: Activity, mg: int, used: Sequence[Usage]
) -> tuple[str, ...]:
    """The names of the shadow rules an act breaks. Raises Rejected by the first that refuses."""
    shadow: tuple[str, ...] = ()
    quantities = activity.quantities
    for kind, place, most, rule in version.checks:
        if kind == "count":
            broken = used[place][0] >= most
        elif kind == "total":  # by the reduction, which is proportional and is what usage keeps
            broken = used[place][1] + mg > most
        elif kind == "given":
            broken = rule.of not in quantities
        else:
            broken = _too_fast(rule, quantities)
        if broken:
            if rule.mode == "refuse":
                raise Rejected(rule.code, _sentence(rule, version, activity))
            shadow += (rule.name,)
    return shadow


def _too_fast(rule: Rule, quantities: Mapping[str, Decimal | str]) -> bool:
    distance, duration = quantities.get(rule.distance), quantities.get(rule.duration)
    if distance is None or duration is None:
        return False
    # No division: km × 3600 > km/h × s, also for a ride of no duration.
    reached = EXACT.multiply(Decimal(distance), _SECONDS_PER_HOUR)
    return reached > EXACT.multiply(rule.most, Decimal(duration))


def _sentence(rule: Rule, version: Version, activity: Activity) -> str:
    """The bound that an act breaks, and what to do about it."""
    if rule.kind == "given":
        return f"{version.scenario} needs {rule.of}, so that the act can be checked."
    if rule.kind == "count":
        return (
            f"At most {rule.maximum} acts of {version.scenario} are plausible in one {rule.per}; "
            "do not report one act several times."
        )
    if rule.kind == "total":
        return (
            f"With this act {rule.of} passes {rule.maximum} in one {rule.per}; check the unit, "
            "and do not report one act several times."
        )
    distance, duration = (activity.quantities[name] for name in (rule.distance, rule.duration))
    return (
        f"{distance} km in {duration} s is faster than {rule.maximum} km/h; check "
        f"{rule.distance} and {rule.duration} and their units."
    )
