"""Issue: give the vouchers of an order that was confirmed, one a piece, once."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows.voucher import code
from app.store import people, vouchers
from app.store.orders import Order
from app.store.vouchers import New, Voucher
from app.vault import Vault, seal, unseal
from ledger.buckets import day_number


class IssueError(Exception):
    """An order's vouchers cannot be issued: SUBJECT_ERASED, CODES_EXHAUSTED."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def issue(tx: Connection, vault: Vault, order: Order, now: datetime) -> list[str]:
    """The ids of an order's vouchers, which are issued unless they were; none for a reward without.

    Their last day is `valid_days` after today's. Locks the resident, who is to be locked before the
    order's row. Raises IssueError.
    """
    terms = vouchers.terms(tx, order.reward)
    if terms.codes == "none":
        return []
    wrapped = people.lock(tx, order.resident) if order.resident else None
    if order.resident is None or wrapped is None:
        raise IssueError("SUBJECT_ERASED", "the resident of this order was erased")
    if known := vouchers.of_order(tx, order.id):
        return known
    own = vault.subject_key(order.resident, wrapped)
    ids = [_id(vault, order, piece) for piece in range(order.quantity)]
    found = _codes(tx, vault, order, terms.codes)
    last = now.astimezone(CITY_ZONE).date() + timedelta(days=terms.valid_days)
    like = Voucher(
        id="",
        order=order.id,
        reward=order.reward,
        merchant=order.merchant,
        resident=order.resident,
        points=order.points // order.quantity,
        sealed=None,
        state="issued",
        valid_until=day_number(last),
        issued_at=now,
        changed_at=now,
    )
    made = [
        New(one, digest, seal(own, text.encode(), _context(one)))
        for one, (digest, text) in zip(ids, found, strict=True)
    ]
    vouchers.put(tx, like, made)
    return ids


def read_code(own: bytes, voucher: Voucher) -> str:
    """A voucher's code as its resident reads it, by their own key. Raises VaultError."""
    return unseal(own, voucher.sealed or b"", _context(voucher.id)).decode()


def _codes(tx: Connection, vault: Vault, order: Order, kind: str) -> list[tuple[bytes, str]]:
    """As many codes as the order has pieces: the keyed hash of each, and how it is written."""
    if kind == "generated":
        fresh = [code.new_code() for _ in range(order.quantity)]
        return [(code.mark(vault, one), code.grouped(one)) for one in fresh]
    taken = vouchers.take_codes(tx, order.reward, order.quantity)
    if len(taken) < order.quantity:
        raise IssueError(
            "CODES_EXHAUSTED",
            f"of the merchant's own codes only {len(taken)} are left; the order stays held,"
            " confirm it again later or cancel it",
        )
    return [(digest, code.open_own(vault, order.reward, sealed)) for digest, sealed in taken]


def _id(vault: Vault, order: Order, piece: int) -> str:
    """The same for the same piece, so that it is issued once whatever happens."""
    return vault.mark(f"voucher {order.id} {piece}", 16).hex()


def _context(id: str) -> bytes:
    return f"voucher {id}".encode()
