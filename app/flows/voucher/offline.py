"""Offline: judge what a till without network has taken, once it has network again.

Of two tills that took the same voucher the first to report counts; the other opens a case, with
both tills in it. What was ended meanwhile by other means opens one too, and what a till took beyond
what it may in a day: goods were handed out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.setting import setting
from app.flows.voucher import asked, use
from app.flows.voucher.asked import VoucherError
from app.flows.voucher.lapse import late
from app.flows.voucher.token import Token, TokenError, keys, read
from app.store import cases, merchants, voucher_moves, vouchers
from app.store.merchants import Till
from app.store.voucher_moves import Move
from app.store.vouchers import Voucher
from app.vault import Vault


class Taken(NamedTuple):
    """What a till took without network, under the merchant's number, and when."""

    merchant: str
    number: str
    token: str
    till: Till
    used_at: datetime


def report(engine: Engine, vault: Vault, taken: Taken, now: datetime) -> tuple[Move, bool]:
    """Count an offline use; the answer, which may be a refusal, and whether it is an old one.

    Raises VoucherError REQUEST_NO_REUSED.
    """
    at = taken.used_at
    meant = asked.digest(
        vault, "offline", taken.token, taken.till.code, str(int(at.timestamp() * 1000))
    )
    request = Move(
        taken.merchant,
        taken.number,
        "use",
        meant,
        at,
        store=taken.till.store,
        till=taken.till.id,
        offline=True,
    )

    def work(tx: Connection, request: Move) -> Move:
        token = _token(tx, vault, taken, now)
        named = vouchers.find(tx, token.voucher)
        if named is None:
            raise VoucherError("OFFLINE_TOKEN_INVALID", "there is no voucher of this token")
        found = asked.own(tx, taken.merchant, named)
        try:
            asked.issued(tx, found)
            _has_room(tx, found, taken)
        except VoucherError as refusal:
            _open_case(tx, found, taken, refusal, now)
            raise
        return use.taken(tx, vault, found, request, taken.till, now)

    return asked.answered(engine, request, work)


def _token(tx: Connection, vault: Vault, taken: Taken, now: datetime) -> Token:
    """What the token says, if it was good at that till at that time. Raises VoucherError."""
    try:
        token = read(keys(vault), taken.token)
    except TokenError as error:
        raise VoucherError(error.code, str(error)) from None
    if token.merchant != taken.merchant:
        raise VoucherError("VOUCHER_NOT_YOURS", "this voucher is another merchant's")
    at = taken.used_at.timestamp()
    if not token.not_before <= at < token.not_after + 1 or taken.used_at > now + _FAST:
        detail = "used_at lies outside of the time for which the token was good"
        raise VoucherError("OFFLINE_TIME", detail)
    if now - taken.used_at > late(tx):
        detail = f"this was {setting(tx, 'offline_days')} days ago or more; it is too late"
        raise VoucherError("OFFLINE_TOO_LATE", detail)
    return token


_FAST = timedelta(minutes=5)  # a till's clock may be ahead of ours


def _has_room(tx: Connection, found: Voucher, taken: Taken) -> None:
    """Hold a till to what it may take without network in a day of its own. Raises VoucherError."""
    merchants.lock_till(tx, taken.till.id)  # or two reports at once were both the last
    begins = taken.used_at.astimezone(CITY_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    most = setting(tx, "offline_per_till_day")
    if voucher_moves.offline_uses(tx, taken.till.id, begins, begins + timedelta(days=1)) >= most:
        detail = f"a till takes at most {most} vouchers a day without network"
        raise VoucherError("OFFLINE_FULL", detail, found.id)


_RULES = {"VOUCHER_USED": "offline.used_twice", "OFFLINE_FULL": "offline.full"}


def _open_case(
    tx: Connection, found: Voucher, taken: Taken, refusal: VoucherError, now: datetime
) -> None:
    place = voucher_moves.last_use(tx, found.id)
    facts = {
        "voucher": found.id,
        "points": str(found.points),
        "code": refusal.code,
        "till": taken.till.code,
        "out_use_no": taken.number,
        "used_at": taken.used_at.astimezone(CITY_ZONE).isoformat(timespec="seconds"),
    }
    if place is not None and found.state == "used":
        facts |= {
            "first_store": place.store,
            "first_till": place.till,
            "first_used_at": place.at.astimezone(CITY_ZONE).isoformat(timespec="seconds"),
        }
    rule = _RULES.get(refusal.code, "offline.ended")
    key = f"{found.merchant} {taken.number}"
    cases.open_case(tx, cases.Finding("offline", rule, key, found.merchant, facts), now)
