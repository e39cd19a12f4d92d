from typing import Any

import pytest

from ledger import transfers
from ledger.accounts import Asset
from ledger.entries import Entry
from ledger.errors import Insufficient, LedgerError, Malformed, Refused
from ledger.transfers import Rule, granted

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


def test_refunds_give_back_the_latest_points_first_and_never_more_than_was_redeemed() -> None:
    redeem = transfers.redeem(**STAMP, hold=a_hold(), merchant=MERCHANT)
    assert redeem.detail == {"hold": STAMP["id"], "merchant": MERCHANT}
    first = transfers.refund(**STAMP, redeem=redeem, points=12, refunded={})
    assert lines(first) == [
        ("redeemed", JULY, -10), ("resident:A", JULY, 10),
        ("redeemed", JUNE, -2), ("resident:A", JUNE, 2),
    ]  # fmt: skip
    with pytest.raises(Insufficient):
        transfers.refund(**STAMP, redeem=redeem, points=19, refunded={JULY: 10, JUNE: 2})


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
