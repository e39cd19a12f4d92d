"""Give back: undo a use, so that the voucher can be used again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine

from app.flows.voucher import asked
from app.flows.voucher.asked import VoucherError
from app.flows.voucher.use import find_use
from app.store import voucher_moves, vouchers
from app.store.merchants import Partner
from app.store.voucher_moves import Move
from app.vault import Vault
from ledger.buckets import day_of
from ledger.entries import instant


def give_back(
    engine: Engine, vault: Vault, partner: Partner, used: str, number: str, now: datetime
) -> tuple[Move, bool]:
    """Undo the use of number `used` under a number of its own; the answer and whether it is an old
    one. The voucher is issued again, if it is still valid today.

    Raises VoucherError USE_UNKNOWN and TILL_NOT_YOURS, which are not kept, and REQUEST_NO_REUSED.
    """
    merchant = partner.id
    meant = asked.digest(vault, "return", used)
    request = Move(merchant, number, "return", meant, now, use=used)
    with engine.connect() as tx:
        known = find_use(tx, merchant, used)
        if known is None:
            detail = f"no use of the number {used} came here; send it again, or leave it"
            raise VoucherError("USE_UNKNOWN", detail)
        if partner.till not in (None, known.till):
            detail = "this use was made at another till than the one whose key has signed"
            raise VoucherError("TILL_NOT_YOURS", detail)

    def work(tx: Connection, request: Move) -> Move:
        use = find_use(tx, merchant, used)
        named = vouchers.find(tx, use.voucher) if use and use.voucher else None
        if use is None or named is None or use.state == "failed":
            raise VoucherError("USE_FAILED", "this use failed, so there is nothing to return")
        found = asked.own(tx, merchant, named)
        if voucher_moves.returned(tx, use):
            raise VoucherError("USE_RETURNED", "this use was returned before", found.id)
        if day_of(instant(now)) > found.valid_until:
            raise asked.lapsed(found)
        vouchers.turn(tx, found.id, "issued", now)
        return request._replace(voucher=found.id)

    return asked.answered(engine, request, work)
