"""The published behaviours, read from their TOML files and checked as a whole."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from scenarios.errors import Rejected
from scenarios.points import Rate
from scenarios.schema import day, fault, plain
from scenarios.version import AREAS, Version


class Catalogue:
    """Every edition of every behaviour; it does not change once it is made."""

    def __init__(self, versions: Iterable[Version]) -> None:
        """Raises ScenarioError CATALOGUE_FAULT when the editions do not fit together."""
        self._editions: dict[str, tuple[Version, ...]] = {}
        for version in sorted(versions, key=lambda one: (one.scenario, one.number)):
            earlier = self._editions.get(version.scenario, ())
            self._editions[version.scenario] = (*earlier, version)
        for editions in self._editions.values():
            _check_order(editions)
        self._check_groups()
        # Newest first: the edition in force is the first that has begun.
        self._newest = {name: editions[::-1] for name, editions in self._editions.items()}

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The ids of all behaviours, sorted."""
        return tuple(self._editions)

    def versions(self, scenario: str) -> tuple[Version, ...]:
        """All editions of a behaviour, oldest first. Raises Rejected UNKNOWN_SCENARIO."""
        if scenario not in self._editions:
            raise _unknown()
        return self._editions[scenario]

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

    def _check_groups(self) -> None:
        groups = {name: editions[-1].group for name, editions in self._editions.items()}
        for name, group in groups.items():
            for member in group.members if group else ():
                if groups.get(member) != group:
                    raise fault(name, f"its group is not the same in {member}")


def load(directory: Path | None = None) -> Catalogue:
    """The catalogue in a folder (by default this package): points.toml and area/name.toml.

    Raises ScenarioError CATALOGUE_FAULT, naming the file and what to mend.
    """
    root = directory or Path(__file__).parent
    rates = _rates(root / "points.toml")
    files = [path for area in AREAS for path in sorted((root / area).glob("*.toml"))]
    versions = [version for path in files for version in _editions(path, rates)]
    catalogue = Catalogue(versions)
    for rate in rates[1:]:
        for name in catalogue.scenarios:
            stale = [
                one for one in catalogue.versions(name) if one.effective_from <= rate.effective_from
            ]
            if stale and stale[-1].rate != rate:
                raise fault(name, f"rate {rate.number} needs a new version on its first day")
    return catalogue


def _editions(path: Path, rates: tuple[Rate, ...]) -> list[Version]:
    table = _toml(path)
    name = f"{path.parent.name}.{path.stem}"
    if table.get("scenario") != name:
        raise fault(name, "scenario must be the file's area and name")
    shared = {key: value for key, value in table.items() if key != "version"}
    return [Version.parse(_document({**shared, **one}, rates)) for one in table.get("version", ())]


def _document(table: dict[str, Any], rates: tuple[Rate, ...]) -> dict[str, Any]:
    """One edition's tables with the rate of its first day put in, so that it stands alone."""
    first = day(table.get("effective_from"), str(table.get("scenario")))
    begun = [rate for rate in rates if rate.effective_from <= first]
    if not begun:
        raise fault(str(table.get("scenario")), "no points rate is in force on its first day")
    rate = begun[-1]
    return {
        **table,
        "format": 1,
        "caps": table.get("caps", []),
        "rate": plain(asdict(rate), "points.toml"),
    }


def _rates(path: Path) -> tuple[Rate, ...]:
    rates = tuple(Rate.parse(item, "points.toml") for item in _toml(path).get("rate", ()))
    if [rate.number for rate in rates] != list(range(1, len(rates) + 1)):
        raise fault("points.toml", "rates are numbered 1, 2, 3 in order")
    if any(later.effective_from <= earlier.effective_from for earlier, later in pairwise(rates)):
        raise fault("points.toml", "effective dates must rise")
    return rates


def _toml(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise fault(path.name, f"it cannot be read ({error})") from error
    checked: dict[str, Any] = plain(table, path.name)
    return checked


def _check_order(editions: tuple[Version, ...]) -> None:
    name = editions[0].scenario
    if [version.number for version in editions] != list(range(1, len(editions) + 1)):
        raise fault(name, "versions are numbered 1, 2, 3 without gaps")
    if any(b.effective_day <= a.effective_day for a, b in pairwise(editions)):
        raise fault(name, "each version must take effect after the one before it")
    if len({version.code for version in editions}) != 1:
        raise fault(name, "its code may not change")


def _unknown() -> Rejected:
    return Rejected("UNKNOWN_SCENARIO", "No such scenario; the catalogue lists those there are.")
