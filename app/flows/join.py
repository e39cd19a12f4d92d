"""Join: whom WeChat vouched for becomes a resident, once, with a guardian's word if under 14."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from secrets import choice, token_hex
from typing import Final, NamedTuple

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows import privacy, sign_in
from app.flows.sign_in import Guest, Tokens
from app.store import entries, guardians, people
from app.vault import Vault

DISTRICTS: Final = {
    "140403": "潞州区", "140404": "上党区", "140405": "屯留区", "140406": "潞城区",
    "140423": "襄垣县", "140425": "平顺县", "140426": "黎城县", "140427": "壶关县",
    "140428": "长子县", "140429": "武乡县", "140430": "沁县", "140431": "沁源县",
    "140471": "长治高新区",
}  # fmt: skip
"""The city's counties by GB/T 2260 code; the last is a statistical code."""

GUARDED: Final = 14
"""Under this age a guardian answers for a child (个人信息保护法 art. 31)."""

CODE_LIFE: Final = timedelta(minutes=15)
CODE_LENGTH: Final = 8
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing is misread
_MISREAD = str.maketrans("ILO", "110", "-")


class JoinError(Exception):
    """This person cannot join so; the sentence says what is needed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Application(NamedTuple):
    """What somebody says who joins: `born` is the first day of their month of birth."""

    born: date
    district: str
    notice: int
    notice_digest: str
    guardian_code: str | None


def join(tx: Connection, vault: Vault, guest: Guest, said: Application, now: datetime) -> Tokens:
    """Make a resident of a guest and begin a sign-in; who is one already just signs in.

    Raises JoinError, NoticeNotInForceError, WeChatCodeError.
    """
    entries.take_turn(tx, f"join {guest.identity.hex()}")
    known = sign_in.resident_of(tx, guest)
    if known is not None:
        return sign_in.begin(tx, vault, known, now)
    grown, guardian = _of_age(said.born), None
    if grown > now.astimezone(CITY_ZONE).date():
        guardian = _guardian(tx, vault, said.guardian_code, now)
    resident = add_resident(tx, vault, said.district, now)
    if guardian is not None:
        guardians.put_child(tx, resident, guardian, grown)
    privacy.accept(tx, resident, said.notice, said.notice_digest, now)
    wrapped = people.lock(tx, resident)
    assert wrapped is not None  # noqa: S101 (made above)
    return sign_in.admit(tx, vault, guest, resident, wrapped, now)


def add_resident(tx: Connection, vault: Vault, district: str, now: datetime) -> str:
    """Add a resident; return the account token."""
    resident = token_hex(16)
    people.join(tx, resident, vault.new_subject_key(resident), district, now)
    return resident


def make_guardian_code(
    tx: Connection, vault: Vault, resident: str, now: datetime
) -> tuple[str, datetime]:
    """A code for a child to join with, and until when. Raises JoinError."""
    if guardians.is_minor(tx, resident, now.astimezone(CITY_ZONE).date()):
        raise JoinError("GUARDIAN_TOO_YOUNG", "only an adult can answer for a child")
    code, until = new_code(), now + CODE_LIFE
    guardians.put_code(tx, _mark(vault, code), resident, now, until)
    return code, until


def new_code() -> str:
    """A code that people read to each other: 8 of 32 characters."""
    return "".join(choice(_ALPHABET) for _ in range(CODE_LENGTH))


def as_meant(code: str) -> str:
    """A code as it was given out, however it was typed."""
    return code.upper().translate(_MISREAD)


def _guardian(tx: Connection, vault: Vault, code: str | None, now: datetime) -> str:
    if code is None:
        raise JoinError("GUARDIAN_NEEDED", f"under {GUARDED} a guardian's code is needed to join")
    guardian = guardians.take_code(tx, _mark(vault, as_meant(code)), now)
    if guardian is None:
        raise JoinError("CODE_UNKNOWN", "this code is not in force; ask for a new one")
    return guardian


def _mark(vault: Vault, code: str) -> bytes:
    return vault.mark(f"guardian code {code}", 32)


def _of_age(born: date) -> date:
    """The first of the month after the birthday: only months are asked for."""
    year, month = divmod(born.year * 12 + born.month + GUARDED * 12, 12)
    return date(year, month + 1, 1)
