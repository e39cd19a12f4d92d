"""Correct an activity: its entry is reversed and, if a replacement is given, credited anew.

Each revision of an activity has its own idempotency key: the id alone, then the id with 1, 2, 3 …
The last revision that exists is the one that counts, unless it is reversed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Engine

from app.flows.credit import credit
from app.flows.document import Document, DocumentError, outcome, read_document
from app.flows.fingerprint import fingerprint
from app.flows.limit import lock_names
from app.store import acts, batches, budgets, entries, people, usage
from app.store.catalogue import Registry
from app.store.db import transact
from app.vault import Vault, open_opening
from ledger.accounts import Asset
from ledger.entries import Entry, instant
from ledger.transfers import granted, reverse
from scenarios import Catalogue, Rejected, measure, needs, read, read_time, undo

_MAX_REVISIONS = 100


class UnknownActivityError(Exception):
    """This provider reported no activity of this id that was credited."""

    code = "ACTIVITY_UNKNOWN"


class CorrectionError(Exception):
    """The correction cannot be made; the sentence says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Revision(NamedTuple):
    """The last revision of an activity: its number, arrival, entry, and whether it still counts."""

    number: int
    arrival: int
    entry: Entry
    counts: bool


def correct(
    engine: Engine,
    vault: Vault,
    registry: Registry,
    provider: str,
    activity_id: str,
    replacement: Any,
    now: datetime,
) -> dict[str, Any]:
    """Void the activity (`replacement` None) or put another in its place; return its outcome.

    The same correction again changes nothing and gets the same entry. Raises UnknownActivityError,
    CorrectionError.
    """

    def work(tx: Connection) -> dict[str, Any]:
        entries.take_turn(tx, vault.entry_id(f"activity:{provider}", activity_id))
        last = _last_revision(tx, vault, provider, activity_id)
        if last is None:
            parts = (vault, registry.current(tx), provider, activity_id, replacement, now)
            return _correct_unclaimed(tx, *parts)
        catalogue, document = registry.current(tx), None
        if replacement is not None:
            document = _document(vault, provider, activity_id, replacement, last.number + 1)
            _check(catalogue, document, now)
        wrapped = _lock(tx, catalogue, last.entry, document)
        old = _opening(tx, vault.subject_key(last.entry.resident, wrapped), last)
        if document is None:
            if last.counts:
                _reverse(tx, vault, catalogue, last, old, now)
            return outcome(activity_id, "reversed", entry_id=last.entry.id)
        if last.counts and _same(tx, document, provider, last.entry, old):
            return outcome(activity_id, "accepted", entry_id=last.entry.id)
        if last.counts:
            _reverse(tx, vault, catalogue, last, old, now)
        result = credit(tx, vault, catalogue, provider, [document], now).outcomes[0]
        if result["outcome"] != "accepted":
            code = result.get("code", "SUBJECT_UNKNOWN")
            detail = result.get("detail", "the corrected activity names an unbound subject")
            raise CorrectionError(code, detail)
        return result

    return transact(engine, work)


def _correct_unclaimed(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    provider: str,
    activity_id: str,
    replacement: Any,
    now: datetime,
) -> dict[str, Any]:
    """What nobody has claimed yet is in no ledger: it is forgotten, or reported anew."""
    if not batches.drop_unclaimed(tx, provider, activity_id):
        raise UnknownActivityError(
            f"no activity {activity_id[:64]!r} is credited or unclaimed; report it first"
        )
    if replacement is None:
        return outcome(activity_id, "reversed")
    document = _document(vault, provider, activity_id, replacement, 0)
    _check(catalogue, document, now)
    result = credit(tx, vault, catalogue, provider, [document], now).outcomes[0]
    if result["outcome"] == "rejected":
        raise CorrectionError(result["code"], result["detail"])
    return result


def _check(catalogue: Catalogue, document: Document, now: datetime) -> None:
    """Until a rule has read it, what a document holds is any JSON: it cannot even be encoded."""
    try:
        read(catalogue, document.scenario, document.occurred_at, document.quantities, now)
    except Rejected as error:
        raise CorrectionError(error.code, error.detail) from error


