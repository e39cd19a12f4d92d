"""Crediting reported activities: the stages that intake, correction and late binding share.

Runs inside its caller's transaction and never commits. The stages, by number:

1. shape: the outer form of each document;
2. rules: which scenario version was in force, are the quantities within bounds, what is avoided;
3. people: whose identifier is it; those residents are locked, in order, but may still spend;
4. duplicates: what the ledger, or this very call, has credited already;
5. openings: what was done, encrypted under the resident's own key;
6. limits: counters are locked; the same physical act reported by another provider, plausibility,
   exclusivity and caps, from what the resident did before;
7. budget: budgets are locked; what is not funded waits, in order;
8. entries: built and appended, while none of those residents spends.

What costs time comes before stage 6: from there on batches of one scenario wait for each other,
and from stage 7 on those of one budget.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows.document import Document, outcome, rejection
from app.flows.item import NOBODY, Credited, Item, refuse
from app.flows.limit import limit
from app.store import acts, batches, budgets, entries, people
from app.vault import NONCE_BYTES, SALT_BYTES, Vault, VaultError, open_opening, seal, unseal
from ledger import plain
from ledger.accounts import Asset
from ledger.buckets import expiry_bucket
from ledger.entries import Entry, instant
from ledger.transfers import Rule, issue
from scenarios import (
    SHANGHAI,
    Catalogue,
    Rejected,
    check_claim,
    quantify,
    read,
)

_REUSED = "this id was used for another activity; send a correction, or use a new id"
_NO_CONSENT = "the resident has not consented to reports of this scenario from this provider"
_RESTRICTED = "the resident has restricted the processing of personal data; nothing is credited"


def credit(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    provider: str,
    documents: Sequence[Document | dict[str, Any]],
    now: datetime,
) -> Credited:
    """Credit documents; a dict among them is an outcome already decided and is passed through."""
    now = now.astimezone(SHANGHAI)  # as acts' times are: those of one zone compare much faster
    result = Credited([{}] * len(documents))
    items, refused = _quantify(vault, catalogue, provider, documents, now, result)
    items = _resolve(tx, vault, provider, items, refused, now, result)
    items = _drop_duplicates(tx, vault, provider, items, result)
    _seal_openings(vault, items)
    items = limit(tx, vault, provider, items, result)
    _append(tx, provider, items, _fund(tx, items), now)
    _report_shadows(tx, provider, items, now)
    for item in items:
        result.outcomes[item.position] = _accepted(item)
    result.moments += [item.activity.occurred_at for item in items]
    return result


def _quantify(
    vault: Vault,
    catalogue: Catalogue,
    provider: str,
    documents: Sequence[Document | dict[str, Any]],
    now: datetime,
    result: Credited,
) -> tuple[list[Item], list[tuple[int, Document, str | None, Rejected]]]:
    """Stages 1 and 2. Returns what goes on, and what the rules refuse: its owner is told."""
    items, refused = [], []
    entry_id = vault.entry_ids(f"activity:{provider}")
    for position, document in enumerate(documents):
        if isinstance(document, dict):
            result.outcomes[position] = document
            continue
        try:
            version, activity = read(
                catalogue, document.scenario, document.occurred_at, document.quantities, now
            )
            if version.claim_days and not document.corrects:
                check_claim(version, activity, now)
            mg = quantify(version, activity).mg
        except Rejected as error:
            result.outcomes[position] = rejection(document.id, error.code, error.detail)
            known = document.scenario in catalogue.scenarios  # else it may be anything
            scenario = document.scenario if known else None
            refused.append((position, document, scenario, error))
            continue
        items.append(Item(position, document, version, activity, mg, entry_id(document.key)))
    return items, refused


def _resolve(
    tx: Connection,
    vault: Vault,
    provider: str,
    items: list[Item],
    refused: list[tuple[int, Document, str | None, Rejected]],
    now: datetime,
    result: Credited,
) -> list[Item]:
    """Stage 3. What nobody is bound to is kept until somebody is."""
    subjects = {item.document.subject for item in items}
    subjects.update(document.subject for _, document, _, _ in refused)
    scenarios = {item.version.scenario for item in items}
    members = people.resolve_and_lock(tx, list(subjects), scenarios) if subjects else {}
    for position, document, scenario, error in refused:
        if owner := members.get(document.subject):
            act = document.id, scenario
            told = batches.Refused(owner.account, position, *act, error.code, error.detail)
            result.rejected.append(told)
    known, unbound = [], []
    for item in items:
        item.who = members.get(item.document.subject, NOBODY)
        if item.who is NOBODY:
            unbound.append(item)
        elif item.version.scenario not in item.who.consented:
            refuse(result, item, "CONSENT_MISSING", _NO_CONSENT)
        elif item.who.restricted:
            refuse(result, item, "PROCESSING_RESTRICTED", _RESTRICTED)
        else:
            known.append(item)
    if unbound:
        _keep(tx, vault, provider, unbound, now, result)
    return known


def _keep(
    tx: Connection,
    vault: Vault,
    provider: str,
    items: list[Item],
    now: datetime,
    result: Credited,
) -> None:
    """Keep each act under its id; what came before under this id stands."""
    contents = []
    for item in items:
        act = item.document
        contents.append(orjson.dumps([act.scenario, act.occurred_at, act.quantities, act.place]))
    rows = [
        (item.document.id, item.document.subject, seal(vault.vault, content, item.document.subject))
        for item, content in zip(items, contents, strict=True)
    ]
    earlier = batches.put_unclaimed(tx, provider, rows, now)
    for item, content in zip(items, contents, strict=True):
        act = item.document
        subject, sealed = earlier.get(act.id, (act.subject, b""))
        if subject != act.subject or (sealed and unseal(vault.vault, sealed, subject) != content):
            refuse(result, item, "ACTIVITY_ID_REUSED", _REUSED)
        else:
            result.outcomes[item.position] = outcome(act.id, "unclaimed")
            result.moments.append(item.activity.occurred_at)


def _drop_duplicates(
    tx: Connection, vault: Vault, provider: str, items: list[Item], result: Credited
) -> list[Item]:
    """Stage 4. The same act again names its first entry; another act under its id is refused."""
    arrivals = entries.known(tx, [item.entry_id for item in items]) if items else {}
    first: dict[str, Item] = {}
    for item in items:
        item.opening = item.document.opening(provider)
        earlier = first.setdefault(item.entry_id, item)
        if item.entry_id in arrivals:
            same = _same_opening(tx, vault, item, arrivals[item.entry_id])
        elif earlier is not item:
            same = earlier.who == item.who and earlier.opening == item.opening
        else:
            continue
        if same:
            result.outcomes[item.position] = outcome(
                item.document.id, "duplicate", entry_id=item.entry_id
            )
        else:
            refuse(result, item, "ACTIVITY_ID_REUSED", _REUSED)
    return [item for item in first.values() if item.entry_id not in arrivals]


def _same_opening(tx: Connection, vault: Vault, item: Item, arrival: int) -> bool:
    """Whether the credited act is this one; an act that cannot be read any more counts as same."""
    sealed = people.opening(tx, arrival)
    if sealed is None:
        return True
    try:
        key = vault.subject_key(item.who.resident, item.who.wrapped_key)
        return open_opening(key, item.entry_id, sealed)[1] == item.opening
    except VaultError:
        return False  # another resident's key: the id was used for somebody else's act


def _fund(tx: Connection, items: list[Item]) -> dict[str, str]:
    """Stage 7. Returns the paying budget of each scenario; marks those that have to wait."""
    scopes = budgets.scopes(tx)
    payers = {item.version.scenario: "" for item in items}
    for scenario in payers:
        payers[scenario] = budgets.payer(scopes, scenario) or ""
    left = budgets.lock(tx, {token for token in payers.values() if token})
    for item in items:
        points, budget = item.granted.points, payers[item.version.scenario]
        if points == 0:
            continue
        if points <= left.get(budget, 0):
            left[budget] -= points
        else:
            item.waits = True
            left[budget] = 0  # whoever comes after the first in line stands behind it
    return payers


def _seal_openings(vault: Vault, items: list[Item]) -> None:
    """Stage 5. What a person did, salted, under the person's own key; the ledger only commits."""
    size = SALT_BYTES + NONCE_BYTES
    drawn = os.urandom(size * len(items))
    for place, item in zip(range(0, len(drawn), size), items, strict=True):
        salted = drawn[place : place + SALT_BYTES] + item.opening
        nonce = drawn[place + SALT_BYTES : place + size]
        resident, _, wrapped, _, _ = item.who
        item.commitment = sha256(salted).digest()  # as ledger.encoding.commit does, but in bytes
        item.sealed = vault.close_opening(resident, wrapped, item.entry_id, nonce, salted)


