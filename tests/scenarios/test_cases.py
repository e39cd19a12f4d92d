"""The case tables, and the arithmetic against fractions, which share no code with decimals."""

import decimal
import json
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import AREAS, Activity, Version

TABLES = {
    area: tomllib.loads((Path(__file__).parent / f"cases/{area}.toml").read_text("utf-8"))["case"]
    for area in AREAS
}
CASES = [case for table in TABLES.values() for case in table]


AT = scenarios.read_time("2026-11-22T08:00:00+08:00")


def act(version, quantities):
    """The activity, of a disabled edition too: its numbers are checked past the switch."""
    if version.enabled:
        return scenarios.measure(version, AT, quantities)
    inputs = {item.name: item for item in version.inputs}
    values = {name: inputs[name].read(value) for name, value in quantities.items()}
    return Activity(version.scenario, AT, values, 20261122)


def with_other_values(version, values):
    """The edition with alternatives in force, each of which must be one its file lists."""
    document = json.loads(version.canonical())
    for name, value in values.items():
        table = next(item for item in document["coefficients"] if item["name"] == name)
        listed = {other["value"] for other in table["alternatives"]}
        assert value in listed, f"{value} is no alternative of {name}"
        table |= {"value": value, "bounds": [value, value]}
    return Version.parse(document)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['scenario']}: {case['note']}")
def test_an_act_gives_what_its_source_states(case, catalogue):
    version = catalogue.versions(case["scenario"])[-1]
    if "outcome" in case:
        with pytest.raises(scenarios.Rejected) as refused:
            scenarios.measure(version, AT, case["quantities"])
        assert refused.value.code == case["outcome"]
        assert not version.coefficients or not all(one.value for one in version.coefficients)
    else:
        version = with_other_values(version, case.get("with", {}))
        mg = scenarios.quantify(version, act(version, case["quantities"])).mg
        assert (mg, version.rate.points(mg)) == (case["mg"], case["points"])


def test_every_behaviour_has_a_case_in_the_table_of_its_area(catalogue):
    for area, table in TABLES.items():
        named = {case["scenario"] for case in table}
        assert named == {name for name in catalogue.scenarios if name.partition(".")[0] == area}


def grams(version, name):
    return next(Fraction(item.value) for item in version.coefficients if item.name == name)


def thousandths(most, least=0):
    return st.integers(least, most).map(lambda milli: f"{milli // 1000}.{milli % 1000:03d}")


@given(thousandths(50_000, 300))
def test_a_quantity_times_its_factor_is_rounded_down_once(read, distance):
    version, activity = read("travel.bike_shared", {"distance_km": distance})
    exact = Fraction(distance) * grams(version, "factor") * 1000
    assert scenarios.quantify(version, activity).mg == exact // 1


@given(thousandths(50_000, 300))
def test_a_difference_is_taken_before_rounding(read, distance):
    version, activity = read("travel.bus_km", {"distance_km": distance})
    exact = Fraction(distance) * (grams(version, "baseline") - grams(version, "project")) * 1000
    assert scenarios.quantify(version, activity).mg == exact // 1


def credited_exactly(version, activity, exact):
    """Whether a saving is credited to the mg, and what saves less than one mg is refused."""
    if exact < 1:
        with pytest.raises(scenarios.Rejected) as refused:
            scenarios.quantify(version, activity)
        return refused.value.code == "NO_REDUCTION"
    return scenarios.quantify(version, activity).mg == exact // 1


@given(thousandths(100_000), thousandths(100_000))
def test_a_saving_is_credited_and_an_overuse_refused(edition, parts, baseline, actual):
    _, coefficient, quantity = parts
    inputs = [quantity(name, role=name) for name in ("baseline", "actual")]
    version = edition(formula="saving", inputs=inputs, coefficients=[coefficient(value="663.417")])
    activity = scenarios.measure(version, AT, {"baseline": baseline, "actual": actual})
    exact = (Fraction(baseline) - Fraction(actual)) * Fraction("663.417") * 1000
    assert credited_exactly(version, activity, exact)


