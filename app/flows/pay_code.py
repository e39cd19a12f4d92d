"""The dynamic code that a resident shows at a till: twenty digits, once, for a minute.

    96 ddddddddddddddddd c

96 tells it from the payment codes that tills know (WeChat's begin with 10 to 15, Alipay's with 25
to 30, UnionPay's with 62); then seventeen random digits; last a check digit by Luhn's rule, so that
a misread code is refused before anybody is asked. It is stored as a keyed hash only, and is dead
after its first use. A code that names a voucher uses that voucher and nothing else.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from secrets import randbelow
from typing import Final, NamedTuple

from sqlalchemy import Connection

from app.store import pay_codes, people
from app.store.pay_codes import PayCode
from app.vault import Vault

PREFIX: Final = "96"
REFRESH_S: Final = 60
"""For how long a code is shown."""

GRACE: Final = timedelta(seconds=30)
"""A code scanned in its last second still arrives in time."""

LIVE: Final = 3
"""rec: a phone that draws a new one early, twice. Older ones die."""

KEPT: Final = timedelta(hours=1)
"""So long a dead code is told from one that never was."""

_CODE = re.compile(PREFIX + "[0-9]{18}")
_RANDOM_DIGITS = 17


class PayCodeError(Exception):
    """The code shown cannot be used: PAY_CODE_UNKNOWN, PAY_CODE_EXPIRED, PAY_CODE_USED."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Code(NamedTuple):
    """A fresh code, and until when it is to be shown."""

    code: str
    expires_at: datetime


def new_code(
    tx: Connection,
    vault: Vault,
    resident: str,
    device: bytes | None,
    now: datetime,
    voucher: bytes | None = None,
) -> Code:
    """A fresh code of a resident's. `device` names the sign-in that shows it, `voucher` what it
    uses (None: it spends from the wallet). Locks the resident. Raises PayCodeError PAY_CODE_UNKNOWN
    if there is no such living account."""
    if not people.lock_spending(tx, resident):
        raise unknown()
    body = PREFIX + f"{randbelow(10**_RANDOM_DIGITS):0{_RANDOM_DIGITS}d}"
    code, expires_at = body + _check_digit(body), now + timedelta(seconds=REFRESH_S)
    shown = PayCode(digest_of(vault, code), resident, device, voucher, expires_at, None)
    pay_codes.put(tx, shown, LIVE)
    return Code(code, expires_at)


def find(tx: Connection, vault: Vault, code: str, now: datetime) -> PayCode:
    """The living code that a till has read. Nothing is locked: lock its resident, then `use` it in
    the same transaction, which one of two tills does first. Raises PayCodeError."""
    found = pay_codes.find(tx, digest_of(vault, code)) if reads(code) else None
    return living(found, now)


def living(found: PayCode | None, now: datetime) -> PayCode:
    """A code as it was found, if it may be used now. Raises PayCodeError."""
    if found is None:
        raise unknown()
    if found.used_at is not None:
        raise used()
    if not is_living(found, now):
        raise PayCodeError(
            "PAY_CODE_EXPIRED",
            f"the code is older than its {REFRESH_S} seconds; ask for the one shown now",
        )
    return found


def is_living(found: PayCode, now: datetime) -> bool:
    """Whether a code was neither used nor shown too long ago."""
    return found.used_at is None and now < found.expires_at + GRACE


def use(tx: Connection, found: PayCode, now: datetime) -> None:
    """Make a code dead. Raises PayCodeError PAY_CODE_USED if another till came first."""
    if not pay_codes.use(tx, found.digest, now):
        raise used()


def reads(code: str) -> bool:
    """Whether these are digits of ours with the right check digit."""
    return bool(_CODE.fullmatch(code)) and _check_digit(code[:-1]) == code[-1]


def digest_of(vault: Vault, code: str) -> bytes:
    """The keyed hash under which a code is stored."""
    return vault.mark(f"pay code {code}", 32)


def unknown() -> PayCodeError:
    """The refusal of what is no code of ours, or no longer known."""
    detail = "no such code is shown by anybody; ask for the one shown now, and scan it again"
    return PayCodeError("PAY_CODE_UNKNOWN", detail)


def used() -> PayCodeError:
    """The refusal of a code that is dead."""
    return PayCodeError("PAY_CODE_USED", "the code was used; ask for the one shown now")


def _check_digit(digits: str) -> str:
    """Luhn's: every other digit, from the last, counts double, with the digits of its double."""
    total = sum(sum(divmod(int(digit) * 2, 10)) for digit in digits[-1::-2])
    total += sum(map(int, digits[-2::-2]))
    return str(-total % 10)
