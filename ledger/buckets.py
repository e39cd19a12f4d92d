"""Buckets: the part of a balance that expires on one day.

A bucket is an int. For POINT where points wait to be spent, and where they went, it is the last
valid day ``YYYYMMDD``; for CO2E the vintage year ``YYYY``; 0 where neither means anything. Days
are business days in Asia/Shanghai, which is UTC+8 with no summer time.
"""

from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache

from ledger.accounts import AccountKind, Asset
from ledger.errors import Insufficient, Malformed

MAX_MONTHS = 120  # points are valid for ten years at most
REFUND_GRACE_DAYS = 30
"""What a refund gives back after its last valid day is valid for this many days more."""
SHANGHAI = timezone(timedelta(hours=8))
BUCKETED = frozenset(
    {
        AccountKind.RESIDENT,
        AccountKind.HELD,
        AccountKind.POOL,
        AccountKind.REDUCTION,
        AccountKind.REDEEMED,
        AccountKind.EXPIRED,
        AccountKind.RETIRED,
    }
)


def day_number(day: date) -> int:
    """A date as ``YYYYMMDD``."""
    return day.year * 10000 + day.month * 100 + day.day


@lru_cache(maxsize=4096)
def day_of(at: str) -> int:
    """The business day ``YYYYMMDD`` of an entry's time (RFC 3339)."""
    return day_number(datetime.fromisoformat(at).astimezone(SHANGHAI).date())


@lru_cache(maxsize=4096)
def is_day(number: int) -> bool:
    """Whether an int is a day ``YYYYMMDD`` of the years 2000 to 9998."""
    try:
        return 2000 <= date(number // 10000, number // 100 % 100, number % 100).year <= 9998
    except (ValueError, OverflowError):
        return False


@lru_cache(maxsize=4096)
def is_bucket(kind: AccountKind, asset: Asset, bucket: int) -> bool:
    """Whether a balance of this asset, in an account of this kind, can have this bucket."""
    if kind not in BUCKETED:
        return bucket == 0
    return is_day(bucket) if asset is Asset.POINT else 1990 <= bucket <= 2999


def expiry_bucket(day: date, months: int) -> int:
    """The end of the month that lies ``months`` (1 to 120) after a day's own."""
    if not 1 <= months <= MAX_MONTHS:
        raise Malformed(f"Points are valid for 1 to {MAX_MONTHS} months, not {months}.")
    years, month = divmod(day.month - 1 + months, 12)
    year = day.year + years
    return year * 10000 + (month + 1) * 100 + monthrange(year, month + 1)[1]


def spend(wallet: Mapping[int, int], amount: int, today: int) -> tuple[tuple[int, int], ...]:
    """``(bucket, amount)`` lines that take an amount from a wallet, earliest live bucket first.

    A bucket is live through its own day. Raises ``Insufficient`` if the live ones hold too little.
    """
    lines = []
    rest = amount
    for bucket, held in sorted(wallet.items()):
        taken = min(held, rest)
        if bucket >= today and taken > 0:
            lines.append((bucket, taken))
            rest -= taken
    if rest:
        raise Insufficient(f"The wallet holds {amount - rest} live points, not {amount}.")
    return tuple(lines)


def unspend(
    spent: Sequence[tuple[int, int]], amount: int, before: int
) -> tuple[tuple[int, int], ...]:
    """``(bucket, amount)`` lines that give an amount of what ``spend`` took back, the latest first.

    ``before`` was given back already; raises ``Insufficient`` if less than the amount is left.
    """
    left = sum(taken for _, taken in spent) - before
    if amount > left:
        raise Insufficient(f"Of the redemption only {left} points are left to refund.")
    lines = []
    skip, rest = before, amount
    for bucket, taken in reversed(spent):
        passed = min(skip, taken)
        back = min(rest, taken - passed)
        skip, rest = skip - passed, rest - back
        if back > 0:
            lines.append((bucket, back))
    return tuple(lines)


def in_grace(lines: Iterable[tuple[int, int]], today: int) -> dict[int, int]:
    """Those lines as a wallet gets them ``today``: what has expired, in the day's grace bucket."""
    gained: dict[int, int] = {}
    for bucket, amount in lines:
        live = bucket if bucket >= today else grace_bucket(today)
        gained[live] = gained.get(live, 0) + amount
    return gained


@lru_cache(maxsize=4096)
def grace_bucket(today: int) -> int:
    """The bucket in which a refund on the day ``today`` gives expired points back."""
    day = date(today // 10000, today // 100 % 100, today % 100)
    return day_number(day + timedelta(REFUND_GRACE_DAYS))
