"""Dispute: two people show that one identifier is theirs; the holder lets go, or it is decided.

Whatever comes of it, past entries stay with whom they were credited.
"""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex

from sqlalchemy import Connection

from app.flows.bind import BindError, Proof, let_go, prove
from app.flows.claim import claim
from app.flows.notify import notify
from app.flows.trail import act
from app.store import bindings, people, providers
from app.store.bindings import Binding, Dispute
from app.store.catalogue import Registry
from app.vault import Vault


def open_dispute(
    tx: Connection, vault: Vault, resident: str, proof: Proof, now: datetime
) -> Dispute:
    """Claim an identifier that another has bound; the holder is told. One dispute a claimant.

    Raises BindError; NOT_BOUND if nobody else has it.
    """
    if people.lock(tx, resident) is None:
        raise BindError("NOT_FOUND", "there is no such resident any more")
    subject = prove(tx, vault, resident, proof, now)
    known = [one for one in bindings.over(tx, subject) if one.claimant == resident]
    if known:
        return known[0]
    holder = people.bound_to(tx, [subject]).get(subject, resident)
    if holder == resident:
        raise BindError("NOT_BOUND", "nobody else has this identifier; bind it")
    made = token_hex(16)
    bindings.open_dispute(tx, made, (subject, proof.provider), (resident, holder), now)
    name = providers.names(tx)[proof.provider]
    notify(tx, vault, holder, "binding.dispute", made, {"provider": name}, now)
    return next(one for one in bindings.over(tx, subject) if one.id == made)


def unbind(
    tx: Connection, vault: Vault, registry: Registry, resident: str, binding: str, now: datetime
) -> None:
    """Untie an identifier of one's own; if it is disputed, it goes to who claimed it first.

    Intake stops, what was credited stays. Raises BindError.
    """
    found = _own(tx, resident, binding)
    if found is None:
        raise BindError("NOT_FOUND", "you have no binding of this id")
    _lock(tx, resident, *(one.claimant for one in bindings.over(tx, found.subject)))
    if _own(tx, resident, binding) is None:
        return  # let go by another request, while this one waited
    claims = bindings.over(tx, found.subject)
    if claims:
        _move(tx, vault, registry, claims[0], "holder", now)
    else:
        let_go(tx, found, resident, now)


def _own(tx: Connection, resident: str, binding: str) -> Binding | None:
    return next((one for one in bindings.of(tx, resident) if one.id == binding), None)


def decide(
    tx: Connection,
    vault: Vault,
    registry: Registry,
    dispute: str,
    moves: bool,
    by: tuple[str, str],
    now: datetime,
) -> Dispute:
    """An operator, `by` (name, reason), moves the identifier to the claimant or leaves it.

    Raises BindError NOT_FOUND or DISPUTE_CLOSED.
    """
    found = bindings.find_dispute(tx, dispute)
    if found is None:
        raise BindError("NOT_FOUND", "there is no dispute of this id")
    _lock(tx, found.claimant, found.holder)
    found = bindings.find_dispute(tx, dispute)
    if found is None or found.state != "open":
        raise BindError("DISPUTE_CLOSED", "this dispute is closed already")
    name, reason = by
    if moves:
        _move(tx, vault, registry, found, name, now)
    else:
        bindings.close_dispute(tx, dispute, "kept", name, now)
    word = "moved" if moves else "kept"
    act(tx, name, f"binding.{word}", dispute, {"reason": reason}, now)
    return found._replace(state=word, closed_at=now)


def _lock(tx: Connection, *residents: str) -> None:
    """Hold everybody concerned; what was read of them before is then to be read again."""
    for person in sorted(set(residents)):
        people.lock(tx, person)


def _move(
    tx: Connection, vault: Vault, registry: Registry, dispute: Dispute, by: str, now: datetime
) -> None:
    """Bind what is disputed to the claimant; both people are locked."""
    held = [one for one in bindings.of(tx, dispute.holder) if one.subject == dispute.subject]
    for one in held:
        let_go(tx, one, dispute.holder, now)
    people.bind(tx, dispute.provider, {dispute.subject: dispute.claimant}, now)
    bindings.close_dispute(tx, dispute.id, "moved", by, now)
    for other in bindings.over(tx, dispute.subject):  # of whoever claims it too, from now on
        bindings.set_holder(tx, other.id, dispute.claimant)
    claim(tx, vault, registry, dispute.provider, dispute.subject, now)
