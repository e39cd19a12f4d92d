"""A tunable number with where it comes from and how far it may be moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from reprlib import repr as short
from typing import Any, Final

from scenarios.errors import Fault
from scenarios.schema import (
    NAME,
    UNITS,
    Text,
    build,
    number,
    one_of,
    sourced,
    tables,
    text,
    within,
    words,
)

CONFIDENCES: Final = ("A", "B", "C", "D")
"""A primary text, B one attributable report, C code or one weak page, D nothing that may earn."""

SHARE: Final = "1"
"""The unit of a coefficient that is a plain factor, such as a share from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another published value for the same act, kept so that the choice can be judged.

    It may be in another unit than the coefficient: g/order beside g/night, or points/step.
    """

    value: str
    unit: str
    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        number(self.value, "value")
        _unit(self.unit, ("g", "points"))
        sourced(self.source, self.tag)


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A number in `unit` ("g/km", or "1" for a share), with its source.

    `bounds` are the lowest and highest value a later version may take; both are published values,
    so that tuning chooses between sources and never invents. `year` is 0 when the source gives
    none. `value` is "" and `bounds` empty when no number was found: such an edition is disabled.
    """

    name: str
    title: Text
    value: str
    unit: str
    bounds: tuple[str, ...]
    year: int
    source: str
    url: str
    tag: str
    confidence: str
    alternatives: tuple[Alternative, ...] = ()
    amount: Decimal = field(init=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise Fault("FIELD_MALFORMED", "name", "a coefficient's name is lower case ASCII")
        _unit(self.unit)
        sourced(self.source, self.tag)
        one_of(self.confidence, CONFIDENCES, "confidence")
        if self.value or self.bounds:
            self._check_bounds()
        object.__setattr__(self, "amount", Decimal(self.value or 0))

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Coefficient:
        """A coefficient from its table. Raises Fault."""
        others = []
        listed = tables(table, "alternatives") if "alternatives" in table else []
        for position, other in enumerate(listed):
            with within(f"alternatives.{position}"):
                others.append(build(Alternative, other))
        return build(
            cls,
            table,
            title=text(table.get("title"), "title"),
            bounds=words(table.get("bounds"), "bounds"),
            alternatives=tuple(others),
        )

    def _check_bounds(self) -> None:
        if len(self.bounds) != 2:
            raise Fault("FIELD_MALFORMED", "bounds", "two decimals in text are expected")
        value = number(self.value, "value")
        low, high = (number(bound, "bounds") for bound in self.bounds)
        if low > high:
            raise Fault("FIELD_MALFORMED", "bounds", "the lower bound comes first")
        if not low <= value <= high:
            end, bound = ("lowest", self.bounds[0]) if value < low else ("highest", self.bounds[1])
            raise Fault(
                "COEFFICIENT_OUT_OF_BOUNDS",
                "value",
                f"{self.value} {self.unit} is {'below' if end == 'lowest' else 'above'} the bound "
                f"{bound} {self.unit}, the {end} published value ({self._source_of(bound)}); "
                f"choose one from {self.bounds[0]} to {self.bounds[1]}",
            )
        published = {value, *(Decimal(other.value) for other in self._comparable())}
        if not published >= {low, high}:
            raise Fault(
                "COEFFICIENT_OUT_OF_BOUNDS",
                "bounds",
                f"each of {self.bounds[0]} and {self.bounds[1]} must be the value or an "
                f"alternative in {self.unit}; add the published value as an alternative with "
                "its source",
            )

    def _comparable(self) -> Iterator[Alternative]:
        return (other for other in self.alternatives if other.unit == self.unit)

    def _source_of(self, bound: str) -> str:
        wanted = Decimal(bound)
        found = (other.source for other in self._comparable() if Decimal(other.value) == wanted)
        return next(found, self.source)


def _unit(unit: str, numerators: tuple[str, ...] = ("g",)) -> None:
    numerator, _, denominator = unit.partition("/")
    if unit != SHARE and not (numerator in numerators and denominator in UNITS):
        raise Fault(
            "UNIT_UNKNOWN",
            "unit",
            f'{short(unit)} is not "1" and not g/ followed by one of {", ".join(UNITS)}',
        )
