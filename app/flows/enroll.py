"""Join a resident and bind a provider's identifier; what came before the binding is credited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex

import orjson
from sqlalchemy import Connection, Engine

from app.flows.credit import credit
from app.flows.document import Document
from app.store import batches, people
from app.store.catalogue import Registry
from app.store.db import transact
from app.vault import Vault, unseal

_PAGE = 1000  # people a round


def join(tx: Connection, vault: Vault, district: str, now: datetime) -> str:
    """Add a resident; return the account token."""
    resident = token_hex(16)
    people.join(tx, resident, vault.new_subject_key(resident), district, now)
    return resident


def enroll(
    engine: Engine,
    vault: Vault,
    registry: Registry,
    provider: str,
    subjects: Sequence[str],
    district: str,
    now: datetime,
) -> dict[str, str]:
    """Make a consenting resident for each identifier that has none; return everybody's token.

    For demo and test mode, where nobody can be asked.
    """
    hashed = {vault.subject(provider, subject): subject for subject in subjects}
    with engine.begin() as tx:
        known = people.bound_to(tx, list(hashed))
        for subject in hashed:
            if subject not in known:
                known[subject] = join(tx, vault, district, now)
                people.bind(tx, subject, known[subject], provider, now)
                claim(tx, vault, registry, provider, subject, now)
    return {hashed[subject]: resident for subject, resident in known.items()}


def claim(
    tx: Connection,
    vault: Vault,
    registry: Registry,
    provider: str,
    subject: bytes,
    now: datetime,
) -> int:
    """Credit what a provider reported for this identifier before it was bound, in time order."""
    documents = []
    for item in batches.take_unclaimed(tx, provider, subject):
        content = orjson.loads(unseal(vault.vault, item.sealed, subject))
        scenario, occurred_at, quantities, place = content
        identifier = item.activity_id
        documents.append(
            Document(identifier, subject, scenario, occurred_at, quantities, identifier, place)
        )
    documents.sort(key=lambda document: datetime.fromisoformat(document.occurred_at))
    if documents:
        credited = credit(tx, vault, registry.current(tx), provider, documents, now)
        label = f"binding-{subject[:8].hex()}"  # in place of the batches it came in
        batches.put_rejections(tx, provider, label, credited.rejected, now)
    return len(documents)


def claim_stragglers(engine: Engine, vault: Vault, registry: Registry, now: datetime) -> int:
    """Credit acts that were put aside in the very moment in which their subject was bound."""
    with engine.begin() as tx:
        found = batches.claimable(tx, _PAGE)
    return sum(_claim(engine, vault, registry, *who, now) for who in found)


def _claim(
    engine: Engine, vault: Vault, registry: Registry, provider: str, subject: bytes, now: datetime
) -> int:
    return transact(engine, lambda tx: claim(tx, vault, registry, provider, subject, now))
