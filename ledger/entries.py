"""The entry: one balanced fact, and the bytes the log hashes.

The payload is RFC 8785 JSON, ``{"at", "detail", "id", "kind", "postings": [[account name, asset,
bucket, amount], ...], "v": 1}``. It carries all a replay needs and nothing that names a person.
An ``Entry`` cannot be built wrong: fields, the detail's closed set for its kind, which accounts
may gain and lose, buckets, zero sum per asset. What depends on other entries is ``ledger.book``'s.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, Self

from ledger.accounts import ASSETS, Account, AccountKind, Asset, account_of, is_account, is_token
from ledger.buckets import is_bucket
from ledger.details import is_id, mistake
from ledger.encoding import MAX_BYTES, MAX_INT, parse
from ledger.errors import Malformed, Unbalanced


class Kind(StrEnum):
    """What an entry does."""

    ISSUE = "issue"
    HOLD = "hold"
    RELEASE = "release"
    REDEEM = "redeem"
    REFUND = "refund"
    REVERSE = "reverse"
    EXPIRE = "expire"
    ADJUST = "adjust"
    SCENARIO_PUBLISHED = "scenario.published"
    SCENARIO_WITHDRAWN = "scenario.withdrawn"
    KEY_ROTATED = "key.rotated"
    BUDGET_FUNDED = "budget.funded"
    MERCHANT_FUNDED = "merchant.funded"
    ADMIN_ACTED = "admin.acted"
    SUBJECT_ERASED = "subject.erased"
    DAY_CLOSED = "day.closed"


KINDS = {str(kind): kind for kind in Kind}

_R, _H, _D, _B = AccountKind.RESIDENT, AccountKind.HELD, AccountKind.DEBT, AccountKind.BUDGET
_CO2E, _POINT = Asset.CO2E, Asset.POINT
_OWED, _REDEEMED, _REDUCTION = AccountKind.OWED, AccountKind.REDEEMED, AccountKind.REDUCTION
_EXPIRED, _MERCHANT, _SETTLEMENT = (
    AccountKind.EXPIRED,
    AccountKind.MERCHANT,
    AccountKind.SETTLEMENT,
)
_PERSONAL = frozenset({_R, _H, _D})

_ISSUE = {
    (_REDUCTION, _CO2E): -1,
    (_R, _CO2E): 1,
    (_D, _CO2E): -1,
    (_OWED, _CO2E): 1,
    (_B, _POINT): -1,
    (_R, _POINT): 1,
    (_D, _POINT): -1,
    (_OWED, _POINT): 1,
}
# Per kind, the accounts it may touch and which way: 1 only gains, -1 only loses, 0 either.
LINES: Mapping[Kind, Mapping[tuple[AccountKind, Asset], int]] = {
    Kind.ISSUE: _ISSUE,
    Kind.HOLD: {(_R, _POINT): -1, (_H, _POINT): 1},
    Kind.RELEASE: {(_H, _POINT): -1, (_R, _POINT): 1},
    Kind.REDEEM: {
        (_R, _POINT): -1,
        (_H, _POINT): -1,
        (_REDEEMED, _POINT): 1,
        (_MERCHANT, _POINT): -1,
        (_SETTLEMENT, _POINT): 1,
    },
    Kind.REFUND: {
        (_REDEEMED, _POINT): -1,
        (_R, _POINT): 1,
        (_EXPIRED, _POINT): 1,
        (_SETTLEMENT, _POINT): -1,
        (_MERCHANT, _POINT): 1,
    },
    Kind.REVERSE: {line: -sign for line, sign in _ISSUE.items()},
    Kind.EXPIRE: {(_R, _POINT): -1, (_EXPIRED, _POINT): 1},
    Kind.ADJUST: {(_B, _POINT): 0, (_R, _POINT): 0},
    Kind.BUDGET_FUNDED: {(AccountKind.ISSUANCE, _POINT): -1, (_B, _POINT): 1},
    Kind.MERCHANT_FUNDED: {(_SETTLEMENT, _POINT): 0, (_MERCHANT, _POINT): 0},
    Kind.SCENARIO_PUBLISHED: {},
    Kind.SCENARIO_WITHDRAWN: {},
    Kind.KEY_ROTATED: {},
    Kind.ADMIN_ACTED: {},
    Kind.SUBJECT_ERASED: {},
    Kind.DAY_CLOSED: {},
}
# These name each kind of account once per asset; the others may spread over several buckets.
_SINGLE = frozenset(
    {Kind.ISSUE, Kind.EXPIRE, Kind.ADJUST, Kind.BUDGET_FUNDED, Kind.MERCHANT_FUNDED}
)

# In _ISSUE owed follows debt, so that in ``_line``'s bits it is the next one.
_DEBT_BITS = sum(1 << at for at, (kind, _) in enumerate(_ISSUE) if kind is _D)
_OWED_BITS = _DEBT_BITS << 1
_ISSUED = Kind.ISSUE  # found faster under a name of its own
_TEXT = {name: str(name.value) for name in (*AccountKind, *Asset)}  # plain str formats faster

# json writes what RFC 8785 asks for once details are checked: ASCII keys, sound strings, ints.
_detail_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class Posting(NamedTuple):
    """One line of an entry: ``amount`` (mg of CO2E, or points) gained, or lost if negative."""

    account: Account
    asset: Asset
    bucket: int
    amount: int


Row = tuple[int, bytes, int, int, int]
"""A posting in a database: amount, account key, bucket, account kind code, asset code."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the ledger.

    ``id`` is 32 hex digits that stand for one request; ``at`` is RFC 3339 in UTC with
    milliseconds. Raises ``Malformed``, or ``Unbalanced`` if an asset does not sum to zero.
    """

    id: str
    kind: Kind
    at: str
    postings: tuple[Posting, ...]
    detail: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not is_id(self.id):
            raise Malformed("An entry's id is 32 lower-case hex digits.")
        if not isinstance(self.at, str) or not is_instant(self.at):
            raise Malformed(f"{self.at!r} is not a UTC time like 2026-11-22T00:12:11.123Z.")
        fault = mistake(self.kind, self.detail)
        if fault:
            raise Malformed(f"The detail of {self.kind} {fault}.")
        if bool(LINES[self.kind]) != bool(self.postings):
            some = "no" if self.postings else "some"
            raise Malformed(f"An entry of kind {self.kind} has {some} postings.")
        _check_postings(self.kind, self.postings, self.detail)

    @classmethod
    def trusted(
        cls, id: str, kind: Kind, at: str, postings: tuple[Posting, ...], detail: Mapping[str, Any]
    ) -> Self:
        """An entry whose fields were checked before, by another process."""
        entry = object.__new__(cls)
        for put, value in zip(_PUT, (id, kind, at, postings, detail), strict=True):
            put(entry, value)
        return entry

    @property
    def resident(self) -> str:
        """The token of the resident whose accounts this touches; "" if there is none."""
        for account, _, _, _ in self.postings:
            if account.kind in _PERSONAL:
                return account.token
        return ""

    def rows(self) -> list[Row]:
        """The postings as a database keeps them."""
        return [
            (amount, account.key, bucket, account.kind.code, asset.code)
            for account, asset, bucket, amount in self.postings
        ]

    def payload(self) -> bytes:
        """The canonical bytes, which the log stores, hashes and never changes.

        Put together as text, since this is the hot path: every part has a closed ASCII alphabet
        except the detail's strings. Raises ``Malformed`` beyond 65535 bytes.
        """
        detail = self.detail
        if len(detail) == 2 and self.kind is _ISSUED:
            scenario, version, digest = detail["rule"]
            text = (
                f'{{"commitment":"{detail["commitment"]}"'
                f',"rule":["{scenario}",{version},"{digest}"]}}'
            )
        else:
            text = _detail_text(detail)
        lines = ",".join(
            [
                f'["{_TEXT[kind]}:{token}","{_TEXT[asset]}",{bucket},{amount}]'
                if token
                else f'["{_TEXT[kind]}","{_TEXT[asset]}",{bucket},{amount}]'
                for (kind, token), asset, bucket, amount in self.postings
            ]
        )
        data = (
            f'{{"at":"{self.at}","detail":{text},"id":"{self.id}"'
            f',"kind":"{self.kind}","postings":[{lines}],"v":1}}'
        ).encode()
        if len(data) > MAX_BYTES:
            raise Malformed(f"The entry takes {len(data)} bytes; {MAX_BYTES} are allowed.")
        return data

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """The entry of a payload, which must be exactly what ``payload()`` gives back."""
        return cls.read(payload)[0]

    @classmethod
    def read(cls, payload: bytes) -> tuple[Self, dict[str, Any]]:
        """As ``parse``, with the JSON value it was read from."""
        value = parse(payload)
        if not isinstance(value, dict) or value.keys() != _FIELDS:
            raise Malformed("An entry has the fields at, detail, id, kind, postings and v.")
        kind = value["kind"]
        if not isinstance(kind, str) or kind not in KINDS:
            raise Malformed(f"{str(kind)[:40]!r} is no kind of entry.")
        if not isinstance(value["postings"], list):
            raise Malformed("The postings are not a list.")
        postings = tuple([_posting(line) for line in value["postings"]])
        entry = cls(value["id"], KINDS[kind], value["at"], postings, value["detail"])
        if entry.payload() != payload:
            raise Malformed("The payload is not in the canonical form of RFC 8785.")
        return entry, value


_PUT = [getattr(Entry, name).__set__ for name in Entry.__slots__]
_FIELDS = frozenset({"at", "detail", "id", "kind", "postings", "v"})


def instant(moment: datetime) -> str:
    """An aware datetime as an entry writes it, cut to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


