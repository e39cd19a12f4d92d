"""Show: what a resident holds up at a till, fresh each minute; and what works without network."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Final, NamedTuple

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows.pay_code import Code, new_code
from app.flows.setting import setting
from app.flows.voucher import asked
from app.flows.voucher.asked import VoucherError
from app.flows.voucher.token import Token, sign
from app.store import vouchers
from app.store.vouchers import Voucher
from app.vault import Vault
from ledger.buckets import day_of
from ledger.entries import instant

SLOW: Final = timedelta(minutes=2)
"""A till's clock may be behind ours by so much."""


class Shown(NamedTuple):
    """A dynamic code, and a token for tills without network, or None above the limits."""

    code: Code
    offline: str | None


def show(
    tx: Connection, vault: Vault, resident: str, id: str, device: bytes | None, now: datetime
) -> Shown:
    """A fresh code for one of a resident's vouchers. Raises VoucherError NOT_FOUND, VOUCHER_USED,
    VOUCHER_VOIDED, VOUCHER_LAPSED; PayCodeError."""
    found = vouchers.find(tx, id)
    if found is None or found.resident != resident:
        raise VoucherError("NOT_FOUND", "you have no voucher of this id")
    asked.issued(tx, found)
    if day_of(instant(now)) > found.valid_until:
        raise asked.lapsed(found)
    code = new_code(tx, vault, resident, device, now, bytes.fromhex(id))
    return Shown(code, _token(tx, vault, found, now))


def _token(tx: Connection, vault: Vault, found: Voucher, now: datetime) -> str | None:
    minutes = setting(tx, "offline_minutes")
    if not minutes or found.points > setting(tx, "offline_points"):
        return None
    last = datetime.combine(date.fromisoformat(str(found.valid_until)), time.max, CITY_ZONE)
    ends = min(now + timedelta(minutes=minutes), last)
    return sign(
        vault,
        Token(
            voucher=found.id,
            merchant=found.merchant,
            reward=found.reward,
            points=found.points,
            not_before=int((now - SLOW).timestamp()),
            not_after=int(ends.timestamp()),
        ),
    )
