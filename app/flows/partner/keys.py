"""Keys: a merchant gives itself, or one of its tills, a key, and takes one out of force."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.partner.standing import PartnerError, hold
from app.flows.public_key import PublicKey, key_id
from app.store import merchants
from app.store.merchants import KEYS_IN_FORCE

_OPEN = ("applied", "approved", "suspended")


def add_key(tx: Connection, code: str, till: str | None, key: PublicKey, now: datetime) -> str:
    """Register a key of a merchant, for all it does or for one till (a code); its id. The same
    again changes nothing. Raises PartnerError NOT_FOUND, MERCHANT_STATE, TILL_UNKNOWN, KEYS_FULL,
    KEY_EXISTS."""
    found = hold(tx, code, None, *_OPEN)
    there = merchants.till(tx, found.id, till) if till is not None else None
    if till is not None and there is None:
        raise PartnerError("TILL_UNKNOWN", f"{code} has no open till {till}")
    own = key_id(code, key.der)
    faces = merchants.keys(tx, found.id)
    for one in faces:
        if one.key_id == own and one.till == till and one.revoked_at is None:
            return own
    if sum(one.till == till and one.revoked_at is None for one in faces) >= KEYS_IN_FORCE:
        whose = code if till is None else f"till {till}"
        raise PartnerError(
            "KEYS_FULL", f"{KEYS_IN_FORCE} keys of {whose} are in force; revoke one first"
        )
    place = there.id if there else None
    if not merchants.add_key(tx, own, found.id, place, key.algorithm, key.der, now):
        raise PartnerError("KEY_EXISTS", "this key was registered before; make a new one")
    return own


def revoke_key(tx: Connection, code: str, id: str, now: datetime) -> None:
    """Refuse a key from now on; one that is refused already stays so.

    Raises PartnerError NOT_FOUND, and LAST_KEY: without one of its own, a merchant could not even
    register the next.
    """
    found = hold(tx, code, None, "applied", "approved", "suspended", "closed")
    faces = {one.key_id: one for one in merchants.keys(tx, found.id)}
    if id not in faces:
        raise PartnerError("NOT_FOUND", f"{code} has no key of this id")
    own = [one for one in faces.values() if one.till is None and one.revoked_at is None]
    if own == [faces[id]]:
        raise PartnerError(
            "LAST_KEY", f"this is the last key of {code} itself; register another first"
        )
    merchants.revoke_key(tx, found.id, id, now)
