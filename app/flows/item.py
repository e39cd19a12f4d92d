"""One reported activity on its way through the stages of `credit`, and what becomes of a call's."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from app.flows.document import Document, rejection
from app.flows.fingerprint import Fingerprint
from app.store import people
from scenarios import Activity, Claimed, Key, Reduction, Version

NOBODY: Final = people.Member("", b"", b"", frozenset(), False)
_NOTHING: Final = Claimed(0, 0, None, (), {})


@dataclass(slots=True)
class Item:
    """One document on its way through the stages, each of which fills in what it finds out."""

    position: int
    document: Document
    version: Version
    activity: Activity
    reduction: Reduction
    entry_id: str
    who: people.Member = NOBODY
    opening: bytes = b""
    counters: tuple[Key, ...] = ()
    granted: Claimed = _NOTHING
    act: Fingerprint | None = None
    commitment: bytes = b""
    sealed: bytes = b""
    waits: bool = False


@dataclass(slots=True)
class Credited:
    """What became of a call's documents: an outcome each, in order, ready for JSON; and when what
    came for the first time was done."""

    outcomes: list[dict[str, Any]]
    moments: list[datetime] = field(default_factory=list)
    rejected: list[tuple[bytes, int, str, str, str]] = field(default_factory=list)


def refuse(result: Credited, item: Item, code: str, detail: str) -> None:
    """End an item's way, and tell its resident if it has one."""
    identifier = item.document.id
    result.outcomes[item.position] = rejection(identifier, code, detail)
    if item.who is not NOBODY:
        result.rejected.append((item.who.account, item.position, identifier, code, detail))
