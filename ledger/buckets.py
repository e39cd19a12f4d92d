"""Buckets: the part of a balance that expires on one day.

A bucket is an int. For POINT where points wait to be spent, and where they went, it is the last
valid day ``YYYYMMDD``; for CO2E the vintage year ``YYYY``; 0 where neither means anything. Days
are business days in Asia/Shanghai, which is UTC+8 with no summer time.
"""

from calendar import monthrange
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache

from ledger.accounts import AccountKind, Asset
from ledger.errors import Insufficient, Malformed

MAX_MONTHS = 120  # points are valid for ten years at most
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
