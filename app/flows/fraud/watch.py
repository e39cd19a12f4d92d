"""Watch: the rules that look at what has happened at tills, minute by minute, and open cases.

A step looks at all lines of bills since the hour before this one, so that a line that was written
late is seen, and a step that was cut short is simply made again: a case is named by what it is
about, and noting it twice changes nothing. After a start it begins with yesterday's lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.fraud.rules import name_of
from app.flows.setting import setting
from app.store import cases, fraud

_BACK: Final = timedelta(hours=1)
_WINDOW: Final = timedelta(hours=3)  # lines this old were all written and seen


class Patrol:
    """Goes round once a step; it keeps no more than which lines are old."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._marks: list[tuple[datetime, int]] = []  # (when, the newest line then), oldest first

    def step(self, now: datetime) -> bool:
        """Look once; there is never more to be done at once."""
        local = now.astimezone(CITY_ZONE)
        since = local.replace(minute=0, second=0, microsecond=0) - _BACK
        day = local.replace(hour=0, minute=0, second=0, microsecond=0)
        with self._engine.begin() as tx:
            after = self._after(tx, now)
            limits = {rule: setting(tx, name_of(rule)) for rule in _RULES}
            till, same, share, refunds = limits.values()
            found = (
                fraud.charges_at_tills(tx, after, since, till["minute_count"]),
                fraud.same_amounts(tx, after, since, same["hour_count"]),
                fraud.returned_shares(tx, after, since, share["hour_count"], share["percent"]),
                fraud.given_back(tx, after, since, day, refunds["day_count"]),
            )
            for rule, places in zip(_RULES, found, strict=True):
                if limits[rule]["mode"] != "off":
                    _note(tx, rule, list(places), limits[rule], now)
        return False

    def _after(self, tx: Connection, now: datetime) -> int:
        """The newest of the lines that need not be looked at any more."""
        if not self._marks:
            yesterday = int(f"{now.astimezone(CITY_ZONE) - timedelta(days=1):%Y%m%d}")
            self._marks.append((now - _WINDOW, fraud.before_day(tx, yesterday)))
        self._marks.append((now, fraud.newest_line(tx)))
        while self._marks[1][0] <= now - _WINDOW:
            del self._marks[0]
        return self._marks[0][1]


_RULES: Final = ("till", "same_amount", "refund_share", "refunds")


def _note(
    tx: Connection,
    rule: str,
    places: Iterable[fraud.Place],
    limits: dict[str, Any],
    now: datetime,
) -> None:
    for one in places:
        parts = (one.key, one.merchant, one.facts, one.resident, limits["mode"] == "shadow")
        cases.note_case(tx, cases.Finding("fraud", rule, *parts), now)
