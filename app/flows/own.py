"""Sources of our own: what residents bring themselves is credited like what providers report.

WeChat's step counts and residents' own reports have a provider's code each, to consent to and to
be seen in the statement. The residents' identifier with them is their account.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from app.flows.credit import credit
from app.flows.document import Document
from app.store import batches, people, providers, reports
from app.vault import Vault
from scenarios import Catalogue, Version
from scenarios.activity import business_day

WERUN: Final = "werun"
SELF: Final = "self"
SOURCES: Final = {WERUN: "微信运动", SELF: "居民自报"}

STEPS: Final = "travel.walk_steps"
SHOWN: Final = ("photo", "code", "declared")
"""Evidence that a resident can have."""


class SourceError(Exception):
    """A resident may not report here; the code says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Reporter(NamedTuple):
    """A resident who may report, locked: wrapped key, the keyed hash to report under, first day."""

    wrapped_key: bytes
    subject: bytes
    joined_on: int


def takes(source: str, version: Version) -> bool:
    """Whether acts of this edition can come from a source; from a provider all can."""
    if source == WERUN:
        return version.scenario == STEPS
    return source != SELF or version.evidence.kind in SHOWN


def register(tx: Connection, now: datetime) -> None:
    """Make these sources known, once."""
    for code, name in SOURCES.items():
        providers.add(tx, code, name, now)


def bind(tx: Connection, vault: Vault, source: str, resident: str, now: datetime) -> bytes:
    """Tie a resident to a source, once; the keyed hash that stands for them there."""
    subject = vault.subject(source, resident)
    people.bind(tx, source, {subject: resident}, now)
    return subject


def admit(
    tx: Connection, vault: Vault, source: str, resident: str, scenario: str, now: datetime
) -> Reporter:
    """Lock a resident who may report this now. Raises SourceError SUBJECT_ERASED, CONSENT_MISSING,
    PROCESSING_RESTRICTED."""
    wrapped = people.lock(tx, resident)
    if wrapped is None:
        raise SourceError("SUBJECT_ERASED", "this account was closed")
    detail = f"you have not consented to {scenario} from {source}; PUT /api/v1/me/consents"
    if not providers.exists(tx, source):  # nothing was published since the program was renewed
        raise SourceError("CONSENT_MISSING", detail)
    subject = bind(tx, vault, source, resident, now)
    member = people.resolve_and_lock(tx, [subject], [scenario])[subject]
    if scenario not in member.consented:
        raise SourceError("CONSENT_MISSING", detail)
    if member.restricted:
        raise SourceError("PROCESSING_RESTRICTED", "you have restricted the use of your data")
    joined_on = business_day(reports.joined_at(tx, resident))
    return Reporter(wrapped, subject, joined_on)


def credit_own(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    source: str,
    label: str,
    documents: Sequence[Document],
    now: datetime,
) -> list[dict[str, Any]]:
    """Credit documents of a source of ours; refusals are kept under `label` for "why not"."""
    credited = credit(tx, vault, catalogue, source, documents, now)
    batches.put_rejections(tx, source, label, credited.rejected, now)
    return credited.outcomes
