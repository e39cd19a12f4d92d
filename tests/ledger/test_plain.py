from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import plain
from ledger.accounts import AccountKind, Asset
from ledger.entries import Entry
from ledger.errors import LedgerError
from ledger.plain import Grant, Terms
from ledger.transfers import Rule, granted, issue

A, BUDGET = "a" * 32, "b" * 32
HEX32 = st.integers(0, 2**128 - 1).map("{:032x}".format)
AMOUNT = st.integers(1, 10**15 - 1)


def an_issue(**more: Any) -> Entry:
    known: dict[str, Any] = {
        "id": "1" * 32, "at": "2026-11-22T00:12:11.123Z", "resident": A,
        "rule": Rule("travel.bike_shared", 1, "d" * 64), "commitment": "c" * 64,
        "reduction_mg": 1_320_000, "vintage": 2026, "points": 1320, "bucket": 20361130,
        "budget": BUDGET,
    }  # fmt: skip
    return issue(**(known | more))


def summary(entry: Entry) -> Grant:
    """What a plain issue must be read as, worked out from the entry."""
    buckets = {line.account.kind: line.bucket for line in entry.postings if line.amount > 0}
    payers = [e.account.token for e in entry.postings if e.account.kind is AccountKind.BUDGET]
    vintage = next(line.bucket for line in entry.postings if line.asset is Asset.CO2E)
    expires = buckets[AccountKind.RESIDENT] if payers else 0
    terms = Terms(*entry.detail["rule"], vintage, payers[0] if payers else "", expires)
    points = granted(entry, Asset.POINT)
    detail = entry.detail
    waits = detail["commitment"], detail.get("awaiting", 0), detail.get("withheld", 0)
    return Grant(entry.id, entry.resident, terms, granted(entry, Asset.CO2E), points, *waits)


@given(HEX32, HEX32, AMOUNT, AMOUNT, st.integers(0, 9), st.sampled_from(["paid", "due", "none"]))
def test_an_issue_that_repays_nothing_is_plain(
    id: str, resident: str, reduction_mg: int, amount: int, withheld: int, how: str
) -> None:
    entry = an_issue(
        id=id,
        resident=resident,
        reduction_mg=reduction_mg,
        withheld=withheld,
        points=amount if how == "paid" else 0,
        awaiting=amount if how == "due" else 0,
    )
    assert plain.read(entry.payload()) == summary(entry)


@given(HEX32, HEX32, AMOUNT, AMOUNT, st.integers(0, 9), st.sampled_from(["paid", "due", "none"]))
def test_a_plain_issue_is_written_as_the_verb_writes_it(
    id: str, resident: str, reduction_mg: int, amount: int, withheld: int, how: str
) -> None:
    parts: dict[str, Any] = {
        "id": id,
        "resident": resident,
        "reduction_mg": reduction_mg,
        "withheld": withheld,
        "points": amount if how == "paid" else 0,
        "awaiting": amount if how == "due" else 0,
    }
    entry = an_issue(**parts)
    terms = Terms("travel.bike_shared", 1, "d" * 64, 2026, BUDGET, 20361130)
    made = plain.write(terms, at=entry.at, commitment="c" * 64, **parts)
    assert made.payload() == entry.payload()
    assert list(made.rows()) == entry.rows()
    assert (made.id, made.kind) == (entry.id, entry.kind)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "1" * 31},
        {"resident": 'a","b'},
        {"at": "2026-11-22"},
        {"commitment": "C" * 64},
        {"reduction_mg": 0},
        {"reduction_mg": -1},
        {"points": 10**15},
        {"points": 5, "awaiting": 5},
        {"terms": Terms("travel.bike_shared", 1, "d" * 64, 2026, "nobody", 20361130)},
        {"terms": Terms("travel.bike_shared", 1, "d" * 64, 2026, BUDGET, 20361131)},
    ],
)
def test_what_is_no_sound_issue_is_never_written(wrong: dict[str, Any]) -> None:
    terms = Terms("travel.bike_shared", 1, "d" * 64, 2026, BUDGET, 20361130)
    parts: dict[str, Any] = {
        "terms": terms, "id": "1" * 32, "at": "2026-11-22T00:12:11.123Z", "resident": A,
        "commitment": "c" * 64, "reduction_mg": 5, "points": 5,
    }  # fmt: skip
    with pytest.raises(LedgerError):
        plain.write(**(parts | wrong))


