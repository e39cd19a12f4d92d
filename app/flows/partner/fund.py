"""Fund: let a merchant redeem more points, or fewer; each time an entry of the ledger."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.budget import append_once
from app.flows.partner.standing import PartnerError, hold
from app.flows.trail import act
from app.store import merchants
from app.vault import Vault
from ledger.entries import Entry, instant
from ledger.transfers import fund_merchant


def pay_in(
    tx: Connection, vault: Vault, actor: str, code: str, points: int, reference: str, now: datetime
) -> tuple[Entry, bool]:
    """Add what a prepaid merchant paid for. The reference (a payment's number) counts once for a
    merchant: the same one again returns the first entry, and False.

    Raises PartnerError NOT_FOUND, MERCHANT_STATE, CONTRACT_MISSING; ReferenceReusedError.
    """
    found = hold(tx, code, None, "applied", "approved", "suspended")
    terms = merchants.contract(tx, found.id)
    if terms is None:
        raise PartnerError("CONTRACT_MISSING", f"agree a contract with {code} first")
    if terms.mode != "prepaid":
        raise PartnerError(
            "MERCHANT_STATE", f"the contract of {code} is postpaid: its limit is its allowance"
        )
    entry, new = grant(tx, vault, found.id, points, f"paid {reference}", now)
    detail = {"entry_id": entry.id, "points": points, "reference": reference}
    act(tx, actor, "merchant.funded" if new else "merchant.funded_before", code, detail, now)
    return entry, new


def grant(
    tx: Connection, vault: Vault, merchant: str, points: int, reference: str, now: datetime
) -> tuple[Entry, bool]:
    """Change the allowance of a merchant (32 hex digits) whose row the caller has locked; a
    reference counts once for it. Raises ReferenceReusedError, Insufficient."""
    entry = fund_merchant(
        id=vault.entry_id("merchant fund", f"{merchant}\0{reference}"),
        at=instant(now),
        merchant=merchant,
        points=points,
        reference=reference,
    )
    return append_once(tx, entry, reference)
