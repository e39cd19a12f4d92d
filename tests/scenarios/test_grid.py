"""Grid factors come from one table, with their notice, other years and other values beside."""

import json
from decimal import Decimal

import pytest

import scenarios
from scenarios import Fault


def named(name):
    return next(one for one in scenarios.grid().factors if one.name == name)


@pytest.mark.parametrize(
    ("name", "value", "notice", "confidence"),
    [
        ("China 2022", "536.6", "公告2024年第33号", "A"),
        ("China 2023", "530.6", "公告2025年第47号", "A"),
        ("North China 2023", "636.1", "公告2025年第47号", "C"),
        ("Shanxi 2021", "722.2", "公告2024年第12号", "B"),
        ("Shanxi 2022", "709.6", "公告2024年第33号", "A"),
        ("Shanxi 2023", "663.4", "公告2025年第47号", "B"),
        ("Zhejiang 2023", "497.4", "公告2025年第47号", "C"),
    ],
)
def test_a_factor_names_its_notice(name, value, notice, confidence):
    factor = named(name)
    assert (factor.value, factor.confidence, factor.tag) == (value, confidence, "C")
    assert notice in factor.source


def test_a_coefficient_is_filled_in_with_other_years_and_bounds():
    filled = scenarios.grid().fill({"name": "factor", "grid": "Shanxi 2023"})
    assert (filled["value"], filled["unit"], filled["year"]) == ("663.4", "g/kWh", 2023)
    assert [other["value"] for other in filled["alternatives"]] == ["709.6", "722.2", "525"]
    assert filled["bounds"] == ["525", "722.2"]
    assert "grid" not in filled


def test_the_published_edition_holds_the_numbers_and_no_reference(catalogue):
    for name in ("housing.elec_save", "housing.elec_dr", "housing.pv"):
        document = json.loads(catalogue.versions(name)[0].canonical())
        (factor,) = document["coefficients"]
        assert factor["value"] == named("Shanxi 2023").value
        assert factor["url"] == named("Shanxi 2023").url
        assert "grid" not in factor


def test_what_may_not_be_used_says_why_and_stands_nowhere(catalogue):
    unused = {Decimal(one.value) for one in scenarios.grid().unused}
    assert unused >= {Decimal(value) for value in ("570.3", "581", "583.9", "577.7")}
    assert all(one.reason.zh and one.reason.en for one in scenarios.grid().unused)
    for name in catalogue.scenarios:
        for item in catalogue.versions(name)[-1].coefficients:
            if item.unit == "g/kWh":
                assert item.amount not in unused
                assert not {Decimal(other.value) for other in item.alternatives} & unused


def test_an_unknown_reference_or_a_number_beside_it_is_refused():
    for table, field in (
        ({"grid": "Shanxi 1999"}, "grid"),
        ({"grid": ["Shanxi 2023"]}, "grid"),
        ({"grid": "Shanxi 2023", "value": "1"}, "value"),
    ):
        with pytest.raises(Fault) as refused:
            scenarios.grid().fill(table)
        assert refused.value.field == field
