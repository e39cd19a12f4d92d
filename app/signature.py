"""What providers and merchants sign, and how the header that says so is written and read.

Signed are five lines, each ended by a newline (the shape of WeChat Pay v3):

    METHOD
    path?query      as sent; in the path A-Z a-z 0-9 and /:@!$&'()*+,;=~-._ stand for themselves,
                    and all else is percent-encoded in upper case
    timestamp       seconds since 1970, at most 300 from ours
    nonce           16 to 64 of A-Z a-z 0-9 _ -
    body            the bytes as sent; empty for GET

    Authorization: PUHUI-ED25519 key_id="...",timestamp="...",nonce="...",signature="<base64>"
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

_SCHEMES = {"PUHUI-ED25519": "ed25519", "PUHUI-RSA-SHA256": "rsa-sha256"}
_HEADER = re.compile(
    r'(PUHUI-[A-Z0-9-]{1,20}) key_id="([A-Za-z0-9._-]{1,64})",timestamp="([0-9]{1,12})",'
    r'nonce="([A-Za-z0-9_-]{16,64})",signature="([A-Za-z0-9+/]{1,1400}={0,2})"'
)


class AuthError(Exception):
    """The sender is not who they must be; `code` says which check failed and nothing more."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class SignatureHeader(NamedTuple):
    """An Authorization header that reads."""

    algorithm: str
    key_id: str
    timestamp: str
    nonce: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived: the parts that are signed."""

    method: str
    path_query: str
    body: bytes


def canonical_request(
    method: str, path_query: str, timestamp: str, nonce: str, body: bytes
) -> bytes:
    """The bytes that are signed: five lines, the last one ended too."""
    head = f"{method}\n{path_query}\n{timestamp}\n{nonce}\n"
    return head.encode() + body + b"\n"


def sign(
    key: Ed25519PrivateKey | RSAPrivateKey,
    key_id: str,
    received: Received,
    timestamp: int,
    nonce: str,
) -> str:
    """The value of the Authorization header for one request."""
    message = canonical_request(
        received.method, received.path_query, str(timestamp), nonce, received.body
    )
    if isinstance(key, Ed25519PrivateKey):
        scheme, signature = "PUHUI-ED25519", key.sign(message)
    else:
        scheme, signature = "PUHUI-RSA-SHA256", key.sign(message, PKCS1v15(), SHA256())
    fields = {
        "key_id": key_id,
        "timestamp": str(timestamp),
        "nonce": nonce,
        "signature": b64encode(signature).decode(),
    }
    return f"{scheme} " + ",".join(f'{name}="{value}"' for name, value in fields.items())


def parse_signature(header: str | None) -> SignatureHeader:
    """Read the Authorization header. Raises AuthError SIGNATURE_MISSING or SIGNATURE_MALFORMED."""
    if not header:
        raise AuthError("SIGNATURE_MISSING", "this address takes signed requests only")
    found = _HEADER.fullmatch(header)
    if not found or found[1] not in _SCHEMES:
        raise AuthError(
            "SIGNATURE_MALFORMED",
            "Authorization must read: PUHUI-ED25519 (or PUHUI-RSA-SHA256)"
            ' key_id="...",timestamp="...",nonce="...",signature="..."',
        )
    try:
        signature = b64decode(found[5], validate=True)
    except Base64Error:
        raise AuthError("SIGNATURE_MALFORMED", "the signature is not padded base64") from None
    return SignatureHeader(_SCHEMES[found[1]], found[2], found[3], found[4], signature)


_parsed = lru_cache(maxsize=4096)(load_der_public_key)


def holds(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature holds under a key (SubjectPublicKeyInfo in DER)."""
    public = _parsed(public_key)
    try:
        if isinstance(public, Ed25519PublicKey):
            public.verify(signature, message)
        elif isinstance(public, RSAPublicKey):
            public.verify(signature, message, PKCS1v15(), SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True
