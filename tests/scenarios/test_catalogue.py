"""The editions fit together on every day, and what the shipped ones promise as a whole."""

from collections import Counter

import pytest

import scenarios
from scenarios import AREAS, Catalogue, Fault

LETTERS = {"A": 1, "B": 24, "C": 27, "D": 15}
COUNTS = {
    "clothing": 5,
    "food": 8,
    "housing": 14,
    "travel": 15,
    "banking": 10,
    "shopping": 8,
    "tourism": 7,
}


def latest(catalogue):
    return [catalogue.versions(name)[-1] for name in catalogue.scenarios]


def test_all_behaviours_of_the_methodologies_are_there(catalogue):
    assert Counter(version.area for version in latest(catalogue)) == COUNTS
    assert tuple(COUNTS) == AREAS
    assert Counter(version.confidence for version in latest(catalogue)) == LETTERS
    codes = [version.code for version in latest(catalogue)]
    assert len(set(codes)) == len(codes) == 67


def test_what_nothing_supports_is_disabled_with_a_reason(catalogue):
    education = {"housing.stairs", "housing.ac_hour", "clothing.avoid_new"}
    no_rail = {"travel.metro_km", "travel.metro_ride"}
    rule_of_d = {"food.waste_kg", "housing.gas_save", "housing.heat_save", "tourism.hsr_vs_air"}
    disabled = {version.scenario for version in latest(catalogue) if version.disabled}
    assert disabled >= education | no_rail | rule_of_d
    assert disabled >= {one.scenario for one in latest(catalogue) if one.confidence == "D"}
    for version in latest(catalogue):
        assert not version.disabled or (version.disabled.zh and version.disabled.en)


def test_every_area_has_at_least_two_behaviours_that_take_activities(plausible):
    areas = [name.partition(".")[0] for name in plausible]
    assert all(areas.count(area) >= 2 for area in AREAS)


def chinese(words):
    return any("一" <= letter <= "鿿" for letter in words)


def test_names_are_in_both_languages_and_sources_are_given(catalogue):
    for version in latest(catalogue):
        for phrase in (version.title, version.eligibility, version.evidence, version.consent):
            assert chinese(phrase.zh)
            assert phrase.en
            assert not chinese(phrase.en) or phrase is not version.title
        for item in version.coefficients:
            assert item.source
            assert all(other.source for other in item.alternatives)


def test_consent_says_that_it_can_be_withdrawn(catalogue):
    for version in latest(catalogue):
        assert "撤回" in version.consent.zh
        assert "withdraw" in version.consent.en


def test_every_trip_is_one_physical_act_and_sensitive(catalogue):
    trips = {version.scenario for version in latest(catalogue) if version.act}
    assert trips >= {f"travel.{name}" for name in ("bus_km", "bus_ride", "bike_shared", "ev_km")}
    for version in latest(catalogue):
        assert version.act is None or "movement" in version.sensitive


def test_what_is_usual_is_plausible(plausible, catalogue):
    for name in plausible:
        for item in catalogue.versions(name)[-1].inputs:
            assert all(item.low <= item.read(value) <= item.high for value in item.typical)


def test_what_is_usual_earns_points_and_breaks_no_rule(plausible, read):
    for name, quantities in plausible.items():
        version, activity = read(name, quantities)
        mg = scenarios.quantify(version, activity).mg
        claimed = scenarios.claim(version, activity, mg, scenarios.needs(version, activity), {})
        assert claimed.points > 0
        assert claimed.shadow in ((), ("duration_given",))


def test_the_methodologies_exclusive_pairs_are_exclusive(catalogue):
    groups = {version.group.members for version in latest(catalogue) if version.group}
    for pair in (
        ("food.no_chopsticks", "food.no_cutlery"),
        ("travel.bus_km", "travel.bus_ride"),
        ("travel.metro_km", "travel.metro_ride"),
        ("housing.elec_dr", "housing.elec_save"),
        ("travel.walk_km", "travel.walk_steps"),
        ("travel.ev_charge", "travel.ev_km"),
    ):
        assert any(set(pair) <= set(members) for members in groups)


def fault(call, *arguments):
    with pytest.raises(Fault) as refused:
        call(*arguments)
    return refused.value


def test_the_version_of_the_day_is_taken(edition):
    both = edition(), edition(number=2, effective_from="2026-05-01")
    catalogue = Catalogue(reversed(both))
    assert catalogue.in_force("travel.one", 20260430).number == 1
    assert catalogue.in_force("travel.one", 20260501).number == 2
    assert catalogue.versions("travel.one") == both
    with pytest.raises(scenarios.Rejected) as refused:
        catalogue.in_force("travel.one", 20171231)
    assert refused.value.code == "BEFORE_SCENARIO"


def test_a_withdrawn_version_never_takes_effect_and_keeps_its_number(edition):
    taken_back = edition(number=2, effective_from="2027-01-01")
    catalogue = Catalogue([edition(), taken_back], [("travel.one", 2)])
    assert catalogue.in_force("travel.one", 20270102).number == 1
    assert catalogue.versions("travel.one")[1] == taken_back
    assert catalogue.withdrawn("travel.one", 2)
    assert not catalogue.withdrawn("travel.one", 1)
    reused = fault(catalogue.amended, [edition(number=2, effective_from="2027-02-01")])
    assert "without gaps" in reused.detail
    sooner = catalogue.amended([edition(number=3, effective_from="2026-12-01")])
    assert sooner.withdrawn("travel.one", 2)
    assert sooner.in_force("travel.one", 20270102).number == 3


