"""Expire: cancel points whose last valid day is past, bucket by bucket, a page a transaction."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Engine

from app.config import CITY_ZONE
from app.store import entries, expiring
from app.store.expiring import START, Place
from app.vault import Vault
from ledger.buckets import day_number
from ledger.entries import instant
from ledger.transfers import expire

_PAGE = 1000


class Expiry:
    """Goes through all wallets once a day, a page a step; begun anew, it goes on where points are
    left."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault
        self._after: Place = START
        self._done: date | None = None
        self.expired = 0

    def step(self, now: datetime) -> bool:
        """Expire one page of what is due; whether there may be more today."""
        today = now.astimezone(CITY_ZONE).date()
        if self._done == today:
            return False
        with self._engine.begin() as tx:
            places = expiring.due(tx, day_number(today), self._after, _PAGE)
            made = [
                # An emptied bucket cannot be emptied twice, but points can come back into it (a
                # release, a refund) and expire again: so the key holds the moment.
                expire(
                    id=self._vault.entry_id("expire", f"{resident}\0{bucket}\0{instant(now)}"),
                    at=instant(now),
                    resident=resident,
                    bucket=bucket,
                    points=points,
                    today=day_number(today),
                )
                for resident, bucket, points in expiring.lock(tx, places)
            ]
            entries.append(tx, made)
        self.expired += len(made)
        more = len(places) == _PAGE
        self._after, self._done = (places[-1], None) if more else (START, today)
        return more


def expire_points(engine: Engine, vault: Vault, now: datetime) -> int:
    """Expire all that is due; return how many wallets and buckets were emptied."""
    expiry = Expiry(engine, vault)
    while expiry.step(now):
        pass
    return expiry.expired
