"""Enrol: make residents who were never asked, in demo and test mode only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, Engine

from app.flows.claim import claim
from app.flows.consent import open_scenarios, text_digest
from app.flows.join import add_resident
from app.store import consents, people
from app.store.catalogue import Registry
from app.vault import Vault
from scenarios import Version


def connect(
    tx: Connection,
    provider: str,
    bonds: Mapping[bytes, str],
    versions: Mapping[str, Version],
    now: datetime,
) -> None:
    """Bind hashed identifiers to residents who consent to what these editions say."""
    people.bind(tx, provider, bonds, now)
    texts = {scenario: text_digest(version) for scenario, version in versions.items()}
    residents = [bytes.fromhex(resident) for resident in set(bonds.values())]
    consents.give(tx, provider, residents, texts, now)


def enroll(
    engine: Engine,
    vault: Vault,
    registry: Registry,
    provider: str,
    subjects: Sequence[str],
    district: str,
    now: datetime,
    only: Collection[str] | None = None,
) -> dict[str, str]:
    """Make a resident for each identifier that has none; return everybody's token.

    They consent to every scenario that takes activities, or to `only` some.
    """
    hashed = {vault.subject(provider, subject): subject for subject in subjects}
    with engine.begin() as tx:
        known = people.bound_to(tx, list(hashed))
        bonds = {
            subject: add_resident(tx, vault, district, now)
            for subject in hashed
            if subject not in known
        }
        versions = open_scenarios(registry.current(tx), now)
        agreed = {name: one for name, one in versions.items() if only is None or name in only}
        connect(tx, provider, bonds, agreed, now)
        for subject in bonds:
            claim(tx, vault, registry, provider, subject, now)
    known |= bonds
    return {subject: known[digest] for digest, subject in hashed.items()}
