from collections import Counter
from typing import Any

import pytest

from ledger import transfers
from ledger.accounts import Asset
from ledger.entries import Entry, Kind
from ledger.errors import Insufficient, LedgerError, Malformed, Refused
from ledger.transfers import Rule, granted, redeemed

A, BUDGET, MERCHANT = "a" * 32, "b" * 32, "c" * 32
RULE = Rule("travel.bike_shared", 1, "d" * 64)
STAMP = {"id": "1" * 32, "at": "2026-11-22T00:12:11.123Z"}
JUNE, JULY = 20270630, 20270731


def an_issue(**more: Any) -> Entry:
    known: dict[str, Any] = {
        "resident": A, "rule": RULE, "commitment": "c" * 64, "reduction_mg": 1000,
        "vintage": 2026, "points": 100, "bucket": JUNE, "budget": BUDGET,
    }  # fmt: skip
    return transfers.issue(**STAMP, **(known | more))


def lines(entry: Entry) -> list[tuple[str, int, int]]:
    return [(p.account.name.replace(A, "A"), p.bucket, p.amount) for p in entry.postings]


def test_an_issue_moves_carbon_from_its_scenario_and_points_from_its_budget() -> None:
    assert lines(an_issue()) == [
        ("reduction:travel.bike_shared", 2026, -1000),
        ("resident:A", 2026, 1000),
        (f"budget:{BUDGET}", 0, -100),
        ("resident:A", JUNE, 100),
    ]


@pytest.mark.parametrize("owed", [1, 99, 100, 250])
def test_an_issue_repays_what_is_owed_first(owed: int) -> None:
    entry = an_issue(debt={Asset.POINT: owed})
    repaid = min(owed, 100)
    found = {(name, bucket): amount for name, bucket, amount in lines(entry)[2:]}
    assert found.pop(("debt:A", 0)) == -repaid
    assert found.pop(("owed", 0)) == repaid
    wallet = {("resident:A", JUNE): 100 - repaid, (f"budget:{BUDGET}", 0): repaid - 100}
    assert found == (wallet if repaid < 100 else {})
    assert granted(entry, Asset.POINT) == 100


def test_points_that_await_their_budget_are_named_and_not_posted() -> None:
    entry = an_issue(points=0, awaiting=100)
    assert len(entry.postings) == 2
    assert (entry.detail["awaiting"], entry.detail["budget"]) == (100, BUDGET)
    assert "withheld" not in entry.detail


@pytest.mark.parametrize(
    "wrong",
    [
        {"reduction_mg": 0},
        {"reduction_mg": -1},
        {"points": -1},
        {"withheld": -1},
        {"awaiting": 5},
        {"rule": Rule("travel", 1, "d" * 64)},
        {"rule": Rule("travel.bike", 0, "d" * 64)},
        {"bucket": 20270631},
        {"vintage": 20270630},
        {"resident": "A" * 32},
        {"budget": ""},
    ],
)
def test_an_issue_of_nothing_or_with_a_wrong_part_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        an_issue(**wrong)


def a_hold(points: int = 30) -> Entry:
    wallet = {JULY: 25, JUNE: 20, 20261121: 9}
    return transfers.hold(**STAMP, resident=A, points=points, wallet=wallet, today=20261122)


def test_a_hold_takes_the_earliest_live_points_and_a_release_puts_them_back() -> None:
    hold = a_hold()
    assert lines(hold) == [
        ("resident:A", JUNE, -20), ("held:A", JUNE, 20),
        ("resident:A", JULY, -10), ("held:A", JULY, 10),
    ]  # fmt: skip
    release = transfers.release(id="2" * 32, at=STAMP["at"], hold=hold)
    assert [(n, b, -a) for n, b, a in lines(release)] == [
        ("held:A", JUNE, 20), ("resident:A", JUNE, -20),
        ("held:A", JULY, 10), ("resident:A", JULY, -10),
    ]  # fmt: skip


def test_a_hold_beyond_the_live_points_is_refused() -> None:
    with pytest.raises(Insufficient):
        a_hold(46)


@pytest.mark.parametrize("points", [0, -5])
def test_nothing_less_than_a_point_can_be_held(points: int) -> None:
    with pytest.raises(LedgerError):
        a_hold(points)


def a_redeem(points: int = 30) -> Entry:
    return transfers.redeem(**STAMP, hold=a_hold(points), merchant=MERCHANT)


