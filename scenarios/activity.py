"""What a provider reports a resident did, read strictly against the version in force."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final, NamedTuple

from scenarios.catalogue import Catalogue
from scenarios.errors import Rejected
from scenarios.version import Version

SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")
"""A fixed offset is exact here: China has had no summer time since 1991."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far in the future an activity may lie: providers' clocks differ."""

_tuple: Final = tuple.__new__  # the hot path: a named tuple is a tuple

_is_rfc_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch


class Activity(NamedTuple):
    """One act: `occurred_at` has an offset, `quantities` are exact decimals and class names, `day`
    is the business day YYYYMMDD in Asia/Shanghai (worked out once: every limit asks for it)."""

    scenario: str
    occurred_at: datetime
    quantities: Mapping[str, Decimal | str]
    day: int

    @property
    def month(self) -> int:
        """The business month YYYYMM."""
        return self.day // 100

    @property
    def year(self) -> int:
        """The vintage YYYY."""
        return self.day // 10_000


def read(
    catalogue: Catalogue, scenario: object, occurred_at: object, quantities: object, now: datetime
) -> tuple[Version, Activity]:
    """The version in force and the activity, from whatever a JSON body held.

    `occurred_at` is RFC 3339 with an offset, at most five minutes after `now` (aware).
    `quantities` maps input names to decimals in text. Raises Rejected and nothing else.
    """
    moment = read_time(occurred_at)
    if moment > now and moment - now > CLOCK_SKEW:
        raise Rejected(
            "IN_FUTURE",
            "occurred_at is more than 5 minutes after our clock; check the provider's clock and "
            "its offset.",
        )
    day = business_day(moment)
    version = catalogue.in_force(scenario, day)
    return version, _measure(version, moment, quantities, day)


def check_claim(version: Version, activity: Activity, now: datetime) -> None:
    """Refuses an act that is claimed (reported, or its person bound) too many days after it was
    done. Raises Rejected."""
    late = (now.astimezone(SHANGHAI).date() - activity.occurred_at.date()).days
    if version.claim_days and late > version.claim_days:
        raise Rejected(
            "TOO_LATE",
            f"{version.scenario} is claimed within {version.claim_days} days of the act; this is "
            f"{late} days later.",
        )


def business_day(moment: datetime) -> int:
    """The day YYYYMMDD of an aware time in Asia/Shanghai."""
    local = moment if moment.tzinfo is SHANGHAI else moment.astimezone(SHANGHAI)
    return local.year * 10_000 + local.month * 100 + local.day


def read_time(value: object) -> datetime:
    """An instant from RFC 3339 text with T and an offset, at Shanghai's. Raises Rejected."""
    if type(value) is str and _is_rfc_3339(value):
        try:
            if value.endswith("+08:00"):  # nearly all; times of one zone compare much faster
                local = datetime.fromisoformat(value[:-6])
                return datetime.combine(local, local.time(), SHANGHAI)
            return datetime.fromisoformat(value).astimezone(SHANGHAI)
        except (ValueError, OverflowError):
            pass  # a day that does not exist, or beyond year 1 or 9999 in Shanghai: refused below
    raise Rejected(
        "TIME_MALFORMED",
        "occurred_at must be an RFC 3339 time with an offset, such as 2026-01-31T08:05:00+08:00.",
    )


def measure(version: Version, occurred_at: datetime, quantities: object) -> Activity:
    """The activity, each quantity checked against the version's inputs. Raises Rejected."""
    return _measure(version, occurred_at, quantities, business_day(occurred_at))


def _measure(version: Version, occurred_at: datetime, quantities: object, day: int) -> Activity:
    if version.disabled is not None:
        raise Rejected(
            "SCENARIO_DISABLED", f"{version.scenario} takes no activities: {version.disabled.en}"
        )
    if type(quantities) is not dict and not isinstance(quantities, Mapping):
        raise Rejected("QUANTITY_MALFORMED", "quantities must be an object of decimals in text.")
    values: dict[str, Decimal | str] = {}
    for item in version.inputs:
        value = quantities.get(item.name)
        if value is None:
            if not item.optional:
                raise Rejected("QUANTITY_MISSING", f"{version.scenario} needs {item.name}.")
            if item.name not in quantities:
                continue
        values[item.name] = item.read(value)
    if len(quantities) != len(values):
        names = ", ".join(item.name for item in version.inputs)
        raise Rejected("QUANTITY_UNKNOWN", f"{version.scenario} takes only {names}.")
    return _tuple(Activity, (version.scenario, occurred_at, values, day))
