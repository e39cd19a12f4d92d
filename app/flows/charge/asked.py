"""Asked: what a till asks for, and the charge it makes."""

from __future__ import annotations

from datetime import datetime
from secrets import token_hex
from typing import NamedTuple

import orjson

from app.store.charges import Charge, Face, Scan
from app.store.merchants import Partner
from app.vault import Vault


class Asked(NamedTuple):
    """What a till asks: `code` as it read it, `till` and `staff` by the merchant's own codes."""

    partner: Partner
    number: str
    code: str
    points: int
    till: str
    staff: str | None


def digest_of(vault: Vault, asked: Asked) -> bytes:
    """What tells a request sent again from another under its number."""
    said = orjson.dumps([asked.code, asked.points, asked.till, asked.staff]).decode()
    return vault.mark(f"charge {said}", 32)


def new(asked: Asked, seen: Scan, digest: bytes, now: datetime) -> Charge:
    """The charge as it will be if it is paid, which its entry is still missing from."""
    shown = seen.code
    return Charge(
        merchant=asked.partner.id,
        number=asked.number,
        id=token_hex(16),
        digest=digest,
        resident=shown.resident if shown else None,
        device=shown.device if shown else None,
        store=seen.store,
        till=seen.till,
        staff=asked.staff,
        points=asked.points,
        refunded=0,
        state="succeeded",
        code="",
        detail="",
        hold=None,
        entry=None,
        at=now,
        expires_at=None,
        closed_at=now,
    )


def face(asked: Asked, seen: Scan, one: Charge) -> Face:
    """What the till is told of it."""
    till = asked.till if seen.till is not None else None
    return Face(one, seen.merchant_name, seen.store_code, till)
