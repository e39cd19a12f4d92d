"""Expire: cancel points whose last valid day is past, bucket by bucket, a page a transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from app.config import CITY_ZONE
from app.store import entries, people
from app.vault import Vault
from ledger.buckets import day_number
from ledger.entries import instant
from ledger.transfers import expire

_PAGE = 1000


def expire_points(engine: Engine, vault: Vault, now: datetime) -> int:
    """Expire all that is due; return how many wallets and buckets were emptied."""
    at, today = instant(now), day_number(now.astimezone(CITY_ZONE).date())
    total = 0
    while True:
        with engine.begin() as tx:
            due = people.lock_expired(tx, today, _PAGE)
            made = [
                # An emptied bucket cannot be emptied twice, but points can come back into it (a
                # release, a refund) and expire again: so the key holds the moment.
                expire(
                    id=vault.entry_id("expire", f"{resident}\0{bucket}\0{at}"),
                    at=at,
                    resident=resident,
                    bucket=bucket,
                    points=points,
                    today=today,
                )
                for resident, bucket, points in due
            ]
            entries.append(tx, made)
        total += len(made)
        if not made:
            return total
