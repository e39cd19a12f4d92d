"""Who and what a posting names: two assets, the kinds of account, and an account's one name."""

import re
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple, Self

from ledger.errors import Malformed

is_token = re.compile(r"[0-9a-f]{32}").fullmatch
is_scenario = re.compile(r"(?=.{3,64}\Z)[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+").fullmatch


class _Coded(StrEnum):
    """A name as it stands in payloads, with the small number a database stores for it."""

    code: int

    def __new__(cls, name: str, code: int) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.code = code
        return member


class Asset(_Coded):
    """What an amount counts: milligrams of CO2e avoided, or points."""

    CO2E = "CO2E", 1
    POINT = "POINT", 2


class AccountKind(_Coded):
    """Guarded kinds (codes below 10) never fall below zero; open kinds are sums of postings."""

    RESIDENT = "resident", 1
    HELD = "held", 2
    DEBT = "debt", 3
    MERCHANT = "merchant", 4
    BUDGET = "budget", 5
    POOL = "pool", 6
    ISSUANCE = "issuance", 11
    REDUCTION = "reduction", 12
    REDEEMED = "redeemed", 13
    EXPIRED = "expired", 14
    RETIRED = "retired", 15
    OWED = "owed", 16
    SETTLEMENT = "settlement", 17

    @property
    def guarded(self) -> bool:
        """Whether a balance row protects accounts of this kind from falling below zero."""
        return self.code < 10


KINDS = {str(kind): kind for kind in AccountKind}
ASSETS = {str(asset): asset for asset in Asset}


class Account(NamedTuple):
    """An account: its kind and a token.

    A guarded account's token is 32 lower-case hex digits (128 random bits, so it says nothing of
    its owner; resident, held and debt of one person share theirs). A reduction account's token is
    its scenario's id. The other open accounts have none. Built freely; ``Entry`` checks it.
    """

    kind: AccountKind
    token: str = ""

    @property
    def name(self) -> str:
        """``resident:<32 hex>``, ``reduction:travel.bike_shared`` or just ``issuance``."""
        return f"{self.kind}:{self.token}" if self.token else str(self.kind)

    @property
    def key(self) -> bytes:
        """16 bytes for a database: the token's own, else the head of SHA-256 of the name."""
        if self.kind.guarded:
            return bytes.fromhex(self.token)
        return sha256(self.name.encode()).digest()[:16]

    @classmethod
    def parse(cls, name: str) -> "Account":
        """The account of a name; raises ``Malformed`` unless it is exactly a name."""
        return account_of(name)


# Cached, because entries name the same few budgets and scenarios, and each resident twice.
@lru_cache(maxsize=8192)
def account_of(name: str) -> Account:
    """What ``Account.parse`` says."""
    kind, colon, token = name.partition(":")
    if kind in KINDS and bool(colon) == bool(token) and _is_sound(KINDS[kind], token):
        return Account(KINDS[kind], token)
    raise Malformed(f"{name[:80]!r} is not the name of an account.")


@lru_cache(maxsize=8192)
def is_account(account: Account) -> bool:
    """Whether the kind is known and the token has the form its kind asks for."""
    kind, token = account
    return kind in KINDS and _is_sound(kind, token)


def _is_sound(kind: AccountKind, token: str) -> bool:
    if kind.guarded:
        return is_token(token) is not None
    if kind is AccountKind.REDUCTION:
        return is_scenario(token) is not None
    return not token
