"""The shelf: all rewards that can be ordered now, as this process knows them."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.store import rewards
from app.store.rewards import Offer
from ledger.buckets import day_number

_FRESH: Final = timedelta(seconds=2)


class Shelf:
    """Open offers by rising price, of two seconds ago at most, without anything of anybody's own.
    What is left of one is settled when it is ordered."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._read_at = float("-inf")
        self._of: datetime | None = None
        self._offers: list[Offer] = []

    def offers(self, tx: Connection, now: datetime) -> list[Offer]:
        """What is on offer."""
        old = self._of is None or abs(now - self._of) >= _FRESH
        old = old or time.monotonic() - self._read_at >= _FRESH.total_seconds()
        if old and self._reading.acquire(blocking=self._of is None):
            try:  # one thread reads; what the others know meanwhile is a moment older
                today = day_number(now.astimezone(CITY_ZONE).date())
                self._offers = rewards.open_offers(tx, now, today)
                self._of, self._read_at = now, time.monotonic()
            finally:
                self._reading.release()
        return self._offers

    def look_again(self) -> None:
        """Read before the next answer: this process has just changed what is on offer."""
        self._read_at = float("-inf")
