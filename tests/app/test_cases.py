"""Cases: opened once, counted, decided by a reviewer with a reason, told to whom they concern."""

from __future__ import annotations

import pytest

from app.api import cases as forms
from app.store import cases


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def open_one(city, shop):
    """Opens a case about the shop: open_one("difference", key="b"); its id."""

    def make(kind="fraud", rule="till", key="a", merchant=shop.id, shadow=False, **facts):
        with city.engine.begin() as tx:
            found = cases.Finding(kind, rule, key, merchant, facts, shadow=shadow)
            return cases.open_case(tx, found, city.clock())

    return make


@pytest.fixture
def rui(desk):
    return desk("reviewer", name="rui")


def test_a_case_is_opened_once_and_counted(city, open_one, rui):
    one = open_one(shadow=True, points="5")
    city.clock.move(minutes=1)
    assert open_one(shadow=False, points="6") == one
    assert len({one, open_one(key="b"), open_one(rule="refunds"), open_one("offline")}) == 4
    shown = rui.get(f"cases/{one}").get_json()
    assert forms.CaseSchema().validate(shown) == {}
    assert (shown["times"], shown["facts"], shown["shadow"]) == ("2", {"points": "5"}, False)
    assert shown["merchant"] == "noodles"
    assert shown["opened_at"] < shown["last_at"]


def test_the_list_is_filtered_and_paged(city, open_one, open_shop, rui):
    for n in range(5):
        open_one(key=str(n))
        city.clock.move(seconds=1)
    other = open_one("difference", "missing", merchant=open_shop("tea").id)
    listed = rui.get("cases").get_json()
    assert forms.CasesSchema().validate(listed) == {}
    assert listed["items"][0]["id"] == other
    for query, many in (
        ({"kind": "fraud"}, 5), ({"merchant": "tea"}, 1), ({"rule": "missing"}, 1),
        ({"state": "upheld"}, 0), ({"kind": "fraud", "merchant": "tea"}, 0),
    ):  # fmt: skip
        assert len(rui.get("cases", **query).get_json()["items"]) == many
    seen, cursor = [], {}
    while True:
        page = rui.get("cases", limit=2, **cursor).get_json()
        seen += [one["id"] for one in page["items"]]
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [one["id"] for one in listed["items"]]
    assert code_of(rui.get("cases", cursor="x")) == (422, "CURSOR_INVALID")
    assert rui.get("cases", kind="other").status_code == 422


@pytest.mark.parametrize(("verb", "state"), [("uphold", "upheld"), ("dismiss", "dismissed")])
def test_a_reviewer_decides_once_with_a_reason(verb, state, open_one, rui, desk, shop):
    one = open_one()
    for unsaid in ({}, {"reason": " "}, {"reason": "two\nlines"}):
        assert rui.post(f"cases/{one}/{verb}", unsaid).status_code == 422
    said = {"reason": "looked at the till's journal"}
    made = rui.post(f"cases/{one}/{verb}", said, key="decide-once")
    shown = made.get_json()
    assert (made.status_code, shown["state"], shown["reason"]) == (200, state, said["reason"])
    assert shown["closed_by"] == "rui"
    assert shown["closed_at"]
    again = rui.post(f"cases/{one}/{verb}", said, key="decide-once")
    assert again.get_json() == shown
    for other in ("uphold", "dismiss"):
        assert code_of(rui.post(f"cases/{one}/{other}", said)) == (409, "CASE_CLOSED")
    told = desk("auditor").get("trail", action=f"case.{state}").get_json()["items"]
    assert [(act["actor"], act["target"]) for act in told] == [("rui", one)]
    assert shop.get("profile").get_json()["state"] == "approved"  # an operator suspends, not this


def test_what_comes_up_again_after_a_decision_is_counted_and_stays_decided(open_one, rui):
    one = open_one()
    rui.post(f"cases/{one}/dismiss", {"reason": "a bus"})
    assert open_one() == one
    shown = rui.get(f"cases/{one}").get_json()
    assert (shown["state"], shown["times"]) == ("dismissed", "2")


def test_what_is_noted_again_is_not_counted_and_knows_the_newest_figures(city, shop, rui):
    def note(charges):
        with city.engine.begin() as tx:
            facts = {"charges": charges}
            found = cases.Finding("fraud", "till", "t1 08:00", shop.id, facts, shadow=True)
            return cases.note_case(tx, found, city.clock())

    one = note(31)
    city.clock.move(minutes=1)
    assert note(31) == one
    before = rui.get(f"cases/{one}").get_json()
    assert before["last_at"] == before["opened_at"]
    note(40)
    shown = rui.get(f"cases/{one}").get_json()
    assert (shown["times"], shown["facts"]) == ("1", {"charges": 40})
    assert shown["last_at"] > shown["opened_at"]


def test_what_is_not_there_is_not_found(rui):
    for case in ("0" * 32, "x", "A" * 32):
        assert code_of(rui.get(f"cases/{case}")) == (404, "NOT_FOUND")
        answer = rui.post(f"cases/{case}/uphold", {"reason": "because"})
        assert code_of(answer) == (404, "NOT_FOUND")


def test_a_merchant_reads_its_own_cases_but_none_of_fraud(open_one, open_shop, shop):
    mine = [open_one("difference", "missing"), open_one("offline", "used_twice")]
    open_one("fraud")
    open_one("difference", "missing", key="c", merchant=open_shop("tea").id)
    listed = shop.get("cases").get_json()
    assert forms.MerchantCasesSchema().validate(listed) == {}
    assert {one["id"] for one in listed["items"]} == set(mine)
    assert "merchant" not in listed["items"][0]
    assert [one["id"] for one in shop.get("cases?kind=offline").get_json()["items"]] == mine[1:]
    assert shop.get("cases?kind=fraud").status_code == 422
    assert shop.get("cases?state=upheld").get_json()["items"] == []
    assert code_of(shop.key_of("t1").get("cases")) == (403, "TILL_NOT_YOURS")
