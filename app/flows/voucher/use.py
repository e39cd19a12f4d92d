"""Use: take a voucher at a till, once."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from app.flows import pay_code
from app.flows.voucher import asked
from app.flows.voucher.asked import VoucherError
from app.flows.webhook.emit import emit
from app.store import voucher_moves, vouchers
from app.store.merchants import Till
from app.store.voucher_moves import Move
from app.store.vouchers import Voucher
from app.vault import Vault
from ledger.buckets import day_of
from ledger.entries import instant


class Scan(NamedTuple):
    """What a till has read, under the merchant's number; `merchant` is an id in hex."""

    merchant: str
    number: str
    code: str
    till: Till


def use(engine: Engine, vault: Vault, scan: Scan, now: datetime) -> tuple[Move, bool]:
    """Use the voucher of a code; the answer, which may be a refusal, and whether it is an old one.

    Of two tills that scan it at once one succeeds, and the other is told when and where it was
    used. Raises VoucherError REQUEST_NO_REUSED.
    """
    meant = asked.digest(vault, "use", scan.code, scan.till.code)
    request = Move(
        scan.merchant,
        scan.number,
        "use",
        meant,
        now,
        store=scan.till.store,
        till=scan.till.id,
    )

    def work(tx: Connection, request: Move) -> Move:
        named = asked.find(tx, vault, scan.merchant, scan.code, now)
        found = asked.own(tx, scan.merchant, named.voucher)
        asked.issued(tx, found)
        if day_of(instant(now)) > found.valid_until:
            raise asked.lapsed(found)
        in_its_store(tx, found, scan.till)
        if named.shown is not None:
            pay_code.use(tx, named.shown, now)
        return taken(tx, vault, found, request, scan.till, now)

    return asked.answered(engine, request, work)


def taken(
    tx: Connection, vault: Vault, found: Voucher, request: Move, till: Till, now: datetime
) -> Move:
    """Mark a voucher, which the caller has locked, as used; and tell the merchant's endpoints."""
    vouchers.turn(tx, found.id, "used", now)
    told = {
        "out_use_no": request.number,
        "voucher": found.id,
        "reward": found.reward,
        "points": str(found.points),
        "till": till.code,
        "offline": request.offline,
    }
    emit(tx, vault, found.merchant, "voucher.used", request.number, told, request.at)
    return request._replace(voucher=found.id)


def in_its_store(tx: Connection, found: Voucher, till: Till) -> None:
    """Hold what is picked up at one store to that one. Raises VoucherError VOUCHER_ELSEWHERE."""
    place = vouchers.terms(tx, found.reward).store
    if place is not None and place != till.store:
        detail = "this voucher is used at the store named on it, and nowhere else"
        raise VoucherError("VOUCHER_ELSEWHERE", detail, found.id)


def find_use(tx: Connection, merchant: str, number: str) -> Move | None:
    """A merchant's use of this number, whatever became of it."""
    found = voucher_moves.find(tx, merchant, number)
    return found if found is not None and found.kind == "use" else None
