"""Void: end a voucher that was not used, and give its points back."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from app.flows.order.refund import refund
from app.flows.voucher import asked
from app.flows.voucher.asked import VoucherError
from app.flows.voucher.lapse import tell
from app.store import vouchers
from app.store.voucher_moves import Move
from app.store.vouchers import Voucher
from app.vault import Vault


class Ask(NamedTuple):
    """What a merchant asks: the voucher by its id or by what a till has read, the other None."""

    merchant: str
    number: str
    voucher: str | None
    code: str | None
    reason: str
    staff: str | None


def void(engine: Engine, vault: Vault, ask: Ask, now: datetime) -> tuple[Move, bool]:
    """Void a voucher; the answer, which may be a refusal, and whether it is an old one.

    Its points go back to whoever ordered it, or to nobody if they left; the piece goes back into
    stock, unless its code was the merchant's own. Raises VoucherError REQUEST_NO_REUSED.
    """
    meant = asked.digest(vault, "void", ask.voucher, ask.code, ask.reason, ask.staff)
    request = Move(ask.merchant, ask.number, "void", meant, now, staff=ask.staff, reason=ask.reason)

    def work(tx: Connection, request: Move) -> Move:
        found = asked.own(tx, ask.merchant, _named(tx, vault, ask, now))
        asked.issued(tx, found)
        vouchers.turn(tx, found.id, "voided", now)
        title = vouchers.terms(tx, found.reward).title
        tell(tx, vault, found, f"商户撤销了「{title}」。", now)
        refund(tx, vault, found.order, found.points, ask.number, "void", now, restock=1)
        return request._replace(voucher=found.id)

    return asked.answered(engine, request, work)


def _named(tx: Connection, vault: Vault, ask: Ask, now: datetime) -> Voucher:
    if ask.voucher is None:
        return asked.find(tx, vault, ask.merchant, ask.code or "", now).voucher
    found = vouchers.find(tx, ask.voucher)
    if found is None:
        raise VoucherError("VOUCHER_UNKNOWN", "there is no voucher of this id")
    return found
