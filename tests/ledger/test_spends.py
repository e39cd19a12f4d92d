from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import spends
from ledger.accounts import AccountKind
from ledger.buckets import day_of
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError
from ledger.spends import Spend
from ledger.transfers import charge, hold, redeem, release

A, MERCHANT = "a" * 32, "c" * 32
WALLET = {20270131: 5, 20270228: 7, 20361130: 9}
STAMP = {"id": "1" * 32, "at": "2026-11-22T15:59:59.999Z"}
SPENDS = frozenset({Kind.HOLD, Kind.RELEASE, Kind.REDEEM})


def a_hold(points: int = 11, wallet: Mapping[int, int] = WALLET) -> Entry:
    return hold(**STAMP, resident=A, points=points, wallet=wallet, today=20261122)


def a_charge(points: int = 11, wallet: Mapping[int, int] = WALLET) -> Entry:
    known: dict[str, Any] = {"resident": A, "wallet": wallet, "today": 20261122}
    return charge(**STAMP, points=points, merchant=MERCHANT, **known)


def a_redemption() -> Entry:
    return redeem(**STAMP, hold=a_hold(), merchant=MERCHANT)


def a_release() -> Entry:
    return release(**STAMP, hold=a_hold())


EACH = [a_hold, a_charge, a_redemption, a_release]


def summary(entry: Entry) -> Spend:
    """What a spend must be read as, worked out from the entry."""
    lines = [
        (bucket, -amount)
        for account, _, bucket, amount in entry.postings
        if amount < 0 and account.kind is not AccountKind.MERCHANT
    ]
    named = entry.detail.get("merchant", ""), entry.detail.get("hold", "")
    day = day_of(entry.at)
    return Spend(entry.id, entry.resident, str(entry.kind), day, tuple(lines), *named)


@pytest.mark.parametrize("make", EACH)
def test_what_the_verbs_write_is_a_spend(make: Callable[[], Entry]) -> None:
    entry = make()
    assert spends.read(entry.payload()) == summary(entry)


def test_of_a_history_the_holds_and_what_spends_points_are_spends_and_nothing_else_is(
    make_town: Callable[..., Any],
) -> None:
    entries = make_town(7).live(600).entries
    found = {entry.id: spends.read(entry.payload()) for entry in entries}
    wanted = {entry.id: summary(entry) if entry.kind in SPENDS else None for entry in entries}
    assert found == wanted
    assert len(SPENDS) == len({spend.kind for spend in found.values() if spend})
    assert any(len(spend.lines) > 1 for spend in found.values() if spend)


@given(st.data(), st.sampled_from(EACH))
def test_whatever_is_a_spend_is_an_entry_that_says_the_same(
    data: st.DataObject, make: Callable[[], Entry]
) -> None:
    payload = bytearray(make().payload())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.sampled_from(payload) | st.integers(0, 255))
    read = spends.read(bytes(payload))
    if read:
        assert read == summary(Entry.parse(bytes(payload)))


WRONG = [
    (b"2026-11-22T", b"2026-02-29T"),
    (b"2026-11-22T", b"0000-11-22T"),
    (b"T15:59", b"T24:59"),
    (b":59.999Z", b":60.999Z"),
    (b".999Z", b".9999Z"),
    (b"-5]", b"-6]"),
    (b'POINT",20270131,5]', b'POINT",20270131,6]'),
    (b'POINT",20270131,5]', b'POINT",20270228,5]'),
    (b"20270131", b"20270132"),
    (b"20270131", b"20270228"),
    (b"20270131,-5", b"0,-5"),
    (b'"resident:' + b"a" * 32, b'"resident:' + b"A" * 32),
    (b'"redeemed"', b'"expired"'),
    (b'"settlement","POINT",0,11]', b'"settlement","POINT",0,12]'),
    (b',["settlement","POINT",0,11]', b""),
    (b'"merchant:' + b"c" * 32, b'"merchant:' + b"C" * 32),
    (b'"detail":{"merchant"', b'"detail":{"budget"'),
    (b'"detail":{"merchant"', b'"detail":{"hold":"' + b"1" * 31 + b'","merchant"'),
    (b'"kind":"redeem"', b'"kind":"hold"'),
    (b'"kind":"redeem"', b'"kind":"release"'),
    (b'"v":1}', b'"v":2}'),
    (b'"v":1}', b'"v":1}\n'),
    (b'{"at"', b' {"at"'),
    (b',["redeemed"', b', ["redeemed"'),
]


@pytest.mark.parametrize(("old", "new"), WRONG)
def test_what_is_no_entry_is_no_spend(old: bytes, new: bytes) -> None:
    right = a_charge().payload()
    wrong = right.replace(old, new)
    assert wrong != right
    assert spends.read(wrong) is None
    with pytest.raises(LedgerError):
        Entry.read(wrong)


def test_an_entry_of_another_order_or_of_unusual_size_is_left_to_the_entry() -> None:
    swapped = a_charge()
    swapped = Entry(**{name: getattr(swapped, name) for name in ("id", "kind", "at", "detail")},
                    postings=swapped.postings[::-1])  # fmt: skip
    half = 5 * 10**14
    for entry in (
        swapped,
        a_charge(10**15, {20270131: 10**15}),
        a_charge(2 * half, {20270131: half, 20270228: half}),
    ):
        assert spends.read(entry.payload()) is None
        assert Entry.parse(entry.payload()) == entry
