"""Tune the scenarios: a draft is written, backtested, submitted, and decided by another person.

Every verb runs in its caller's transaction, holds the draft's row, and leaves its act in the trail.
What was published by one approval is withdrawn whole, before its first day, or undone by a new
draft: nothing published is ever edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from hashlib import sha256
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection

from app.flows import changeset, publish
from app.flows.changeset import ChangeSet, TuneError, Wanted
from app.flows.once import must_match
from app.flows.trail import act
from app.store import catalogue as registry
from app.store import drafts
from app.store.catalogue import Registry
from app.store.drafts import Draft
from app.vault import Vault
from scenarios import Catalogue, Version
from scenarios.difference import kind


class DraftUnknownError(Exception):
    """There is no draft of this id."""

    code = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Desk:
    """An administrator at work: who, when, and with what. `admin` is the 16-byte id."""

    vault: Vault
    registry: Registry
    notice_days: int
    admin: bytes
    name: str
    now: datetime

    def examine(self, change: ChangeSet, catalogue: Catalogue) -> list[Version]:
        """The editions as they would be published now. Raises TuneError."""
        versions, findings = changeset.examine(change, catalogue, self.now, self.notice_days)
        changeset.require(findings)
        return versions


def open_draft(
    tx: Connection,
    desk: Desk,
    change: ChangeSet,
    scenarios: Sequence[str] = (),
    **origin: str,
) -> str:
    """Keep a new draft: the editions of `change`, and copies of those that will stand by then.

    `scenarios` names the copied ones. Returns the draft's id. Raises TuneError.
    """
    changeset.require(changeset.too_early(change, desk.now, desk.notice_days))
    catalogue = desk.registry.current(tx)
    copies = changeset.copies(catalogue, scenarios, change.effective_from)
    change = replace(change, editions=[*change.editions, *copies])
    versions = desk.examine(change, catalogue)
    made = changeset.settled(change, versions)
    opened = token_hex(16)
    drafts.add(tx, opened, made.title, made.reason, made.body(), desk.admin, desk.now)
    _note(tx, desk, "draft.opened", opened, {**_about(made, catalogue, versions), **origin})
    return opened


def edit(tx: Connection, desk: Desk, id: str, revision: str, change: ChangeSet) -> None:
    """Put another content in the draft's place. Raises TuneError, StaleError, DraftUnknownError."""
    draft = _hold(tx, id, revision, *_OPEN)
    catalogue = desk.registry.current(tx)
    versions = desk.examine(change, catalogue)
    made = changeset.settled(change, versions)
    drafts.revise(tx, id, made.title, made.reason, made.body(), desk.now)
    detail = _about(made, catalogue, versions)
    _note(tx, desk, "draft.edited", id, {"revision": draft.revision + 1, **detail})


def set_coefficient(
    tx: Connection, desk: Desk, id: str, revision: str, place: tuple[str, str], wanted: Wanted
) -> None:
    """Give one coefficient another value; `place` is scenario and coefficient. Raises as `edit`."""
    draft = _hold(tx, id, revision, *_OPEN)
    change = ChangeSet.of(draft.title, draft.reason, draft.body)
    editions = changeset.chosen(change.editions, place, wanted)
    edit(tx, desk, id, revision, replace(change, editions=editions))


def submit(tx: Connection, desk: Desk, id: str, revision: str) -> None:
    """Hand the draft over for review. Raises TuneError also when it was not backtested."""
    draft = _hold(tx, id, revision, "draft")
    change = ChangeSet.of(draft.title, draft.reason, draft.body)
    desk.examine(change, desk.registry.current(tx))
    backtest = drafts.backtest(tx, id, draft.revision)
    if backtest is None or backtest[1] != "done":
        raise TuneError(
            "BACKTEST_MISSING",
            f"revision {draft.revision} has no finished backtest; run one and submit then",
        )
    drafts.submit(tx, id, desk.now)
    _note(tx, desk, "draft.submitted", id, {"revision": draft.revision, "backtest": backtest[0]})


def approve(tx: Connection, desk: Desk, id: str, revision: str) -> None:
    """Publish all of the draft's editions, by another person than those who wrote it.

    They are examined once more: another draft may have been approved meanwhile, and days go by.
    Raises TuneError, StaleError, DraftUnknownError.
    """
    registry.take_turn(tx)
    draft = _hold(tx, id, revision, "submitted")
    if desk.name in {draft.author, *drafts.editors(tx, id)}:
        raise TuneError("OWN_APPROVAL", "you wrote this draft; another reviewer must approve it")
    change = ChangeSet.of(draft.title, draft.reason, draft.body)
    catalogue = desk.registry.current(tx)
    versions = desk.examine(change, catalogue)
    publish.record(tx, desk.vault, versions, desk.now, id)
    drafts.decide(tx, id, "approved", "", desk.admin, desk.now)
    detail = _about(change, catalogue, versions)
    _note(tx, desk, "draft.approved", id, {"revision": draft.revision, **detail})


