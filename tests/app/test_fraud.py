"""The rules against fraud: what each lets pass, watches and refuses, and what nobody can do."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from sqlalchemy import text

from app.errors import PROBLEMS
from app.flows import pay_code
from app.flows.charge import charge as charging
from app.flows.charge import refund as refunding
from app.flows.erase import erase
from app.flows.fraud.check import Attempt, check
from app.flows.fraud.rules import RULES, name_of
from app.flows.fraud.watch import Patrol
from app.flows.setting import SETTINGS
from app.store import cases, charges, people, settings
from app.store.merchants import Partner
from ledger.accounts import Asset


class Town:
    """A rider with points, a shop with tills, and whoever else shows codes there."""

    def __init__(self, city, shop, rider):
        self.city, self.shop, self.rider, self.numbers = city, shop, rider, count(1)
        self.partner = Partner(shop.id, shop.code, "approved", None)

    def rule(self, rule, **value):
        """Set a rule; what is not named stays as it is until somebody sets it."""
        with self.city.engine.begin() as tx:
            name = name_of(rule)
            found = settings.find(tx, [name]).get(name)
            value = (found.value if found else RULES[rule].default) | value
            assert RULES[rule].fault(value) == ""
            settings.put(tx, name, value, found.revision if found else 0, self.city.clock())

    def charge(self, points=1, who=None, device=None, till="t1"):
        """A charge at a till, by a fresh code."""
        city, now = self.city, self.city.clock()
        with city.engine.begin() as tx:
            code = pay_code.new_code(tx, city.vault, who or self.rider, device, now).code
        number = f"c-{next(self.numbers):08d}"
        asked = charging.Asked(self.partner, number, code, points, till, None)
        return charging.charge(city.engine, city.vault, asked, now).charge

    def refund(self, one, points):
        number = f"r-{next(self.numbers):08d}"
        asked = refunding.Asked(self.partner, number, one.number, points, "wrong", None)
        return refunding.refund(self.city.engine, self.city.vault, asked, self.city.clock())[0]

    def cases(self, **wanted):
        with self.city.engine.connect() as tx:
            return cases.newest(tx, cases.Wanted(**wanted), None, 50)

    def points(self):
        with self.city.engine.connect() as tx:
            wallet = people.wallet(tx, self.rider)
        return sum(amount for (asset, _), amount in wallet.items() if asset is Asset.POINT)


@pytest.fixture
def town(city, shop, provider, rider, ride):
    rides = [ride(n, occurred_at=f"2026-11-{20 - n:02d}T08:00:00+08:00") for n in range(3)]
    provider.batch("b1", *rides)
    return Town(city, shop, rider)


def test_each_rule_is_a_setting_whose_default_stands_within_its_bounds():
    for rule, one in RULES.items():
        setting = SETTINGS[name_of(rule)]
        assert setting.default["mode"] == "shadow"
        assert setting.fault(setting.default) == ""
        wrong = [None, {}, setting.default | {"mode": "on"}, setting.default | {"more": 1}]
        for name, (_, least, most) in one.limits.items():
            wrong += [setting.default | {name: value} for value in (least - 1, most + 1, "5", True)]
            assert setting.fault(setting.default | {name: least}) == ""
            assert setting.fault(setting.default | {name: most}) == ""
        assert all(setting.fault(value) for value in wrong)
    assert {"VELOCITY_LIMIT", "OWN_STAFF"} <= PROBLEMS.keys()


def test_a_rule_in_shadow_lets_pass_and_opens_a_case(town):
    town.rule("resident", hour_count=2)
    made = [town.charge() for _ in range(4)]
    assert {one.state for one in made} == {"succeeded"}
    (case,) = town.cases()
    assert (case.kind, case.rule, case.shadow, case.times) == ("fraud", "resident", True, 2)
    assert case.merchant == "noodles"
    assert case.facts == {
        "day": "2026-11-22", "limit": "hour_count", "found": "3", "kind": "charge",
    }  # fmt: skip


def test_a_rule_that_refuses_takes_nothing_and_keeps_the_answer(town):
    town.rule("resident", mode="refuse", hour_count=2)
    had = town.points()
    made = [town.charge() for _ in range(4)]
    assert [one.state for one in made] == ["succeeded"] * 2 + ["failed"] * 2
    assert {one.code for one in made[2:]} == {"VELOCITY_LIMIT"}
    assert "at most 2 charges and orders in an hour" in made[3].detail
    assert town.points() == had - 2
    (case,) = town.cases(kinds=("fraud",))
    assert (case.shadow, case.times) == (False, 2)
    town.city.clock.move(minutes=61)
    assert town.charge().state == "succeeded"


def test_a_rule_that_is_off_sees_nothing(town):
    town.rule("resident", mode="off", hour_count=1, day_count=1, day_points=1)
    assert {town.charge(5).state for _ in range(3)} == {"succeeded"}
    assert town.cases() == []


def test_a_days_points_are_counted_without_what_was_given_back(town):
    town.rule("resident", mode="refuse", day_points=100)
    first = town.charge(80)
    assert town.charge(21).code == "VELOCITY_LIMIT"
    town.refund(first, 80)
    assert town.charge(100).state == "succeeded"
    town.city.clock.move(days=1)
    assert town.charge(100).state == "succeeded"


def test_of_many_tills_at_once_no_more_succeed_than_the_limit(town, monkeypatch):
    town.rule("resident", mode="refuse", hour_count=5)
    monkeypatch.setattr(pay_code, "LIVE", 16)  # or a code is forgotten before its till comes
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: town.charge(1, till=f"t{n % 2 + 1}"), range(16)))
    said = Counter(one.code or one.state for one in made)
    assert said == {"succeeded": 5, "VELOCITY_LIMIT": 11}


def test_one_resident_shows_codes_on_few_devices(town):
    town.rule("device", mode="refuse", day_devices=2)
    made = [town.charge(1, device=bytes([n]) * 16).state for n in (1, 2, 1, 3, 2)]
    assert made == ["succeeded", "succeeded", "succeeded", "failed", "succeeded"]
    assert town.charge(1, device=None).state == "succeeded", "what names none is no further one"


def test_nobody_redeems_where_they_work(town, city, open_shop):
    town.rule("staff", mode="refuse")
    with city.engine.begin() as tx:
        added = "INSERT INTO staff (merchant, number, role, resident) VALUES (:m, '7', :r, :who)"
        who = bytes.fromhex(town.rider)
        tx.execute(text(added), {"m": bytes.fromhex(town.shop.id), "r": "cashier", "who": who})
    refused = town.charge()
    assert (refused.state, refused.code) == ("failed", "OWN_STAFF")
    other = open_shop("tea")
    with city.engine.begin() as tx:
        assert check(tx, Attempt(town.rider, None, other.id, 1, "charge"), city.clock()) is None
        tx.execute(text("UPDATE staff SET active = false"))
    assert town.charge().state == "succeeded"


def test_a_burst_at_a_till_is_seen_once_however_often_one_looks(town):
    town.rule("till", minute_count=3)
    for _ in range(5):
        town.charge()
    town.charge(till="t2")
    patrol = Patrol(town.city.engine)
    for one in (patrol, patrol, Patrol(town.city.engine)):
        assert one.step(town.city.clock()) is False
    (case,) = town.cases(rule="till")
    assert (case.shadow, case.times, case.facts["charges"]) == (True, 1, 5)
    assert (case.facts["till"], case.facts["minute"]) == ("t1", "2026-11-22T12:00:00+08:00")
    town.charge()
    patrol.step(town.city.clock())
    assert [one.facts["charges"] for one in town.cases(rule="till")] == [6]
    town.city.clock.move(minutes=1)
    town.charge()
    patrol.step(town.city.clock())
    assert len(town.cases(rule="till")) == 1


def test_the_same_amount_again_and_again_is_seen(town):
    town.rule("same_amount", mode="report", hour_count=3)
    for points in (10, 10, 10, 11, 12, 10):
        town.charge(points)
        town.city.clock.move(minutes=2)
    Patrol(town.city.engine).step(town.city.clock())
    (case,) = town.cases(rule="same_amount")
    assert not case.shadow
    assert (case.facts["points"], case.facts["charges"]) == ("10", 4)


def test_a_till_that_gives_back_much_of_what_it_takes_is_seen(town):
    town.rule("refund_share", mode="report", hour_count=2, percent=50)
    patrol, made = Patrol(town.city.engine), [town.charge(10) for _ in range(6)]
    for one in made[:3]:
        patrol.step(town.city.clock())
        town.refund(one, 4)
    patrol.step(town.city.clock())
    assert town.cases(rule="refund_share") == [], "three of six are half and no more"
    town.charge(10, till="t2")
    town.refund(made[3], 10)
    patrol.step(town.city.clock())
    (case,) = town.cases(rule="refund_share")
    facts = {name: case.facts[name] for name in ("till", "charges", "returned", "points")}
    assert facts == {"till": "t1", "charges": 6, "returned": 4, "points": "22"}
    assert (case.shadow, case.times) == (False, 1)
    town.refund(made[4], 10)
    patrol.step(town.city.clock())
    assert [one.facts["returned"] for one in town.cases(rule="refund_share")] == [5]


def test_few_refunds_are_let_be_whatever_their_share(town):
    town.rule("refund_share", hour_count=2, percent=1)
    for _ in range(2):
        town.refund(town.charge(10), 10)
    Patrol(town.city.engine).step(town.city.clock())
    assert town.cases(rule="refund_share") == []


def test_who_gives_back_again_and_again_is_seen(town):
    town.rule("refunds", day_count=2)
    patrol = Patrol(town.city.engine)
    for _ in range(3):
        patrol.step(town.city.clock())
        assert town.cases(rule="refunds") == []
        town.refund(town.charge(10), 10)
        town.city.clock.move(minutes=5)
    patrol.step(town.city.clock())
    (case,) = town.cases(rule="refunds")
    assert (case.facts["charges"], case.facts["points"]) == (3, "30")
    assert town.rider not in str(case)


def test_a_patrol_off_duty_opens_nothing_and_one_that_starts_late_sees_yesterday(town):
    town.rule("till", mode="off", minute_count=1)
    town.charge()
    town.charge()
    Patrol(town.city.engine).step(town.city.clock())
    assert town.cases() == []
    town.rule("till", mode="report")
    town.city.clock.move(minutes=59)
    Patrol(town.city.engine).step(town.city.clock())
    assert len(town.cases()) == 1


def test_buy_refund_and_keep_the_points_is_closed_by_construction(town, city):
    had = town.points()
    one = town.charge(300)
    outcomes = [town.refund(one, points).state for points in (100, 100, 101, 100, 1)]
    assert outcomes == ["succeeded", "succeeded", "failed", "succeeded", "failed"]
    assert town.points() == had
    assert town.shop.left() == 100_000
    with city.engine.connect() as tx:
        kept = charges.find(tx, town.shop.id, one.number).charge
        billed = tx.execute(text("SELECT sum(points) FROM bill_lines")).scalar_one()
    assert (kept.points, kept.refunded, billed) == (300, 300, 0)


def test_of_the_erased_no_case_can_be_named_any_more(town, city):
    town.rule("resident", hour_count=1)
    town.charge()
    town.charge()
    (case,) = town.cases()
    with city.engine.begin() as tx:
        salt = people.lock(tx, town.rider)
    erase(city.engine, city.vault, town.rider, city.clock())
    with city.engine.begin() as tx:
        assert tx.execute(text("SELECT resident FROM cases")).scalar() is None
        stored = tx.execute(text("SELECT wrapped_key FROM residents")).scalars().all()
    assert salt not in stored  # and the case's id was made with it
    assert [one.id for one in town.cases()] == [case.id]
