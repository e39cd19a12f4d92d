"""A published version stands alone: its bytes are canonical, pinned, and enough to quantify."""

import json
from pathlib import Path

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Version

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
anything = leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.text(), leaves, max_size=2)


def paths(value, prefix=()):
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield (*prefix, key)
            yield from paths(value[key], (*prefix, key))


@given(data=st.data(), replacement=anything)
def test_a_spoiled_document_is_refused_in_words_or_read_as_it_stands(catalogue, data, replacement):
    scenario = data.draw(st.sampled_from(["travel.bus_ride", "housing.appliance_recycle"]))
    document = json.loads(catalogue.versions(scenario)[0].canonical())
    *way, last = data.draw(st.sampled_from(sorted(paths(document), key=repr)))
    place = document
    for key in way:
        place = place[key]
    place[last] = replacement
    try:
        version = Version.parse(document)
    except scenarios.ScenarioError:
        return
    assert json.loads(version.canonical()) == document
