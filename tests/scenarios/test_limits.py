"""Caps cut points and never carbon; a group lets one member through; undo takes back exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Usage


class Resident:
    """Claims one after the other, keeping usage as a store would: only under the keys asked for."""

    def __init__(self, read):
        self.read = read
        self.usage = {}

    def claim(self, scenario, quantities, at="2026-11-22T08:00:00+08:00"):
        version, activity = self.read(scenario, quantities, at)
        reduction = scenarios.quantify(version, activity)
        loaded = {
            key: self.usage[key] for key in scenarios.needs(version, activity) if key in self.usage
        }
        grant = scenarios.grant(version, activity, reduction, loaded)
        changed = scenarios.record(version, activity, reduction.mg, grant.points, loaded)
        self.usage |= changed
        return version, activity, reduction.mg, grant

    def undo(self, version, activity, mg, grant):
        self.usage |= scenarios.undo(version, activity, mg, grant.points, self.usage)


@pytest.fixture
def resident(read):
    return Resident(read)


RIDE = {"distance_km": "2"}
ONE = {"count": "1"}


def test_a_count_cap_pays_the_first_and_records_the_carbon_of_all(resident):
    grants = [resident.claim("travel.bike_shared", RIDE)[3] for _ in range(3)]
    assert grants[:2] == [(500, 0, None), (500, 0, None)]
    assert grants[2] == (0, 500, "day.count")
    assert resident.usage == {("travel.bike_shared", 20261122): Usage(2, 1_500_000, 1000)}


def test_a_cap_begins_anew_the_next_day_in_shanghai(resident):
    for _ in range(3):
        resident.claim("travel.bike_shared", RIDE, "2026-11-20T15:59:59Z")
    assert resident.claim("travel.bike_shared", RIDE, "2026-11-20T16:00:00Z")[3].points == 500


def test_a_gram_cap_pays_up_to_the_gram(resident):
    first = resident.claim("travel.walk_steps", {"steps": "10000"})[3]
    second = resident.claim("travel.walk_steps", {"steps": "10000"})[3]
    third = resident.claim("travel.walk_steps", {"steps": "100"})[3]
    assert (first.points, second.points, third.points) == (164, 296 - 164, 0)
    assert (second.withheld, second.cap) == (164 - 132, "day.grams")


def test_the_tighter_of_two_caps_is_named(resident):
    parcel = {"kind": "washer", "count": "1"}
    days = [f"2026-11-{day:02d}T08:00:00+08:00" for day in (1, 1, 2, 3, 4)]
    grants = [resident.claim("housing.appliance_recycle", parcel, at)[3] for at in days]
    assert [grant.cap for grant in grants] == [
        None,
        "day.count",
        None,
        "month.grams",
        "month.grams",
    ]
    assert sum(grant.points for grant in grants) == 399_280


def test_without_caps_and_group_nothing_has_to_be_loaded(read):
    version, activity = read("travel.ev_charge", {"energy_kwh": "10"})
    assert scenarios.needs(version, activity) == ()
    assert scenarios.record(version, activity, 1, 1, {}) == {}


@pytest.mark.parametrize(
    ("first", "second", "quantities"),
    [
        ("travel.bus_km", "travel.bus_ride", ({"distance_km": "5"}, ONE)),
        ("travel.bus_ride", "travel.bus_km", (ONE, {"distance_km": "5"})),
        ("food.no_cutlery", "food.no_chopsticks", (ONE, ONE)),
        ("food.no_chopsticks", "food.no_cutlery", (ONE, ONE)),
    ],
)
def test_only_one_of_a_group_counts_on_one_day(resident, first, second, quantities):
    claimed = resident.claim(first, quantities[0])
    resident.claim(first, quantities[0])
    before = dict(resident.usage)
    with pytest.raises(scenarios.Rejected) as refused:
        resident.claim(second, quantities[1])
    assert refused.value.code == "EXCLUDED_BY_GROUP"
    assert resident.usage == before
    assert resident.claim(second, quantities[1], "2026-11-21T08:00:00+08:00")
    resident.undo(*claimed)
    with pytest.raises(scenarios.Rejected):
        resident.claim(second, quantities[1])
    resident.undo(*claimed)
    assert resident.claim(second, quantities[1])


def test_a_claim_without_points_still_holds_the_group(resident, read):
    days = [f"2026-11-{day:02d}T08:00:00+08:00" for day in range(1, 21)]
    for at in days:
        for _ in range(10):
            resident.claim("travel.bus_ride", ONE, at)
    grant = resident.claim("travel.bus_ride", ONE, "2026-11-21T08:00:00+08:00")[3]
    assert grant == (0, 80, "month.count")
    with pytest.raises(scenarios.Rejected, match="bus_ride was already claimed"):
        resident.claim("travel.bus_km", {"distance_km": "5"}, "2026-11-21T09:00:00+08:00")


def test_a_corrected_claim_gets_its_points_again(resident):
    claims = [resident.claim("travel.bike_shared", RIDE) for _ in range(3)]
    resident.undo(*claims[0])
    assert resident.claim("travel.bike_shared", {"distance_km": "1"})[3].points == 250


def test_undoing_what_was_never_claimed_is_refused(resident):
    claimed = resident.claim("travel.bike_shared", RIDE)
    resident.undo(*claimed)
    with pytest.raises(scenarios.ScenarioError) as refused:
        resident.undo(*claimed)
    assert refused.value.code == "USAGE_UNDERFLOW"


@given(st.lists(st.integers(100, 30_000), max_size=8), st.integers(0, 7))
def test_a_cap_is_never_passed_and_nothing_is_lost(read, steps, undone):
    resident = Resident(read)
    claims = [resident.claim("travel.walk_steps", {"steps": str(count)}) for count in steps]
    assert sum(grant.points for *_, grant in claims) <= 296
    for *_, mg, grant in claims:
        assert grant.points + grant.withheld == mg // 1000
        assert min(grant.points, grant.withheld) >= 0
        assert (grant.cap is None) == (grant.withheld == 0)
    for claim in claims[undone:]:
        resident.undo(*claim)
    kept = claims[:undone]
    expected = Usage(
        sum(grant.points > 0 for *_, grant in kept),
        sum(mg for *_, mg, _ in kept),
        sum(grant.points for *_, grant in kept),
    )
    assert resident.usage.get(("travel.walk_steps", 20261122), Usage()) == expected
