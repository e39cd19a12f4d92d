"""The codes that residents show at tills: by their keyed hash, for a minute and a half each."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import fetch


class PayCode(NamedTuple):
    """A code that was shown: whose it is, the sign-in it was shown by (None for the sandbox's),
    the voucher it uses (None: it spends from the wallet), until when it was shown, when used."""

    digest: bytes
    resident: str
    device: bytes | None
    voucher: bytes | None
    expires_at: datetime
    used_at: datetime | None


_FIND = """
SELECT c.code, c.resident, c.device, c.voucher, c.expires_at, c.used_at
FROM pay_codes c JOIN residents r ON r.id = c.resident AND r.erased_at IS NULL
WHERE c.code = %s"""
_USE = "UPDATE pay_codes SET used_at = %s WHERE code = %s AND used_at IS NULL RETURNING true"
_CROWD = text(
    "DELETE FROM pay_codes WHERE code IN (SELECT code FROM pay_codes"
    " WHERE resident = :resident AND used_at IS NULL ORDER BY expires_at DESC, code OFFSET :keep)"
)
_PUT = text(
    "INSERT INTO pay_codes (code, resident, device, voucher, expires_at)"
    " VALUES (:code, :resident, :device, :voucher, :expires_at)"
)


def put(tx: Connection, made: PayCode, most: int) -> None:
    """Keep a new code; of its resident's unused ones at most `most` live, the newest. The resident
    is locked by the caller."""
    who = bytes.fromhex(made.resident)
    tx.execute(_CROWD, {"resident": who, "keep": most - 1})
    tx.execute(
        _PUT,
        {
            "code": made.digest,
            "resident": who,
            "device": made.device,
            "voucher": made.voucher,
            "expires_at": made.expires_at,
        },
    )


def find(tx: Connection, digest: bytes) -> PayCode | None:
    """The code of this keyed hash; None also if its resident was erased."""
    rows = fetch(tx, _FIND, [digest])
    if not rows:
        return None
    code, resident, *rest = rows[0]
    return PayCode(code, resident.hex(), *rest)


def use(tx: Connection, digest: bytes, now: datetime) -> bool:
    """Make a code dead; False if somebody had used it."""
    return bool(fetch(tx, _USE, [now, digest]))


def sweep(tx: Connection, before: datetime) -> None:
    """Forget the codes that were shown until some moment before this one."""
    tx.execute(text("DELETE FROM pay_codes WHERE expires_at < :before"), {"before": before})
