"""From grams to points: one dated rate for every behaviour.

A behaviour has no weight of its own: residents' oldest complaint is that the same kilogram earns
five times more points here than there (see the points column of 泸州 in the methodologies).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from scenarios.errors import Fault
from scenarios.schema import build, day, sourced, tables

_MG_PER_KG: Final = 1_000_000
MAX_VALIDITY_MONTHS: Final = 120
"""深圳碳普惠管理办法: points are valid for at most ten years."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number comes from; `url` is empty when only the document's name is known."""

    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        sourced(self.source, self.tag)


@dataclass(frozen=True, slots=True)
class Rate:
    """The points one kilogram of CO2e earns, and for how many months they stay valid."""

    number: int
    effective_from: date
    points_per_kg: int
    validity_months: int
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if self.points_per_kg < 1 or not 1 <= self.validity_months <= MAX_VALIDITY_MONTHS:
            raise Fault(
                "FIELD_MALFORMED",
                "points_per_kg",
                "points_per_kg or validity_months is out of range; points are valid for at most "
                f"{MAX_VALIDITY_MONTHS} months",
            )

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Rate:
        """A rate from its table. Raises Fault."""
        if not isinstance(table, dict):
            raise Fault("FIELD_MALFORMED", "", "a table is expected")
        sources = tuple(build(Source, item) for item in tables(table, "sources"))
        if not sources:
            raise Fault("SOURCE_MISSING", "sources", "a rate needs a source")
        begins = day(table.get("effective_from"), "effective_from")
        return build(cls, table, effective_from=begins, sources=sources)

    @property
    def effective_day(self) -> int:
        """Its first day YYYYMMDD."""
        first = self.effective_from
        return first.year * 10_000 + first.month * 100 + first.day

    def points(self, reduction_mg: int) -> int:
        """Whole points for a reduction; what is left below one point is not kept."""
        return reduction_mg * self.points_per_kg // _MG_PER_KG
