"""All editions of all behaviours: which is in force when, and whether they fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from scenarios.caps import Group
from scenarios.errors import Fault, Rejected
from scenarios.points import Rate
from scenarios.version import Version


class Catalogue:
    """Every edition of every behaviour; it does not change once it is made.

    A withdrawn edition keeps its number and is never in force; the others are standing.
    """

    def __init__(
        self, versions: Iterable[Version], withdrawn: Iterable[tuple[str, int]] = ()
    ) -> None:
        """`withdrawn` are (scenario, number) of editions among `versions` that do not take effect.

        Raises Fault when the editions do not fit together.
        """
        self._editions: dict[str, tuple[Version, ...]] = {}
        self._withdrawn = frozenset(withdrawn)
        for version in sorted(versions, key=lambda one: (one.scenario, one.number)):
            earlier = self._editions.get(version.scenario, ())
            self._editions[version.scenario] = (*earlier, version)
        standing: dict[str, tuple[Version, ...]] = {}
        for name, editions in self._editions.items():
            _check_numbers(editions)
            standing[name] = tuple(one for one in editions if not self.withdrawn(name, one.number))
            _check_effect(standing[name])
        if not self._withdrawn <= {(one.scenario, one.number) for one in self._all()}:
            raise Fault("CATALOGUE_FAULT", "", "an edition is withdrawn that was not published")
        # Newest first: the edition in force is the first that has begun.
        self._newest = {name: editions[::-1] for name, editions in standing.items() if editions}
        self._check_days()

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The ids of all behaviours, sorted."""
        return tuple(self._editions)

    def versions(self, scenario: str) -> tuple[Version, ...]:
        """All editions of a behaviour, withdrawn ones too, oldest first.

        Raises Rejected UNKNOWN_SCENARIO.
        """
        if scenario not in self._editions:
            raise _unknown()
        return self._editions[scenario]

    def withdrawn(self, scenario: str, number: int) -> bool:
        """Whether an edition was withdrawn before it took effect."""
        return (scenario, number) in self._withdrawn

    def amended(self, versions: Iterable[Version]) -> Catalogue:
        """The whole catalogue with more editions. Raises Fault when they do not fit."""
        return Catalogue((*self._all(), *versions), self._withdrawn)

    def in_force(self, scenario: object, day: int) -> Version:
        """The edition in force on a day YYYYMMDD (Asia/Shanghai).

        Raises Rejected UNKNOWN_SCENARIO or BEFORE_SCENARIO, also for a `scenario` that is no text.
        """
        editions = self._newest.get(scenario) if type(scenario) is str else None
        if editions is None:
            raise _unknown()
        for version in editions:
            if version.effective_day <= day:
                return version
        raise Rejected(
            "BEFORE_SCENARIO",
            f"{version.scenario} is in force from {version.effective_from}; earlier acts are not "
            "credited.",
        )

    def _all(self) -> Iterable[Version]:
        return (version for editions in self._editions.values() for version in editions)

    def _check_days(self) -> None:
        """Groups and the points rate fit on every day on which anything changes."""
        standing = [one for editions in self._newest.values() for one in editions]
        rates = _ordered({one.rate for one in standing})
        days = {one.effective_day for one in standing} | {rate.effective_day for rate in rates}
        for day in sorted(days):
            begun = (
                next((one for one in editions if one.effective_day <= day), None)
                for editions in self._newest.values()
            )
            in_force = [one for one in begun if one]
            _check_groups({one.scenario: one.group for one in in_force}, day)
            _check_acts(in_force)
            _check_rate(in_force, [rate for rate in rates if rate.effective_day <= day], day)


def _check_numbers(editions: tuple[Version, ...]) -> None:
    name = editions[0].scenario
    if [version.number for version in editions] != list(range(1, len(editions) + 1)):
        raise Fault("CATALOGUE_FAULT", "number", "versions are numbered 1, 2, 3 without gaps", name)
    if len({version.code for version in editions}) != 1:
        raise Fault("CATALOGUE_FAULT", "code", "its code may not change", name)


def _check_effect(editions: tuple[Version, ...]) -> None:
    for earlier, later in pairwise(editions):
        if later.effective_day <= earlier.effective_day:
            raise Fault(
                "EFFECT_OVERLAPS",
                "effective_from",
                f"each version must take effect after the one before it, but version "
                f"{earlier.number} takes effect on {earlier.effective_from}; choose a later day "
                "or withdraw that version first",
                later.scenario,
            )


def _check_groups(groups: Mapping[str, Group | None], day: int) -> None:
    for name, group in groups.items():
        for member in group.members if group else ():
            if groups.get(member) == group:
                continue
            theirs = groups.get(member)
            if theirs and name not in theirs.members and name in _reachable(groups, member):
                raise Fault(
                    "GROUP_CIRCULAR",
                    "group.members",
                    f"it excludes {member}, whose own exclusions lead back to it by another "
                    "group; put all of them into one group with the same members",
                    name,
                )
            raise Fault(
                "GROUP_INCONSISTENT",
                "group",
                f"its group is not the same in {member} on {day}; a group stands with the same "
                "name, period and members in each of its members, from the same day",
                name,
            )


def _check_acts(in_force: Iterable[Version]) -> None:
    """One act is known by its window of time, so a kind has the same window everywhere."""
    first: dict[str, Version] = {}
    for version in in_force:
        other = first.setdefault(version.act.kind, version) if version.act else version
        if version.act != other.act:
            raise Fault(
                "CATALOGUE_FAULT",
                "act.minutes",
                f"it must be as in {other.scenario}: acts of one kind are told apart by one window "
                "of time; change all of them on the same day",
                version.scenario,
            )


def _reachable(groups: Mapping[str, Group | None], start: str) -> set[str]:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        group = groups.get(ahead.pop())
        new = set(group.members) - seen if group else set()
        seen |= new
        ahead.extend(new)
    return seen


def _ordered(rates: Iterable[Rate]) -> list[Rate]:
    ordered = sorted(rates, key=lambda rate: (rate.number, rate.effective_day))
    for earlier, later in pairwise(ordered):
        if later.number == earlier.number or later.effective_day <= earlier.effective_day:
            raise Fault(
                "CATALOGUE_FAULT",
                "rate",
                f"rate {later.number} must have a number of its own and begin after rate "
                f"{earlier.number}",
            )
    return ordered


def _check_rate(in_force: Iterable[Version], begun: Sequence[Rate], day: int) -> None:
    """One kilogram earns the same everywhere: every behaviour carries the newest rate."""
    for version in in_force:
        if not begun or version.rate != begun[-1]:
            rate = begun[-1] if begun else version.rate
            raise Fault(
                "CATALOGUE_FAULT",
                "rate",
                f"rate {rate.number} needs a new version of every behaviour on its first day, "
                f"{rate.effective_from}; on {day} this one has rate {version.rate.number}",
                version.scenario,
            )


def _unknown() -> Rejected:
    return Rejected("UNKNOWN_SCENARIO", "No such scenario; the catalogue lists those there are.")
