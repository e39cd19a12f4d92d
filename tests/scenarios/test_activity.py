"""Whatever a JSON body holds, reading it gives an activity or a Rejected with a stable code."""

import pickle
import string
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Activity, Rejected, check_claim, read_time
from scenarios.errors import TITLES

BIKE = "travel.bike_shared"
HOME = ("city_average_kwh", "own_average_kwh", "actual_kwh")
AT = "2026-11-22T08:00:00+08:00"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
numberlike = st.text(string.digits + ".-+eE_ ,\x00\n٣３∞NaNInf", max_size=24)
timelike = st.text(string.digits + "-:+.TZtz ", max_size=40)


def tried(call, *arguments):
    """What the call gives or, as a value, the rejection it raises; anything else is a failure."""
    try:
        return call(*arguments)
    except scenarios.Rejected as refused:
        return refused


def code(call, *arguments):
    with pytest.raises(scenarios.Rejected) as refused:
        call(*arguments)
    assert refused.value.title == TITLES[refused.value.code]
    assert str(refused.value).endswith(".")
    assert len(str(refused.value)) < 300
    return refused.value.code


@given(
    scenario=anything | st.sampled_from([BIKE, "housing.appliance_recycle", "housing.elec_save"]),
    at=anything | timelike | st.just(AT),
    quantities=anything
    | st.fixed_dictionaries(
        {"distance_km": anything | numberlike}, optional={"duration_s": anything | numberlike}
    )
    | st.fixed_dictionaries(
        {name: numberlike | st.just("5") for name in HOME},
        optional={name: anything | st.just("no") for name in ("rooftop_pv", "third_tier")},
    )
    | st.fixed_dictionaries({"kind": anything, "count": anything | numberlike}),
)
def test_any_json_is_read_or_refused_in_words(catalogue, now, scenario, at, quantities):
    outcome = tried(scenarios.read, catalogue, scenario, at, quantities, now)
    if isinstance(outcome, scenarios.Rejected):
        str(outcome).encode()
        assert outcome.code in TITLES
    else:
        version, activity = outcome
        assert activity.occurred_at <= now + timedelta(minutes=5)
        assert version.effective_day <= activity.day
        reduction = tried(scenarios.quantify, version, activity)
        assert isinstance(reduction, scenarios.Reduction) or reduction.code == "NO_REDUCTION"


@given(numberlike)
def test_a_quantity_is_plain_digits_or_refused(read, written):
    outcome = tried(read, BIKE, {"distance_km": written})
    if isinstance(outcome, scenarios.Rejected):
        assert outcome.code.startswith("QUANTITY_")
    else:
        _, activity = outcome
        assert set(written) <= set("0123456789.")
        assert activity.quantities["distance_km"] == Decimal(written)


@pytest.mark.parametrize(
    ("quantities", "expected"),
    [
        ({}, "QUANTITY_MISSING"),
        ({"distance_km": None}, "QUANTITY_MISSING"),
        ({"distance_km": "1.5", "speed": "3"}, "QUANTITY_UNKNOWN"),
        ([], "QUANTITY_MALFORMED"),
        (None, "QUANTITY_MALFORMED"),
        ({"distance_km": 1}, "QUANTITY_MALFORMED"),
        ({"distance_km": ["1"]}, "QUANTITY_MALFORMED"),
        ({"distance_km": "NaN"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "1e1"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "+1"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "-1"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "01"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "1\n"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "３"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "1.2345"}, "QUANTITY_MALFORMED"),
        ({"distance_km": "9" * 100_000}, "QUANTITY_MALFORMED"),
        ({"distance_km": "0.099"}, "QUANTITY_TOO_SMALL"),
        ({"distance_km": "50.001"}, "QUANTITY_TOO_LARGE"),
    ],
)
def test_a_quantity_is_refused_for_the_right_reason(read, quantities, expected):
    assert code(read, BIKE, quantities) == expected


def test_both_ends_of_the_bounds_are_taken(read):
    for distance in ("0.1", "50", "50.000"):
        assert read(BIKE, {"distance_km": distance})


def test_an_optional_check_may_be_left_out_but_not_be_empty(read):
    _, activity = read(BIKE, {"distance_km": "2"})
    assert set(activity.quantities) == {"distance_km"}
    _, activity = read(BIKE, {"distance_km": "2", "duration_s": "600"})
    assert activity.quantities["duration_s"] == 600
    for empty in (None, "", 600):
        refused = code(read, BIKE, {"distance_km": "2", "duration_s": empty})
        assert refused == "QUANTITY_MALFORMED"
    assert code(read, BIKE, {"distance_km": "2", "duration_s": "1"}) == "QUANTITY_TOO_SMALL"
    assert code(read, BIKE, {"duration_s": "600"}) == "QUANTITY_MISSING"


