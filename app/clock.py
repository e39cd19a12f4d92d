"""The time of a city. In production it is the machine's and nothing else.

In demo and test mode a file in the data folder may move it, so that an integrator sees expiry,
timeouts and bills without waiting for them. Every process of the city reads the file: one look at
its change time a call, and its few bytes when that is new.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Final

from app.config import Config

Clock = Callable[[], datetime]

FILE: Final = "clock"  # in the data folder: by how many seconds the city is ahead


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


def city_clock(config: Config) -> Clock:
    """The clock of this city's processes."""
    return MovedClock(config.data_dir / FILE) if config.sandbox else utc_now


class MovedClock:
    """The machine's clock, moved by as much as the file says; not at all if there is none."""

    def __init__(self, path: Path) -> None:
        self._path, self._name, self._changed, self.offset = path, str(path), 0, timedelta()

    def __call__(self) -> datetime:
        """The city's time now."""
        try:
            changed = os.stat(self._name).st_mtime_ns
        except FileNotFoundError:
            changed = self._changed = 0
            self.offset = timedelta()
        if changed != self._changed:
            self.offset = timedelta(seconds=int(self._path.read_text()))
            self._changed = changed
        return utc_now() + self.offset

    def move(self, offset: timedelta) -> None:
        """Put the city so far ahead of the machine, for all its processes at once."""
        part = self._path.with_suffix(".part")
        part.write_text(f"{ceil(offset.total_seconds())}\n")
        part.rename(self._path)  # whole, or not at all, whoever reads it
