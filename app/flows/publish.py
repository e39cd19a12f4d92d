"""Publish scenario versions: into the registry and, as entries, into the ledger, in one commit."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex

from sqlalchemy import Engine

from app.config import CITY_ZONE
from app.store import budgets, catalogue, entries
from app.vault import Vault
from ledger.entries import instant
from ledger.transfers import publish_scenario
from scenarios import Catalogue, Version


class PublishedVersionChangedError(Exception):
    """A version that was published has other content now; published versions are never edited."""

    code = "PUBLISHED_VERSION_CHANGED"


class EffectInThePastError(Exception):
    """A later version would change the rule for acts that are credited already."""

    code = "EFFECT_IN_THE_PAST"


def publish(engine: Engine, vault: Vault, drafts: Catalogue, now: datetime) -> int:
    """Publish every version that is not yet; return how many. Raises PublishedVersionChangedError,
    EffectInThePastError.

    Also makes the general budget, so that every scenario has a payer, funded or not.
    """
    with engine.begin() as tx:
        known = catalogue.digests(tx)
        new: list[Version] = []
        today = now.astimezone(CITY_ZONE).date()
        for scenario in drafts.scenarios:
            for version in drafts.versions(scenario):
                digest = known.get((scenario, version.number))
                if digest is None and version.number > 1 and version.effective_from <= today:
                    raise EffectInThePastError(
                        f"{scenario} version {version.number} would take effect on"
                        f" {version.effective_from}; name a day after today, since what was"
                        " credited stays credited"
                    )
                if digest is None:
                    new.append(version)
                elif digest != version.digest:
                    raise PublishedVersionChangedError(
                        f"{scenario} version {version.number} was published with other content;"
                        " undo the edit and add a new version"
                    )
        catalogue.put(tx, new, now)
        entries.append(
            tx,
            [
                publish_scenario(
                    id=vault.entry_id("publish", f"{version.scenario}\0{version.number}"),
                    at=instant(now),
                    scenario=version.scenario,
                    version=version.number,
                    digest=version.digest,
                    effective_from=str(version.effective_from),
                )
                for version in new
            ],
        )
        budgets.create(tx, token_hex(16), "general", budgets.ANY_SCOPE, now)
        return len(new)
