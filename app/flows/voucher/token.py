"""A voucher's token for tills without network: all a till needs to judge it, signed.

    PV1:<208 characters of base32>      which a QR code holds in alphanumeric mode, version 8 at M

The base32 (RFC 4648; 130 bytes need no padding) is of

    5 bytes    the key's id: the beginning of SHA-256 of the raw public key
    16         the voucher
    16         the merchant who may take it
    16         the reward
    5          its value in points
    4          not before, seconds since 1970
    4          not after
    64         Ed25519 over "puhui voucher 1", a zero byte and the 66 bytes before

Numbers are big-endian. A till compares the merchant and the times by its own clock, and keeps the
vouchers it has taken; what it then reports is judged again by `offline`.
"""

from __future__ import annotations

import re
import struct
from base64 import b32decode, b32encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.vault import Vault

PREFIX: Final = "PV1:"
_FORM = re.compile(PREFIX + "([A-Z2-7]{208})")
_FIELDS = struct.Struct(">5s16s16s16s5sII")
_DOMAIN = b"puhui voucher 1\0"
_POINTS = 5


class TokenError(Exception):
    """This is no token of ours, or not as it was signed."""

    code = "OFFLINE_TOKEN_INVALID"


class Token(NamedTuple):
    """What a token says: ids in hex, times in seconds since 1970, both ends included."""

    voucher: str
    merchant: str
    reward: str
    points: int
    not_before: int
    not_after: int


class Key(NamedTuple):
    """A key that tokens are checked with; `until` is when it signed its last (None: it still
    signs), in seconds since 1970."""

    id: str
    public: Ed25519PublicKey
    until: int | None


def keys(vault: Vault) -> dict[str, Key]:
    """The keys in force by their ids, the one that signs first."""
    seeds = [(vault.voucher, None), *([vault.old_voucher] if vault.old_voucher else [])]
    found = [(Ed25519PrivateKey.from_private_bytes(seed).public_key(), at) for seed, at in seeds]
    return {key_id(public): Key(key_id(public), public, at) for public, at in found}


def key_id(public: Ed25519PublicKey) -> str:
    """The 8 characters with which a key's tokens go on after the prefix."""
    return b32encode(sha256(public.public_bytes_raw()).digest()[:5]).decode()


def sign(vault: Vault, token: Token) -> str:
    """A token's text."""
    key = Ed25519PrivateKey.from_private_bytes(vault.voucher)
    signer = b32decode(key_id(key.public_key()))
    ids = (bytes.fromhex(it) for it in (token.voucher, token.merchant, token.reward))
    points = token.points.to_bytes(_POINTS, "big")
    fields = _FIELDS.pack(signer, *ids, points, token.not_before, token.not_after)
    return PREFIX + b32encode(fields + key.sign(_DOMAIN + fields)).decode()


def read(known: Mapping[str, Key], text: str) -> Token:
    """What a token says, once its signature holds. Raises TokenError."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise TokenError(f"a token is {PREFIX} and 208 of A-Z 2-7")
    raw = b32decode(form[1])
    fields, signature = raw[: _FIELDS.size], raw[_FIELDS.size :]
    signer, voucher, merchant, reward, points, not_before, not_after = _FIELDS.unpack(fields)
    key = known.get(b32encode(signer).decode())
    if key is None:
        raise TokenError("no key in force has signed this token; fetch /api/v1/voucher-keys")
    try:
        key.public.verify(signature, _DOMAIN + fields)
    except InvalidSignature:
        raise TokenError("the token's signature does not hold; scan it again") from None
    if key.until is not None and not_before > key.until:
        raise TokenError("the token is signed by a key that signed no more at its time")
    value = int.from_bytes(points, "big")
    return Token(voucher.hex(), merchant.hex(), reward.hex(), value, not_before, not_after)
