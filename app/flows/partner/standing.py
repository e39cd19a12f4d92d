"""Standing: who a merchant is, in which state, at which till; and the refusals of all its flows."""

from __future__ import annotations

from sqlalchemy import Connection

from app.flows.once import must_match
from app.store import merchants
from app.store.merchants import Merchant, Partner, Till


class PartnerError(Exception):
    """A merchant cannot be brought to this, or may not do it; the sentence says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def known(tx: Connection, code: str) -> Merchant:
    """The merchant of this code. Raises PartnerError NOT_FOUND."""
    found = merchants.find(tx, code)
    if found is None:
        raise PartnerError("NOT_FOUND", "there is no merchant of this code")
    return found


def hold(tx: Connection, code: str, revision: str | None, *states: str) -> Merchant:
    """Lock a merchant that is in one of these states, as the sender has seen it (None: however).

    Raises PartnerError NOT_FOUND, MERCHANT_STATE; StaleError.
    """
    found = merchants.lock(tx, code)
    if found is None:
        raise PartnerError("NOT_FOUND", "there is no merchant of this code")
    if revision is not None:
        must_match(revision, str(found.revision))
    if found.state not in states:
        raise PartnerError(
            "MERCHANT_STATE",
            f"{code} is {found.state}; this takes a merchant that is {' or '.join(states)}",
        )
    return found


def at_till(tx: Connection, partner: Partner, code: str) -> Till:
    """The open till of this code, if the key that signed may act for it.

    Raises PartnerError TILL_UNKNOWN, TILL_NOT_YOURS.
    """
    found = merchants.till(tx, partner.id, code)
    if found is None:
        raise PartnerError("TILL_UNKNOWN", f"{partner.code} has no open till {code}")
    if partner.till not in (None, found.id):
        raise PartnerError("TILL_NOT_YOURS", f"the key that signed is not of till {code}")
    return found


def needs_manager(tx: Connection, partner: Partner, staff: str | None) -> None:
    """Let only managers and owners give points back, where a merchant named its staff.

    Raises PartnerError MANAGER_NEEDED.
    """
    if not merchants.may_refund(tx, partner.id, staff):
        raise PartnerError(
            "MANAGER_NEEDED", "name in `staff` a manager or an owner who works for this merchant"
        )
