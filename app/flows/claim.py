"""Claim: what a provider reported of somebody before we knew whom it meant is credited later."""

from __future__ import annotations

from datetime import datetime

import orjson
from sqlalchemy import Connection, Engine

from app.flows.credit import credit
from app.flows.document import Document
from app.store import batches, people
from app.store.catalogue import Registry
from app.store.db import transact
from app.vault import Vault, unseal

_PAGE = 1000  # people a round


def claim(
    tx: Connection,
    vault: Vault,
    registry: Registry,
    provider: str,
    subject: bytes,
    now: datetime,
) -> int:
    """Credit what a provider reported for this identifier before it was bound, in time order.

    What the resident has not consented to goes on waiting. Returns how many acts were judged.
    """
    waiting = [_waiting(vault, subject, item) for item in batches.unclaimed(tx, provider, subject)]
    scenarios = {document.scenario for document in waiting}
    member = people.resolve_and_lock(tx, [subject], scenarios).get(subject) if waiting else None
    if member is None or member.restricted:
        return 0
    rest = [(one.id, one.scenario) for one in waiting if one.scenario not in member.consented]
    documents = [one for one in waiting if one.scenario in member.consented]
    if rest:
        batches.await_consent(tx, provider, rest)
    if documents:
        batches.take_unclaimed(tx, provider, [document.id for document in documents])
        documents.sort(key=lambda document: datetime.fromisoformat(document.occurred_at))
        credited = credit(tx, vault, registry.current(tx), provider, documents, now)
        label = f"binding-{subject[:8].hex()}"  # in place of the batches it came in
        batches.put_rejections(tx, provider, label, credited.rejected, now)
    return len(documents)


def _waiting(vault: Vault, subject: bytes, item: batches.Unclaimed) -> Document:
    content = orjson.loads(unseal(vault.vault, item.sealed, subject))
    scenario, occurred_at, quantities, place = content
    name = item.activity_id
    return Document(name, subject, scenario, occurred_at, quantities, name, place)


def claim_stragglers(engine: Engine, vault: Vault, registry: Registry, now: datetime) -> int:
    """Credit acts that were put aside in the very moment in which their subject was bound."""
    with engine.begin() as tx:
        found = batches.claimable(tx, _PAGE)
    return sum(_claim(engine, vault, registry, *who, now) for who in found)


def _claim(
    engine: Engine, vault: Vault, registry: Registry, provider: str, subject: bytes, now: datetime
) -> int:
    return transact(engine, lambda tx: claim(tx, vault, registry, provider, subject, now))
