"""The merchants of the sandbox: their keys are everybody's, so that an integrator begins at once.

They exist in demo and test mode only. A production city refuses these keys, also where a database
of a demo was taken into use.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.flows.public_key import PublicKey

CODE: Final = "sandbox"


def private_key(code: str) -> Ed25519PrivateKey:
    """The published key of a sandbox merchant: SHA-256 of `puhui sandbox merchant <code>`."""
    return Ed25519PrivateKey.from_private_bytes(
        sha256(f"puhui sandbox merchant {code}".encode()).digest()
    )


def public_key(code: str) -> PublicKey:
    """Its public half."""
    spki = PublicFormat.SubjectPublicKeyInfo
    return PublicKey("ed25519", private_key(code).public_key().public_bytes(Encoding.DER, spki))
