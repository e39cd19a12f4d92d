"""Consent to one scenario's reports from one provider, by the text that was read.

What is withdrawn stops at once: who reports holds the resident's lock while crediting, and so does
who withdraws. What was credited before stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection

from app.flows import privacy
from app.flows.claim import claim
from app.store import bindings, consents, people, providers
from app.store.catalogue import Registry
from app.vault import Vault
from scenarios import Catalogue, Rejected, Version
from scenarios.activity import business_day


class ConsentError(Exception):
    """A consent cannot be given so. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Wish(NamedTuple):
    """A consent to give, to the text of that digest, or to withdraw."""

    provider: str
    scenario: str
    text_digest: str
    given: bool


def text_digest(version: Version) -> str:
    """SHA-256, in hex, of the Chinese text (UTF-8) that a resident agrees to."""
    return sha256(version.consent.zh.encode()).hexdigest()


def open_scenarios(catalogue: Catalogue, now: datetime) -> dict[str, Version]:
    """The editions in force that take activities: what can be consented to, by scenario."""
    found, day = {}, business_day(now)
    for scenario in catalogue.scenarios:
        try:
            version = catalogue.in_force(scenario, day)
        except Rejected:  # none of its editions has begun, or none stands
            continue
        if version.enabled:
            found[scenario] = version
    return found


def decide(
    tx: Connection,
    vault: Vault,
    registry: Registry,
    resident: str,
    wishes: Sequence[Wish],
    now: datetime,
) -> None:
    """Give and withdraw consents of a resident, all or none; what waited for one is credited.

    Raises ConsentError, NoticeNotInForceError.
    """
    if people.lock(tx, resident) is None:
        raise ConsentError("NOT_FOUND", "there is no such resident any more")
    if any(wish.given for wish in wishes):
        privacy.must_have_accepted(tx, resident)
    versions = open_scenarios(registry.current(tx), now)
    for provider, some in groupby(sorted(wishes), lambda wish: wish.provider):
        _decide(tx, resident, provider, list(some), versions, now)
    claim_bound(tx, vault, registry, resident, {wish.provider for wish in wishes}, now)


def _decide(
    tx: Connection,
    resident: str,
    provider: str,
    wishes: Sequence[Wish],
    versions: dict[str, Version],
    now: datetime,
) -> None:
    given = {wish.scenario: wish.text_digest for wish in wishes if wish.given}
    ended = {wish.scenario for wish in wishes if not wish.given}
    if given and not providers.exists(tx, provider):
        raise ConsentError("NOT_FOUND", f"there is no provider {provider}")
    for scenario, digest in given.items():
        if scenario not in versions:
            raise ConsentError("NOT_FOUND", f"{scenario[:60]} takes no activities at present")
        if digest != text_digest(versions[scenario]):
            raise ConsentError(
                "CONSENT_TEXT_CHANGED",
                f"this is not the text in force for {scenario}; read it again, then consent",
            )
    who = bytes.fromhex(resident)
    if given:
        consents.give(tx, provider, [who], given, now)
    if ended:
        consents.withdraw(tx, provider, who, ended, now)


def withdraw_all(
    tx: Connection, resident: str, provider: str | None, scenario: str | None, now: datetime
) -> None:
    """Withdraw every consent of a resident, or those of one provider, of one scenario, or both."""
    people.lock(tx, resident)
    who = bytes.fromhex(resident)
    held = [
        one
        for one in consents.of(tx, who)
        if provider in (None, one.provider) and scenario in (None, one.scenario)
    ]
    for code, some in groupby(held, lambda one: one.provider):
        consents.withdraw(tx, code, who, {one.scenario for one in some}, now)


def claim_bound(
    tx: Connection,
    vault: Vault,
    registry: Registry,
    resident: str,
    codes: Iterable[str],
    now: datetime,
) -> int:
    """Credit what waits for a resident's identifiers at these providers; how much was judged."""
    wanted = set(codes)
    return sum(
        claim(tx, vault, registry, bound.provider, bound.subject, now)
        for bound in bindings.of(tx, resident)
        if bound.provider in wanted
    )
