"""How a ride file is to be read: which column holds what, and what a ride can be.

`trips.toml` beside this module is the default and the full example.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping as Table
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from scenarios import load

DEFAULT: Final = Path(__file__).with_name("trips.toml")
_NAMES = {"scenario", "quantity", "duration", "time_format", "columns", "bounds"}
_OPTIONAL = {"duration_s"}
_SAMPLE = datetime(2018, 3, 4, 15, 6, tzinfo=UTC)


class MappingError(Exception):
    """A mapping cannot be used; the sentence names the file and the key."""

    code = "MAPPING"


@dataclass(frozen=True, slots=True)
class Columns:
    """The file's name of each column; `duration_s` is empty when there is none."""

    id: str
    rider: str
    started_at: str
    ended_at: str
    start_lat: str
    start_lng: str
    end_lat: str
    end_lng: str
    duration_s: str = ""

    def needed(self) -> list[str]:
        """The names that the file's header must have."""
        names = (getattr(self, field.name) for field in fields(self))
        return [name for name in names if name]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a ride can be, each limit inclusive. Floats: they only decide what is not sent."""

    min_distance_km: float
    max_distance_km: float
    min_duration_s: float
    max_duration_s: float
    max_speed_kmh: float


@dataclass(frozen=True, slots=True)
class Mapping:
    """A checked mapping. `decimals` is how many the scenario's quantity takes; `duration` the input
    that takes the ride's seconds, empty when none is to be sent."""

    scenario: str
    quantity: str
    duration: str
    decimals: int
    time_format: str
    columns: Columns
    bounds: Bounds


def read_mapping(path: Path = DEFAULT) -> Mapping:
    """Read and check a mapping file. Raises MappingError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        _same_names(table, _NAMES, {"duration"}, "")
        columns = _columns(table["columns"])
        bounds = _bounds(table["bounds"])
        time_format = _time_format(table["time_format"])
        duration = table.get("duration", "")
        decimals = _decimals(table["scenario"], table["quantity"], duration)
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise MappingError(f"the mapping {path} cannot be read: {error}") from None
    except MappingError as error:
        raise MappingError(f"the mapping {path} cannot be used: {error}") from None
    scenario, quantity = table["scenario"], table["quantity"]
    return Mapping(scenario, quantity, duration, decimals, time_format, columns, bounds)


def _same_names(table: object, names: set[str], optional: set[str], where: str) -> Table[str, Any]:
    if not isinstance(table, dict):
        raise MappingError(f"[{where}] must be a table")
    prefix = f"{where}." if where else ""
    if unknown := sorted(table.keys() - names):
        raise MappingError(f"it has no key {prefix}{unknown[0]}")
    if missing := sorted(names - optional - table.keys()):
        raise MappingError(f"the key {prefix}{missing[0]} is missing")
    return table


def _columns(table: object) -> Columns:
    given = _same_names(table, {field.name for field in fields(Columns)}, _OPTIONAL, "columns")
    for name, column in given.items():
        if not isinstance(column, str) or not column:
            raise MappingError(f"columns.{name} must be a column's name")
    return Columns(**given)


def _bounds(table: object) -> Bounds:
    given = _same_names(table, {field.name for field in fields(Bounds)}, set(), "bounds")
    for name, bound in given.items():
        if type(bound) not in (int, float) or not math.isfinite(bound) or bound <= 0:
            raise MappingError(f"bounds.{name} must be a number above zero")
    return Bounds(**given)


def _time_format(text: object) -> str:
    """Refuse a format that cannot say a moment to the minute."""
    try:
        if isinstance(text, str):
            back = datetime.strptime(_SAMPLE.strftime(text), text)  # noqa: DTZ007 (a zone is given)
            if back.replace(tzinfo=UTC) == _SAMPLE:
                return text
    except ValueError:
        pass
    raise MappingError(f"time_format {text!r} does not hold a date and a time of day")


def _decimals(scenario: object, quantity: object, duration: object) -> int:
    """The fewest that any version of the scenario takes for this quantity."""
    catalogue = load()
    if not isinstance(scenario, str) or scenario not in catalogue.scenarios:
        raise MappingError(f"there is no scenario {scenario!r}")
    decimals = []
    for version in catalogue.versions(scenario):
        inputs = {one.name: one for one in version.inputs}
        found = inputs.pop(str(quantity), None)
        timed = inputs.pop(str(duration), None)
        if found is None or found.unit != "km" or any(not one.optional for one in inputs.values()):
            raise MappingError(f"{scenario} does not take one distance in km called {quantity!r}")
        if duration != "" and (timed is None or timed.unit != "s"):
            raise MappingError(f"{scenario} does not take a time in s called {duration!r}")
        decimals.append(found.decimals)
    return min(decimals)
