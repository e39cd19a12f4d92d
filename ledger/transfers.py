"""The verbs: how each kind of entry is made from what its caller knows.

Every function gives a finished ``Entry`` or raises a ``LedgerError``; ids and times are given.
Amounts are ints: mg of CO2e, or points. A *wallet* is what a resident holds now, a *debt* what a
resident owes because points taken back were already spent; the caller has both locked.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.accounts import Account, AccountKind, Asset
from ledger.buckets import SHANGHAI, in_grace, spend, unspend
from ledger.entries import Entry, Kind, Posting
from ledger.errors import Malformed, Refused

_NO_DEBT: Mapping[Asset, int] = {}
# An enum's member is found faster under a name of its own.
_BUDGET, _REDUCTION, _WALLET = AccountKind.BUDGET, AccountKind.REDUCTION, AccountKind.RESIDENT
_CO2E, _POINT = Asset.CO2E, Asset.POINT
_ISSUE = Kind.ISSUE
_EXPIRED = Account(AccountKind.EXPIRED)
_ISSUANCE = Account(AccountKind.ISSUANCE)
_OWED = Account(AccountKind.OWED)
_REDEEMED = Account(AccountKind.REDEEMED)
_SETTLEMENT = Account(AccountKind.SETTLEMENT)


# A version is withdrawn this long before its first day begins: a batch under way may still hold
# the registry as it was, and an activity may lie five minutes ahead of our clock.
WITHDRAWAL_LEAD = timedelta(hours=1)

# The hot path: few budgets and scenarios serve many entries, and a named tuple is a tuple.
_source = lru_cache(maxsize=4096)(Account)
_account = _posting = tuple.__new__


class Rule(NamedTuple):
    """The scenario version an issue was computed by, and SHA-256 (hex) of its canonical bytes."""

    scenario: str
    version: int
    digest: str


def issue(
    *,
    id: str,
    at: str,
    resident: str,
    rule: Rule,
    commitment: str,
    reduction_mg: int,
    vintage: int,
    points: int,
    bucket: int,
    budget: str,
    awaiting: int = 0,
    withheld: int = 0,
    debt: Mapping[Asset, int] = _NO_DEBT,
) -> Entry:
    """Credit a reduction and the points it earns, what the resident owes being repaid first.

    ``awaiting`` points are due once the budget is funded (then ``points`` is 0), ``withheld``
    points were lost to a cap.
    """
    if reduction_mg <= 0 or points < 0 or awaiting < 0 or withheld < 0 or (points and awaiting):
        raise Malformed("An issue has a reduction, and points granted now or awaiting, not both.")
    wallet = _account(Account, (_WALLET, resident))
    source = _source(_REDUCTION, rule.scenario)
    postings = _grant(source, vintage, wallet, _CO2E, vintage, reduction_mg, debt)
    if points:
        payer = _source(_BUDGET, budget)
        postings += _grant(payer, 0, wallet, _POINT, bucket, points, debt)
    detail: dict[str, Any] = {"commitment": commitment, "rule": list(rule)}
    if awaiting:
        detail["awaiting"] = awaiting
        detail["budget"] = budget
    if withheld:
        detail["withheld"] = withheld
    return Entry(id, _ISSUE, at, postings, detail)


def settle(
    *,
    id: str,
    at: str,
    resident: str,
    points: int,
    bucket: int,
    budget: str,
    settles: str,
    debt: Mapping[Asset, int] = _NO_DEBT,
) -> Entry:
    """Pay the points an earlier issue, whose id is ``settles``, left awaiting its budget."""
    source = Account(_BUDGET, budget)
    postings = _grant(source, 0, Account(_WALLET, resident), _POINT, bucket, points, debt)
    return Entry(id, _ISSUE, at, postings, {"settles": settles})


def _grant(
    source: Account,
    source_bucket: int,
    wallet: Account,
    asset: Asset,
    bucket: int,
    amount: int,
    debt: Mapping[Asset, int],
) -> tuple[Posting, ...]:
    repaid = min(amount, debt.get(asset, 0)) if debt else 0
    if not repaid:
        return (
            _posting(Posting, (source, asset, source_bucket, -amount)),
            _posting(Posting, (wallet, asset, bucket, amount)),
        )
    repayment = (
        Posting(wallet._replace(kind=AccountKind.DEBT), asset, 0, -repaid),
        Posting(_OWED, asset, 0, repaid),
    )
    if repaid == amount:
        return repayment
    return (
        Posting(source, asset, source_bucket, repaid - amount),
        Posting(wallet, asset, bucket, amount - repaid),
        *repayment,
    )


def granted(entry: Entry, asset: Asset) -> int:
    """What an issue grants of an asset in all: to the wallet and in repayment of debt."""
    return sum(line.amount for line in entry.postings if line.asset is asset and line.amount > 0)


def redeemed(entry: Entry) -> int:
    """The points that a redemption cancels; what a refund gives back, below zero."""
    return sum(p.amount for p in entry.postings if p.account.kind is _REDEEMED.kind)


def fund(*, id: str, at: str, budget: str, points: int, reference: str) -> Entry:
    """Fund a budget with points; ``reference`` says on what decision."""
    lines = ((_ISSUANCE, 0, -points), (Account(_BUDGET, budget), 0, points))
    return Entry(id, Kind.BUDGET_FUNDED, at, _points(lines), {"reference": reference})


def fund_merchant(*, id: str, at: str, merchant: str, points: int, reference: str) -> Entry:
    """Allow a merchant to redeem so many points more, or fewer if negative.

    A prepaid merchant paid for them, a postpaid one has them as credit; ``reference`` says which.
    """
    lines = ((_SETTLEMENT, 0, -points), (Account(AccountKind.MERCHANT, merchant), 0, points))
    return Entry(id, Kind.MERCHANT_FUNDED, at, _points(lines), {"reference": reference})


def hold(
    *, id: str, at: str, resident: str, points: int, wallet: Mapping[int, int], today: int
) -> Entry:
    """Set points aside for a redemption, earliest live bucket first.

    ``wallet`` maps each bucket to the points in it; ``today`` is the business day of ``at``.
    Raises ``Insufficient`` if the live buckets hold too little.
    """
    spent = spend(wallet, points, today)
    source, target = Account(_WALLET, resident), Account(AccountKind.HELD, resident)
    return Entry(id, Kind.HOLD, at, _move(source, target, spent), {})


def release(*, id: str, at: str, hold: Entry) -> Entry:
    """Give all points of a hold back to the buckets they came from."""
    target = Account(_WALLET, hold.resident)
    source = Account(AccountKind.HELD, hold.resident)
    return Entry(id, Kind.RELEASE, at, _move(source, target, _gains(hold)), {"hold": hold.id})


def redeem(*, id: str, at: str, hold: Entry, merchant: str) -> Entry:
    """Cancel all points of a hold in favour of a merchant, given by its token.

    As many points of the merchant's allowance are used up.
    """
    source, held = Account(AccountKind.HELD, hold.resident), _gains(hold)
    lines = _move(source, _REDEEMED, held) + _allow(merchant, -_sum(held))
    return Entry(id, Kind.REDEEM, at, lines, {"hold": hold.id, "merchant": merchant})


def charge(
    *,
    id: str,
    at: str,
    resident: str,
    points: int,
    wallet: Mapping[int, int],
    today: int,
    merchant: str,
) -> Entry:
    """Cancel points in favour of a merchant at once, with no hold before: hold and redeem in one.

    Raises ``Insufficient`` if the live buckets hold too little.
    """
    spent = spend(wallet, points, today)
    source = Account(_WALLET, resident)
    lines = _move(source, _REDEEMED, spent) + _allow(merchant, -points)
    return Entry(id, Kind.REDEEM, at, lines, {"merchant": merchant})


def refund(
    *,
    id: str,
    at: str,
    redeem: Entry,
    points: int,
    refunded: int,
    today: int,
    erased: bool = False,
) -> Entry:
    """Give points of a redemption back, to the buckets they came from, the latest first.

    ``refunded`` is what earlier refunds of it gave back; raises ``Insufficient`` if all of them
    together exceed it. What has expired by ``today``, the business day of ``at``, comes back for
    ``REFUND_GRACE_DAYS``; of a resident who was erased, everything has expired. The merchant's
    allowance comes back with the points.
    """
    if redeem.kind is not Kind.REDEEM:
        raise Refused(f"An entry of kind {redeem.kind} is not refunded; only redeem is.")
    back = unspend(_spent(redeem), points, refunded)
    if erased:
        gained = dict(back)
        target = _EXPIRED
    else:
        gained = in_grace(back, today)
        target = Account(_WALLET, redeem.resident)
    lines = _points(
        (
            *((_REDEEMED, bucket, -amount) for bucket, amount in back),
            *((target, bucket, amount) for bucket, amount in gained.items()),
        )
    )
    lines += _allow(redeem.detail["merchant"], points)
    return Entry(id, Kind.REFUND, at, lines, {"redeem": redeem.id})


def reverse(*, id: str, at: str, entry: Entry, wallet: Mapping[tuple[Asset, int], int]) -> Entry:
    """Take back what an issue, or an adjustment in the resident's favour, gave.

    What the wallet no longer has in the entry's bucket is taken from its other buckets of that
    asset, earliest first; what is still short becomes debt. Budget and reduction source get back
    only what is really taken, and debt that was repaid is owed again.
    """
    if entry.kind not in (_ISSUE, Kind.ADJUST):
        raise Refused(f"An entry of kind {entry.kind} is not reversed; only issue and adjust are.")
    if any(line.amount < 0 for line in entry.postings if line.account.kind is _WALLET):
        raise Refused("An adjustment that took points is answered by another adjustment.")
    lines = tuple(line for asset in Asset for line in _take_back(entry, asset, wallet))
    return Entry(id, Kind.REVERSE, at, lines, {"reverses": entry.id})


def _take_back(
    entry: Entry, asset: Asset, wallet: Mapping[tuple[Asset, int], int]
) -> Iterable[Posting]:
    short = 0
    given, source = None, None
    for line in entry.postings:
        if line.asset is not asset:
            continue
        if line.account.kind is _WALLET:
            given = line
        elif line.account.kind is AccountKind.OWED:
            short = line.amount
        elif line.account.kind is not AccountKind.DEBT:
            source = line
    if given and source:
        taken = _drain(given, wallet)
        total = sum(amount for _, amount in taken)
        short += given.amount - total
        if total:
            yield source._replace(amount=total)
        for bucket, amount in taken:
            yield Posting(given.account, asset, bucket, -amount)
    if short:
        yield Posting(Account(AccountKind.DEBT, entry.resident), asset, 0, short)
        yield Posting(_OWED, asset, 0, -short)


def _drain(given: Posting, wallet: Mapping[tuple[Asset, int], int]) -> list[tuple[int, int]]:
    taken = []
    rest = given.amount
    # its own bucket first, then the earliest
    for _, bucket in sorted((b != given.bucket, b) for asset, b in wallet if asset is given.asset):
        amount = min(rest, wallet[given.asset, bucket])
        if amount > 0:
            taken.append((bucket, amount))
            rest -= amount
    return taken


def expire(*, id: str, at: str, resident: str, bucket: int, points: int, today: int) -> Entry:
    """Cancel the points of a bucket whose last valid day lies before ``today``."""
    if bucket >= today:
        raise Refused(f"Points of bucket {bucket} are still valid on {today}.")
    source = Account(_WALLET, resident)
    return Entry(id, Kind.EXPIRE, at, _move(source, _EXPIRED, ((bucket, points),)), {})


def adjust(
    *, id: str, at: str, resident: str, budget: str, points: int, bucket: int, reason: str
) -> Entry:
    """Correct a wallet by hand, up or down, out of a budget; ``reason`` names no person."""
    lines = (
        (Account(_BUDGET, budget), 0, -points),
        (Account(_WALLET, resident), bucket, points),
    )
    return Entry(id, Kind.ADJUST, at, _points(lines), {"reason": reason})


def publish_scenario(
    *, id: str, at: str, scenario: str, version: int, digest: str, effective_from: str
) -> Entry:
    """Publish a scenario version: no issue may cite one that was not published before it."""
    detail = {
        "scenario": scenario,
        "version": version,
        "digest": digest,
        "effective_from": effective_from,
    }
    return Entry(id, Kind.SCENARIO_PUBLISHED, at, (), detail)


def withdraw_scenario(
    *, id: str, at: str, scenario: str, version: int, digest: str, effective_from: str
) -> Entry:
    """Withdraw a version that is not in effect yet; its number is not used again.

    ``effective_from`` is the day it was published with; raises ``Refused`` if less than
    ``WITHDRAWAL_LEAD`` is left until that day begins in Asia/Shanghai.
    """
    detail = {"scenario": scenario, "version": version, "digest": digest}
    entry = Entry(id, Kind.SCENARIO_WITHDRAWN, at, (), detail)
    begins = datetime.combine(date.fromisoformat(effective_from), time(), SHANGHAI)
    if begins - datetime.fromisoformat(at) < WITHDRAWAL_LEAD:
        raise Refused(
            f"{scenario} version {version} takes effect on {effective_from}; until an hour before"
            " that day it could be withdrawn."
        )
    return entry


def record_action(*, id: str, at: str, action: str, commitment: str) -> Entry:
    """Record that an administrator acted: what sort of action, and a commitment to its record."""
    return Entry(id, Kind.ADMIN_ACTED, at, (), {"action": action, "commitment": commitment})


def rotate_key(*, id: str, at: str, detail: Mapping[str, str]) -> Entry:
    """Hand over to a new log key; the detail is ``keys.rotation``'s."""
    return Entry(id, Kind.KEY_ROTATED, at, (), dict(detail))