def test_a_redemption_uses_up_as_much_of_the_merchants_allowance() -> None:
    entry = a_redeem()
    assert entry.detail == {"hold": STAMP["id"], "merchant": MERCHANT}
    assert lines(entry) == [
        ("held:A", JUNE, -20), ("redeemed", JUNE, 20),
        ("held:A", JULY, -10), ("redeemed", JULY, 10),
        (f"merchant:{MERCHANT}", 0, -30), ("settlement", 0, 30),
    ]  # fmt: skip
    assert redeemed(entry) == 30


def test_a_charge_is_a_hold_and_its_redemption_in_one() -> None:
    known: dict[str, Any] = {"resident": A, "today": 20261122, "merchant": MERCHANT}
    known["wallet"] = {JULY: 25, JUNE: 20, 20261121: 9}
    entry = transfers.charge(**STAMP, points=30, **known)
    assert (entry.kind, entry.detail) == (Kind.REDEEM, {"merchant": MERCHANT})
    both = Counter[tuple[str, int]]()
    for name, bucket, amount in [*lines(a_hold()), *lines(a_redeem())]:
        both[name, bucket] += amount
    assert lines(entry) == [(*place, amount) for place, amount in wallet_first(both) if amount]
    with pytest.raises(Insufficient):
        transfers.charge(**STAMP, points=46, **known)
    for points in (0, -1):
        with pytest.raises(LedgerError):
            transfers.charge(**STAMP, points=points, **known)


def wallet_first(sums: Counter[tuple[str, int]]) -> list[tuple[tuple[str, int], int]]:
    """By bucket, the wallet before what it was spent on; the allowance last."""
    order = ("resident:A", "held:A", "redeemed", f"merchant:{MERCHANT}", "settlement")
    return sorted(sums.items(), key=lambda one: (one[0][1] or 99999999, order.index(one[0][0])))


@pytest.mark.parametrize("points", [50, -50])
def test_an_allowance_is_given_and_taken_back(points: int) -> None:
    known = {"merchant": MERCHANT, "reference": "transfer 7"}
    entry = transfers.fund_merchant(**STAMP, points=points, **known)
    assert lines(entry) == [("settlement", 0, -points), (f"merchant:{MERCHANT}", 0, points)]
    with pytest.raises(Malformed):
        transfers.fund_merchant(**STAMP, points=0, **known)


def a_refund(points: int, refunded: int = 0, **more: Any) -> Entry:
    known: dict[str, Any] = {"redeem": a_redeem(), "today": 20261122} | more
    return transfers.refund(**STAMP, points=points, refunded=refunded, **known)


def allowed(points: int) -> list[tuple[str, int, int]]:
    return [(f"merchant:{MERCHANT}", 0, points), ("settlement", 0, -points)]


def test_refunds_give_back_the_latest_points_first_and_never_more_than_was_redeemed() -> None:
    first = a_refund(12)
    assert first.detail == {"redeem": STAMP["id"]}
    assert lines(first) == [
        ("redeemed", JULY, -10), ("redeemed", JUNE, -2),
        ("resident:A", JULY, 10), ("resident:A", JUNE, 2), *allowed(12),
    ]  # fmt: skip
    assert redeemed(first) == -12
    assert lines(a_refund(3, 12)) == [
        ("redeemed", JUNE, -3), ("resident:A", JUNE, 3), *allowed(3)
    ]  # fmt: skip
    with pytest.raises(Insufficient, match="only 18"):
        a_refund(19, 12)
    for points in (0, -1):
        with pytest.raises(LedgerError):
            a_refund(points)
    with pytest.raises(Refused, match="hold is not refunded"):
        a_refund(1, redeem=a_hold())


@pytest.mark.parametrize(
    ("today", "back"),
    [
        (JUNE, {JUNE: 20, JULY: 10}),
        (20270701, {20270731: 30}),  # thirty days on, which is July's own bucket
        (JULY, {20270830: 20, JULY: 10}),
        (20270801, {20270831: 30}),
        (20271231, {20280130: 30}),
    ],
)
def test_what_has_expired_comes_back_for_thirty_days(today: int, back: dict[int, int]) -> None:
    entry = a_refund(30, today=today)
    gained = {bucket: n for name, bucket, n in lines(entry) if name == "resident:A"}
    assert gained == back
    taken = {bucket: -n for name, bucket, n in lines(entry) if name == "redeemed"}
    assert taken == {JUNE: 20, JULY: 10}


