"""Judge a voucher without network. Needs only `cryptography`.

Fetch /api/v1/voucher-keys (public) and /api/v1/merchant/profile (for your own id) while there is a
network.
"""

from __future__ import annotations

import re
from base64 import b32decode, b64decode
from collections.abc import Collection
from datetime import datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNED = 66  # bytes before the signature


def verify_voucher(token: str, keys: list[dict[str, Any]]) -> dict[str, Any]:
    """What a token says, once one of the keys holds for it. Raises ValueError: why not."""
    form = re.fullmatch("PV1:([A-Z2-7]{208})", token)
    if form is None:
        raise ValueError("a token is PV1: and 208 of A-Z 2-7")
    key = next((one for one in keys if one["id"] == form[1][:8]), None)
    if key is None:
        raise ValueError("no key that is known here has signed this token")
    raw = b32decode(form[1])
    said, signature = raw[:SIGNED], raw[SIGNED:]
    known = Ed25519PublicKey.from_public_bytes(b64decode(key["public_key"]))
    try:
        known.verify(signature, b"puhui voucher 1\0" + said)
    except InvalidSignature:
        raise ValueError("the token's signature does not hold") from None
    not_before = int.from_bytes(said[58:62], "big")
    if key["until"] and not_before > datetime.fromisoformat(key["until"]).timestamp():
        raise ValueError("the token is signed by a key that signed no more at its time")
    return {
        "voucher": said[5:21].hex(),
        "merchant": said[21:37].hex(),
        "reward": said[37:53].hex(),
        "points": int.from_bytes(said[53:58], "big"),
        "not_before": not_before,
        "not_after": int.from_bytes(said[62:66], "big"),
    }


def refusal(
    voucher: dict[str, Any],
    merchant: str,
    limits: dict[str, Any],
    taken: Collection[str],
    now: float,
) -> str:
    """Why a till may not take a voucher that verified; "" if it may.

    `limits` is the document of /api/v1/voucher-keys, `taken` the ids of the vouchers that the till
    took today. Add the voucher to `taken` before the goods are handed out.
    """
    if voucher["merchant"] != merchant:
        return "VOUCHER_NOT_YOURS"
    if not voucher["not_before"] <= now <= voucher["not_after"]:
        return "OFFLINE_TIME"
    if voucher["voucher"] in taken:
        return "VOUCHER_USED"
    if voucher["points"] > int(limits["points"]):
        return "OFFLINE_POINTS"
    return "" if len(taken) < limits["per_till_day"] else "OFFLINE_FULL"
