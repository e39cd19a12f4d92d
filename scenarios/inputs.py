"""One quantity a provider reports, and the strict reading of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from scenarios.errors import Fault, Rejected
from scenarios.schema import NAME, Text, build, number, one_of, text, unit_known, words

MAX_DECIMALS: Final = 6
EXCLUSION: Final = ("no", "yes")
"""What an exclusion may be answered with; "yes" is not eligible."""


@dataclass(frozen=True, slots=True)
class Input:
    """A named quantity: its part in the formula (`role`), unit, and plausible range.

    Role "check" is a number that only rules look at, and the only one that may be left out
    (`presence` "optional"). Role "class" is one of `classes`; role "exclusion" is "no" or "yes".
    `minimum` and `maximum` are inclusive and our own plausibility limits unless `basis` names a
    source. `typical` is a range for demonstrations; it is no part of the published version.
    """

    name: str
    role: str
    title: Text
    unit: str = ""
    decimals: int = 0
    minimum: str = ""
    maximum: str = ""
    basis: str = ""
    presence: str = "required"
    classes: tuple[str, ...] = ()
    typical: tuple[str, ...] = field(default=(), compare=False)
    numeric: bool = field(init=False)
    optional: bool = field(init=False)
    low: Decimal = field(init=False)
    high: Decimal = field(init=False)
    form: Callable[[str], object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise Fault("FIELD_MALFORMED", "name", "an input's name is lower case ASCII")
        one_of(self.presence, ("required", "optional"), "presence")
        if self.presence == "optional" and self.role != "check":
            raise Fault("FIELD_MALFORMED", "presence", "only a check may be left out")
        numeric = self.role not in ("class", "exclusion")
        low, high = self._range() if numeric else (Decimal(0), Decimal(0))
        if not numeric and (self.unit or self.minimum or self.maximum or self.decimals):
            raise Fault("FIELD_MALFORMED", "unit", f"a {self.role} has no unit and no bounds")
        point = rf"(?:\.[0-9]{{1,{self.decimals}}})?" if self.decimals else ""
        derived = {
            "numeric": numeric,
            "optional": self.presence == "optional",
            "low": low,
            "high": high,
            "form": re.compile(rf"(?:0|[1-9][0-9]{{0,8}}){point}").fullmatch,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, table: dict[str, Any], classes: tuple[str, ...]) -> Input:
        """An input from its table; `classes` are the names a class input may take. Raises Fault."""
        if "classes" in table:
            raise Fault("FIELD_UNKNOWN", "classes", "the classes are the names of the coefficients")
        made: dict[str, object] = {"title": text(table.get("title"), "title")}
        if table.get("role") == "class":
            made["classes"] = classes
        elif table.get("role") == "exclusion":
            made["classes"] = EXCLUSION
        if "typical" in table:
            made["typical"] = words(table["typical"], "typical")
        return build(cls, table, **made)

    def _range(self) -> tuple[Decimal, Decimal]:
        unit_known(self.unit)
        if not self.basis.strip():
            raise Fault("SOURCE_MISSING", "basis", "say what the bounds stand on")
        low, high = number(self.minimum, "minimum"), number(self.maximum, "maximum")
        if low > high or not 0 <= self.decimals <= MAX_DECIMALS:
            raise Fault("FIELD_MALFORMED", "minimum", "minimum, maximum or decimals do not fit")
        if self.typical and len(self.typical) != 2:
            raise Fault("FIELD_MALFORMED", "typical", "a lowest and a highest value are expected")
        return low, high

    def read(self, value: object) -> Decimal | str:
        """The quantity as a number, or the class as it is. Raises Rejected, whatever `value` is."""
        if not self.numeric:
            return self._choose(value)
        if type(value) is not str or not self.form(value):
            raise Rejected(
                "QUANTITY_MALFORMED",
                f"{self.name} must be a decimal in text such as {self.minimum!r}: digits only, at "
                f"most 9 before the point and {self.decimals} after it.",
            )
        quantity = Decimal(value)
        if quantity < self.low:
            raise Rejected(
                "QUANTITY_TOO_SMALL",
                f"{self.name} is {value} but at least {self.minimum} {self.unit} is credited; "
                "leave smaller ones out.",
            )
        if quantity > self.high:
            raise Rejected(
                "QUANTITY_TOO_LARGE",
                f"{self.name} is {value} but at most {self.maximum} {self.unit} is plausible in "
                "one activity; check the unit or split it.",
            )
        return quantity

    def _choose(self, value: object) -> str:
        if type(value) is not str or value not in self.classes:
            raise Rejected(
                "QUANTITY_MALFORMED", f"{self.name} must be one of {', '.join(self.classes)}."
            )
        if self.role == "exclusion" and value == "yes":
            raise Rejected("NOT_ELIGIBLE", f"{self.title.en}: such acts are not credited.")
        return value
