"""Erase a person: what could name them goes, what the ledger committed to stays provable."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from app.store import budgets, entries, people
from app.vault import Vault
from ledger.accounts import Asset
from ledger.entries import Entry, instant
from ledger.errors import Refused
from ledger.transfers import adjust, erase_subject


def erase(engine: Engine, vault: Vault, resident: str, now: datetime) -> Entry:
    """Destroy the resident's key, openings, bindings, consents, counters and rejections, and seal
    that this was done. Open holds must be resolved first. Raises Refused.

    Points left in the wallet go back to the general budget by ordinary entries, so that others
    can earn them; the carbon stays credited, to nobody.
    """
    with engine.begin() as tx:
        entry_id = vault.entry_id("erase", resident)
        found = entries.find(tx, entry_id)
        if found is not None:
            return found[1]
        if people.lock(tx, resident) is None:
            raise Refused("There is no such resident.")
        if people.held(tx, resident):
            raise Refused("Points are on hold; release or redeem them first.")
        general = budgets.scopes(tx)[budgets.ANY_SCOPE]
        closing = [
            adjust(
                id=vault.entry_id("close", f"{resident}\n{bucket}"),
                at=instant(now),
                resident=resident,
                budget=general,
                points=-points,
                bucket=bucket,
                reason="account closed",
            )
            for (asset, bucket), points in sorted(people.wallet(tx, resident).items())
            if asset is Asset.POINT
        ]
        entry = erase_subject(id=entry_id, at=instant(now), resident=resident)
        entries.append(tx, [*closing, entry])
        people.forget(tx, resident, now)
        return entry
