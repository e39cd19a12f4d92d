"""Close: cut the days that are over, and make the bill of each merchant who has lines in them.

A day is cut in a transaction of its own, which waits for lines under way and is waited for by the
next ones: an instant, however long the day was. Then a bill a transaction, read and hashed as a
stream while tills go on. Both are safe to repeat, in several processes at once; days on which no
worker ran are made up for, in order.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.bill.write import Tally, csv_of
from app.flows.webhook.emit import emit
from app.store import bills, settlement
from app.store.settlement import Terms
from app.vault import Vault
from ledger.buckets import day_number

GRACE: Final = timedelta(minutes=1)
"""After midnight, until a day is cut: for clocks that differ, and transactions under way."""


class Closing:
    """The closing of days by one process."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault
        self._done = 0  # the last day that was cut when no bill was left to make

    def step(self, now: datetime) -> bool:
        """Cut what is over, or make one bill; whether there may be more to do."""
        over = last_over(now)
        with self._engine.begin() as tx:
            closed = bills.closed(tx)
            if closed < over:
                bills.cut(tx, over)
                return True
        if closed == self._done:
            return False
        with self._engine.begin() as tx:
            found = bills.next_unbilled(tx)
            if found is not None:
                _make(tx, self._vault, *found, now)
        if found is None:
            self._done = closed
        return found is not None


def close_days(engine: Engine, vault: Vault, now: datetime) -> int:
    """Cut all days that are over and make all their bills; the last day that is closed."""
    closing = Closing(engine, vault)
    while closing.step(now):
        pass
    with engine.connect() as tx:
        return bills.closed(tx)


def last_over(now: datetime) -> int:
    """The last business day whose lines are all in by that moment."""
    return day_number((now - GRACE).astimezone(CITY_ZONE).date() - timedelta(days=1))


def days_behind(closed: int, now: datetime) -> int:
    """How many days are over and not closed; so many since ever if none was."""
    return max(0, (date_of(last_over(now)) - date_of(closed)).days)


def date_of(day: int) -> date:
    """The date of a day YYYYMMDD."""
    return date(day // 10000, day // 100 % 100, day % 100)


def end_of(day: int) -> datetime:
    """The moment at which a business day ends."""
    return datetime.combine(date_of(day) + timedelta(days=1), time(), CITY_ZONE)


def _make(tx: Connection, vault: Vault, merchant: str, day: int, now: datetime) -> None:
    terms = settlement.terms(tx, merchant, end_of(day))
    sums, digest = digest_of(tx, merchant, day, terms)
    if settlement.put(tx, merchant, day, terms.contract, sums, digest, now):
        emit(tx, vault, merchant, "bill.ready", str(day), _told(day, terms, sums, digest), now)


def digest_of(
    tx: Connection, merchant: str, day: int, terms: Terms
) -> tuple[tuple[int, int, int], bytes]:
    """The lines, points and milli-fen of a merchant's day, and the SHA-256 of its CSV."""
    digest, tally = sha256(), Tally()
    for piece in csv_of(bills.rows(tx, merchant, day), terms.milli_fen_per_point, tally):
        digest.update(piece)
    sums = tally.lines, tally.points, tally.points * terms.milli_fen_per_point
    return sums, digest.digest()


def _told(day: int, terms: Terms, sums: tuple[int, int, int], digest: bytes) -> dict[str, Any]:
    return {
        "date": date_of(day).isoformat(),
        "contract": terms.contract,
        "lines": str(sums[0]),
        "points": str(sums[1]),
        "amount_milli_fen": str(sums[2]),
        "csv_sha256": digest.hex(),
    }