def _append(
    tx: Connection,
    provider: str,
    items: list[Item],
    payers: Mapping[str, str],
    now: datetime,
) -> None:
    """Stage 8."""
    accounts = {item.who.account for item in items}
    people.end_spending(tx, accounts)
    owed = people.debts(tx, accounts)
    at, today = instant(now), now.astimezone(CITY_ZONE).date()
    forms: dict[tuple[int, int], tuple[plain.Terms, plain.Form]] = {}
    made = []
    for item in items:
        version, vintage = item.version, item.activity.day // 10_000
        shared = forms.get((id(version), vintage))
        if shared is None:
            bucket = expiry_bucket(today, version.rate.validity_months)
            budget = payers[version.scenario]
            rule = version.scenario, version.number, version.digest
            terms = plain.Terms(*rule, vintage, budget, bucket)
            shared = forms[id(version), vintage] = terms, plain.Form(terms, at)
        made.append(_issue(item, at, *shared, owed))
    arrivals = entries.append(tx, made)
    people.put_openings(
        tx,
        [
            (arrival, item.who.account, item.sealed)
            for arrival, item in zip(arrivals, items, strict=True)
        ],
    )
    acts.put(
        tx,
        (
            (item.act.cell, arrival, provider, item.act.place)
            for arrival, item in zip(arrivals, items, strict=True)
            if item.act
        ),
    )
    budgets.park(
        tx,
        [
            (
                arrival,
                item.entry_id,
                item.who.resident,
                payers[item.version.scenario],
                item.granted.points,
            )
            for arrival, item in zip(arrivals, items, strict=True)
            if item.waits
        ],
    )


