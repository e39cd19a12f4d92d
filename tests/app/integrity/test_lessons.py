"""What went wrong in other ledgers and programmes, one test each, through the real flows."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from app.flows.budget import pay_waiting
from app.flows.correct import correct
from app.flows.erase import erase
from app.flows.expire import expire_points
from ledger.entries import Kind
from ledger.errors import Exhausted, Insufficient, Refused

FOLDED = "SELECT count(*) FROM open_balances WHERE amount <> 0"
SUMS = """
SELECT asset, sum(amount)::bigint FROM (
  SELECT asset, amount FROM balances UNION ALL SELECT asset, amount FROM open_balances) a
GROUP BY asset"""


@pytest.fixture
def rider(town):
    return town.enroll("rider-0")[0]


def spend(town, resident, points, request="1"):
    town.allow(points)
    return town.till().redeem(town.till().hold(resident, points, request).id)


def void(town, number):
    return correct(*town.parts, "bikes", f"ride-{number}", None, town.clock())


def test_after_every_seal_all_accounts_sum_to_zero_also_when_a_day_is_closed(town, rider):
    for n in range(4):
        town.send(f"b{n}", town.dated(n))
        town.seal()
        assert dict(town.rows(SUMS)) == {1: 0, 2: 0}
        town.clock.move(days=1)
    assert town.value(FOLDED) > 1
    assert town.value("SELECT count(*) FROM entries WHERE kind = 'day.closed'") == 3


def test_a_refund_sent_again_and_again_is_one_refund(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    spent = spend(town, rider, 600)
    again = [town.till().refund(spent.id, 350, "till 1").id for _ in range(5)]
    assert len(set(again)) == 1
    assert town.points(rider) == 25 + 350
    with pytest.raises(Insufficient):
        town.till().refund(spent.id, 251, "till 2")
    town.till().refund(spent.id, 250, "till 2")
    assert town.points(rider) == 625
    town.prove(tmp_path / "export")


def test_points_of_an_act_that_is_void_are_not_kept_even_if_spent(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    spend(town, rider, 600)
    void(town, 1)
    void(town, 1)  # deducted once
    assert (town.points(rider), town.points(rider, 3)) == (0, 600)
    town.send("b2", town.dated(2))
    assert (town.points(rider), town.points(rider, 3)) == (25, 0)
    town.prove(tmp_path / "export")


def test_an_act_paid_late_can_be_voided_and_its_budget_gets_the_points_back(town, rider, tmp_path):
    town.budget("travel")
    town.send("b1", town.dated(1))
    assert town.points(rider) == 0
    town.fund("travel", 1000, "decision 2")
    assert pay_waiting(*town.parts, town.clock()) == 1
    assert town.points(rider) == 625
    void(town, 1)
    assert town.points(rider) == 0
    assert (
        town.value("SELECT amount FROM balances WHERE account_kind = 5 AND amount < 2000") == 1000
    )
    town.prove(tmp_path / "export")


def test_an_act_voided_while_it_waits_is_never_paid(town, rider, tmp_path):
    town.budget("travel")
    town.send("b1", town.dated(1), town.dated(2))
    void(town, 1)
    town.fund("travel", 5000, "decision 2")
    assert pay_waiting(*town.parts, town.clock()) == 1
    assert town.points(rider) == 625
    town.prove(tmp_path / "export")


def test_when_old_points_expire_what_was_spent_of_them_stays_spent(town, rider, tmp_path):
    """Spending takes the earliest bucket, so that expiry cancels only what is left in it."""
    town.send("b1", town.dated(1))
    town.clock.move(days=365)
    town.send("b2", town.dated(2))
    spend(town, rider, 600)
    town.clock.move(days=365 * 9 + 60)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    assert town.points(rider) == 625
    assert expire_points(town.engine, town.vault, town.clock()) == 0
    town.prove(tmp_path / "export")


def test_points_that_come_back_after_their_last_day_expire_too(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    held = town.till().hold(rider, 600, "1")
    town.clock.move(days=4000)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    town.till().release(held.id)
    with pytest.raises(Insufficient):
        town.till().hold(rider, 1, "2")
    town.clock.move(seconds=1)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    assert town.points(rider) == 0
    town.prove(tmp_path / "export")


def test_a_hold_is_resolved_one_way_only(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    town.allow(600)
    till = town.till()
    spent = till.hold(rider, 300, "1")
    freed = till.hold(rider, 300, "2")
    till.redeem(spent.id)
    till.release(freed.id)
    before = town.digest()
    with pytest.raises(Refused):
        till.release(spent.id)
    with pytest.raises(Refused):
        till.redeem(freed.id)
    with pytest.raises(Refused):
        till.redeem(spent.id, "d" * 32)
    assert town.digest() == before
    town.prove(tmp_path / "export")


def test_a_merchant_without_allowance_is_not_charged_and_a_refund_gives_it_back(
    town, rider, tmp_path
):
    town.send("b1", town.dated(1))
    town.allow(100)
    till = town.till()
    sold = till.charge(rider, 70, "1")
    before = town.digest()
    with pytest.raises(Exhausted):
        till.charge(rider, 31, "2")
    held = till.hold(rider, 31, "3")
    with pytest.raises(Exhausted):
        till.redeem(held.id)
    till.release(held.id)
    till.refund(sold.id, 1, "1")
    till.charge(rider, 31, "2")
    assert town.digest() != before
    report = town.prove(tmp_path / "export")
    assert report.merchants == {"c" * 32: (100, 0)}
    assert town.value("SELECT amount::bigint FROM open_balances WHERE account_kind = 13") == 100


def test_points_refunded_after_their_last_day_have_thirty_days_more(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    town.allow(700)
    sold = town.till().charge(rider, 600, "1")
    town.clock.move(days=4000)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    town.till().refund(sold.id, 200, "1")
    town.clock.move(days=30)
    assert expire_points(town.engine, town.vault, town.clock()) == 0
    town.till().charge(rider, 150, "2")
    town.clock.move(days=1)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    assert town.points(rider) == 0
    town.prove(tmp_path / "export")


def test_a_refund_to_someone_erased_puts_the_merchant_right_and_goes_to_nobody(
    town, rider, tmp_path
):
    town.send("b1", town.dated(1))
    town.allow(600)
    sold = town.till().charge(rider, 600, "1")
    early = town.till().refund(sold.id, 100, "1")
    erase(town.engine, town.vault, rider, town.clock())
    with pytest.raises(Refused):
        town.till().charge(rider, 1, "2")
    late = town.till().refund(sold.id, 450, "2")
    assert town.till().refund(sold.id, 100, "1") == early
    with pytest.raises(Insufficient):
        town.till().refund(sold.id, 51, "3")
    assert (late.kind, late.resident) == (Kind.REFUND, "")
    assert town.points(rider) == 0
    assert town.prove(tmp_path / "export").merchants == {"c" * 32: (50, 550)}


def test_a_charge_asked_for_twice_is_written_once(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    town.allow(600)
    town.till().charge(rider, 100, "1")
    with pytest.raises(IntegrityError):
        town.till().charge(rider, 100, "1")
    assert town.points(rider) == 525
    town.prove(tmp_path / "export")
