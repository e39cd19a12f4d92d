"""Take no more batches while sealing is far behind: what is taken must be provable soon."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import Engine

from app.flows.setting import setting
from app.store import gauges

COME_AGAIN_S: Final = 10  # a sealer that works seals a million entries in that time
_FRESH_S = 1.0


class FarBehindError(Exception):
    """Too many entries wait for their seal."""

    code = "CITY_BUSY"
    headers = {"Retry-After": str(COME_AGAIN_S)}  # noqa: RUF012 (never changed)


class Backlog:
    """How many entries wait to be sealed, asked for at most once a second a process."""

    def __init__(self) -> None:
        self._ask_at, self._waiting, self._most = 0.0, 0, 0

    def check(self, engine: Engine) -> None:
        """Raises FarBehindError above the setting `unsealed_entries`; 0 switches that off."""
        if time.monotonic() >= self._ask_at:
            with engine.connect() as tx:
                self._most, self._waiting = setting(tx, "unsealed_entries"), gauges.unsealed(tx)
            self._ask_at = time.monotonic() + _FRESH_S
        if self._waiting > self._most > 0:
            raise FarBehindError(
                f"{self._waiting} entries wait for their seal, and {self._most} is the most;"
                " send this batch again later"
            )
