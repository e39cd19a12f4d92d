"""The case table, and the arithmetic against fractions, which share no code with decimals."""

import decimal
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios

CASES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['scenario']}: {case['note']}")
def test_an_act_gives_what_its_source_states(case, read):
    version, activity = read(case["scenario"], case["quantities"])
    reduction = scenarios.quantify(version, activity)
    grant = scenarios.grant(version, activity, reduction, {})
    uncapped = (reduction.mg, grant.points + grant.withheld)
    assert uncapped == (case["mg"], case["points"])


def test_every_enabled_behaviour_has_a_case(plausible):
    assert plausible.keys() == {case["scenario"] for case in CASES}


def grams(version, name):
    return next(Fraction(item.value) for item in version.coefficients if item.name == name)


distances = st.integers(300, 50_000).map(lambda metres: f"{metres // 1000}.{metres % 1000:03d}")


@given(distances)
def test_a_quantity_times_its_factor_is_rounded_down_once(read, distance):
    version, activity = read("travel.bike_shared", {"distance_km": distance})
    exact = Fraction(distance) * grams(version, "factor") * 1000
    assert scenarios.quantify(version, activity).mg == exact // 1


@given(distances)
def test_a_difference_is_taken_before_rounding(read, distance):
    version, activity = read("travel.bus_km", {"distance_km": distance})
    exact = Fraction(distance) * (grams(version, "baseline") - grams(version, "project")) * 1000
    assert scenarios.quantify(version, activity).mg == exact // 1


@given(st.integers(0, 3_000_000), st.integers(0, 3_000_000))
def test_a_saving_is_credited_and_an_overuse_refused(read, baseline, actual):
    quantities = {
        "baseline_kwh": f"{baseline // 1000}.{baseline % 1000:03d}",
        "actual_kwh": f"{actual // 1000}.{actual % 1000:03d}",
    }
    version, activity = read("housing.elec_save", quantities)
    exact = Fraction(baseline - actual, 1000) * grams(version, "factor") * 1000
    if exact < 1:
        with pytest.raises(scenarios.Rejected) as refused:
            scenarios.quantify(version, activity)
        assert refused.value.code == "NO_REDUCTION"
    else:
        assert scenarios.quantify(version, activity).mg == exact // 1


def test_each_class_has_its_own_factor(read, catalogue):
    version = catalogue.versions("housing.appliance_recycle")[-1]
    for item in version.coefficients:
        quantities = {"kind": item.name, "count": "1"}
        reduction = scenarios.quantify(*read("housing.appliance_recycle", quantities))
        assert reduction.mg == int(item.value) * 1000
        assert reduction.workings.coefficients == (item,)


def test_the_result_does_not_depend_on_the_threads_decimal_settings(read):
    exact = scenarios.quantify(*read("travel.bike_shared", {"distance_km": "12.347"})).mg
    with decimal.localcontext(prec=2, rounding=decimal.ROUND_UP):
        assert scenarios.load().scenarios
        assert (
            scenarios.quantify(*read("travel.bike_shared", {"distance_km": "12.347"})).mg == exact
        )
    assert exact == 3_086_750


def test_workings_show_inputs_sources_and_the_sum(read):
    quantities = {"baseline_kwh": "200", "actual_kwh": "189.5"}
    workings = scenarios.quantify(*read("housing.elec_save", quantities)).workings
    assert workings.arithmetic == "(200 kWh − 189.5 kWh) × 663.4 g/kWh = 6965.700 g CO2e"
    assert [quantity.value for quantity in workings.inputs] == ["200", "189.5"]
    assert "公告2025年第47号" in workings.coefficients[0].source
    assert workings.formula.zh
    assert workings.formula.en


def test_every_behaviour_can_show_its_workings(read, plausible):
    for scenario, quantities in plausible.items():
        reduction = scenarios.quantify(*read(scenario, quantities))
        shown = reduction.workings
        assert shown.arithmetic.endswith(f"= {shown.result_g} g CO2e")
        assert Fraction(shown.result_g) * 1000 == reduction.mg
        assert all(value in shown.arithmetic for value in quantities.values() if value[0].isdigit())
