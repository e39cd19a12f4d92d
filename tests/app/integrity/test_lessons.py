"""What went wrong in other ledgers and programmes, one test each, through the real flows."""

from __future__ import annotations

import pytest

from app.flows.budget import pay_waiting
from app.flows.correct import correct
from app.flows.expire import expire_points
from app.flows.redeem import hold, redeem, refund, release
from ledger.errors import Insufficient, Refused

MERCHANT = "c" * 32
FOLDED = "SELECT count(*) FROM open_balances WHERE amount <> 0"
SUMS = """
SELECT asset, sum(amount)::bigint FROM (
  SELECT asset, amount FROM balances UNION ALL SELECT asset, amount FROM open_balances) a
GROUP BY asset"""


@pytest.fixture
def rider(town):
    return town.enroll("rider-0")[0]


def spend(town, resident, points, request="1"):
    held = hold(town.engine, town.vault, resident, points, request, town.clock())
    return redeem(town.engine, town.vault, held.id, MERCHANT, town.clock())


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
    again = [
        refund(town.engine, town.vault, spent.id, 350, "till 1", town.clock()).id for _ in range(5)
    ]
    assert len(set(again)) == 1
    assert town.points(rider) == 25 + 350
    with pytest.raises(Insufficient):
        refund(town.engine, town.vault, spent.id, 251, "till 2", town.clock())
    refund(town.engine, town.vault, spent.id, 250, "till 2", town.clock())
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
    held = hold(town.engine, town.vault, rider, 600, "1", town.clock())
    town.clock.move(days=4000)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    release(town.engine, town.vault, held.id, town.clock())
    with pytest.raises(Insufficient):
        hold(town.engine, town.vault, rider, 1, "2", town.clock())
    town.clock.move(seconds=1)
    assert expire_points(town.engine, town.vault, town.clock()) == 1
    assert town.points(rider) == 0
    town.prove(tmp_path / "export")


def test_a_hold_is_resolved_one_way_only(town, rider, tmp_path):
    town.send("b1", town.dated(1))
    spent = hold(town.engine, town.vault, rider, 300, "1", town.clock())
    freed = hold(town.engine, town.vault, rider, 300, "2", town.clock())
    redeem(town.engine, town.vault, spent.id, MERCHANT, town.clock())
    release(town.engine, town.vault, freed.id, town.clock())
    before = town.digest()
    with pytest.raises(Refused):
        release(town.engine, town.vault, spent.id, town.clock())
    with pytest.raises(Refused):
        redeem(town.engine, town.vault, freed.id, MERCHANT, town.clock())
    with pytest.raises(Refused):
        redeem(town.engine, town.vault, spent.id, "d" * 32, town.clock())
    assert town.digest() == before
    town.prove(tmp_path / "export")
