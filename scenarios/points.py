"""From grams to points: one dated rate for every behaviour.

A behaviour has no weight of its own: residents' oldest complaint is that the same kilogram earns
five times more points here than there (see the points column of 泸州 in the methodologies).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from scenarios.schema import TAGS, build, day, fault

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
        if not self.source or self.tag not in TAGS:
            raise fault(self.source, f"a source needs words and one of the tags {TAGS}")


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
            raise fault(f"rate {self.number}", "points_per_kg or validity_months is out of range")

    @classmethod
    def parse(cls, table: dict[str, Any], where: str) -> Rate:
        """A rate from its table."""
        sources = tuple(build(Source, item, where) for item in table.get("sources", ()))
        if not sources:
            raise fault(where, "a rate needs a source")
        begins = day(table.get("effective_from"), where)
        return build(cls, table, where, effective_from=begins, sources=sources)

    def points(self, reduction_mg: int) -> int:
        """Whole points for a reduction; what is left below one point is not kept."""
        return reduction_mg * self.points_per_kg // _MG_PER_KG
