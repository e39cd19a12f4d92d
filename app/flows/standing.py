"""What a resident did that stands: the acts the ledger credits and nothing has reversed.

Challenges, badges and rankings all reckon from this list. Who follows the log adds what new leaves
say, and reckons anew whose act was reversed, so a correction puts them right by itself. An act
belongs to the business day on which it was done, as its opening says, however late it was reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.store import standing as store
from app.store.days import Days
from app.vault import Vault, opener
from scenarios.activity import business_day, read_time

_DAYS: Final[WeakKeyDictionary[Engine, Days]] = WeakKeyDictionary()


class Act(NamedTuple):
    """One act that counts: scenario id, business day YYYYMMDD, and mg of CO2e avoided."""

    scenario: str
    day: int
    reduction_mg: int

    @property
    def area(self) -> str:
        """One of the seven areas."""
        return self.scenario.partition(".")[0]

    @property
    def month(self) -> int:
        """The business month YYYYMM."""
        return self.day // 100


def month_of(now: datetime) -> int:
    """The business month YYYYMM of an aware time."""
    return business_day(now) // 100


def month_before(month: int) -> int:
    """The month before YYYYMM."""
    return month - 1 if month % 100 > 1 else month - 89


def month_start(month: int) -> datetime:
    """When a month YYYYMM begins in the city."""
    return datetime(month // 100, month % 100, 1, tzinfo=CITY_ZONE)


def first_of(tx: Connection, month: int, now: datetime) -> int:
    """An arrival before which nothing was written that was done in this month or later."""
    days = _DAYS.setdefault(tx.engine, Days())
    return days.since(tx, month_start(month), now)


def standing(
    tx: Connection,
    vault: Vault,
    residents: Sequence[str],
    first: int = 0,
    leaves: range | None = None,
) -> dict[str, list[Act]]:
    """The acts that stand of each of these people, written from an arrival on, in that order; given
    leaves, as far as these alone say.

    Who is erased has none. Raises VaultError if an opening does not open.
    """
    openers = {
        bytes.fromhex(one): opener(vault.subject_key(one, key))
        for one, key in store.keys(tx, residents).items()
    }
    acts: dict[bytes, dict[str, Act]] = {bytes.fromhex(one): {} for one in residents}
    for resident, name, mg, sealed, reverses in store.lines(tx, residents, first, leaves):
        if reverses:
            acts[resident].pop(reverses, None)
        elif sealed is not None and resident in openers:
            done = orjson.loads(openers[resident](name, sealed))
            day = business_day(read_time(done["occurred_at"]))
            acts[resident][name] = Act(done["scenario"], day, mg)
    return {resident.hex(): list(found.values()) for resident, found in acts.items()}


def in_month(acts: Sequence[Act], month: int) -> list[Act]:
    """Those of them that were done in a month."""
    return [act for act in acts if act.month == month]