@lru_cache(maxsize=4096)
def is_instant(at: str) -> bool:
    """Whether a text is a UTC time as entries write it, in a year whose days have a bucket."""
    try:
        moment = datetime.fromisoformat(at)
        return instant(moment) == at and 2000 <= moment.year <= 9998
    except (ValueError, OverflowError):
        return False


def _posting(line: Any) -> Posting:
    if not isinstance(line, list) or len(line) != 4:
        raise Malformed("A posting is a list of account, asset, bucket and amount.")
    name, asset, bucket, amount = line
    if not isinstance(name, str) or not isinstance(asset, str) or asset not in ASSETS:
        raise Malformed("A posting's account or asset is unknown.")
    return tuple.__new__(Posting, (account_of(name), ASSETS[asset], bucket, amount))


def _check_postings(kind: Kind, postings: tuple[Posting, ...], detail: Mapping[str, Any]) -> None:
    co2e = points = 0
    person = scenario = ""
    years: list[int] = []
    lines = 0
    for account, asset, bucket, amount in postings:
        role, token = account
        if type(amount) is not int or type(bucket) is not int or not 0 < abs(amount) <= MAX_INT:
            raise Malformed("A bucket or an amount is no integer, or an amount is out of range.")
        line = _line(kind, role, asset, bucket, amount > 0)
        if not line:
            raise Malformed(f"{kind} cannot post {amount} {asset} to {role} in bucket {bucket}.")
        if role in _PERSONAL:
            if token != person:
                _check_person(token, person)
                person = token
        elif not is_account(account):
            raise Malformed(f"{token[:64]!r} is not the token of a {role} account.")
        elif role is _REDUCTION:
            scenario = token
        if asset is _POINT:
            points += amount
        else:
            co2e += amount
            years.append(bucket)
        lines |= line
    if co2e or points:
        raise Unbalanced(f"The postings sum to {co2e} mg and {points} points, not to zero.")
    distinct = lines.bit_count() if kind in _SINGLE else len({line[:3] for line in postings})
    if distinct != len(postings):
        raise Malformed("Two postings name the same account, asset and bucket.")
    if kind is _ISSUED:
        _check_issue(detail, scenario, lines, years, len(postings) - len(years))


