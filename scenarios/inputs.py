"""One quantity a provider reports, and the strict reading of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from scenarios.errors import Rejected
from scenarios.schema import Text, build, fault, number, text

MAX_DECIMALS: Final = 6


@dataclass(frozen=True, slots=True)
class Input:
    """A named quantity: its part in the formula (`role`), unit, and plausible range.

    `minimum` and `maximum` are inclusive and are our own plausibility limits unless `basis` names
    a source. With role "class" the value is one of `classes` instead of a number. `typical` is a
    range for demonstrations; it is no part of the published version.
    """

    name: str
    role: str
    title: Text
    unit: str = ""
    decimals: int = 0
    minimum: str = ""
    maximum: str = ""
    basis: str = ""
    classes: tuple[str, ...] = ()
    typical: tuple[str, str] | tuple[()] = field(default=(), compare=False)
    low: Decimal = field(init=False)
    high: Decimal = field(init=False)
    pattern: re.Pattern[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", self.name):
            raise fault(self.name, "an input's name is lower case ASCII")
        numeric = self.role != "class"
        if numeric and not (self.unit and self.basis):
            raise fault(self.name, "a quantity needs a unit and the basis of its bounds")
        low, high = (
            number(bound if numeric else "0", self.name) for bound in (self.minimum, self.maximum)
        )
        if low > high or not 0 <= self.decimals <= MAX_DECIMALS:
            raise fault(self.name, "minimum, maximum or decimals are out of order")
        point = rf"(?:\.[0-9]{{1,{self.decimals}}})?" if self.decimals else ""
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "pattern", re.compile(rf"(?:0|[1-9][0-9]{{0,8}}){point}"))

    @classmethod
    def parse(cls, table: dict[str, Any], classes: tuple[str, ...], where: str) -> Input:
        """An input from its table; `classes` are the names a class input may take."""
        if "classes" in table:
            raise fault(where, "the classes are the names of the coefficients")
        made: dict[str, object] = {"title": text(table.get("title"), where)}
        if table.get("role") == "class":
            made["classes"] = classes
        if "typical" in table:
            made["typical"] = tuple(table["typical"])
        return build(cls, table, where, **made)

    def read(self, value: object) -> Decimal | str:
        """The quantity as a number, or the class as it is. Raises Rejected, whatever `value` is."""
        if self.classes:
            if type(value) is str and value in self.classes:
                return value
            raise Rejected(
                "QUANTITY_MALFORMED", f"{self.name} must be one of {', '.join(self.classes)}."
            )
        if type(value) is not str or not self.pattern.fullmatch(value):
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