def reject(tx: Connection, desk: Desk, id: str, revision: str, reason: str) -> None:
    """Give a submitted draft back to its editors, with a reason. Raises as `approve`."""
    draft = _hold(tx, id, revision, "submitted")
    drafts.decide(tx, id, "rejected", reason, desk.admin, desk.now)
    _note(tx, desk, "draft.rejected", id, {"revision": draft.revision, "reason": reason})


def discard(tx: Connection, desk: Desk, id: str, revision: str, reason: str) -> None:
    """Put a draft away that was not published. Raises TuneError, StaleError, DraftUnknownError."""
    draft = _hold(tx, id, revision, *_OPEN, "submitted")
    drafts.decide(tx, id, "discarded", reason, None, desk.now)
    _note(tx, desk, "draft.discarded", id, {"revision": draft.revision, "reason": reason})


def withdraw(tx: Connection, desk: Desk, id: str, revision: str, reason: str) -> None:
    """Take back all that the draft's approval published, at least an hour before its first day.

    Raises TuneError, also when what was published since depends on it; WithdrawalTooLateError.
    """
    registry.take_turn(tx)
    draft = _hold(tx, id, revision, "approved")
    catalogue = desk.registry.current(tx)
    names = registry.of_draft(tx, id)
    versions = [catalogue.versions(name)[number - 1] for name, number in names]
    changeset.require(changeset.without(catalogue, names))
    publish.retract(tx, desk.vault, versions, desk.now)
    drafts.decide(tx, id, "withdrawn", reason, None, desk.now)
    withdrawn = [f"{name} {number}" for name, number in names]
    detail = {"revision": draft.revision, "reason": reason, "withdrawn": withdrawn}
    _note(tx, desk, "draft.withdrawn", id, detail)


def undo(tx: Connection, desk: Desk, id: str, reason: str, effective_from: date) -> str:
    """Open a new draft whose editions are those in force before this one took effect; its id.

    A behaviour that began with this draft is switched off. Raises TuneError, DraftUnknownError.
    """
    draft = _hold(tx, id, None, "approved")
    catalogue = desk.registry.current(tx)
    done = ChangeSet.of(draft.title, draft.reason, draft.body)
    change = changeset.reverted(done, catalogue, reason, effective_from)
    return open_draft(tx, desk, change, undoes=id)


_OPEN = ("draft", "rejected")
"""The states in which a draft may be written."""

_TOLD = ("coefficient", "cap", "rule", "group", "state")
_MOST, _SHORT = 50, 40  # changes a record tells, and letters of each of their parts


def _hold(tx: Connection, id: str, revision: str | None, *states: str) -> Draft:
    """The draft, locked, in one of these states and (unless None) of the revision the sender saw.

    Raises DraftUnknownError, StaleError, TuneError DRAFT_STATE.
    """
    draft = drafts.lock(tx, id)
    if draft is None:
        raise DraftUnknownError("there is no draft of this id")
    if revision is not None:
        must_match(revision, str(draft.revision))
    if draft.state not in states:
        raise TuneError(
            "DRAFT_STATE", f"the draft is {draft.state}; this takes one that is {_either(states)}"
        )
    return draft


def _either(states: Sequence[str]) -> str:
    return " or ".join(states)


def _about(change: ChangeSet, catalogue: Catalogue, versions: Sequence[Version]) -> dict[str, Any]:
    """What a change set does, for the trail: its editions, a digest of all it says, and the first
    numbers and rules in which it differs from what it takes the place of."""
    changes = [
        [one.scenario, *(part[:_SHORT] for part in found)]
        for one in versions
        for found in changeset.compare(catalogue, one)[1]
        if kind(found) in _TOLD
    ]
    detail = {
        "title": change.title,
        "effective_from": change.effective_from.isoformat(),
        "content": sha256(change.body()).hexdigest(),
        "editions": [f"{one.scenario} {one.number}" for one in versions],
        "changes": changes[:_MOST],
        "changed": len(changes),
    }
    if change.rate is not None:
        detail["rate"] = {name: change.rate[name] for name in ("points_per_kg", "validity_months")}
    return detail


def _note(tx: Connection, desk: Desk, action: str, id: str, detail: dict[str, Any]) -> None:
    act(tx, desk.name, action, id, detail, desk.now)