def test_of_a_history_the_issues_that_repay_nothing_are_plain_and_nothing_else_is(
    make_town: Callable[..., Any],
) -> None:
    entries = make_town(7).live(600).entries
    found = {entry.id for entry in entries if plain.read(entry.payload())}
    debts = {AccountKind.DEBT, AccountKind.OWED}
    assert found == {
        entry.id
        for entry in entries
        if "rule" in entry.detail and not debts & {line.account.kind for line in entry.postings}
    }
    assert 100 < len(found) < len(entries)


@given(st.data())
def test_whatever_is_plain_is_an_entry_that_says_the_same(data: st.DataObject) -> None:
    payload = bytearray(an_issue(withheld=3).payload())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.sampled_from(payload) | st.integers(0, 255))
    read = plain.read(bytes(payload))
    if read:
        assert read == summary(Entry.parse(bytes(payload)))


WRONG = [
    (b"2026-11-22T", b"2026-02-29T"),
    (b"2026-11-22T", b"0000-11-22T"),
    (b"T00:12", b"T24:12"),
    (b":11.123Z", b":60.123Z"),
    (b".123Z", b".1234Z"),
    (b'"rule":["travel.bike_shared"', b'"rule":["travel.metro"'),
    (b"travel.bike_shared", b"travel"),
    (b"travel.bike_shared", b"travel..bike"),
    (b"travel.bike_shared", b"travel." + b"x" * 58),
    (b'shared",1,', b'shared",0,'),
    (b'shared",1,', b'shared",01,'),
    (b"1320000", b"0"),
    (b"1320000", b"01320000"),
    (b"-1320000", b"-1320001"),
    (b'0,-1320]', b'0,-1321]'),
    (b'0,-1320]', b'20361130,-1320]'),
    (b"2026,", b"1989,"),
    (b"2026,", b"3000,"),
    (b"20361130", b"20361131"),
    (b"20361130", b"19991231"),
    (b"20361130", b"0"),
    (b'"resident:' + b"a" * 32 + b'","POINT"', b'"resident:' + b"e" * 32 + b'","POINT"'),
    (b"c" * 64, b"C" * 64),
    (b"d" * 64, b"d" * 63),
    (b'"commitment"', b'"awaiting":5,"budget":"' + b"b" * 32 + b'","commitment"'),
    (b'"commitment"', b'"awaiting":5,"commitment"'),
    (b']},"id"', b'],"withheld":0},"id"'),
    (b']},"id"', b'],"name":"Zhang"},"id"'),
    (b'"v":1}', b'"v":2}'),
    (b'"v":1}', b'"v":1}\n'),
    (b'"v":1}', b'"v":1 }'),
    (b'{"at"', b' {"at"'),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new"), WRONG)
def test_what_is_no_entry_is_not_plain(old: bytes, new: bytes) -> None:
    right = an_issue().payload()
    wrong = right.replace(old, new)
    assert wrong != right
    assert plain.read(right)
    assert plain.read(wrong) is None
    with pytest.raises(LedgerError):
        Entry.read(wrong)


@pytest.mark.parametrize("more", [{"reduction_mg": 2**53 - 1}, {"points": 10**15}])
def test_an_entry_of_unusual_size_is_left_to_the_entry(more: dict[str, int]) -> None:
    entry = an_issue(**more)
    assert plain.read(entry.payload()) is None
    assert Entry.parse(entry.payload()) == entry
