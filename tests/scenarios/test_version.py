"""A published version stands alone: its bytes are canonical, pinned, and enough to quantify."""

import json
import pickle
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Fault, Version
from scenarios.errors import FAULTS

PUBLISHED = Path(__file__).with_name("published.txt").read_text(encoding="utf-8").splitlines()


def every(catalogue):
    return [version for name in catalogue.scenarios for version in catalogue.versions(name)]


def test_published_versions_are_never_edited(catalogue):
    lines = [line for line in PUBLISHED if not line.startswith("#")]
    assert lines == [f"{one.scenario} {one.number} {one.digest}" for one in every(catalogue)]


def test_the_canonical_form_is_what_rfc_8785_writes(catalogue):
    for version in every(catalogue):
        assert version.canonical() == rfc8785.dumps(json.loads(version.canonical()))


def test_a_version_read_back_from_its_bytes_is_the_same_and_reckons_the_same(
    catalogue, read, plausible
):
    for version in every(catalogue):
        again = Version.from_canonical(version.canonical())
        assert again == version
        assert again.digest == version.digest
        if version.enabled:
            _, activity = read(version.scenario, plausible[version.scenario])
            reduction = scenarios.quantify(version, activity)
            assert scenarios.quantify(again, activity).mg == reduction.mg
            assert again.rate.points(reduction.mg) == version.rate.points(reduction.mg)


def test_the_canonical_form_holds_the_rate_and_leaves_demonstration_ranges_out(catalogue):
    version = catalogue.versions("travel.bike_shared")[0]
    document = json.loads(version.canonical())
    assert document["rate"]["points_per_kg"] == version.rate.points_per_kg
    assert document["rate"]["validity_months"] == version.rate.validity_months
    assert version.inputs[0].typical
    assert "typical" not in document["inputs"][0]


@pytest.mark.parametrize("spoil", [b" ", b"\n", b"x"])
def test_bytes_that_are_not_canonical_are_refused(catalogue, spoil):
    data = catalogue.versions("travel.bike_shared")[0].canonical()
    for changed in (data + spoil, spoil + data, json.dumps(json.loads(data)).encode()):
        with pytest.raises(scenarios.ScenarioError):
            Version.from_canonical(changed)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=6,
)
SPOILED = (
    "travel.bike_shared",  # an optional check, rules, an act
    "travel.bus_km",  # a group
    "travel.carpool",  # a share, no number
    "housing.appliance_recycle",  # classes
    "housing.elec_save",  # exclusions, a grid factor
    "clothing.secondhand",  # disabled, without coefficients
)


def paths(value, prefix=()):
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*prefix, key)
            yield from paths(value[key], (*prefix, key))


@given(data=st.data(), replacement=anything)
def test_a_spoiled_document_is_refused_in_words_or_read_as_it_stands(catalogue, data, replacement):
    scenario = data.draw(st.sampled_from(SPOILED))
    document = json.loads(catalogue.versions(scenario)[0].canonical())
    *way, last = data.draw(st.sampled_from(sorted(paths(document), key=repr)))
    place = document
    for key in way:
        place = place[key]
    place[last] = replacement
    found = fault(document)
    if found is None:
        assert json.loads(Version.parse(document).canonical()) == document
    else:
        assert found.title == FAULTS[found.code]
        assert found.detail.endswith(".")
        assert len(found.detail) < 600


def fault(document):
    """What is wrong with it, if anything is; no other error may come out."""
    try:
        Version.parse(document)
    except scenarios.Fault as error:
        return error
    return None


@given(st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_json_is_given_for_an_edition_is_refused_in_words(document):
    with pytest.raises(scenarios.ScenarioError):
        Version.parse(document)
    with pytest.raises(scenarios.ScenarioError):
        Version.from_canonical(json.dumps(document).encode())


def test_a_fault_and_an_edition_survive_a_process_boundary(document, edition):
    found = fault(document(formula="per_mile"))
    again = pickle.loads(pickle.dumps(found))
    assert (again.code, again.field, again.scenario) == ("FIELD_MALFORMED", "formula", "travel.one")
    assert str(again) == str(found)
    version = pickle.loads(pickle.dumps(edition()))
    assert version.canonical() == edition().canonical()
    assert version.bound.reckon({"distance_km": 2}) == 500_000


def test_depth_and_text_that_no_json_carries_are_refused(document):
    for title in ({"zh": "\ud800", "en": "x"}, deep(100_000)):
        with pytest.raises(scenarios.Fault):
            Version.parse(document(title=title))
    with pytest.raises(scenarios.Fault):
        Version.from_canonical(b"[" * 100_000)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def test_a_claim_window_is_whole_days_and_changes_nothing_where_it_is_left_out(edition):
    assert edition().claim_days == 0
    assert b"claim_days" not in edition().canonical()
    with_days = edition(claim_days=30)
    assert with_days.claim_days == 30
    assert b'"claim_days":30' in with_days.canonical()
    assert Version.from_canonical(with_days.canonical()) == with_days


@pytest.mark.parametrize("days", [0, -1, 3651, "30", True, 1.5])
def test_a_claim_window_of_no_whole_days_is_refused(edition, days):
    with pytest.raises(Fault) as found:
        edition(claim_days=days)
    assert (found.value.code, found.value.field) == ("FIELD_MALFORMED", "claim_days")