def _report_shadows(tx: Connection, provider: str, items: list[Item], now: datetime) -> None:
    """Rules in shadow mode refuse nothing; what they would have refused is counted."""
    alike: dict[tuple[int, tuple[str, ...]], list[Item]] = {}  # by edition and rules broken
    for item in items:
        if shadow := item.granted.shadow:
            alike.setdefault((id(item.version), shadow), []).append(item)
    found: Counter[tuple[str, int, str]] = Counter()
    avoided: Counter[tuple[str, int, str]] = Counter()
    for (_, shadow), some in alike.items():
        version, mg = some[0].version, sum([item.mg for item in some])
        for rule in shadow:
            key = version.scenario, version.number, rule
            found[key] += len(some)
            avoided[key] += mg
    if found:
        batches.put_shadow_refusals(
            tx, ((now, provider, *key, count, avoided[key]) for key, count in found.items())
        )


def _issue(
    item: Item,
    at: str,
    terms: plain.Terms,
    form: plain.Form,
    owed: dict[str, dict[Asset, int]],
) -> Entry | plain.Issue:
    points, withheld, _, _, _ = item.granted
    resident, account, _, _, _ = item.who
    awaiting = 0
    if item.waits:
        points, awaiting = 0, points
    if resident not in owed:
        key = bytes.fromhex(item.entry_id)
        return form.issue(key, account, item.commitment, item.mg, points, awaiting, withheld)
    entry = issue(
        id=item.entry_id,
        at=at,
        resident=resident,
        rule=Rule(terms.scenario, terms.version, terms.digest),
        commitment=item.commitment.hex(),
        reduction_mg=item.mg,
        vintage=terms.vintage,
        points=points,
        bucket=terms.bucket,
        budget=terms.budget,
        awaiting=awaiting,
        withheld=withheld,
        debt=owed[resident],
    )
    people.repay(owed, entry)
    return entry


def _accepted(item: Item) -> dict[str, Any]:
    points, withheld, cap, _, _ = item.granted
    answer: dict[str, Any] = {
        "id": item.document.id,
        "outcome": "accepted",
        "entry_id": item.entry_id,
        "reduction_mg": str(item.mg),
        "points": "0" if item.waits else str(points),
    }
    if item.waits:
        answer |= {"waiting_points": str(points), "reason": "WAITING_FOR_BUDGET"}
    elif cap:
        answer |= {"withheld_points": str(withheld), "reason": "CAP_REACHED", "cap": cap}
    return answer
