from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.accounts import Account, AccountKind, Asset
from ledger.encoding import decode, encode
from ledger.entries import Entry, Kind, Posting, instant
from ledger.errors import LedgerError, Malformed, Unbalanced
from ledger.transfers import Rule, adjust, issue

A, B = "a" * 32, "b" * 32
AT = "2026-11-22T00:12:11.123Z"
WALLET, BUDGET = Account(AccountKind.RESIDENT, A), Account(AccountKind.BUDGET, B)
HEX32 = st.integers(0, 2**128 - 1).map("{:032x}".format)
HEX64 = st.integers(0, 2**256 - 1).map("{:064x}".format)
AMOUNT = st.integers(1, 2**53 - 1)


def an_issue(**more: Any) -> Entry:
    known: dict[str, Any] = {
        "id": "1" * 32, "at": AT, "resident": A, "rule": Rule("travel.bike_shared", 1, "d" * 64),
        "commitment": "c" * 64, "reduction_mg": 1_320_000, "vintage": 2026, "points": 1320,
        "bucket": 20361130, "budget": B,
    }  # fmt: skip
    return issue(**(known | more))


@st.composite
def issues(draw: st.DrawFn) -> Entry:
    points, awaiting = draw(st.sampled_from([(0, 0), (7, 0), (0, 7)]))
    return an_issue(
        id=draw(HEX32),
        resident=draw(HEX32),
        commitment=draw(HEX64),
        reduction_mg=draw(AMOUNT),
        points=points * draw(st.integers(1, 10**12)),
        awaiting=awaiting,
        withheld=draw(st.integers(0, 9)),
        debt={asset: draw(st.integers(0, 10)) for asset in Asset},
    )


def canonical(entry: Entry) -> bytes:
    return encode(
        {
            "at": entry.at,
            "detail": entry.detail,
            "id": entry.id,
            "kind": entry.kind,
            "postings": [[p.account.name, p.asset, p.bucket, p.amount] for p in entry.postings],
            "v": 1,
        }
    )


@given(issues())
def test_an_issues_payload_is_canonical_and_comes_back(entry: Entry) -> None:
    assert entry.payload() == canonical(entry)
    assert Entry.parse(entry.payload()) == entry


@given(st.text(min_size=1, max_size=400))
def test_a_reason_in_any_script_is_canonical_or_refused(reason: str) -> None:
    try:
        entry = adjust(
            id="1" * 32, at=AT, resident=A, budget=B, points=-1, bucket=20261130, reason=reason
        )
    except Malformed:
        assert not reason.isprintable()
        return
    assert entry.payload() == canonical(entry)
    assert Entry.parse(entry.payload()) == entry


def test_every_kind_of_entry_comes_back_from_its_payload(make_town: Callable[..., Any]) -> None:
    town = make_town(7).live(400)
    kinds = {entry.kind for entry in town.entries}
    assert len(kinds) >= 10
    for entry in town.entries:
        assert entry.payload() == canonical(entry)
        assert Entry.parse(entry.payload()) == entry


@pytest.mark.parametrize(
    "lines",
    [
        [(WALLET, "POINT", 20361130, 5)],
        [(WALLET, "POINT", 20361130, 5), (BUDGET, "POINT", 0, -4)],
        [(WALLET, "POINT", 20361130, 5), (BUDGET, "CO2E", 0, -5)],
        [(WALLET, "POINT", 20361130, 0), (BUDGET, "POINT", 0, 0)],
        [(WALLET, "POINT", 20360230, 5), (BUDGET, "POINT", 0, -5)],
        [(WALLET, "POINT", 0, 5), (BUDGET, "POINT", 0, -5)],
        [(WALLET, "POINT", 20361130, 5), (BUDGET, "POINT", 20361130, -5)],
        [(WALLET, "POINT", 20361130, 2**53), (BUDGET, "POINT", 0, -(2**53))],
        [(WALLET, "POINT", 20361130, True), (BUDGET, "POINT", False, -1)],
        [(WALLET, "POINT", 20361130, 5), (WALLET, "POINT", 20361130, -5)],
        [(WALLET, "POINT", 20361130, 5), (WALLET, "POINT", 20361231, -5)],
        [(WALLET, "POINT", 20361130, 5), (Account(AccountKind.BUDGET, "x"), "POINT", 0, -5)],
        [(Account(AccountKind.RESIDENT, "X"), "POINT", 20361130, 5), (BUDGET, "POINT", 0, -5)],
        [(WALLET, "POINT", 20361130, 5), (Account(AccountKind.ISSUANCE), "POINT", 0, -5)],
        [],
    ],
)
def test_an_entry_is_never_born_with_wrong_postings(lines: list[Any]) -> None:
    postings = tuple(
        Posting(account, Asset(asset), bucket, amount) for account, asset, bucket, amount in lines
    )
    with pytest.raises((Malformed, Unbalanced)):
        Entry("1" * 32, Kind.ADJUST, AT, postings, {"reason": "test"})


