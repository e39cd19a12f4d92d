"""One reported activity on its way through the stages of `credit`, and what becomes of a call's."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.flows.document import Document, rejection
from app.flows.fingerprint import Fingerprint
from app.store import people
from app.store.batches import Refused
from scenarios import Activity, Claimed, Key, Version

NOBODY: Final = people.Member("", b"", b"", frozenset(), False)


@dataclass(slots=True)
class Item:
    """One document on its way through the stages, each of which fills in what it finds out; until
    then there is no such field."""

    position: int
    document: Document
    version: Version
    activity: Activity
    mg: int  # of CO2e that it avoids
    entry_id: str
    who: people.Member = field(init=False)  # stage 3
    opening: bytes = field(init=False)  # stage 4
    commitment: bytes = field(init=False)  # stage 5
    sealed: bytes = field(init=False)
    counters: tuple[Key, ...] = field(init=False)  # stage 6
    granted: Claimed = field(init=False)
    act: Fingerprint | None = None
    waits: bool = False  # stage 7


@dataclass(slots=True)
class Credited:
    """What became of a call's documents: an outcome each, in order, ready for JSON; and when what
    came for the first time was done."""

    outcomes: list[dict[str, Any]]
    moments: list[datetime] = field(default_factory=list)
    rejected: list[Refused] = field(default_factory=list)


def refuse(result: Credited, item: Item, code: str, detail: str) -> None:
    """End an item's way, and tell its resident if it has one."""
    act = item.document
    result.outcomes[item.position] = rejection(act.id, code, detail)
    if item.who is not NOBODY:
        told = Refused(item.who.account, item.position, act.id, act.scenario, code, detail)
        result.rejected.append(told)
