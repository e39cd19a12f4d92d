"""Official grid emission factors by province and year, with the notice each stands in."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from scenarios.coefficients import CONFIDENCES
from scenarios.errors import Fault
from scenarios.schema import Text, build, number, one_of, sourced, tables, text, within

UNIT: Final = "g/kWh"


@dataclass(frozen=True, slots=True)
class Factor:
    """The average emission of electricity in an `area` in a `year`, in g CO2 per kWh."""

    area: str
    title: Text
    year: int
    value: str
    source: str
    url: str
    tag: str
    confidence: str

    def __post_init__(self) -> None:
        number(self.value, "value")
        sourced(self.source, self.tag)
        one_of(self.confidence, CONFIDENCES, "confidence")

    @property
    def name(self) -> str:
        """What a coefficient refers to it by: "Shanxi 2023"."""
        return f"{self.area} {self.year}"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A value some scheme uses for the same thing: an alternative of every grid coefficient."""

    value: str
    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        number(self.value, "value")
        sourced(self.source, self.tag)


@dataclass(frozen=True, slots=True)
class Unused:
    """A value that is often taken for a grid factor, and why it may not stand in its place."""

    value: str
    title: Text
    reason: Text
    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        number(self.value, "value")
        sourced(self.source, self.tag)


@dataclass(frozen=True, slots=True)
class Grid:
    """All factors, newest last, what is seen elsewhere, and what is not used; all in g/kWh."""

    factors: tuple[Factor, ...]
    elsewhere: tuple[Elsewhere, ...]
    unused: tuple[Unused, ...]

    def __post_init__(self) -> None:
        names = [factor.name for factor in self.factors]
        if len(set(names)) != len(names):
            raise Fault("FIELD_MALFORMED", "factor", "an area has one factor a year")

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Grid:
        """The grid factors from the tables of grid.toml. Raises Fault."""
        read: dict[str, list[Any]] = {"factor": [], "elsewhere": [], "unused": []}
        kinds = {"factor": Factor, "elsewhere": Elsewhere, "unused": Unused}
        for name, made in read.items():
            for position, item in enumerate(tables(table, name)):
                with within(f"{name}.{position}"):
                    phrases = {
                        key: text(item[key], key) for key in ("title", "reason") if key in item
                    }
                    made.append(build(kinds[name], item, **phrases))
        return cls(*(tuple(made) for made in read.values()))

    def fill(self, coefficient: dict[str, Any]) -> dict[str, Any]:
        """A coefficient's table, its reference `grid` ("Shanxi 2023") replaced by the numbers.

        The other years of the same area and the values seen elsewhere become its alternatives.
        Raises Fault.
        """
        if "grid" not in coefficient:
            return coefficient
        found = {factor.name: factor for factor in self.factors}
        chosen = found.get(str(coefficient["grid"]))
        if chosen is None:
            raise Fault("FIELD_MALFORMED", "grid", f"it must be one of {', '.join(found)}")
        years = [one for one in self.factors if one.area == chosen.area and one is not chosen]
        seen: list[Factor | Elsewhere] = [*reversed(years), *self.elsewhere]
        others = [
            {"value": one.value, "unit": UNIT, "source": one.source, "url": one.url, "tag": one.tag}
            for one in seen
        ]
        values = sorted({chosen.value, *(other["value"] for other in others)}, key=Decimal)
        numbers = {
            "value": chosen.value,
            "unit": UNIT,
            "bounds": [values[0], values[-1]],
            "year": chosen.year,
            "source": chosen.source,
            "url": chosen.url,
            "tag": chosen.tag,
            "confidence": chosen.confidence,
            "alternatives": others,
        }
        for name in numbers:
            if name in coefficient:
                raise Fault("FIELD_UNKNOWN", name, "with grid, it comes from grid.toml")
        return {name: value for name, value in coefficient.items() if name != "grid"} | numbers
