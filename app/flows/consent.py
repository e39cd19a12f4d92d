"""Consent to one scenario's reports from one provider, by the text that was read."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256

from scenarios import Catalogue, Rejected, Version
from scenarios.activity import business_day


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
