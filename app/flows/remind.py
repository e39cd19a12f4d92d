"""Remind: tell residents 30 days and 7 days before points of theirs expire."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final

from sqlalchemy import Engine

from app.config import CITY_ZONE
from app.flows.notify import notify
from app.store import expiring
from app.store.expiring import START, Place
from app.vault import Vault
from ledger.buckets import day_number

KIND: Final = "points.expiring"
NOTICES: Final = (7, 30)  # days before the last day
_PAGE = 200  # people who are held while they are told


class Reminders:
    """Goes through all wallets once a day, a page a step. Whoever was told is left out, so it may
    be begun anew, and a day on which nobody worked is made up for on the next."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault
        self._after: Place = START
        self._done: date | None = None

    def step(self, now: datetime) -> bool:
        """Tell one page of those who are to be told; whether there may be more today."""
        today = now.astimezone(CITY_ZONE).date()
        if self._done == today:
            return False
        short, long = ((days, day_number(today + timedelta(days=days))) for days in NOTICES)
        with self._engine.begin() as tx:
            found = expiring.soon(tx, KIND, day_number(today), (short, long), self._after, _PAGE)
            for (resident, bucket), points, days in found:
                last = date(bucket // 10_000, bucket // 100 % 100, bucket % 100)
                params = {"points": str(points), "date": last.isoformat()}
                notify(tx, self._vault, resident.hex(), KIND, f"{bucket}:{days}", params, now)
        more = len(found) == _PAGE
        self._after, self._done = (found[-1].place, None) if more else (START, today)
        return more