@lru_cache(maxsize=4096)
def _line(kind: Kind, role: AccountKind, asset: Asset, bucket: int, gains: bool) -> int:
    """The bit that stands for a line of the kind's table; 0 if the table has no such line."""
    sign = LINES[kind].get((role, asset))
    if sign not in (0, 1 if gains else -1) or not is_bucket(role, asset, bucket):
        return 0
    return 1 << list(LINES[kind]).index((role, asset))


def _check_person(token: str, person: str) -> None:
    if not is_token(token):
        raise Malformed("A resident's token is 32 lower-case hex digits.")
    if person:
        raise Malformed("An entry touches the accounts of one resident only.")


def _check_issue(
    detail: Mapping[str, Any], scenario: str, lines: int, years: list[int], point_lines: int
) -> None:
    if lines & _OWED_BITS != (lines & _DEBT_BITS) << 1:
        raise Malformed("What is repaid and what is owed go together.")
    if "settles" in detail:
        if years or not point_lines:
            raise Malformed("A settlement pays points, and nothing else.")
    elif not years:
        raise Malformed("An issue credits a reduction.")
    elif point_lines and "awaiting" in detail:
        raise Malformed("Points are granted now or await their budget, not both.")
    elif scenario and scenario != detail["rule"][0]:
        raise Malformed("The reduction comes from another scenario than the rule's.")
    elif max(years) != min(year or max(years) for year in years):  # debt has no year
        raise Malformed("The reduction is of one year, on both sides of the issue.")