def test_an_exclusion_is_answered_and_yes_is_not_eligible(read):
    home = {**dict.fromkeys(HOME, "5"), "rooftop_pv": "no", "third_tier": "no"}
    assert read("housing.elec_save", home)
    for name in ("rooftop_pv", "third_tier"):
        assert code(read, "housing.elec_save", {**home, name: "yes"}) == "NOT_ELIGIBLE"
        assert code(read, "housing.elec_save", {**home, name: "No"}) == "QUANTITY_MALFORMED"
        without = {key: value for key, value in home.items() if key != name}
        assert code(read, "housing.elec_save", without) == "QUANTITY_MISSING"


def test_a_class_comes_from_the_closed_list(read):
    assert read("housing.appliance_recycle", {"kind": "washer", "count": "1"})
    for kind in ("boat", "", "WASHER", 3):
        quantities = {"kind": kind, "count": "1"}
        assert code(read, "housing.appliance_recycle", quantities) == "QUANTITY_MALFORMED"


@pytest.mark.parametrize(
    "at",
    [
        "2026-11-22",
        "2026-11-22T08:00:00",
        "2026-11-22 08:00:00+08:00",
        "2026-11-22T08:00+08:00",
        "2026-02-30T08:00:00+08:00",
        "2026-11-22T24:00:00+08:00",
        "2026-11-22T08:00:00+08:99",
        "2026-W47-7T08:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-12:00",
        "２026-11-22T08:00:00Z",
        1_700_000_000,
        None,
    ],
)
def test_a_time_without_a_plain_rfc_3339_form_is_refused(read, at):
    assert code(read, BIKE, {"distance_km": "1"}, at) == "TIME_MALFORMED"


def test_an_activity_may_be_five_minutes_ahead_of_our_clock(read, now):
    assert read(BIKE, {"distance_km": "1"}, (now + timedelta(minutes=5)).isoformat())
    late = (now + timedelta(minutes=5, seconds=1)).isoformat()
    assert code(read, BIKE, {"distance_km": "1"}, late) == "IN_FUTURE"


def test_the_business_day_is_the_one_in_shanghai(read):
    _, activity = read(BIKE, {"distance_km": "1"}, "2025-12-31T16:00:00Z")
    assert (activity.day, activity.month, activity.year) == (20260101, 202601, 2026)
    elsewhere = activity._replace(occurred_at=datetime.fromisoformat("2025-12-31T11:00:00-05:00"))
    assert elsewhere.day == 20260101


@given(
    st.datetimes(datetime.fromisoformat("1900-01-02"), datetime.fromisoformat("2100-01-01")),
    st.sampled_from(["+08:00", "Z", "+00:00", "-03:30", "+14:00"]),
    st.text(string.digits, max_size=9),
)
def test_a_time_is_its_instant_at_shanghais_offset(at, offset, fraction):
    written = f"{at.replace(microsecond=0).isoformat()}{'.' if fraction else ''}{fraction}{offset}"
    moment, meant = read_time(written), datetime.fromisoformat(written)
    assert moment == meant
    assert moment.utcoffset() == timedelta(hours=8)
    assert pickle.loads(pickle.dumps(moment)) == meant


def test_an_act_before_the_first_edition_is_refused(read):
    assert read(BIKE, {"distance_km": "1"}, "2017-12-31T16:00:00Z")
    early = "2017-12-31T15:59:59Z"
    assert code(read, BIKE, {"distance_km": "1"}, early) == "BEFORE_SCENARIO"


def test_unknown_and_disabled_behaviours_are_refused(read):
    assert code(read, "travel.teleport", {}) == "UNKNOWN_SCENARIO"
    assert code(read, "travel.metro_km", {"distance_km": "5"}) == "SCENARIO_DISABLED"
    assert code(read, "clothing.secondhand", {}) == "SCENARIO_DISABLED"


def test_a_rejection_survives_a_process_boundary():
    refused = pickle.loads(pickle.dumps(scenarios.Rejected("IN_FUTURE", "A sentence.")))
    assert (refused.code, str(refused), refused.title) == (
        "IN_FUTURE",
        "A sentence.",
        TITLES["IN_FUTURE"],
    )


@pytest.mark.parametrize(
    ("now", "late"),
    [
        ("2026-11-20T08:00:00+08:00", False),
        ("2026-11-22T23:59:59+08:00", False),
        ("2026-11-23T00:00:00+08:00", True),
        ("2026-11-22T16:00:00+00:00", True),  # already the 23rd in Shanghai
    ],
)
def test_a_claim_counts_business_days_from_the_act(edition, now, late):
    version = edition(claim_days=2)
    act = Activity(version.scenario, read_time("2026-11-20T23:30:00+08:00"), {}, 20261120)
    moment = datetime.fromisoformat(now)
    check_claim(edition(), act, moment)
    if late:
        with pytest.raises(Rejected) as refused:
            check_claim(version, act, moment)
        assert refused.value.code == "TOO_LATE"
    else:
        check_claim(version, act, moment)