def test_a_reduction_is_of_one_year_on_both_sides() -> None:
    entry = an_issue()
    later = [
        line._replace(bucket=2027) if line.account == WALLET and line.asset is Asset.CO2E else line
        for line in entry.postings
    ]
    with pytest.raises(Malformed, match="one year"):
        replace(entry, postings=tuple(later))


def test_points_never_pass_from_one_resident_to_another() -> None:
    held = Account(AccountKind.HELD, B)
    postings = (
        Posting(WALLET, Asset.POINT, 20361130, -5),
        Posting(held, Asset.POINT, 20361130, 5),
    )
    with pytest.raises(Malformed, match="one resident"):
        Entry("1" * 32, Kind.HOLD, AT, postings, {})


@pytest.mark.parametrize(
    "change",
    [
        {"id": "1" * 31},
        {"id": "G" * 32},
        {"id": 5},
        {"at": "2026-11-22T00:12:11Z"},
        {"at": "2026-11-22T00:12:11.123+00:00"},
        {"at": "2026-02-30T00:12:11.123Z"},
        {"at": "1999-12-31T23:59:59.999Z"},
        {"at": "9999-12-31T20:00:00.000Z"},  # in the city this is no day of any calendar here
        {"at": ["2026-11-22T00:12:11.123Z"]},
        {"detail": {}},
        {"detail": []},
        {"detail": {"commitment": "c" * 64}},
        {"detail": {"commitment": "C" * 64, "rule": ["travel.bike_shared", 1, "d" * 64]}},
        {"detail": {"commitment": "c" * 64, "rule": ["travel.bike_shared", True, "d" * 64]}},
        {"detail": {"commitment": "c" * 64, "rule": ["travel.bike_shared", 1]}},
        {"detail": {"commitment": "c" * 64, "rule": ["food.other", 1, "d" * 64]}},
        {"detail": {"commitment": "c" * 64, "rule": [["travel"], 1, "d" * 64]}},
        {"detail": {"settles": "1" * 32}},
        {"kind": Kind.HOLD},
        {"kind": Kind.KEY_ROTATED},
    ],
)
def test_an_entry_is_never_born_with_a_wrong_field(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        replace(an_issue(), **change)


@pytest.mark.parametrize(
    "more",
    [
        {"name": "Zhang"},
        {"awaiting": 5},
        {"budget": B},
        {"withheld": 0},
        {"withheld": "1"},
        {"awaiting": 5, "budget": B},
    ],
)
def test_a_detail_has_the_fields_of_its_kind_and_no_others(more: dict[str, Any]) -> None:
    entry = an_issue()
    with pytest.raises(Malformed):
        replace(entry, detail={**entry.detail, **more})


def test_what_is_owed_appears_only_with_what_is_repaid() -> None:
    owed = Posting(Account(AccountKind.OWED), Asset.POINT, 0, 1320)
    entry = an_issue()
    with pytest.raises(Malformed):
        replace(entry, postings=(*entry.postings[:3], owed))


@given(st.data())
def test_any_byte_changed_in_a_payload_is_refused_or_another_entry(data: st.DataObject) -> None:
    entry = an_issue()
    payload = bytearray(entry.payload())
    at = data.draw(st.integers(0, len(payload) - 1))
    payload[at] ^= data.draw(st.integers(1, 255))
    try:
        other = Entry.parse(bytes(payload))
    except LedgerError:
        return
    assert other != entry
    assert other.payload() == payload


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
), st.sampled_from(["at", "detail", "id", "kind", "postings", "v"]))  # fmt: skip
def test_any_json_in_any_field_is_refused(value: Any, field: str) -> None:
    whole = decode(an_issue().payload())
    try:
        payload = encode({**whole, field: value})
    except Malformed:
        return
    if value != whole[field]:
        with pytest.raises(LedgerError):
            Entry.parse(payload)


@pytest.mark.parametrize("change", [{"v": 2}, {"w": 1}])
def test_another_version_or_field_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(Malformed):
        Entry.parse(encode(decode(an_issue().payload()) | change))


def test_a_time_is_written_in_utc_and_cut_to_milliseconds() -> None:
    moment = datetime(2026, 11, 22, 8, 12, 11, 123_999, timezone(timedelta(hours=8)))
    assert instant(moment) == AT
    assert instant(moment.astimezone(UTC)) == AT
