"""What an appeal says, who may take it further, and how its resident is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from app.flows.notify import notify
from app.store import appeals, people
from app.store.appeals import Appeal
from app.store.catalogue import Registry
from app.vault import Vault, seal, unseal


class AppealError(Exception):
    """The appeal cannot be opened, or not be taken where it was to go. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Said(NamedTuple):
    """One thing said about an appeal: by "resident" or "reviewer", when (RFC 3339), what."""

    by: str
    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Case:
    """What an appeal is about, as its resident put it, and all that was said since.

    `points` are claimed: for an entry those that the resident says are missing, for a missing act
    those the rules would have given for it.
    """

    text: str
    entry_id: str | None = None
    provider: str | None = None
    activity_id: str | None = None
    scenario: str | None = None
    occurred_at: str | None = None
    quantities: Mapping[str, str] = field(default_factory=dict)
    points: int = 0
    said: tuple[Said, ...] = ()
    reason: str | None = None

    def sealed(self, own: bytes, id: str) -> bytes:
        """The case under its resident's key."""
        return seal(own, orjson.dumps(self, default=tuple), _context(id))


def opened(own: bytes, one: Appeal) -> Case:
    """What an appeal says, by its resident's key. Raises VaultError."""
    value = orjson.loads(unseal(own, one.sealed, _context(one.id)))
    return Case(**value | {"said": tuple(Said(*said) for said in value["said"])})


def _context(id: str) -> bytes:
    return f"appeal {id}".encode()


@dataclass(frozen=True, slots=True)
class Bench:
    """Where an appeal is heard: with what, and when."""

    vault: Vault
    registry: Registry
    now: datetime


def hold(tx: Connection, bench: Bench, id: str, *states: str) -> tuple[Appeal, bytes]:
    """An appeal in one of these states and its resident's key, both locked. Raises AppealError."""
    found = appeals.find(tx, id)
    wrapped = people.lock(tx, found.resident) if found else None
    one = appeals.lock(tx, id) if wrapped else None
    if wrapped is None or one is None:
        raise AppealError("NOT_FOUND", "there is no appeal of this id")
    if one.state not in states:
        raise AppealError(
            "APPEAL_STATE",
            f"the appeal is {one.state}; this takes one that is {' or '.join(states)}",
        )
    return one, bench.vault.subject_key(one.resident, wrapped)


def decide(
    tx: Connection,
    bench: Bench,
    one: Appeal,
    own: bytes,
    case: Case,
    state: str,
    who: str | None,
    points: int,
) -> Appeal:
    return save(
        tx,
        one._replace(
            state=state,
            sealed=case.sealed(own, one.id),
            decided_at=bench.now,
            decided_by=who,
            points=points,
        ),
    )


def save(tx: Connection, one: Appeal) -> Appeal:
    appeals.save(tx, one)
    return one


def tell(
    tx: Connection, bench: Bench, one: Appeal, step: str, result: str, reason: str = ""
) -> None:
    params = {"result": result, "reason": reason}
    notify(tx, bench.vault, one.resident, "appeal.decided", f"{one.id}:{step}", params, bench.now)
