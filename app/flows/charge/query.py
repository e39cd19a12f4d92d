"""Query: what became of a number of the merchant's own, which a till may ask at any time."""

from __future__ import annotations

from hmac import compare_digest
from typing import NamedTuple

from sqlalchemy import Connection

from app.store import charges, entries, people
from app.store.charges import Charge, Face, Refund
from ledger.accounts import AccountKind


class ChargeError(Exception):
    """What a till or a resident asks cannot be done; the code says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Returned(NamedTuple):
    """Points that went back, and whether nobody is there to have them: that person was erased."""

    points: int
    to_nobody: bool


def query(tx: Connection, merchant: str, number: str) -> Face:
    """The charge of this number. Raises ChargeError CHARGE_UNKNOWN."""
    found = charges.find(tx, merchant, number)
    if found is None:
        raise unknown(number)
    return found


def query_refund(tx: Connection, merchant: str, number: str) -> tuple[Refund, Returned]:
    """The refund of this number, and what it gave back. Raises ChargeError REFUND_UNKNOWN."""
    found = charges.find_refund(tx, merchant, number)
    if found is None:
        raise ChargeError("REFUND_UNKNOWN", f"no refund came under the number {number}")
    return found, returned(tx, found.entry, found.points)


def returned(tx: Connection, entry_id: str | None, points: int) -> Returned:
    """What the ledger's refund of this id gave back; nothing if there is none."""
    found = entries.find(tx, entry_id) if entry_id else None
    if found is None:
        return Returned(0, to_nobody=False)
    gone = any(line.account.kind is AccountKind.EXPIRED for line in found[1].postings)
    return Returned(points, gone)


def hold_still(tx: Connection, merchant: str, number: str) -> Face | None:
    """The charge of this number, its resident locked and then itself, until `tx` ends."""
    found = charges.find(tx, merchant, number)
    if found is None:
        return None
    if found.charge.resident is not None:
        people.lock(tx, found.charge.resident)
    return charges.lock(tx, merchant, number)


def must_be_same(digest: bytes, before: bytes) -> None:
    """Hold a request against the one that used its number before. Raises ChargeError
    REQUEST_NO_REUSED."""
    if not compare_digest(digest, before):
        detail = "this number was used for another request; make a new one for each"
        raise ChargeError("REQUEST_NO_REUSED", detail)


def must_be_own(one: Charge, till: bytes | None) -> None:
    """Hold a key that is a till's own to the charges of that till. Raises ChargeError."""
    if till is not None and one.till not in (None, till):
        raise ChargeError("TILL_NOT_YOURS", "this key is of another till than the charge")


def unknown(number: str) -> ChargeError:
    """There is no such charge."""
    return ChargeError("CHARGE_UNKNOWN", f"no charge came under the number {number}; reverse it")
