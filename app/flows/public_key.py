"""The public keys that requests can be signed by: Ed25519, and RSA that is long enough."""

from __future__ import annotations

import binascii
from base64 import b64decode
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

MIN_RSA_BITS: Final = 2048


class KeyUnreadableError(Exception):
    """This is no key that a request can be signed by."""

    code = "VALIDATION_FAILED"

    def __init__(self) -> None:
        super().__init__(
            f"this is no Ed25519 public key and no RSA one of {MIN_RSA_BITS} bits or more, in PEM"
            " or as base64 of its DER"
        )
        self.errors = ({"field": "public_key", "message": str(self)},)


class PublicKey(NamedTuple):
    """A key: ed25519 or rsa-sha256, and its SubjectPublicKeyInfo in DER."""

    algorithm: str
    der: bytes


def read_public(text: str) -> PublicKey:
    """A key out of PEM, or base64 of DER. Raises KeyUnreadableError."""
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(b64decode("".join(text.split()), validate=True))
    except (ValueError, UnsupportedAlgorithm, binascii.Error):
        raise KeyUnreadableError from None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if isinstance(key, Ed25519PublicKey):
        return PublicKey("ed25519", der)
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return PublicKey("rsa-sha256", der)
    raise KeyUnreadableError


def key_id(code: str, der: bytes) -> str:
    """What a merchant's key is called: the merchant's code and the head of the key's SHA-256. So
    whoever has the key knows its name before we do, and nobody can take another's."""
    return f"{code}-{sha256(der).hexdigest()[:16]}"
