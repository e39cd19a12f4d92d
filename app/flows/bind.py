"""Bind: a resident shows that a provider's identifier is theirs; what came before is credited.

Two proofs. A code that the provider made for its customer, within a quarter of an hour. Or a token
that the provider signed over a challenge of ours for this resident: a JSON Web Signature (RFC 7515,
compact) with EdDSA (RFC 8037) by a key registered for its requests:

    header   {"alg": "EdDSA", "kid": "<key_id>"}
    payload  {"provider", "subject", "challenge", "nonce", "exp"}   exp in seconds since 1970

The identifier itself is never stored, only its keyed hash.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy import Connection

from app.flows.claim import claim
from app.flows.join import CODE_LIFE, as_meant, new_code
from app.store import bindings, consents, people, providers
from app.store.bindings import Binding
from app.store.catalogue import Registry
from app.vault import Vault

CHALLENGE_LIFE: Final = timedelta(minutes=10)  # nonces are remembered as long
_CHALLENGE = re.compile(r"([0-9]{1,12})-([0-9a-f]{32})")
_CLAIMS = {"provider", "subject", "challenge", "nonce", "exp"}
_MAX_SUBJECT = 128


class BindError(Exception):
    """The identifier is not bound; `code` says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Proof(NamedTuple):
    """What a resident shows: a provider's code for a customer, or its token; the other is ""."""

    provider: str
    code: str
    token: str


class Bound(NamedTuple):
    """A binding, and how many acts that waited for it were judged now."""

    binding: Binding
    claimed: int


def make_code(
    tx: Connection, vault: Vault, provider: str, subject: str, now: datetime
) -> tuple[str, datetime]:
    """A code by which the provider's customer binds, and until when."""
    code, until = new_code(), now + CODE_LIFE
    hashed = vault.subject(provider, subject)
    bindings.put_code(tx, _mark(vault, provider, code), provider, hashed, now, until)
    return code, until


def make_challenge(
    vault: Vault, resident: str, provider: str, now: datetime
) -> tuple[str, datetime]:
    """What a provider signs into a token for this resident, and until when; nothing is stored."""
    until = now + CHALLENGE_LIFE
    return _challenge(vault, resident, provider, int(until.timestamp())), until


def bind(
    tx: Connection, vault: Vault, registry: Registry, resident: str, proof: Proof, now: datetime
) -> Bound:
    """Bind what the proof shows to the resident. The same again changes nothing.

    Raises BindError; IDENTIFIER_BOUND if somebody else has it.
    """
    if people.lock(tx, resident) is None:
        raise BindError("NOT_FOUND", "there is no such resident any more")
    subject = prove(tx, vault, resident, proof, now)
    people.bind(tx, proof.provider, {subject: resident}, now)
    if people.bound_to(tx, [subject]).get(subject) != resident:
        raise BindError(
            "IDENTIFIER_BOUND",
            "this identifier is bound to another resident; if it is yours, send the same proof to"
            " POST /api/v1/me/binding-disputes",
        )
    claimed = claim(tx, vault, registry, proof.provider, subject, now)
    (binding,) = (one for one in bindings.of(tx, resident) if one.subject == subject)
    return Bound(binding, claimed)


def prove(tx: Connection, vault: Vault, resident: str, proof: Proof, now: datetime) -> bytes:
    """The keyed hash of the identifier that a proof shows. Raises BindError."""
    if proof.token:
        return _read_token(tx, vault, resident, proof, now)
    mark = _mark(vault, proof.provider, as_meant(proof.code))
    found = bindings.use_code(tx, mark, proof.provider, now)
    if found is None:
        raise _unknown()
    subject, used = found
    if used and not _concerns(tx, resident, subject):
        raise _unknown()
    return subject


def _concerns(tx: Connection, resident: str, subject: bytes) -> bool:
    """Whether a used code is this resident's own, sent again."""
    own = people.bound_to(tx, [subject]).get(subject) == resident
    return own or any(one.claimant == resident for one in bindings.over(tx, subject))


def let_go(tx: Connection, binding: Binding, resident: str, now: datetime) -> None:
    """Untie an identifier of a resident who is locked. With the last of a provider's, the consents
    to that provider end: a new binding is consented to anew."""
    bindings.unbind(tx, binding.subject)
    if all(one.provider != binding.provider for one in bindings.of(tx, resident)):
        consents.withdraw(tx, binding.provider, bytes.fromhex(resident), None, now)


def _read_token(tx: Connection, vault: Vault, resident: str, proof: Proof, now: datetime) -> bytes:
    refused = BindError("BINDING_TOKEN_INVALID", "the token is not one that this provider signed"
                        " for you, or no longer good; ask for a new challenge")  # fmt: skip
    try:
        key_id = str(jwt.get_unverified_header(proof.token).get("kid"))
        key = providers.find_key(tx, key_id)
        if key is None or key.provider != proof.provider or (key.revoked_at or now) < now:
            raise refused
        public = load_der_public_key(key.public_key)
        if not isinstance(public, Ed25519PublicKey):
            raise refused
        said: dict[str, Any] = jwt.decode(
            proof.token, public, algorithms=["EdDSA"], options={"verify_exp": False}
        )
    except (jwt.PyJWTError, ValueError):
        raise refused from None
    challenge, nonce, expires, subject = (
        said.get(name) for name in ("challenge", "nonce", "exp", "subject")
    )
    given = _CHALLENGE.fullmatch(challenge) if isinstance(challenge, str) else None
    at = now.timestamp()
    if (
        said.keys() != _CLAIMS
        or said["provider"] != proof.provider
        or type(expires) is not int
        or expires <= at
        or given is None
        or int(given[1]) <= at
        or not hmac.compare_digest(
            given[0], _challenge(vault, resident, proof.provider, int(given[1]))
        )
        or not isinstance(nonce, str)
        or not re.fullmatch(r"[A-Za-z0-9_-]{16,64}", nonce)
        or not isinstance(subject, str)
        or not 0 < len(subject) <= _MAX_SUBJECT
    ):
        raise refused
    hashed = vault.subject(proof.provider, subject)
    if not providers.remember_nonce(tx, key_id, f"bind {nonce}", now) and not _concerns(
        tx, resident, hashed
    ):
        raise refused
    return hashed


def _challenge(vault: Vault, resident: str, provider: str, until: int) -> str:
    mark = vault.mark(f"binding challenge {resident} {provider} {until}", 16)
    return f"{until}-{mark.hex()}"


def _mark(vault: Vault, provider: str, code: str) -> bytes:
    return vault.mark(f"binding code {provider} {code}", 32)


def _unknown() -> BindError:
    return BindError("CODE_UNKNOWN", "this code is not in force; ask the provider for a new one")
