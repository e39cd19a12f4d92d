"""The catalogue as its authors write it: TOML files, read into editions that stand alone."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from scenarios.catalogue import Catalogue
from scenarios.errors import Fault
from scenarios.grid import Grid
from scenarios.points import Rate
from scenarios.schema import day, plain, tables, within
from scenarios.version import AREAS, FORMAT, Version

_HERE = Path(__file__).parent


def load(directory: Path | None = None) -> Catalogue:
    """The catalogue in a folder (by default this package): points.toml, grid.toml and
    area/name.toml.

    Raises Fault, naming the behaviour (which is the file), the field and what to mend.
    """
    root = directory or _HERE
    rates, factors = _rates(root / "points.toml"), _grid(root / "grid.toml")
    files = [path for area in AREAS for path in sorted((root / area).glob("*.toml"))]
    versions = [version for path in files for version in _editions(path, rates, factors)]
    for rate in rates:
        if versions and rate not in [version.rate for version in versions]:
            raise Fault(
                "CATALOGUE_FAULT",
                "points.toml",
                f"rate {rate.number} needs a new version of every behaviour on its first day, "
                f"{rate.effective_from}",
            )
    return Catalogue(versions)


@cache
def grid() -> Grid:
    """The official grid factors that the catalogue takes its numbers from."""
    return _grid(_HERE / "grid.toml")


def _editions(path: Path, rates: Sequence[Rate], factors: Grid) -> list[Version]:
    name = f"{path.parent.name}.{path.stem}"
    try:
        table = _toml(path)
        if table.get("scenario") != name:
            raise Fault("FIELD_MALFORMED", "scenario", "it must be the file's area and name")
        shared = {key: value for key, value in table.items() if key != "version"}
        return [
            Version.parse(_document({**shared, **one}, rates, factors))
            for one in tables(table, "version")
        ]
    except Fault as error:
        raise error.of(name) from error


def _document(table: dict[str, Any], rates: Sequence[Rate], factors: Grid) -> dict[str, Any]:
    """One edition's tables with the rate of its first day and its grid factors put in."""
    first = day(table.get("effective_from"), "effective_from")
    begun = [rate for rate in rates if rate.effective_from <= first]
    if not begun:
        raise Fault("FIELD_MALFORMED", "effective_from", "no points rate is in force on that day")
    coefficients = []
    for item in tables(table, "coefficients") if "coefficients" in table else []:
        with within(f"coefficients.{item.get('name')}"):
            coefficients.append(factors.fill(item))
    return {
        **table,
        "format": FORMAT,
        "coefficients": coefficients,
        "caps": table.get("caps", []),
        "rate": plain(asdict(begun[-1])),
    }


def _rates(path: Path) -> tuple[Rate, ...]:
    with within(path.name):
        rates = tuple(Rate.parse(item) for item in tables(_toml(path), "rate"))
        if [rate.number for rate in rates] != list(range(1, len(rates) + 1)):
            raise Fault("CATALOGUE_FAULT", "rate", "rates are numbered 1, 2, 3 in order")
        if any(later.effective_from <= one.effective_from for one, later in pairwise(rates)):
            raise Fault("CATALOGUE_FAULT", "rate", "effective dates must rise")
        return rates


def _grid(path: Path) -> Grid:
    if not path.exists():
        return Grid((), (), ())
    with within(path.name):
        return Grid.parse(_toml(path))


def _toml(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Fault("CATALOGUE_FAULT", "", f"{path.name} cannot be read ({error})") from error
    checked: dict[str, Any] = plain(table)
    return checked