def _same(tx: Connection, document: Document, provider: str, entry: Entry, old: bytes) -> bool:
    """Whether it is the act that counts already, of the same person: an opening names nobody."""
    person = people.bound_to(tx, [document.subject]).get(document.subject)
    return person == entry.resident and document.opening(provider) == old


def _lock(tx: Connection, catalogue: Catalogue, entry: Entry, document: Document | None) -> bytes:
    """Lock all that reversal and credit may touch, in everybody's order: residents, counters,
    budgets. Returns the wrapped key of the entry's resident."""
    residents, scenarios = {entry.resident}, [entry.detail["rule"][0]]
    if document is not None:
        residents.update(people.bound_to(tx, [document.subject]).values())
        scenarios.append(document.scenario)
    keys = {token: people.lock(tx, token) for token in sorted(residents)}
    editions = [
        edition
        for name in catalogue.scenarios
        if name in scenarios
        for edition in catalogue.versions(name)
    ]
    usage.lock(tx, lock_names(editions))
    budgets.lock(tx, budgets.scopes(tx).values())
    wrapped = keys[entry.resident]
    if wrapped is None:
        raise CorrectionError("SUBJECT_ERASED", "the resident was erased; nothing to correct")
    return wrapped


def _document(vault: Vault, provider: str, activity_id: str, raw: Any, revision: int) -> Document:
    try:
        document = read_document(vault, provider, raw, revision)
    except DocumentError as error:
        raise CorrectionError(error.code, str(error)) from error
    if document.id != activity_id:
        raise CorrectionError(
            "ACTIVITY_ID_MISMATCH", "id in the body must be the id of the activity corrected"
        )
    return document


def _last_revision(
    tx: Connection, vault: Vault, provider: str, activity_id: str
) -> Revision | None:
    scope = f"activity:{provider}"
    last = None
    for number in range(_MAX_REVISIONS):
        key = f"{activity_id}\n{number}" if number else activity_id
        found = entries.find(tx, vault.entry_id(scope, key))
        if found is None:
            return last
        arrival, entry = found
        counts = not entries.known(tx, [vault.entry_id("reverse", entry.id)])
        last = Revision(number, arrival, entry, counts)
    raise CorrectionError(
        "TOO_MANY_REVISIONS", f"an activity can be corrected {_MAX_REVISIONS - 1} times"
    )


def _opening(tx: Connection, key: bytes, revision: Revision) -> bytes:
    sealed = people.opening(tx, revision.arrival)
    if sealed is None:
        raise CorrectionError("SUBJECT_ERASED", "the activity's content was erased")
    return open_opening(key, revision.entry.id, sealed)[1]


def _reverse(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    revision: Revision,
    opening: bytes,
    now: datetime,
) -> None:
    """Take the credit back, with what was paid for it later, and give its allowance back."""
    entry = revision.entry
    settled = entries.find(tx, vault.entry_id("settle", entry.id))
    budgets.leave_line(tx, [revision.arrival])
    points = granted(entry, Asset.POINT) + entry.detail.get("awaiting", 0)
    # The later payment goes back first: the book takes no reversal of an issue still settled.
    for original in (*((settled[1],) if settled else ()), entry):
        made = reverse(
            id=vault.entry_id("reverse", original.id),
            at=instant(now),
            entry=original,
            wallet=people.wallet(tx, entry.resident),
        )
        entries.append(tx, [made])
    document = orjson.loads(opening)
    version = catalogue.versions(entry.detail["rule"][0])[entry.detail["rule"][1] - 1]
    activity = measure(version, read_time(document["occurred_at"]), document["quantities"])
    who, mg = entry.resident, granted(entry, Asset.CO2E)
    account = bytes.fromhex(who)
    counted = usage.read(tx, {key: [account] for key in needs(version, activity)})
    changed = undo(version, activity, mg, points, counted.get(account, {}))
    usage.store(tx, {account: changed}, dict.fromkeys([(account, key) for key in changed], True))
    if act := fingerprint(vault, who, version, activity):
        acts.forget(tx, act.cell, revision.arrival)
