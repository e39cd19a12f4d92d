"""Operators set numbers and templates within bounds, over what they have read, and it is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.api import settings as forms
from app.flows.setting import SETTINGS, setting, sources

TEMPLATE = {"id": "tmpl_0123456789", "fields": {"thing1": "text", "time2": "at"}}


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def olga(desk):
    return desk("operator", name="olga")


def test_until_it_is_set_a_setting_has_its_default(city, olga):
    listed = olga.get("settings").get_json()
    assert forms.SettingsSchema().validate(listed) == {}
    assert {one["name"]: one["value"] for one in listed["items"]} == {
        name: one.default for name, one in SETTINGS.items()
    }
    assert olga.get("settings/appeal_days").headers["ETag"] == '"0"'
    with city.engine.connect() as tx:
        assert setting(tx, "appeal_days") == 15


def test_a_change_counts_at_once_and_is_told(city, olga, desk):
    made = olga.put("settings/appeal_days", {"value": 7}, match='"0"')
    assert (made.get_json()["value"], made.headers["ETag"]) == (7, '"1"')
    made = olga.put("settings/appeal_days", {"value": 8}, match='"1"')
    assert made.get_json()["etag"] == '"2"'
    with city.engine.connect() as tx:
        assert setting(tx, "appeal_days") == 8
    told = desk("auditor").get("trail", action="setting.changed").get_json()["items"]
    assert [(one["actor"], one["target"], one["detail"]) for one in told] == [
        ("olga", "appeal_days", {"revision": 2, "value": "8"}),
        ("olga", "appeal_days", {"revision": 1, "value": "7"}),
    ]


def test_a_change_over_what_was_not_read_is_refused(olga):
    assert code_of(olga.put("settings/appeal_days", {"value": 7})) == (428, "IF_MATCH_MISSING")
    olga.put("settings/appeal_days", {"value": 7}, match='"0"')
    for stale in ('"0"', '"2"', '"x"'):
        answer = olga.put("settings/appeal_days", {"value": 9}, match=stale)
        assert code_of(answer) == (412, "REVISION_STALE")
    assert olga.get("settings/appeal_days").get_json()["value"] == 7


def test_of_two_changes_at_once_over_the_same_revision_one_counts(app, olga):
    def put(value):
        return olga.put("settings/appeal_days", {"value": value}, match='"0"').status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(put, (5, 6, 7, 8))) == [200, 412, 412, 412]


@pytest.mark.parametrize("value", [0, 91, -1, "7", 7.0, 1e40, True, None, [], {"a": 1}, "\u0000"])
def test_a_number_out_of_bounds_is_refused(olga, value):
    answer = olga.put("settings/appeal_days", {"value": value}, match='"0"')
    assert code_of(answer) == (422, "VALIDATION_FAILED")
    assert answer.get_json()["errors"] == [
        {"field": "value", "message": "must be a whole number from 1 to 90"}
    ]


@pytest.mark.parametrize(
    "value",
    [
        "tmpl_0123456789",
        {"id": "tmpl_0123456789"},
        TEMPLATE | {"id": "短"},
        TEMPLATE | {"id": "短" * 20},
        TEMPLATE | {"page": "pages/消息"},
        TEMPLATE | {"page": None},
        TEMPLATE | {"more": 1},
        TEMPLATE | {"fields": {}},
        TEMPLATE | {"fields": {"thing1": "reason"}},
        TEMPLATE | {"fields": {"car_number1": "text"}},
        TEMPLATE | {"fields": {"thing1": 1}},
        TEMPLATE | {"fields": {"thing1": ["text"]}},
        TEMPLATE | {"fields": {f"thing{n}": "text" for n in range(6)}},
    ],
)
def test_a_template_that_could_not_be_filled_is_refused(olga, value):
    answer = olga.put("settings/template.points.expiring", {"value": value}, match='"0"')
    assert code_of(answer) == (422, "VALIDATION_FAILED")


def test_a_template_is_set_and_taken_away(olga):
    name = "settings/template.points.expiring"
    given = TEMPLATE | {"page": "pages/points?from=push", "fields": {"number1": "points"}}
    assert olga.put(name, {"value": given}, match='"0"').get_json()["value"] == given
    assert olga.put(name, {"value": None}, match='"1"').get_json()["value"] is None
    assert sources("points.expiring") == ["title", "text", "at", "points", "date"]


def test_there_is_no_other_name(olga):
    assert code_of(olga.get("settings/appeal")) == (404, "NOT_FOUND")
    assert code_of(olga.put("settings/appeal", {"value": 1}, match='"0"')) == (404, "NOT_FOUND")


def test_only_operators_set_and_auditors_read(desk):
    for role in ("editor", "reviewer"):
        assert code_of(desk(role).get("settings")) == (403, "ROLE_MISSING")
    auditor = desk("auditor")
    assert auditor.get("settings").status_code == 200
    answer = auditor.put("settings/appeal_days", {"value": 7}, match='"0"')
    assert code_of(answer) == (403, "ROLE_MISSING")
