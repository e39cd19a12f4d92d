"""Decide: approve, suspend, resume or close a merchant; at once in force, since each request asks.

The merchant's endpoints are told, and the trail.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from app.flows.partner.contract import credit, reference
from app.flows.partner.fund import grant
from app.flows.partner.standing import PartnerError, hold
from app.flows.trail import act
from app.flows.webhook.emit import emit
from app.store import merchants
from app.store.merchants import Merchant
from app.vault import Vault

MOVES: Final = {  # verb: (from which states, to which, what the trail calls it)
    "approve": (("applied",), "approved", "merchant.approved"),
    "suspend": (("approved",), "suspended", "merchant.suspended"),
    "resume": (("suspended",), "approved", "merchant.resumed"),
    "close": (("applied", "approved", "suspended"), "closed", "merchant.closed"),
}


def decide(
    tx: Connection,
    vault: Vault,
    actor: str,
    code: str,
    revision: str | None,
    verb: str,
    reason: str,
    now: datetime,
) -> Merchant:
    """Take one of MOVES, for a reason that the merchant reads; how it then stands.

    Raises PartnerError NOT_FOUND, MERCHANT_STATE, CONTRACT_MISSING; StaleError.
    """
    states, state, action = MOVES[verb]
    found = hold(tx, code, revision, *states)
    merchants.decide(tx, found.id, state, reason, now)
    made = found._replace(state=state, reason=reason, revision=found.revision + 1, decided_at=now)
    said = {"state": state, "reason": reason, "revision": str(made.revision)}
    emit(tx, vault, made.id, "merchant.state", said["revision"], said, now)
    detail = {"reason": reason}
    if verb == "approve":
        terms = merchants.contract(tx, made.id)
        if terms is None:
            raise PartnerError("CONTRACT_MISSING", f"agree a contract with {code} first")
        if points := credit(terms):
            detail["entry_id"] = grant(tx, vault, made.id, points, reference(terms), now)[0].id
    if verb == "close" and (left := merchants.lock_allowance(tx, made.id)):
        detail["entry_id"] = grant(tx, vault, made.id, -left, "closed", now)[0].id
    act(tx, actor, action, code, detail, now)
    return made
