"""A tunable number with where it comes from and how far it may be moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from scenarios.schema import TAGS, Text, build, fault, number, text


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another published value for the same act, kept so that the choice can be judged."""

    value: str
    unit: str
    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        number(self.value, self.source)
        if not self.source or not self.unit or self.tag not in TAGS:
            raise fault(self.source, "an alternative needs a source, a unit and a known tag")


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A number in `unit` (g CO2e per something), with its source.

    `bounds` are the lowest and highest value a later version may take; both are published values,
    so that tuning chooses between sources and never invents. `year` is 0 when the source gives
    none. `confidence` runs from A (primary text) to C (code or one weak page).
    """

    name: str
    title: Text
    value: str
    unit: str
    bounds: tuple[str, str]
    year: int
    source: str
    url: str
    tag: str
    confidence: str
    alternatives: tuple[Alternative, ...]
    grams: Decimal = field(init=False)

    def __post_init__(self) -> None:
        grams = number(self.value, self.name)
        low, high = (number(bound, self.name) for bound in self.bounds)
        others = (other.value for other in self.alternatives if other.unit == self.unit)
        published = {self.value, *others}
        if not 0 <= low <= grams <= high:
            raise fault(self.name, f"{self.value} is outside its bounds {low} to {high}")
        if not published >= set(self.bounds):
            raise fault(self.name, "bounds must be the value or an alternative in the same unit")
        if not self.source or self.tag not in TAGS or self.confidence not in ("A", "B", "C"):
            raise fault(self.name, "source, a known tag and a confidence from A to C are needed")
        object.__setattr__(self, "grams", grams)

    @classmethod
    def parse(cls, table: dict[str, Any], where: str) -> Coefficient:
        """A coefficient from its table."""
        bounds = table.get("bounds")
        if not isinstance(bounds, list) or [type(bound) for bound in bounds] != [str, str]:
            raise fault(where, "bounds must be two decimals as text")
        others = table.get("alternatives", [])
        return build(
            cls,
            table,
            where,
            title=text(table.get("title"), where),
            bounds=tuple(bounds),
            alternatives=tuple(build(Alternative, other, where) for other in others),
        )
