"""Contract: agree new terms with a merchant. Terms are never changed, only followed by others."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.partner.fund import grant
from app.flows.partner.standing import PartnerError, hold
from app.flows.trail import act
from app.store import merchants
from app.store.merchants import Contract
from app.vault import Vault


def agree(
    tx: Connection,
    vault: Vault,
    actor: str,
    code: str,
    revision: str | None,
    terms: Contract,
    now: datetime,
) -> Contract:
    """Put terms in force from now on, whatever number they say; as they are kept.

    A postpaid limit is given with the approval, and later terms give or take back the difference;
    a prepaid contract's limit counts as none. Raises PartnerError NOT_FOUND, MERCHANT_STATE, and
    ALLOWANCE_IN_USE if what is to be taken back was redeemed already; StaleError.
    """
    found = hold(tx, code, revision, "applied", "approved", "suspended")
    before = merchants.contract(tx, found.id)
    made = terms._replace(number=before.number + 1 if before else 1, made_at=now)
    merchants.add_contract(tx, found.id, made)
    change = credit(made) - credit(before) if found.state != "applied" else 0
    if change < 0 and (left := merchants.lock_allowance(tx, found.id)) < -change:
        raise PartnerError(
            "ALLOWANCE_IN_USE",
            f"{-change} points are to be taken back and {left} are left; wait until more of the"
            f" bills are paid, or agree a limit that is higher by {-change - left}",
        )
    if change:
        grant(tx, vault, found.id, change, reference(made), now)
    detail = made._asdict() | {"made_at": made.made_at.isoformat(timespec="seconds")}
    act(tx, actor, "merchant.contract", code, detail, now)
    return made


def credit(terms: Contract | None) -> int:
    """The points that terms allow a merchant before it has paid for any."""
    return terms.limit_points if terms and terms.mode == "postpaid" else 0


def reference(terms: Contract) -> str:
    """What stands in the ledger beside the allowance that terms give."""
    return f"contract {terms.number}"
