"""Apply: whoever has a key asks to become a merchant; an operator decides."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from typing import NamedTuple

import orjson
from sqlalchemy import Connection

from app.flows.partner.sandbox import public_key
from app.flows.partner.standing import PartnerError
from app.flows.public_key import PublicKey, key_id
from app.store import merchants
from app.store.merchants import Merchant
from app.vault import Vault


class Application(NamedTuple):
    """What an applicant says; `contact` names people and is stored sealed."""

    code: str
    name: str
    licence: str
    contact: dict[str, str]


def apply(
    tx: Connection,
    vault: Vault,
    said: Application,
    key: PublicKey,
    now: datetime,
    *,
    sandbox: bool = False,
) -> Merchant:
    """Keep an application and the key that the caller has seen it signed by. The same one again is
    answered how it stands. Raises PartnerError MERCHANT_EXISTS."""
    if not sandbox and key == public_key(said.code):
        raise PartnerError("KEY_EXISTS", "this key is a sandbox's and everybody's; make another")
    made = token_hex(16)
    sealed = vault.seal_for(_purpose(made), orjson.dumps(said.contact))
    one = Merchant(
        id=made,
        code=said.code,
        name=said.name,
        licence=said.licence,
        contact=sealed,
        state="applied",
        reason="",
        revision=1,
        sandbox=sandbox,
        applied_at=now,
        decided_at=None,
        low_at=None,
    )
    own = key_id(said.code, key.der)
    if merchants.add(tx, one):
        if not merchants.add_key(tx, own, made, None, key.algorithm, key.der, now):
            raise PartnerError("KEY_EXISTS", "this key's id is in use; make another key")
        return one
    there, known = merchants.find(tx, said.code), merchants.find_key(tx, own)
    if there is None or known is None or known.partner.id != there.id:
        raise PartnerError("MERCHANT_EXISTS", f"there is a merchant {said.code}; take another code")
    if (there.name, there.licence) != (said.name, said.licence):
        raise PartnerError(
            "MERCHANT_EXISTS", f"{said.code} applied before, with another name or licence"
        )
    return there


def contact(vault: Vault, one: Merchant) -> dict[str, str]:
    """Whom to call, as the applicant said. Raises VaultError."""
    opened: dict[str, str] = orjson.loads(vault.open_for(_purpose(one.id), one.contact))
    return opened


def _purpose(id: str) -> str:
    return f"merchant contact {id}"