def test_a_behaviour_of_which_all_is_withdrawn_is_unknown(edition):
    catalogue = Catalogue([edition()], [("travel.one", 1)])
    with pytest.raises(scenarios.Rejected) as refused:
        catalogue.in_force("travel.one", 20260101)
    assert refused.value.code == "UNKNOWN_SCENARIO"


def test_only_what_was_published_is_withdrawn(edition):
    assert "withdrawn" in fault(Catalogue, [edition()], [("travel.one", 2)]).detail


@pytest.mark.parametrize("day", ["2027-01-01", "2026-12-31", "2018-01-01"])
def test_versions_must_take_effect_one_after_the_other(edition, day):
    catalogue = Catalogue([edition(), edition(number=2, effective_from="2027-01-01")])
    overlap = fault(catalogue.amended, [edition(number=3, effective_from=day)])
    assert (overlap.code, overlap.field) == ("EFFECT_OVERLAPS", "effective_from")
    assert overlap.scenario == "travel.one"
    assert "2027-01-01" in overlap.detail
    assert catalogue.scenarios == ("travel.one",)
    assert len(catalogue.versions("travel.one")) == 2


def test_a_number_is_neither_left_out_nor_given_twice(edition):
    for number in (1, 3):
        gap = fault(Catalogue, [edition(), edition(number=number, effective_from="2027-01-01")])
        assert "without gaps" in gap.detail
    other = edition(number=2, effective_from="2027-01-01", code="TRV_OTHER")
    assert "code may not change" in fault(Catalogue, [edition(), other]).detail


def group(*members, per="day", name="travel.same"):
    return {"name": name, "per": per, "members": [f"travel.{member}" for member in members]}


def test_a_group_must_be_the_same_in_each_member(edition):
    one = edition(group=group("one", "two"))
    assert Catalogue([one, edition("travel.two", group=group("one", "two"))])
    for other in (group("one", "two", per="month"), group("one", "two", name="travel.b"), None):
        differs = fault(Catalogue, [one, edition("travel.two", group=other)])
        assert (differs.code, differs.field) == ("GROUP_INCONSISTENT", "group")
    assert fault(Catalogue, [one]).code == "GROUP_INCONSISTENT"


def test_a_group_must_be_the_same_on_every_day(edition):
    pair = [edition(f"travel.{name}", group=group("one", "two")) for name in ("one", "two")]
    catalogue = Catalogue([*pair, edition("travel.three")])
    three = group("one", "two", "three")
    new = {
        name: edition(
            f"travel.{name}",
            number=2,
            effective_from=f"2027-0{month}-01",
            group=three,
        )
        for month, name in ((1, "one"), (1, "two"), (2, "three"))
    }
    late = fault(catalogue.amended, new.values())
    assert late.code == "GROUP_INCONSISTENT"
    assert "20270101" in late.detail
    new["three"] = edition("travel.three", number=2, effective_from="2027-01-01", group=three)
    assert catalogue.amended(new.values())
    assert Catalogue(
        [*pair, edition("travel.three"), *new.values()], [(one.scenario, 2) for one in new.values()]
    )


def test_exclusions_that_lead_back_by_other_groups_are_circular(edition):
    ring = [("one", "two"), ("two", "three"), ("three", "one")]
    editions = [
        edition(f"travel.{name}", group=group(name, after, name=f"travel.{name}"))
        for name, after in ring
    ]
    circular = fault(Catalogue, editions)
    assert (circular.code, circular.field) == ("GROUP_CIRCULAR", "group.members")
    assert "one group" in circular.detail


def test_acts_of_one_kind_have_one_window(edition):
    trip = edition(act={"kind": "trip", "minutes": 4})
    assert Catalogue([trip, edition("travel.two", act={"kind": "trip", "minutes": 4})])
    wide = fault(Catalogue, [trip, edition("travel.two", act={"kind": "trip", "minutes": 10})])
    assert (wide.scenario, wide.field) == ("travel.two", "act.minutes")


def test_a_behaviour_stands_in_its_own_group(document):
    alone = fault(scenarios.Version.parse, document(group=group("two", "three")))
    assert (alone.code, alone.field) == ("GROUP_INCONSISTENT", "group.members")


@pytest.fixture
def rate_2(document):
    first = document()["rate"]
    return {**first, "number": 2, "effective_from": "2027-01-01", "points_per_kg": 500}


def test_a_new_rate_is_carried_by_every_behaviour_from_its_first_day(edition, rate_2):
    catalogue = Catalogue([edition(), edition("travel.two")])
    one, two = (
        edition(name, number=2, effective_from="2027-01-01", rate=rate_2)
        for name in ("travel.one", "travel.two")
    )
    alone = fault(catalogue.amended, [one])
    assert (alone.field, alone.scenario) == ("rate", "travel.two")
    assert "2027-01-01" in alone.detail
    amended = catalogue.amended([one, two])
    assert amended.in_force("travel.two", 20270101).rate.points(330_999) == 165
    assert amended.in_force("travel.two", 20261231).rate.points(330_999) == 330
    behind = edition(number=3, effective_from="2027-03-01")
    assert fault(amended.amended, [behind]).field == "rate"


def test_a_rate_begins_on_the_day_it_says(edition, rate_2):
    late = edition(number=2, effective_from="2027-02-01", rate=rate_2)
    early = edition(number=2, effective_from="2026-12-01", rate=rate_2)
    for one in (late, early):
        assert fault(Catalogue([edition()]).amended, [one]).field == "rate"
