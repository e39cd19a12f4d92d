"""Two editions are told apart in words, and each change has its kind."""

import pytest

from scenarios.difference import Change, differences, kind


def changed(edition, **changes):
    return differences(edition(), edition(number=2, effective_from="2027-01-01", **changes))


def test_another_number_and_day_are_no_difference(edition):
    assert changed(edition) == []


@pytest.fixture
def limit():
    return {"per": "day", "of": "count", "limit": 2, "source": "rec", "url": "", "tag": "rec"}


@pytest.mark.parametrize(
    ("changes", "expected", "of_kind"),
    [
        ({"formula": "saving"}, None, "coefficient"),
        ({"sensitive": ["movement"]}, Change("sensitive", "", "movement"), "text"),
        ({"confidence": "C"}, Change("confidence", "B", "C"), "source"),
        (
            {"title": {"zh": "骑行", "en": "Riding"}},
            Change("title.zh", "中文", "骑行"),
            "text",
        ),
        (
            {"eligibility": {"zh": "中文", "en": "Once a day."}},
            Change("eligibility.en", "Every ride once.", "Once a day."),
            "eligibility",
        ),
        (
            {"disabled": {"zh": "停用", "en": "Stopped."}},
            Change("disabled.en", "", "Stopped."),
            "state",
        ),
    ],
)
def test_a_changed_field_is_named_with_both_values(edition, parts, changes, expected, of_kind):
    if "formula" in changes:
        _, _, quantity = parts
        changes["inputs"] = [quantity(name, role=name) for name in ("baseline", "actual")]
        expected = Change("formula", "per_unit", "saving")
    found = changed(edition, **changes)
    assert expected in found
    assert kind(expected) == of_kind
    assert found == sorted(found)


def test_a_coefficient_is_matched_by_its_name(edition, parts):
    _, coefficient, _ = parts
    other = {"value": "250", "unit": "g/km", "source": "Shanxi", "url": "http://x", "tag": "S"}
    new = coefficient(value="95.3", bounds=["95.3", "250"], alternatives=[other])
    found = {change.field: change for change in changed(edition, coefficients=[new])}
    assert found["coefficients.factor.value"][1:] == ("250", "95.3")
    assert found["coefficients.factor.bounds"][1:] == ("250; 250", "95.3; 250")
    assert found["coefficients.factor.alternatives"].new == "250 g/km: Shanxi http://x [S]"
    assert {name: kind(change) for name, change in found.items()} == {
        "coefficients.factor.value": "coefficient",
        "coefficients.factor.bounds": "coefficient",
        "coefficients.factor.alternatives": "source",
    }


def test_new_caps_rules_inputs_groups_and_rates_have_their_kinds(edition, document, parts, limit):
    _, _, quantity = parts
    time = quantity("duration_s", "check", "s", presence="optional")
    rule = {"name": "given", "kind": "given", "of": "duration_s", "mode": "shadow", "basis": "rec"}
    found = changed(
        edition,
        caps=[limit],
        inputs=[quantity(), time],
        rules=[rule],
        act={"kind": "trip", "minutes": 4},
        group={"name": "travel.same", "per": "day", "members": ["travel.one", "travel.two"]},
        rate={**document()["rate"], "number": 2, "points_per_kg": 500},
    )
    kinds = {change.field: kind(change) for change in found}
    assert kinds["caps.day.count.limit"] == "cap"
    assert kinds["caps.day.count.source"] == "source"
    assert kinds["inputs.duration_s.maximum"] == "input"
    assert kinds["inputs.duration_s.title.zh"] == "text"
    assert kinds["rules.given.mode"] == kinds["act.minutes"] == "rule"
    assert kinds["rules.given.basis"] == "source"
    assert kinds["group.members"] == "group"
    assert kinds["rate.points_per_kg"] == "rate"
    assert all(change.old == "" for change in found if not change.field.startswith("rate"))


def test_every_field_of_every_edition_has_a_kind(catalogue, edition):
    for name in catalogue.scenarios:
        for change in differences(edition(), catalogue.versions(name)[0]):
            assert kind(change)