def test_what_was_redeemed_by_someone_erased_since_goes_to_nobody() -> None:
    assert lines(a_refund(25, today=20280101, erased=True)) == [
        ("redeemed", JULY, -10), ("redeemed", JUNE, -15),
        ("expired", JULY, 10), ("expired", JUNE, 15), *allowed(25),
    ]  # fmt: skip


def test_a_reversal_takes_its_own_bucket_then_the_earliest_and_the_rest_is_debt() -> None:
    wallet = {(Asset.POINT, JUNE): 50, (Asset.POINT, JULY): 20, (Asset.POINT, 20270131): 10,
              (Asset.CO2E, 2026): 1000}  # fmt: skip
    entry = transfers.reverse(**STAMP, entry=an_issue(), wallet=wallet)
    assert lines(entry) == [
        ("reduction:travel.bike_shared", 2026, 1000),
        ("resident:A", 2026, -1000),
        (f"budget:{BUDGET}", 0, 80),
        ("resident:A", JUNE, -50),
        ("resident:A", 20270131, -10),
        ("resident:A", JULY, -20),
        ("debt:A", 0, 20),
        ("owed", 0, -20),
    ]


def test_a_reversal_makes_repaid_debt_owed_again() -> None:
    issue = an_issue(debt={Asset.POINT: 30})
    wallet = {(Asset.POINT, JUNE): 70, (Asset.CO2E, 2026): 1000}
    entry = transfers.reverse(**STAMP, entry=issue, wallet=wallet)
    mirrored = sorted((n, b, -a) for n, b, a in lines(issue))
    assert sorted(lines(entry)) == mirrored


def test_only_what_gave_points_is_reversed() -> None:
    with pytest.raises(Refused):
        transfers.reverse(**STAMP, entry=a_hold(), wallet={})
    down = transfers.adjust(
        **STAMP, resident=A, budget=BUDGET, points=-5, bucket=JUNE, reason="double count"
    )
    with pytest.raises(Refused):
        transfers.reverse(**STAMP, entry=down, wallet={})


def test_points_expire_after_their_last_day_and_not_on_it() -> None:
    known = {**STAMP, "resident": A, "bucket": 20261121, "points": 9}
    assert lines(transfers.expire(**known, today=20261122))[1] == ("expired", 20261121, 9)
    with pytest.raises(Refused):
        transfers.expire(**known, today=20261121)


EDITION = {**STAMP, "scenario": "travel.bike_shared", "version": 2, "digest": "d" * 64}


@pytest.mark.parametrize(
    ("at", "first_day", "early"),
    [
        ("2026-11-22T14:59:59.999Z", "2026-11-23", True),
        ("2026-11-22T15:00:00.000Z", "2026-11-23", True),
        ("2026-11-22T15:00:00.001Z", "2026-11-23", False),
        ("2026-11-23T00:00:00.000Z", "2026-11-23", False),
        ("2026-11-22T15:00:00.001Z", "2026-11-24", True),
        ("2026-11-22T00:00:00.000Z", "2018-01-01", False),
        ("2026-11-22T00:00:00.000Z", "9999-12-31", True),
        ("9998-12-31T23:59:59.999Z", "0001-01-01", False),
    ],
)
def test_a_version_is_withdrawn_until_an_hour_before_its_first_day_in_the_city(
    at: str, first_day: str, early: bool
) -> None:
    known = EDITION | {"at": at, "effective_from": first_day}
    if early:
        detail = {"scenario": "travel.bike_shared", "version": 2, "digest": "d" * 64}
        entry = transfers.withdraw_scenario(**known)
        assert (entry.detail, entry.postings) == (detail, ())
    else:
        with pytest.raises(Refused, match=first_day):
            transfers.withdraw_scenario(**known)


def test_a_withdrawal_with_a_wrong_part_is_refused() -> None:
    known = EDITION | {"effective_from": "2027-01-01"}
    for wrong in ({"at": "2026-11-22"}, {"version": 0}, {"digest": "d"}, {"scenario": "travel"}):
        with pytest.raises(Malformed):
            transfers.withdraw_scenario(**(known | wrong))


def test_of_what_an_administrator_did_the_entry_holds_the_sort_and_a_commitment() -> None:
    known = {"action": "draft.approved", "commitment": "c" * 64}
    entry = transfers.record_action(**STAMP, **known)
    assert (entry.detail, entry.postings) == (known, ())
    for wrong in ({"action": ""}, {"action": "a" * 401}, {"action": "a\n"}, {"commitment": "c"}):
        with pytest.raises(Malformed):
            transfers.record_action(**STAMP, **(known | wrong))
