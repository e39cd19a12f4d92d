"""One row of an operator's ride file as an activity, or the reason why it is none.

Floats are fine here: a distance is measured before it is reported. It is rounded down as the last
step, to what the scenario takes: no more is claimed than the straight way from start to end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Table
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from app.cli.mapping import Mapping

EARTH_RADIUS_KM: Final = 6371.0088
"""Mean radius R1 of the GRS 80 ellipsoid (Moritz, Geodetic Reference System 1980)."""

CLOCK_S: Final = 60
"""How far a stated duration may be from what the two times say."""

REFUSALS: Final = {
    "ROW_MALFORMED": "a cell is missing, or is not the number or text it should be",
    "TIME_MALFORMED": "a time does not read as the mapping says",
    "TIME_NOT_IN_ZONE": "a time does not exist in the zone: the clock was put forward over it",
    "ENDS_BEFORE_START": "the ride ends before it starts",
    "DURATION_CONTRADICTED": "the stated duration is not the time between start and end",
    "DURATION_TOO_SHORT": "the ride took less time than a ride can take",
    "DURATION_TOO_LONG": "the ride took more time than a ride can take",
    "DISTANCE_TOO_SHORT": "the ride ended where it began, or too near",
    "DISTANCE_TOO_LONG": "the ride is longer than one can be",
    "SPEED_TOO_HIGH": "the ride is faster than one can be",
}


class RowError(Exception):
    """A row is no plausible ride; `code` stands in REFUSALS."""

    def __init__(self, code: str) -> None:
        super().__init__(REFUSALS[code])
        self.code = code


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads rows by a mapping; times without an offset are local to `zone`."""

    mapping: Mapping
    zone: ZoneInfo

    def activity(self, row: Table[str, str]) -> dict[str, Any]:
        """The activity that a row (cells by column name; none if it did not read) tells of.

        Raises RowError.
        """
        columns, bounds = self.mapping.columns, self.mapping.bounds
        cells = [row.get(name, "") for name in columns.needed()]
        if not all(cell.strip() and "\ufffd" not in cell for cell in cells):
            raise RowError("ROW_MALFORMED")  # U+FFFD stands for bytes that were not UTF-8
        start = _number(row[columns.start_lat], 90), _number(row[columns.start_lng], 180)
        end = _number(row[columns.end_lat], 90), _number(row[columns.end_lng], 180)
        stated_s = _number(row[columns.duration_s]) if columns.duration_s else None
        started_at, duration_s = self._when(row, stated_s)
        distance = great_circle_km(start, end, self.mapping.decimals)
        km = float(distance)
        for out, code in (
            (duration_s < bounds.min_duration_s, "DURATION_TOO_SHORT"),
            (duration_s > bounds.max_duration_s, "DURATION_TOO_LONG"),
            (km < bounds.min_distance_km, "DISTANCE_TOO_SHORT"),
            (km > bounds.max_distance_km, "DISTANCE_TOO_LONG"),
            (km * 3600 > bounds.max_speed_kmh * duration_s, "SPEED_TOO_HIGH"),
        ):
            if out:
                raise RowError(code)
        quantities = {self.mapping.quantity: f"{distance:f}"}
        if self.mapping.duration:
            quantities[self.mapping.duration] = str(int(duration_s))
        return {
            "id": row[columns.id],
            "subject": row[columns.rider],
            "scenario": self.mapping.scenario,
            "occurred_at": started_at.isoformat(timespec="seconds"),
            "quantities": quantities,
        }

    def _when(self, row: Table[str, str], stated_s: float | None) -> tuple[datetime, float]:
        """Start and duration. A time that the clock showed twice is the earlier of the two, unless
        only the later one agrees with the rest of the row."""
        columns = self.mapping.columns
        spans = [
            (start, (end - start).total_seconds())
            for start in self._instants(row[columns.started_at])
            for end in self._instants(row[columns.ended_at])
        ]
        spans = [(start, elapsed_s) for start, elapsed_s in spans if elapsed_s >= 0]
        if not spans:
            raise RowError("ENDS_BEFORE_START")
        if stated_s is None:
            return spans[0]
        for start, elapsed_s in spans:
            if abs(elapsed_s - stated_s) <= CLOCK_S:
                return start, stated_s
        raise RowError("DURATION_CONTRADICTED")

    def _instants(self, text: str) -> list[datetime]:
        """The moments at which a clock of the zone showed this: one, or two in order, as UTC."""
        try:
            shown = datetime.strptime(text.strip(), self.mapping.time_format)  # noqa: DTZ007
            if shown.tzinfo is not None:
                return [shown.astimezone(UTC)]
            both = [shown.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
            real = [at for at in both if at.astimezone(self.zone).replace(tzinfo=None) == shown]
        except (ValueError, OverflowError):
            raise RowError("TIME_MALFORMED") from None
        if not real:
            raise RowError("TIME_NOT_IN_ZONE")
        return sorted(set(real))


def great_circle_km(start: tuple[float, float], end: tuple[float, float], decimals: int) -> Decimal:
    """The way between two (latitude, longitude) in degrees on a sphere of Earth's mean radius,
    by the haversine formula, rounded down."""
    lat, lng, end_lat, end_lng = map(math.radians, (*start, *end))
    haversine = (
        math.sin((end_lat - lat) / 2) ** 2
        + math.cos(lat) * math.cos(end_lat) * math.sin((end_lng - lng) / 2) ** 2
    )
    km = 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, haversine)))
    return Decimal(km).quantize(Decimal(1).scaleb(-decimals), ROUND_FLOOR)


def _number(text: str, limit: float = math.inf) -> float:
    """A finite number of at most this size either way."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > limit:
        raise RowError("ROW_MALFORMED")
    return value
