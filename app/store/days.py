"""Where days lie in the ledger: arrival numbers before and after which nothing of a moment stands.

Entries are found by arrival, and their times rise with it but for the moments between a request's
clock and its commit. So a bound is taken an hour off, and whoever reads between two bounds still
holds each entry's own time against the moment itself. What lies in the past does not move any more,
so each bound is searched for once in the life of a process.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from app.store import history
from ledger.encoding import MAX_INT
from ledger.entries import instant

_SLACK: Final = timedelta(hours=1)  # no transaction is open for so long
_KEPT: Final = 4096


class Days:
    """The bounds in one database's ledger that were asked for before."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def since(self, tx: Connection, at: datetime, now: datetime) -> int:
        """No entry of that moment, or of a later one, has an arrival below this."""
        return self._first(tx, min(at, now) - _SLACK)

    def until(self, tx: Connection, at: datetime, now: datetime) -> int:
        """No entry from before that moment has this arrival or a later one."""
        moment = at + _SLACK
        return self._first(tx, moment) if moment <= now - _SLACK else MAX_INT

    def _first(self, tx: Connection, at: datetime) -> int:
        name = instant(at)
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            found = self._known[name] = history.first_since(tx, name)
        return found
