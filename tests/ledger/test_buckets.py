from calendar import monthrange
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accounts import AccountKind, Asset
from ledger.buckets import day_of, expiry_bucket, is_bucket, is_day, spend
from ledger.errors import Insufficient, Malformed

DAYS = st.dates(min_value=date(2000, 1, 1), max_value=date(2200, 12, 31))


@given(DAYS, st.integers(1, 120))
def test_points_expire_at_the_end_of_the_month_that_many_months_later(day: date, n: int) -> None:
    bucket = expiry_bucket(day, n)
    year, month, last = bucket // 10000, bucket // 100 % 100, bucket % 100
    assert (year * 12 + month) - (day.year * 12 + day.month) == n
    assert last == monthrange(year, month)[1]
    assert is_day(bucket)


@pytest.mark.parametrize("months", [-1, 0, 121])
def test_points_are_valid_for_one_to_a_hundred_and_twenty_months(months: int) -> None:
    with pytest.raises(Malformed):
        expiry_bucket(date(2026, 11, 22), months)


def test_a_day_begins_at_midnight_in_shanghai() -> None:
    assert day_of("2026-11-22T15:59:59.999Z") == 20261122
    assert day_of("2026-11-22T16:00:00.000Z") == 20261123


@pytest.mark.parametrize("number", [0, 20260230, 20261301, -20260101, 19991231, 10**12])
def test_a_number_that_is_no_day_is_no_bucket_of_points(number: int) -> None:
    assert not is_bucket(AccountKind.RESIDENT, Asset.POINT, number)


def test_an_account_without_expiry_has_bucket_0_only() -> None:
    assert is_bucket(AccountKind.BUDGET, Asset.POINT, 0)
    assert not is_bucket(AccountKind.BUDGET, Asset.POINT, 20261231)
    assert is_bucket(AccountKind.RESIDENT, Asset.CO2E, 2026)
    assert not is_bucket(AccountKind.RESIDENT, Asset.CO2E, 20261231)


@given(st.dictionaries(st.integers(20260101, 20260131), st.integers(1, 50)), st.integers(1, 300))
def test_spending_takes_the_earliest_live_buckets_and_no_more_than_asked(
    wallet: dict[int, int], amount: int
) -> None:
    today = 20260110
    live = sorted(bucket for bucket in wallet if bucket >= today)
    if sum(wallet[bucket] for bucket in live) < amount:
        with pytest.raises(Insufficient):
            spend(wallet, amount, today)
        return
    lines = spend(wallet, amount, today)
    assert sum(taken for _, taken in lines) == amount
    assert [bucket for bucket, _ in lines] == live[: len(lines)]
    assert all(taken == wallet[bucket] for bucket, taken in lines[:-1])
    assert 0 < lines[-1][1] <= wallet[lines[-1][0]]


def test_a_bucket_can_be_spent_on_its_last_day_and_not_after() -> None:
    assert spend({20260110: 5}, 5, 20260110) == ((20260110, 5),)
    with pytest.raises(Insufficient):
        spend({20260110: 5}, 5, 20260111)
