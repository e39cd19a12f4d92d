"""A voucher's code: made by us, or one of the merchant's own pool.

    7KQ2-M0XA-93ZD-HB4N

Fifteen random characters of Crockford's base32 and a check character by Luhn's rule for 32 digits,
so that one misread character is refused before anybody is asked. People may write it in small
letters, with or without hyphens, with O for 0 and I or L for 1. A merchant's own code stands as it
was uploaded.
"""

from __future__ import annotations

import re
from secrets import choice
from typing import Final

from app.vault import Vault

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
OWN: Final = re.compile(r"(?!96[0-9]{18}\Z)[A-Za-z0-9_-]{4,40}")
"""A code that a merchant brings. It is none that a resident's phone might show."""

_RANDOM = 15
_GROUP = 4
_MEANT = str.maketrans("ILO", "110", "- ")


def new_code() -> str:
    """A fresh code of ours, without hyphens: 75 random bits and a check character."""
    body = "".join(choice(ALPHABET) for _ in range(_RANDOM))
    return body + _check_character(body)


def grouped(code: str) -> str:
    """A code of ours as people read it, in groups of four."""
    return "-".join(code[at : at + _GROUP] for at in range(0, len(code), _GROUP))


def mark(vault: Vault, code: str) -> bytes:
    """The keyed hash by which a code of ours is found."""
    return vault.mark(f"voucher {code}", 32)


def mark_own(vault: Vault, merchant: str, code: str) -> bytes:
    """The keyed hash of a merchant's own code; two merchants may bring the same one."""
    return vault.mark(f"voucher of {merchant} {code}", 32)


def marks(vault: Vault, merchant: str, given: str) -> list[bytes]:
    """Every keyed hash that what a till has read may have."""
    made = [mark_own(vault, merchant, given)] if OWN.fullmatch(given) else []
    ours = given.upper().translate(_MEANT)
    return [*made, mark(vault, ours)] if reads(ours) else made


def reads(code: str) -> bool:
    """Whether this is a code of ours, in our spelling, with the right check character."""
    known = len(code) == _RANDOM + 1 and set(code) <= set(ALPHABET)
    return known and _check_character(code[:-1]) == code[-1]


def seal_own(vault: Vault, reward: str, code: str) -> bytes:
    """A merchant's own code, to be kept until it is given out for this reward."""
    return vault.seal_for(f"code of reward {reward}", code.encode())


def open_own(vault: Vault, reward: str, sealed: bytes) -> str:
    """Undo `seal_own`. Raises VaultError."""
    return vault.open_for(f"code of reward {reward}", sealed).decode()


def _check_character(body: str) -> str:
    """Luhn's rule: every other character, from the last, counts double, with both its digits."""
    values = [ALPHABET.index(one) for one in reversed(body)]
    total = sum(sum(divmod(value * 2, 32)) for value in values[::2]) + sum(values[1::2])
    return ALPHABET[-total % 32]
