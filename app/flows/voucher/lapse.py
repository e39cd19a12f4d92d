"""Lapse: vouchers past their last day end; and their residents are reminded before it.

A voucher may have been taken on its last day by a till without network, which may report that for
`offline_days`. So long it stays as it is; nobody can use it online, and no token is made of it.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.notify import notify
from app.flows.order.refund import refund
from app.flows.setting import setting
from app.flows.voucher import asked
from app.store import vouchers
from app.store.db import transact
from app.store.vouchers import Voucher
from app.vault import Vault
from ledger.buckets import day_number

ENDING: Final = "voucher.ending"
RETURNED: Final = "points.returned"
NOTICE: Final = timedelta(days=3)
"""So long before its last day ends a voucher's resident is told."""

_PAGE = 100
_UNUSED = {"refund": "逾期未用积分将自动退回。", "lapse": "逾期未用不退积分。"}


class Lapses:
    """Goes through what ends once a day, a page a step; both may be begun anew at any time."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault
        self._done: date | None = None

    def step(self, now: datetime) -> bool:
        """End one page of vouchers, and remind one page of residents; whether there may be more
        today."""
        today = now.astimezone(CITY_ZONE).date()
        if self._done == today:
            return False
        with self._engine.connect() as tx:
            past = vouchers.past(tx, day_number(today - late(tx)), _PAGE)
        for voucher in past:
            transact(self._engine, partial(lapse, vault=self._vault, id=voucher, now=now))
        told = self._remind(now, today)
        more = _PAGE in (len(past), told)
        self._done = None if more else today
        return more

    def _remind(self, now: datetime, today: date) -> int:
        days = day_number(today), day_number(today + NOTICE)
        with self._engine.begin() as tx:
            # who orders what ends within days has just been told
            found = vouchers.ending(tx, ENDING, *days, now - NOTICE, _PAGE)
            for one in found:
                params = {
                    "title": one.title,
                    "date": date.fromisoformat(str(one.voucher.valid_until)).isoformat(),
                    "unused": _UNUSED[one.unused],
                }
                resident = one.voucher.resident or ""
                notify(tx, self._vault, resident, ENDING, one.voucher.id, params, now)
        return len(found)


def late(tx: Connection) -> timedelta:
    """How long after a voucher's last day a till may still report that it was used."""
    return timedelta(days=setting(tx, "offline_days"))


def lapse(tx: Connection, vault: Vault, id: str, now: datetime) -> None:
    """End one voucher, unless somebody used or ended it meanwhile; and give its points back, if its
    reward says so."""
    named = vouchers.find(tx, id)
    if named is None:
        return
    found = asked.own(tx, named.merchant, named)
    if found.state != "issued":
        return
    vouchers.turn(tx, id, "lapsed", now)
    terms = vouchers.terms(tx, found.reward)
    if terms.unused != "refund":
        return
    tell(tx, vault, found, f"「{terms.title}」逾期未用。", now)
    refund(tx, vault, found.order, found.points, id, "lapse", now)


def tell(tx: Connection, vault: Vault, found: Voucher, reason: str, now: datetime) -> None:
    """Tell a voucher's resident, if there still is one, that its points are back and why."""
    if found.resident is not None:
        params = {"points": str(found.points), "reason": reason}
        notify(tx, vault, found.resident, RETURNED, found.id, params, now)
