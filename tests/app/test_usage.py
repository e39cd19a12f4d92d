"""Counters are what was stored, whether many residents share a key or only a few have it."""

from __future__ import annotations

import random

import pytest

from app.store import usage
from scenarios import Usage

RIDE, PAY = "travel.bike_shared", "banking.mobile_pay"
DAY, NEXT, MONTH = (RIDE, 20261122), (RIDE, 20261123), (PAY, 202611)


@pytest.mark.parametrize("residents", [3, 100])
def test_counters_read_are_those_kept(city, residents):
    draw = random.Random(residents)
    accounts = [draw.randbytes(16) for _ in range(residents)]
    wanted = {DAY: accounts, NEXT: accounts[:2], MONTH: set(accounts), (PAY, 20261122): accounts}
    with city.engine.connect() as tx:
        assert usage.read(tx, wanted) == {}
        kept = {
            account: {DAY: Usage(n, 7, 2**40 + n), MONTH: Usage(1, n, 0)}
            for n, account in enumerate(accounts)
        }
        kept[accounts[1]][NEXT] = Usage(1, 2, 3)
        # nobody asks for what belongs to a stranger, or to another scenario on the same day
        stored = kept | {bytes(16): {DAY: Usage(9, 9, 9)}, accounts[0]: {**kept[accounts[0]]}}
        stored[accounts[0]][PAY, 20261123] = Usage(8, 8, 8)
        usage.store(tx, stored, {(who, key): False for who, own in stored.items() for key in own})
        assert usage.read(tx, wanted) == kept

        kept[accounts[0]][DAY] = stored[accounts[0]][DAY] = Usage(5, 6, 7)
        kept[accounts[2]][NEXT] = Usage(4, 4, 4)
        usage.store(tx, kept, {(accounts[0], DAY): True, (accounts[2], NEXT): False})
        assert usage.read(tx, wanted | {NEXT: accounts}) == kept


def test_each_act_is_counted_once_whether_its_counter_is_new_or_old(city, provider, rider, ride):
    for batch, hours in enumerate([(8, 9), (10,), (11, 12)]):
        acts = [ride(hour, occurred_at=f"2026-11-20T{hour:02d}:00:00+08:00") for hour in hours]
        assert provider.batch(f"b{batch}", *acts).json["counts"]["accepted"] == len(hours)
    account, key = bytes.fromhex(rider), (RIDE, 20261120)
    with city.engine.connect() as tx:
        (counters,) = usage.read(tx, {key: [account]}).values()
    assert counters[key] == Usage(5, 5 * 625_000, 2 * 625)
