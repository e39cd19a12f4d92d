"""Plausibility rules and physical acts: what an act may not look like, and which acts are one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from scenarios.errors import Fault
from scenarios.inputs import Input
from scenarios.schema import NAME, PERIODS, number, one_of


class _Kind(NamedTuple):
    """The code a rule of this kind refuses with, and the fields it needs besides the common."""

    code: str
    fields: frozenset[str]


KINDS: Final[Mapping[str, _Kind]] = {
    "speed": _Kind("IMPLAUSIBLE_SPEED", frozenset({"maximum", "distance", "duration"})),
    "count": _Kind("TOO_MANY_ACTS", frozenset({"maximum", "per"})),
    "total": _Kind("TOO_MUCH_IN_TOTAL", frozenset({"maximum", "per", "of"})),
    "given": _Kind("CHECK_MISSING", frozenset({"of"})),
}
"""The closed set of rules."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One check of an act against what is plausible; `basis` names a source or says why (rec).

    Kind "speed": `distance` (km) over `duration` (s), when both are given, at most `maximum` km/h.
    Kind "count": at most `maximum` acts `per` period. Kind "total": the sum of the input `of` in a
    day at most `maximum`. Kind "given": the optional input `of` must be there. Mode "refuse" turns
    the act away; "shadow" only reports what would have been.
    """

    name: str
    kind: str
    mode: str
    basis: str
    maximum: str = ""
    distance: str = ""
    duration: str = ""
    per: str = ""
    of: str = ""
    most: Decimal = field(init=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise Fault("FIELD_MALFORMED", "name", "a rule's name is lower case ASCII")
        one_of(self.kind, tuple(KINDS), "kind")
        one_of(self.mode, ("refuse", "shadow"), "mode")
        if not self.basis.strip():
            raise Fault("SOURCE_MISSING", "basis", "say what the rule stands on")
        wanted = KINDS[self.kind].fields
        for name in ("maximum", "distance", "duration", "per", "of"):
            if bool(getattr(self, name)) != (name in wanted):
                code = "FIELD_MISSING" if name in wanted else "FIELD_UNKNOWN"
                needs = ", ".join(sorted(wanted))
                raise Fault(code, name, f"a rule of kind {self.kind} has exactly {needs}")
        if self.per:
            one_of(self.per, PERIODS if self.kind == "count" else ("day",), "per")
        object.__setattr__(self, "most", number(self.maximum or "0", "maximum"))

    @property
    def code(self) -> str:
        """What an act is refused with."""
        return KINDS[self.kind].code

    def check(self, inputs: Sequence[Input], quantity: str | None) -> None:
        """Refuses a rule about inputs that are not there or not fit for it.

        `quantity` is the input the reduction is proportional to, if there is one. Raises Fault.
        """
        units = {item.name: item.unit for item in inputs if item.numeric}
        for name, unit in (("distance", "km"), ("duration", "s")):
            if self.kind == "speed" and units.get(getattr(self, name)) != unit:
                raise Fault("FIELD_MALFORMED", name, f"it must name an input in {unit}")
        optional = {item.name for item in inputs if item.optional}
        if self.kind == "given" and self.of not in optional:
            raise Fault("FIELD_MALFORMED", "of", "it must name an input that may be left out")
        if self.kind == "total" and self.of != quantity:
            raise Fault(
                "FIELD_MALFORMED", "of", "it must name the input the reduction is proportional to"
            )


@dataclass(frozen=True, slots=True)
class Act:
    """Acts of one `kind` by one resident that begin within half of `minutes` of each other at the
    same coarse place are one physical act, whoever reports it."""

    kind: str
    minutes: int

    def __post_init__(self) -> None:
        one_of(self.kind, ("trip",), "kind")
        if not 1 <= self.minutes <= 60:
            raise Fault("FIELD_MALFORMED", "minutes", "it must be from 1 to 60")
