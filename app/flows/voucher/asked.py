"""What a merchant asks about a voucher: once under its own number, and of a voucher of its own.

A refusal that concerns the voucher is an answer like any other: it is kept under the number, told
again to the same request and by GET, so that a till which never saw it can find out. A request
that could not be read (an unknown till, a number used for something else) leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from hmac import compare_digest
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows import pay_code
from app.flows.pay_code import PayCodeError
from app.flows.voucher import code
from app.store import people, voucher_moves, vouchers
from app.store.db import transact
from app.store.pay_codes import PayCode
from app.store.voucher_moves import Move, Place
from app.store.vouchers import Voucher
from app.vault import Vault


class VoucherError(Exception):
    """A voucher, or a request about one, is not as it must be; `code` says how. `voucher` is the id
    of the one meant, if it is the merchant's own."""

    def __init__(self, code: str, detail: str, voucher: str | None = None) -> None:
        super().__init__(detail)
        self.code, self.voucher = code, voucher


class Named(NamedTuple):
    """The voucher that a code means, and the resident's dynamic code if it was one. Nothing of it
    is locked yet."""

    voucher: Voucher
    shown: PayCode | None


def answered(
    engine: Engine, asked: Move, work: Callable[[Connection, Move], Move]
) -> tuple[Move, bool]:
    """Do `work` in one transaction unless this request was answered; the answer, and whether it was
    given before. `asked` has merchant, number, kind and digest.

    A VoucherError or PayCodeError of `work` is kept as the answer, beside what it wrote before.
    Raises VoucherError REQUEST_NO_REUSED, and whatever else `work` raises.
    """

    def attempt(tx: Connection) -> tuple[Move, bool]:
        known = voucher_moves.find(tx, asked.merchant, asked.number)
        if known is not None:
            if known.kind != asked.kind or not compare_digest(known.digest, asked.digest):
                raise VoucherError(
                    "REQUEST_NO_REUSED",
                    f"the number {asked.number} named another request before; make a new one",
                )
            return known, True
        try:
            made = work(tx, asked)
        except (VoucherError, PayCodeError) as error:
            meant = getattr(error, "voucher", None)
            made = asked._replace(voucher=meant, state="failed", code=error.code, detail=str(error))
        voucher_moves.add(tx, made)
        return made, False

    return transact(engine, attempt)


def digest(vault: Vault, *asked: str | None) -> bytes:
    """A keyed hash of all that a request asks."""
    return vault.mark("\0".join(["voucher request", *(it or "" for it in asked)]), 32)


def find(tx: Connection, vault: Vault, merchant: str, given: str, now: datetime) -> Named:
    """The voucher that a till has read: a resident's dynamic code, or the voucher's own.

    Raises VoucherError VOUCHER_UNKNOWN, PayCodeError.
    """
    if pay_code.reads(given):
        shown = pay_code.find(tx, vault, given, now)
        meant = vouchers.find(tx, shown.voucher.hex()) if shown.voucher else None
        if meant is None:
            detail = "this code spends from the wallet and uses no voucher; charge it instead"
            raise VoucherError("VOUCHER_UNKNOWN", detail)
        return Named(meant, shown)
    found = vouchers.find_by(tx, code.marks(vault, merchant, given))
    if found is None:
        raise VoucherError(
            "VOUCHER_UNKNOWN", "there is no voucher of this code; read it again, every character"
        )
    return Named(found, None)


def own(tx: Connection, merchant: str, named: Voucher) -> Voucher:
    """The voucher, if it is this merchant's, as it is once nobody else decides on it; its resident
    is locked before it. Raises VoucherError VOUCHER_NOT_YOURS."""
    if named.merchant != merchant:
        raise VoucherError("VOUCHER_NOT_YOURS", "this voucher is another merchant's")
    if named.resident is not None:
        people.lock(tx, named.resident)
    found = vouchers.find(tx, named.id, lock=True)
    if found is None:
        raise AssertionError("vouchers are never deleted")
    return found


def issued(tx: Connection, found: Voucher) -> None:
    """Hold a voucher to being neither used nor ended. Raises VoucherError."""
    if found.state == "used":
        place = voucher_moves.last_use(tx, found.id)
        raise VoucherError("VOUCHER_USED", f"this voucher was used{_where(place)}", found.id)
    if found.state == "voided":
        detail = "this voucher was voided, and its points went back"
        raise VoucherError("VOUCHER_VOIDED", detail, found.id)
    if found.state == "lapsed":
        raise lapsed(found)


def lapsed(found: Voucher) -> VoucherError:
    """The refusal of a voucher past its last day."""
    detail = f"this voucher was good until {found.valid_until}"
    return VoucherError("VOUCHER_LAPSED", detail, found.id)


def _where(place: Place | None) -> str:
    if place is None:
        return ""
    at = place.at.astimezone(CITY_ZONE).isoformat(timespec="seconds")
    return f" at {at}, at till {place.till} of store {place.store}"
