"""The catalogue is checked when it is loaded; a fault names the place to mend."""

from pathlib import Path

import pytest

import scenarios
from scenarios import AREAS, ScenarioError

SHIPPED = Path(scenarios.__file__).parent
RATES = (SHIPPED / "points.toml").read_text(encoding="utf-8")
BIKE = (SHIPPED / "travel/bike_shared.toml").read_text(encoding="utf-8")
SECOND = BIKE[BIKE.index("[[version]]") :].replace("number = 1", "number = 2")
RATE_2 = RATES[RATES.index("[[rate]]") :].replace("number = 1", "number = 2")


def folder(path, files, rates=RATES):
    (path / "points.toml").write_text(rates, encoding="utf-8")
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    return path


def test_every_area_has_at_least_two_behaviours_that_take_activities(plausible):
    areas = [name.partition(".")[0] for name in plausible]
    assert all(areas.count(area) >= 2 for area in AREAS)


def test_names_are_in_both_languages_and_sources_are_given(catalogue):
    for name in catalogue.scenarios:
        for version in catalogue.versions(name):
            assert any("一" <= letter <= "鿿" for letter in version.title.zh)
            assert version.title.en.isascii()
            assert all(item.source for item in version.coefficients)


def test_what_is_usual_is_plausible(plausible, read, catalogue):
    for name in plausible:
        for item in catalogue.versions(name)[-1].inputs:
            assert all(item.low <= item.read(value) <= item.high for value in item.typical)


def test_the_version_of_the_day_is_taken(tmp_path):
    later = SECOND.replace("2018-01-01", "2026-05-01").replace('value = "250"', 'value = "95.3"')
    later = later.replace('bounds = ["33.88", "250"]', 'bounds = ["33.88", "95.3"]')
    catalogue = scenarios.load(folder(tmp_path, {"travel/bike_shared.toml": BIKE + later}))
    assert catalogue.in_force("travel.bike_shared", 20260430).number == 1
    assert catalogue.in_force("travel.bike_shared", 20260501).number == 2
    assert [one.number for one in catalogue.versions("travel.bike_shared")] == [1, 2]
    with pytest.raises(scenarios.Rejected):
        catalogue.in_force("travel.bike_shared", 20171231)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('value = "250"', 'value = "250.1"', "outside its bounds"),
        ('value = "250"', 'value = "2e2"', "not a plain decimal"),
        ('value = "250"', "value = 250.5", "neither text nor a whole number"),
        ('value = "250"', "value = 250", "value must be str"),
        ('bounds = ["33.88", "250"]', 'bounds = ["30", "250"]', "bounds must be"),
        ('bounds = ["33.88", "250"]', 'bounds = ["52", "250"]', "bounds must be"),
        ('unit = "km"', 'unit = "m"', "must be in g/m"),
        ('confidence = "B"', 'confidence = "D"', "confidence"),
        ('confidence = "B"', 'trust = "B"', "trust"),
        ('source = "三晋绿色生活 (Shanxi), 山西日报 2022-12-01"', 'source = ""', "source"),
        ('formula = "per_unit"', 'formula = "per_mile"', "per_mile"),
        ('formula = "per_unit"', 'formula = "saving"', "saving needs"),
        ('role = "quantity"', 'role = "class"', "per_unit needs"),
        ('maximum = "50"', 'maximum = "0.01"', "out of order"),
        ('name = "factor"', 'name = "faktor"', "factor"),
        ('per = "day"', 'per = "week"', "day or month"),
        ("limit = 2", "limit = 0", "limit"),
        ("limit = 2", "limit = true", "neither text nor a whole number"),
        ("number = 1", "number = 2", "without gaps"),
        ("effective_from = 2018-01-01", 'effective_from = "2018-13-01"', "not a date"),
        ("effective_from = 2018-01-01", "effective_from = 2017-12-31", "no points rate"),
        ('scenario = "travel.bike_shared"', 'scenario = "travel.bike"', "area and name"),
        ("[[version]]", "[[version", "cannot be read"),
        ("[[version.inputs]]", "[[version.input]]", "inputs must be"),
    ],
)
def test_a_fault_in_a_file_is_named(tmp_path, before, after, named):
    assert before in BIKE
    root = folder(tmp_path, {"travel/bike_shared.toml": BIKE.replace(before, after, 1)})
    with pytest.raises(ScenarioError, match=named) as refused:
        scenarios.load(root)
    assert refused.value.code == "CATALOGUE_FAULT"


def test_versions_must_take_effect_one_after_the_other(tmp_path):
    with pytest.raises(ScenarioError, match="take effect after"):
        scenarios.load(folder(tmp_path, {"travel/bike_shared.toml": BIKE + SECOND}))


def test_a_behaviour_may_not_emit_more_than_its_baseline(tmp_path):
    bus = (SHIPPED / "travel/bus_km.toml").read_text(encoding="utf-8")
    swapped = bus.replace('name = "baseline"', 'name = "x"').replace(
        'name = "project"', 'name = "baseline"'
    )
    root = folder(
        tmp_path, {"travel/bus_km.toml": swapped.replace('name = "x"', 'name = "project"')}
    )
    with pytest.raises(ScenarioError, match="may not emit more"):
        scenarios.load(root)


def test_a_group_must_be_the_same_in_each_member(tmp_path):
    bus = {
        f"travel/{name}.toml": (SHIPPED / f"travel/{name}.toml").read_text(encoding="utf-8")
        for name in ("bus_km", "bus_ride")
    }
    assert scenarios.load(folder(tmp_path, bus))
    bus["travel/bus_km.toml"] = bus["travel/bus_km.toml"].replace('per = "day"', 'per = "month"')
    with pytest.raises(ScenarioError, match="not the same"):
        scenarios.load(folder(tmp_path, bus))


def test_a_new_rate_needs_a_new_version_on_its_first_day(tmp_path):
    rates = RATES + RATE_2.replace("2018-01-01", "2027-01-01").replace("1000", "500")
    with pytest.raises(ScenarioError, match="rate 2 needs a new version"):
        scenarios.load(folder(tmp_path, {"travel/bike_shared.toml": BIKE}, rates))
    later = SECOND.replace("2018-01-01", "2027-01-01")
    root = folder(tmp_path, {"travel/bike_shared.toml": BIKE + later}, rates)
    old, new = scenarios.load(root).versions("travel.bike_shared")
    assert (old.rate.points(330_999), new.rate.points(330_999)) == (330, 165)


def test_points_may_not_outlive_ten_years(tmp_path):
    rates = RATES.replace("validity_months = 120", "validity_months = 121")
    with pytest.raises(ScenarioError, match="validity_months"):
        scenarios.load(folder(tmp_path, {"travel/bike_shared.toml": BIKE}, rates))
