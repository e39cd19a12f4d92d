"""Staff: a merchant names who works there, and they may say which resident they are.

That link serves one rule, that nobody redeems points where they work; the merchant learns no more
than that there is one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from app.flows.join import as_meant, new_code
from app.flows.partner.standing import PartnerError
from app.store import people, premises
from app.vault import Vault

CODE_LIFE: Final = timedelta(minutes=30)


def new_link_code(
    tx: Connection, vault: Vault, merchant: str, number: str, now: datetime
) -> tuple[str, datetime]:
    """A code by which an employee tells the mini-program where they work, and until when.

    Raises PartnerError STAFF_UNKNOWN.
    """
    code, until = new_code(), now + CODE_LIFE
    if not premises.put_link_code(tx, merchant, number, _mark(vault, code), until):
        raise PartnerError("STAFF_UNKNOWN", f"nobody who works here has the number {number}")
    return code, until


def link(tx: Connection, vault: Vault, resident: str, code: str, now: datetime) -> None:
    """Link a resident to the employee whom a code was made for. Raises PartnerError CODE_UNKNOWN,
    SUBJECT_ERASED."""
    if people.lock(tx, resident) is None:
        raise PartnerError("SUBJECT_ERASED", "this account was erased")
    if not premises.take_link_code(tx, _mark(vault, as_meant(code)), resident, now):
        raise PartnerError("CODE_UNKNOWN", "this code is not in force; ask for a new one")


def _mark(vault: Vault, code: str) -> bytes:
    return vault.mark(f"staff code {code}", 32)
