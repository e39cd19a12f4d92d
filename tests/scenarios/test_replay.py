"""The auditor, with exported bytes and openings alone, gets what the program granted."""

import json
import re

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Replay, ScenarioError

BIKE = ("travel.bike_shared", 1)
AT = "2026-11-22T08:00:00+08:00"


NAMES = (
    "travel.bike_shared",
    "travel.bus_km",
    "travel.bus_ride",
    "travel.walk_steps",
    "travel.walk_km",
    "travel.ev_charge",
    "travel.ev_km",
    "banking.e_statement",
)


@pytest.fixture(scope="module")
def exported(catalogue):
    return [one.canonical() for name in NAMES for one in catalogue.versions(name)]


def opened(scenario, quantities, number=0, at=AT):
    return scenarios.opening("meituan", f"ride-{number}", scenario, at, quantities)


def test_an_opening_is_rfc_8785_with_these_fields():
    data = scenarios.opening("hello", "订单\n1", BIKE[0], AT, {"distance_km": "1.32"})
    assert data == rfc8785.dumps(json.loads(data))
    assert list(json.loads(data)) == [
        "activity",
        "occurred_at",
        "provider",
        "quantities",
        "scenario",
    ]


acts = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        st.sampled_from(
            [
                ("travel.bike_shared", {"distance_km": "2"}),
                ("travel.bike_shared", {"distance_km": "9", "duration_s": "720"}),
                ("travel.bus_km", {"distance_km": "5"}),
                ("travel.bus_ride", {"count": "1"}),
                ("travel.walk_steps", {"steps": "12000"}),
                ("travel.ev_charge", {"energy_kwh": "9.5"}),
            ]
        ),
        st.sampled_from(["2026-11-21T23:59:59+08:00", "2026-11-21T16:00:00Z"]),
        st.booleans(),
    ),
    max_size=16,
)


@given(acts)
def test_replaying_claims_and_reversals_equals_making_them(read, exported, acts):
    replay, usage = Replay(exported), {"a": {}, "b": {}}
    for number, (account, (scenario, quantities), at, reversed_after) in enumerate(acts):
        opening = opened(scenario, quantities, number, at)
        version, activity = read(scenario, quantities, at)
        mg, mine = scenarios.quantify(version, activity).mg, usage[account]
        try:
            due = scenarios.claim(version, activity, mg, scenarios.needs(version, activity), mine)
        except scenarios.Rejected as refused:
            with pytest.raises(scenarios.Rejected, match=re.escape(refused.detail)):
                replay.claim(account, (scenario, version.number), opening)
            continue
        mine |= due.changed
        claim = replay.claim(account, (scenario, version.number), opening)
        assert claim == (mg, due.points, due.withheld, scenario)
        if reversed_after:
            mine |= scenarios.undo(version, activity, mg, due.points, mine)
            replay.undo(account, opening)


@pytest.fixture(scope="module")
def rules(exported):
    return Replay(exported)


changed = st.tuples(st.integers(0, 200), st.sampled_from(b'",:{}\\019-+TZz \x7f\xe4'))


@given(
    st.sampled_from(
        [
            ("travel.bike_shared", {"distance_km": "2"}),
            ("travel.bike_shared", {"distance_km": "9", "duration_s": "3600"}),
            ("travel.bus_ride", {"count": "1"}),
        ]
    ),
    st.sampled_from([AT, "2026-11-21T16:00:00Z"]),
    st.lists(changed, max_size=3),
)
def test_whatever_is_credited_is_rfc_8785_and_worth_what_it_says(read, rules, act, at, changes):
    scenario, quantities = act
    right = opened(scenario, quantities, 1, at)
    opening = bytearray(right)
    for place, byte in changes:
        opening[place % len(opening)] = byte
    rules.forget("a")
    try:
        claim = rules.claim("a", (scenario, 1), bytes(opening))
    except ScenarioError:
        assert opening != right
        return
    said = json.loads(bytes(opening))
    assert rfc8785.dumps(said) == opening
    assert list(said) == list(good)
    version, activity = read(said["scenario"], said["quantities"], said["occurred_at"])
    assert claim.reduction_mg == scenarios.quantify(version, activity).mg


def test_what_an_account_claimed_is_forgotten_for_that_account_alone(exported):
    replay, ride = Replay(exported), opened(BIKE[0], {"distance_km": "2"})
    for account in ("a", "b"):
        replay.claim(account, BIKE, ride)
    replay.forget("a")
    assert replay.claim("a", BIKE, ride).points == 500
    with pytest.raises(ScenarioError, match="second time"):
        replay.claim("b", BIKE, ride)


def test_a_claim_under_another_version_is_named(exported):
    for version in (("travel.bike_shared", 2), ("travel.ev_charge", 1)):
        with pytest.raises(ScenarioError) as refused:
            Replay(exported).claim("a", version, opened(BIKE[0], {"distance_km": "2"}))
        assert refused.value.code == "WRONG_VERSION"


def test_a_withdrawn_version_credits_nothing(document):
    first, second = (
        scenarios.Version.parse(document(number=number, effective_from=day))
        for number, day in ((1, "2018-01-01"), (2, "2026-11-01"))
    )
    data = [first.canonical(), second.canonical()]
    ride = opened("travel.one", {"distance_km": "2"})
    assert Replay(data).claim("a", ("travel.one", 2), ride).points == 500
    taken_back = Replay(data, [("travel.one", 2)])
    with pytest.raises(ScenarioError) as refused:
        taken_back.claim("a", ("travel.one", 2), ride)
    assert refused.value.code == "WRONG_VERSION"
    assert taken_back.claim("a", ("travel.one", 1), ride).points == 500


def test_the_same_activity_is_claimed_and_undone_once(exported):
    replay, ride = Replay(exported), opened(BIKE[0], {"distance_km": "2"})
    replay.claim("a", BIKE, ride)
    with pytest.raises(ScenarioError, match="second time"):
        replay.claim("a", BIKE, ride)
    replay.undo("a", ride)
    with pytest.raises(ScenarioError, match="not made before"):
        replay.undo("a", ride)
    assert replay.claim("a", BIKE, ride).points == 500


good = json.loads(opened(BIKE[0], {"distance_km": "2"}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"null",
        b"[" * 100_000,
        b'{"activity":"\\ud800","occurred_at":"","provider":"","quantities":{},"scenario":""}',
        json.dumps(good).encode(),
        rfc8785.dumps({**good, "extra": "1"}),
        rfc8785.dumps({name: value for name, value in good.items() if name != "provider"}),
        rfc8785.dumps({**good, "quantities": {"distance_km": 2}}),
        rfc8785.dumps({**good, "quantities": None}),
        rfc8785.dumps({**good, "scenario": ["travel.bike_shared"]}),
        rfc8785.dumps({**good, "occurred_at": 20261122}),
        opened(BIKE[0], {"distance_km": "2"}).replace(b'"2"', b'"2","distance_km":"2"'),
    ],
)
def test_an_opening_of_another_form_is_refused(exported, data):
    with pytest.raises(ScenarioError):
        Replay(exported).claim("a", BIKE, data)


def test_text_without_utf_8_cannot_become_an_opening():
    with pytest.raises(ScenarioError) as refused:
        scenarios.opening("meituan", "\ud800", BIKE[0], AT, {})
    assert refused.value.code == "OPENING_MALFORMED"
