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

from ledger.accounts import ASSETS, Account, AccountKind, Asset, is_account
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
    KEY_ROTATED = "key.rotated"
    BUDGET_FUNDED = "budget.funded"
    SUBJECT_ERASED = "subject.erased"
    DAY_CLOSED = "day.closed"


KINDS = {str(kind): kind for kind in Kind}

_R, _H, _D, _B = AccountKind.RESIDENT, AccountKind.HELD, AccountKind.DEBT, AccountKind.BUDGET
_CO2E, _POINT = Asset.CO2E, Asset.POINT
_OWED, _REDEEMED = AccountKind.OWED, AccountKind.REDEEMED
_PERSONAL = frozenset({_R, _H, _D})

_ISSUE = {
    (AccountKind.REDUCTION, _CO2E): -1,
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
    Kind.REDEEM: {(_H, _POINT): -1, (_REDEEMED, _POINT): 1},
    Kind.REFUND: {(_REDEEMED, _POINT): -1, (_R, _POINT): 1},
    Kind.REVERSE: {line: -sign for line, sign in _ISSUE.items()},
    Kind.EXPIRE: {(_R, _POINT): -1, (AccountKind.EXPIRED, _POINT): 1},
    Kind.ADJUST: {(_B, _POINT): 0, (_R, _POINT): 0},
    Kind.BUDGET_FUNDED: {(AccountKind.ISSUANCE, _POINT): -1, (_B, _POINT): 1},
    Kind.SCENARIO_PUBLISHED: {},
    Kind.KEY_ROTATED: {},
    Kind.SUBJECT_ERASED: {},
    Kind.DAY_CLOSED: {},
}
# These name each kind of account once per asset; the others may spread over several buckets.
_SINGLE = frozenset({Kind.ISSUE, Kind.EXPIRE, Kind.ADJUST, Kind.BUDGET_FUNDED})

# json writes what RFC 8785 asks for once details are checked: ASCII keys, sound strings, ints.
_detail_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


class Posting(NamedTuple):
    """One line of an entry: ``amount`` (mg of CO2E, or points) gained, or lost if negative."""

    account: Account
    asset: Asset
    bucket: int
    amount: int


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
        if not is_instant(self.at):
            raise Malformed(f"{self.at!r} is not a UTC time like 2026-11-22T00:12:11.123Z.")
        fault = mistake(self.kind, self.detail)
        if fault:
            raise Malformed(f"The detail of {self.kind} {fault}.")
        _check_postings(self.kind, self.postings)
        if self.kind is Kind.ISSUE:
            _check_issue(self.postings, self.detail)

    @property
    def resident(self) -> str:
        """The token of the resident whose accounts this touches; "" if there is none."""
        for account, _, _, _ in self.postings:
            if account.kind in _PERSONAL:
                return account.token
        return ""

    def payload(self) -> bytes:
        """The canonical bytes, which the log stores, hashes and never changes.

        Put together as text, since this is the hot path: every part has a closed ASCII alphabet
        except the detail's strings. Raises ``Malformed`` beyond 65535 bytes.
        """
        lines = ",".join(
            [
                f'["{kind}:{token}","{asset}",{bucket},{amount}]'
                if token
                else f'["{kind}","{asset}",{bucket},{amount}]'
                for (kind, token), asset, bucket, amount in self.postings
            ]
        )
        data = (
            f'{{"at":"{self.at}","detail":{_detail_text(self.detail)},"id":"{self.id}"'
            f',"kind":"{self.kind}","postings":[{lines}],"v":1}}'
        ).encode()
        if len(data) > MAX_BYTES:
            raise Malformed(f"The entry takes {len(data)} bytes; {MAX_BYTES} are allowed.")
        return data

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """The entry of a payload, which must be exactly what ``payload()`` gives back."""
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
        return entry


_FIELDS = frozenset({"at", "detail", "id", "kind", "postings", "v"})


def instant(moment: datetime) -> str:
    """An aware datetime as an entry writes it, cut to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


@lru_cache(maxsize=4096)
def is_instant(at: str) -> bool:
    """Whether a text is a UTC time as entries write it."""
    try:
        return instant(datetime.fromisoformat(at)) == at
    except (TypeError, ValueError, OverflowError):
        return False


def _posting(line: Any) -> Posting:
    if not isinstance(line, list) or len(line) != 4:
        raise Malformed("A posting is a list of account, asset, bucket and amount.")
    name, asset, bucket, amount = line
    if not isinstance(name, str) or not isinstance(asset, str) or asset not in ASSETS:
        raise Malformed("A posting's account or asset is unknown.")
    return Posting(Account.parse(name), ASSETS[asset], bucket, amount)


def _check_postings(kind: Kind, postings: tuple[Posting, ...]) -> None:
    lines = LINES[kind]
    if bool(lines) != bool(postings):
        raise Malformed(f"An entry of kind {kind} has {'' if lines else 'no '}postings.")
    co2e = points = 0
    person = None
    seen = set()
    single = kind in _SINGLE
    for account, asset, bucket, amount in postings:
        role = account.kind
        sign = lines.get((role, asset))
        if sign is None or type(amount) is not int or amount * sign < 0:
            raise Malformed(f"An entry of kind {kind} cannot post {amount} {asset} to a {role}.")
        if not amount or not -MAX_INT <= amount <= MAX_INT:
            raise Malformed("An amount is zero or beyond 2^53 - 1.")
        if not is_account(account):
            raise Malformed(f"{account.token[:64]!r} is not the token of a {role} account.")
        if type(bucket) is not int or not is_bucket(role, asset, bucket):
            raise Malformed(f"{bucket} is not a bucket of {asset} in a {role} account.")
        if role in _PERSONAL:
            if person is not None and person != account.token:
                raise Malformed("An entry touches the accounts of one resident only.")
            person = account.token
        seen.add((role, asset) if single else (account, asset, bucket))
        if asset is _POINT:
            points += amount
        else:
            co2e += amount
    if len(seen) != len(postings):
        raise Malformed("Two postings name the same account, asset and bucket.")
    if co2e or points:
        raise Unbalanced(f"The postings sum to {co2e} mg and {points} points, not to zero.")


def _check_issue(postings: tuple[Posting, ...], detail: Mapping[str, Any]) -> None:
    co2e = [posting for posting in postings if posting.asset is _CO2E]
    if "settles" in detail:
        if co2e:
            raise Malformed("A settlement pays points only.")
        return
    if not co2e:
        raise Malformed("An issue credits a reduction.")
    if "awaiting" in detail and len(co2e) != len(postings):
        raise Malformed("Points are granted now or await their budget, not both.")
    for posting in co2e:
        account = posting.account
        if account.kind is AccountKind.REDUCTION and account.token != detail["rule"][0]:
            raise Malformed("The reduction comes from another scenario than the rule's.")