def erase_subject(*, id: str, at: str, resident: str) -> Entry:
    """Record that a resident was erased: no later entry touches that resident's accounts."""
    return Entry(id, Kind.SUBJECT_ERASED, at, (), {"account": f"resident:{resident}"})


def close_day(*, id: str, at: str, day: int, size: int, totals: Mapping[str, int]) -> Entry:
    """Close a day with the sums of the open accounts over the ``size`` leaves before this one.

    ``totals`` maps ``<open account kind>:<asset>`` to its sum, sums of zero left out.
    """
    detail = {"day": day, "size": size, "totals": dict(totals)}
    return Entry(id, Kind.DAY_CLOSED, at, (), detail)


def _spent(redeem: Entry) -> list[tuple[int, int]]:
    return [(p.bucket, p.amount) for p in redeem.postings if p.account.kind is _REDEEMED.kind]


def _allow(merchant: str, points: int) -> tuple[Posting, ...]:
    """What a redemption (below zero) or a refund does to the merchant's allowance."""
    account = Account(AccountKind.MERCHANT, merchant)
    return _points(((account, 0, points), (_SETTLEMENT, 0, -points)))


def _sum(lines: Iterable[tuple[int, int]]) -> int:
    return sum(amount for _, amount in lines)


def _gains(entry: Entry) -> list[tuple[int, int]]:
    return [(line.bucket, line.amount) for line in entry.postings if line.amount > 0]


def _move(
    source: Account, target: Account, lines: Iterable[tuple[int, int]]
) -> tuple[Posting, ...]:
    return _points(
        line
        for bucket, amount in lines
        for line in ((source, bucket, -amount), (target, bucket, amount))
    )


def _points(lines: Iterable[tuple[Account, int, int]]) -> tuple[Posting, ...]:
    return tuple(Posting(account, _POINT, bucket, amount) for account, bucket, amount in lines)
