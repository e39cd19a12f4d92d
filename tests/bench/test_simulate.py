"""The simulation behaves as queues do."""

from __future__ import annotations

import pytest

from bench.simulate import CITY, Costs, cores_for, need, p99

COST = Costs(act_s=100e-6, read_s=3e-3, seal_s=7e-6)


def test_who_comes_seldom_is_served_at_once():
    assert p99(rate=1.0, each_s=0.001, cores=2) == pytest.approx(0.001)


def test_a_line_that_is_nearly_full_is_long_and_another_core_shortens_it():
    assert p99(rate=95.0, each_s=0.01, cores=1) > 5 * 0.01
    assert p99(rate=95.0, each_s=0.01, cores=3) < 2 * 0.01


def test_many_cores_together_may_be_busier_than_few():
    few, many = cores_for(300, 3e-3), cores_for(30_000, 3e-3)
    assert many < 100 * few
    assert many >= 30_000 * 3e-3


def test_ten_times_the_people_need_ten_times_the_intake():
    one, ten = need(CITY, COST), need(10 * CITY, COST)
    assert ten.acts_s == pytest.approx(10 * one.acts_s)
    assert abs(ten.intake_cores - 10 * one.intake_cores) <= 10
    assert ten.cities == 10