@given(thousandths(100_000, 100), thousandths(100_000), thousandths(100_000))
def test_a_household_is_compared_with_the_city_or_with_itself(read, city, own, actual):
    version, activity = read(
        "housing.elec_save",
        {
            "city_average_kwh": city,
            "own_average_kwh": own,
            "actual_kwh": actual,
            "rooftop_pv": "no",
            "third_tier": "no",
        },
    )
    baseline = city if Fraction(actual) <= Fraction(city) else own
    exact = (Fraction(baseline) - Fraction(actual)) * grams(version, "factor") * 1000
    assert credited_exactly(version, activity, exact)


@given(thousandths(100_000, 1), thousandths(2_000), thousandths(1_000, 1))
def test_a_detour_and_a_substitution_take_their_share(edition, parts, distance, detour, rate):
    _, coefficient, _ = parts
    carpool = edition(
        formula="detour",
        coefficients=[
            coefficient("baseline"),
            coefficient("project", "97"),
            coefficient("detour", detour, unit="1"),
        ],
    )
    exact = Fraction(distance) * (250 - 97 * Fraction(detour)) * 1000
    activity = scenarios.measure(carpool, AT, {"distance_km": distance})
    assert credited_exactly(carpool, activity, exact)
    resale = edition(
        formula="substitution",
        coefficients=[coefficient("production"), coefficient("rate", rate, unit="1")],
    )
    activity = scenarios.measure(resale, AT, {"distance_km": distance})
    assert credited_exactly(resale, activity, Fraction(distance) * 250 * Fraction(rate) * 1000)


def test_each_class_has_its_own_factor(read, catalogue):
    version = catalogue.versions("housing.appliance_recycle")[-1]
    for item in version.coefficients:
        quantities = {"kind": item.name, "count": "1"}
        reduction = scenarios.quantify(*read("housing.appliance_recycle", quantities))
        assert reduction.mg == int(item.value) * 1000
        assert reduction.workings.coefficients == (item,)


def test_the_result_does_not_depend_on_the_threads_decimal_settings(read):
    ride = {"distance_km": "12.347", "duration_s": "1269"}  # 35.03 km/h
    with decimal.localcontext(prec=2, rounding=decimal.ROUND_UP):
        assert scenarios.load().scenarios
        version, activity = read("travel.bike_shared", ride)
        assert scenarios.quantify(version, activity).mg == 3_086_750
        with pytest.raises(scenarios.Rejected, match="faster than 35"):
            scenarios.claim(version, activity, 3_086_750, scenarios.needs(version, activity), {})


def test_workings_show_inputs_sources_and_the_sum(read):
    home = {"city_average_kwh": "7", "own_average_kwh": "20", "rooftop_pv": "no"}
    home["third_tier"] = "no"
    for actual, sum_of in (
        ("6.5", "(7 kWh − 6.5 kWh) × 663.4 g/kWh = 331.700 g CO2e"),
        ("9.5", "(20 kWh − 9.5 kWh) × 663.4 g/kWh = 6965.700 g CO2e"),
    ):
        act = read("housing.elec_save", {**home, "actual_kwh": actual})
        workings = scenarios.quantify(*act).workings
        assert workings.arithmetic == sum_of
    assert [quantity.value for quantity in workings.inputs] == ["7", "20", "9.5", "no", "no"]
    assert "公告2025年第47号" in workings.coefficients[0].source
    assert workings.formula.zh
    assert workings.formula.en


def test_every_behaviour_can_show_its_workings(read, plausible):
    for scenario, quantities in plausible.items():
        version, activity = read(scenario, quantities)
        reduction = scenarios.quantify(version, activity)
        shown = reduction.workings
        assert shown.arithmetic.endswith(f"= {shown.result_g} g CO2e")
        assert Fraction(shown.result_g) * 1000 == reduction.mg
        quantity = version.bound.quantity
        assert quantity is None or quantities[quantity] in shown.arithmetic


def test_an_optional_check_changes_no_reduction(read):
    timed = scenarios.quantify(
        *read("travel.bike_shared", {"distance_km": "2", "duration_s": "600"})
    )
    assert timed.mg == scenarios.quantify(*read("travel.bike_shared", {"distance_km": "2"})).mg
    assert [quantity.value for quantity in timed.workings.inputs] == ["2", "600"]
    assert "600" not in timed.workings.arithmetic
