"""One physical act, whoever reports it.

A resident cannot begin two trips at once. When two providers report an act of one kind by the same
resident at nearly the same time and not at different places, it is one act and is credited once.
To tell, no trace is kept: time is cut into cells of the scenario's `act.minutes`, and what is
stored is a keyed hash of resident, kind and cell, with a keyed hash of the coarse place if one was
given. An act is compared with its own cell and the nearer neighbour, so that two acts up to half a
cell apart always meet, and two more than one and a half cells apart never do.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

from app.vault import Vault
from scenarios import Activity, Version

KEPT: Final = timedelta(days=62)
"""How long after its day an act can still be recognised: providers report within weeks."""

_tuple: Final = tuple.__new__  # the hot path: a named tuple is a tuple
_MINUTES_A_DAY = 1440
_EPOCH = date(1970, 1, 1)
_FIRST_DAY = _EPOCH.toordinal()
_SHANGHAI_MINUTES = 8 * 60


class Fingerprint(NamedTuple):
    """The cell an act is kept under, the neighbour it is compared with too, and its place."""

    cell: bytes
    neighbour: bytes
    place: bytes | None

    def meets(self, other_place: bytes | None) -> bool:
        """Whether an act in one of these cells at `other_place` is the same act."""
        return self.place is None or other_place is None or self.place == other_place


def fingerprint(
    vault: Vault, resident: str, version: Version, activity: Activity, place: str = ""
) -> Fingerprint | None:
    """The fingerprint of an act, or None if its scenario's acts need not be told apart."""
    act = version.act
    if act is None:
        return None
    cell, into = divmod(_minute(activity.occurred_at), act.minutes)
    neighbour = cell + 1 if 2 * into >= act.minutes else cell - 1
    whose = f"act\0{resident}\0{act.kind}\0"
    at = vault.mark(f"place\0{resident}\0{place}", 8) if place else None
    here = day_prefix(cell * act.minutes // _MINUTES_A_DAY) + vault.mark(f"{whose}{cell}", 12)
    there = day_prefix(neighbour * act.minutes // _MINUTES_A_DAY)
    return _tuple(Fingerprint, (here, there + vault.mark(f"{whose}{neighbour}", 12), at))


def _minute(moment: datetime) -> int:
    """Minutes since 1970 in UTC of a time at Shanghai's offset, as an activity has it."""
    days = moment.toordinal() - _FIRST_DAY
    return days * _MINUTES_A_DAY + moment.hour * 60 + moment.minute - _SHANGHAI_MINUTES


def day_prefix(day: int) -> bytes:
    """The first bytes of every fingerprint of a day, counted from 1970 in UTC."""
    return (day + 2**31).to_bytes(4, "big")


def oldest_kept(now: datetime) -> bytes:
    """The prefix before which fingerprints may be forgotten."""
    return day_prefix(((now - KEPT).date() - _EPOCH).days)
