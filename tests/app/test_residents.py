"""What a resident reads: balances, statement, calculation, receipt, opening, refusals."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import pytest

from app.api import answers, why_not
from app.flows.budget import fund_budget, pay_waiting
from app.flows.enroll import enroll
from app.flows.notify import notify
from app.flows.tokens import issue_access_token
from app.store import budgets
from ledger import proof
from ledger.proof import Receipt
from scenarios.errors import TITLES

FLOWS = Path(__file__).resolve().parents[2] / "app" / "flows"


@pytest.fixture
def entry_id(provider, rider, ride) -> str:
    return provider.batch("b1", ride(1)).json["outcomes"][0]["entry_id"]


def test_balances_tell_points_by_expiry_and_carbon_by_year(me, entry_id):
    body = me("balances").json
    assert answers.BalancesSchema().validate(body) == {}
    assert body["points"] == "625"
    assert body["reduction_mg"] == "625000"
    assert body["vintages"] == [{"year": "2026", "reduction_mg": "625000"}]
    assert body["next_expiry"] == body["buckets"][0]
    assert sum(int(one["points"]) for one in body["buckets"]) == 625


def test_points_past_their_last_day_are_not_shown(me, entry_id, city):
    last = me("balances").json["next_expiry"]["expires_on"]
    city.clock.now = city.clock.now.replace(year=int(last[:4]), month=int(last[5:7]), day=28)
    assert me("balances").json["points"] == "625"
    city.clock.move(days=4)
    assert me("balances").json["points"] == "0"


def test_a_resident_with_nothing_has_zeros(me):
    body = me("home").json
    assert answers.HomeSchema().validate(body) == {}
    assert (body["balances"]["points"], body["recent"]) == ("0", [])
    assert body["balances"]["next_expiry"] is None


def test_the_statement_pages_without_loss_and_filters(provider, rider, ride, me):
    days = [f"2026-11-{day:02d}T08:00:00+08:00" for day in range(1, 12)]
    rides = [ride(n, occurred_at=at) for n, at in enumerate(days)]
    other = ride(99, scenario="shopping.no_such")
    made = provider.batch("b1", *rides, other).json["outcomes"]
    expected = [one["entry_id"] for one in made if one["outcome"] == "accepted"]
    seen, cursor = [], None
    while True:
        body = me("statement", limit=4, **({"cursor": cursor} if cursor else {})).json
        assert answers.StatementSchema().validate(body) == {}
        seen += [one["entry_id"] for one in body["items"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert seen == expected[::-1]
    assert len(me("statement", limit=50, area="travel").json["items"]) == 11
    assert me("statement", area="food").json["items"] == []
    assert me("statement", kind="redeem").json["items"] == []
    for bad in ({"area": "moon"}, {"kind": "x"}, {"limit": 51}, {"cursor": "xx"}, {"y": 1}):
        assert me("statement", **bad).status_code == 422


def test_a_calculation_shows_input_rule_number_source_and_result(me, entry_id):
    body = me(f"entries/{entry_id}").json
    assert answers.EntrySchema().validate(body) == {}
    reckoned = body["calculation"]
    assert reckoned["inputs"][0]["value"] == "2.5"
    assert reckoned["coefficients"][0]["source"]
    assert reckoned["arithmetic"] == "2.5 km × 250 g/km = 625.000 g CO2e"
    assert reckoned["reduction_mg"] == body["reduction_mg"] == "625000"
    assert reckoned["points_before_caps"] == body["points"] == "625"
    totals = {}
    for one in body["postings"]:
        totals[one["asset"]] = totals.get(one["asset"], 0) + int(one["amount"])
    assert totals == {"CO2E": 0, "POINT": 0}


def test_the_opening_is_what_the_entry_committed_to(me, entry_id):
    body = me(f"entries/{entry_id}/opening").json
    assert answers.OpeningSchema().validate(body) == {}
    bytes_ = bytes.fromhex(body["salt"]) + body["opening"].encode()
    assert sha256(bytes_).hexdigest() == body["commitment"]
    assert json.loads(body["opening"])["activity"] == "ride-1"


def test_the_receipt_proves_the_entry_offline_once_it_is_sealed(me, entry_id, city, client):
    early = me(f"entries/{entry_id}/receipt")
    assert (early.status_code, early.json["code"]) == (409, "NOT_SEALED_YET")
    assert early.headers["Retry-After"]
    assert me("statement").json["items"][0]["sealed"] is False
    city.sealer.seal(city.clock())
    assert me("statement").json["items"][0]["sealed"] is True
    receipt = Receipt.parse(me(f"entries/{entry_id}/receipt").text)
    head = proof.verify(receipt, receipt.extra, city.vault.ring.verifiers, city.config.log_origin)
    assert json.loads(receipt.extra)["id"] == entry_id
    assert receipt.index < head.size
    public = Receipt.parse(client.get(f"/api/v1/log/proof?entry={entry_id}").text)
    assert public == dataclasses.replace(receipt, extra=None)


@pytest.mark.parametrize("tail", ["", "/receipt", "/opening"])
def test_another_residents_entry_is_as_good_as_none(client, city, entry_id, tail):
    parts = (city.engine, city.vault, city.registry, "bikes", ["rider-2"], "140403", city.clock())
    token = issue_access_token(city.vault.token, enroll(*parts)["rider-2"], city.clock())
    for name in (entry_id, "ff" * 16, "x", "%00"):
        path = f"/api/v1/me/entries/{name}{tail}"
        answer = client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 404


def test_a_resident_sees_why_not(provider, rider, ride, me):
    provider.batch("b1", ride(1))
    provider.batch("b2", *(ride(1, quantities={"distance_km": str(n)}) for n in range(3, 8)))
    seen, cursor = [], None
    while True:
        body = me("rejections", limit=2, **({"cursor": cursor} if cursor else {})).json
        assert answers.RejectionsSchema().validate(body) == {}
        seen += [one["code"] for one in body["items"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert seen == ["ACTIVITY_ID_REUSED"] * 5
    assert me("rejections", cursor="MQ").status_code == 422
    first = me("rejections").json["items"][0]
    assert first["title_zh"] == "行为编号已用于另一行为"
    assert first["reason_zh"] == why_not.REASONS["ACTIVITY_ID_REUSED"]
    assert (first["scenario"], first["scenario_zh"]) == ("travel.bike_shared", "共享单车骑行")


@pytest.mark.parametrize("scenario", ["travel.no_such", "a\x00b", {"travel": 1}, 7, "x" * 10_000])
def test_what_is_reported_of_no_scenario_is_told_without_one(provider, rider, ride, me, scenario):
    (told,) = provider.batch("b1", ride(1, scenario=scenario)).json["outcomes"]
    assert told["code"] == "UNKNOWN_SCENARIO"
    (seen,) = me("rejections").json["items"]
    assert answers.RejectionSchema().validate(seen) == {}
    assert (seen["code"], seen["scenario"], seen["scenario_zh"]) == (told["code"], None, None)


def test_every_reason_a_resident_can_read_says_what_can_be_done():
    source = "".join(path.read_text() for path in FLOWS.glob("*.py"))
    refused = set(re.findall(r'refuse\(\s*result,\s*item,\s*"([A-Z_]+)"', source))
    assert {"ACTIVITY_ID_REUSED", "SAME_ACT", "CONSENT_MISSING"} <= refused
    assert TITLES.keys() | refused <= why_not.REASONS.keys()
    for code, sentence in why_not.REASONS.items():
        assert code == code.upper()
        assert sentence.endswith("。")
        assert len(sentence) > 15


def test_home_tells_what_expires_within_ninety_days(me, entry_id, city):
    assert me("home").json["expiring"] == {"points": "0", "first_on": None, "within_days": 90}
    last = me("balances").json["next_expiry"]["expires_on"]
    city.clock.now = datetime.fromisoformat(f"{last}T12:00:00+08:00") - timedelta(days=91)
    assert me("home").json["expiring"]["points"] == "0"
    city.clock.move(days=1)
    assert me("home").json["expiring"] == {"points": "625", "first_on": last, "within_days": 90}


def test_home_sums_carbon_by_area_of_the_days_of_recording(provider, rider, ride, me, city):
    city.clock.now = datetime.fromisoformat("2026-11-22T23:59:59.999+08:00")
    provider.batch("b1", ride(1))
    city.clock.now = datetime.fromisoformat("2026-11-23T00:00:00+08:00")
    provider.batch("b2", ride(2, occurred_at="2026-11-20T09:00:00+08:00"))
    body = me("home").json
    assert body["today"] == {
        "date": "2026-11-23",
        "reduction_mg": "625000",
        "areas": [{"area": "travel", "reduction_mg": "625000"}],
    }
    assert (body["month"]["month"], body["month"]["reduction_mg"]) == ("2026-11", "1250000")
    city.clock.now = datetime.fromisoformat("2026-12-01T00:00:00+08:00")
    body = me("home").json
    assert (body["today"]["areas"], body["month"]["areas"]) == ([], [])
    assert len(body["recent"]) == 2


def test_home_takes_back_what_was_reversed(provider, me, entry_id):
    path = "/api/v1/activities/ride-1/correction"
    assert provider.send("PUT", path, None).status_code == 200
    body = me("home").json
    assert body["month"]["areas"] == [{"area": "travel", "reduction_mg": "0"}]


def test_home_tells_what_arrived_since_it_was_last_shown(provider, rider, ride, me, city):
    first = me("home").json
    assert first["arrived"] is None
    provider.batch("b1", ride(1), ride(2, occurred_at="2026-11-20T09:00:00+08:00"))
    second = me("home", since=first["cursor"]).json
    assert second["arrived"] == {
        "entries": 2,
        "points": "1250",
        "reduction_mg": "1250000",
        "more": False,
    }
    third = me("home", since=second["cursor"]).json
    assert (third["arrived"]["entries"], third["cursor"]) == (0, second["cursor"])
    hours = [datetime.fromisoformat(f"2026-11-01T{n:02d}:00:00+08:00") for n in range(24)]
    more = [ride(n, occurred_at=at.isoformat()) for n, at in enumerate(hours, 3)]
    provider.batch("b2", *more)
    arrived = me("home", since=second["cursor"]).json["arrived"]
    assert (arrived["entries"], arrived["more"]) == (24, False)
    city.clock.move(days=60)
    arrived = me("home", since=second["cursor"]).json["arrived"]
    assert (arrived["entries"], arrived["more"]) == (20, True)
    assert me("home", since="MQ").status_code == 200
    for bad in ("x", "LTE", "MTIzNDU2Nzg5MDEyMzQ1Njc4OQ"):
        assert me("home", since=bad).json["code"] == "CURSOR_INVALID"


def test_home_counts_messages_that_were_not_read(me, rider, city):
    words = {"points": "5", "date": "2027-01-31"}
    with city.engine.begin() as tx:
        for key in ("a", "b"):
            notify(tx, city.vault, rider, "points.expiring", key, words, city.clock())
    assert me("home").json["unread_messages"] == 2


def test_the_statement_is_filtered_by_days_and_scenario(provider, rider, ride, me, city):
    made = {}
    for day in (23, 24, 25):
        city.clock.now = datetime.fromisoformat(f"2026-11-{day}T23:59:59+08:00")
        walk = {"scenario": "travel.walk_steps", "quantities": {"steps": "5000"}}
        at = {"occurred_at": f"2026-11-{day}T08:00:00+08:00"}
        answer = provider.batch(f"b{day}", ride(day, **at), ride(day + 50, **at, **walk)).json
        made[day] = [one["entry_id"] for one in answer["outcomes"]]
    city.clock.move(days=3)

    def found(**query: str) -> set[str]:
        answer = me("statement", limit=50, **query)
        assert answer.status_code == 200
        return {one["entry_id"] for one in answer.json["items"]}

    assert found(**{"from": "2026-11-24"}) == {*made[24], *made[25]}
    assert found(to="2026-11-24") == {*made[23], *made[24]}
    assert found(**{"from": "2026-11-24", "to": "2026-11-24"}) == set(made[24])
    assert found(**{"from": "2026-11-25", "to": "2026-11-24"}) == set()
    assert found(**{"from": "2030-01-01"}) == set()
    assert found(scenario="travel.walk_steps") == {made[day][1] for day in made}
    assert found(scenario="travel.walk_steps", area="food") == set()
    assert found(scenario="travel.bike_shared", to="2026-11-23") == {made[23][0]}
    assert found(scenario="travel.walk") == found(scenario='","') == set()
    pages, cursor = [], {}
    while cursor is not None:
        body = me("statement", limit=1, to="2026-11-24", area="travel", **cursor).json
        pages += [one["entry_id"] for one in body["items"]]
        cursor = {"cursor": body["next_cursor"]} if body["has_more"] else None
    assert pages == [*made[24][::-1], *made[23][::-1]]
    ends = ({"from": "0001-01-01"}, {"to": "9999-12-31"})
    for bad in ({"from": "2026-11-31"}, {"to": "24/11/2026"}, {"scenario": ""}, *ends):
        assert me("statement", **bad).status_code == 422


def test_an_entry_says_which_cap_cut_it_and_what_was_used_before(provider, rider, ride, me):
    rides = [
        ride(n, occurred_at=f"2026-11-20T{8 + n:02d}:00:00+08:00", quantities={"distance_km": "9"})
        for n in range(12)
    ]
    outcomes = provider.batch("b1", *rides).json["outcomes"]
    cut = [one for one in outcomes if one.get("cap")]
    assert cut
    whole = me(f"entries/{outcomes[0]['entry_id']}").json
    assert whole["reason"] is None
    assert [one["applied"] for one in whole["calculation"]["caps"]].count(True) == 0
    for place, one in enumerate(outcomes):
        if one not in cut:
            continue
        body = me(f"entries/{one['entry_id']}").json
        assert answers.EntrySchema().validate(body) == {}
        assert body["reason"] == "CAP_REACHED"
        caps = body["calculation"]["caps"]
        (applied,) = [cap for cap in caps if cap["applied"]]
        assert f"{applied['per']}.{applied['of']}" == one["cap"]
        before = outcomes[:place]
        assert applied["used_before"] == {
            "acts": str(place),
            "reduction_mg": str(sum(int(other["reduction_mg"]) for other in before)),
            "points": str(sum(int(other["points"]) for other in before)),
        }


def test_what_was_reversed_before_is_not_counted_as_used(provider, rider, ride, me):
    def nine(number: int) -> dict:
        at = f"2026-11-20T{8 + number:02d}:00:00+08:00"
        return ride(number, occurred_at=at, quantities={"distance_km": "9"})

    first = provider.batch("b1", *(nine(n) for n in range(12))).json["outcomes"]
    assert first[-1]["cap"]
    provider.send("PUT", "/api/v1/activities/ride-0/correction", None)
    last = provider.batch("b2", nine(12)).json["outcomes"][0]
    assert last["cap"]
    caps = me(f"entries/{last['entry_id']}").json["calculation"]["caps"]
    (applied,) = [cap for cap in caps if cap["applied"]]
    assert applied["used_before"]["acts"] == "11"


def test_an_entry_that_waits_says_so_and_later_what_paid_it(provider, rider, ride, me, city):
    with city.engine.begin() as tx:
        budgets.create(tx, token_hex(16), "bikes", "travel.bike_shared", city.clock())
    waiting = provider.batch("b1", ride(1)).json["outcomes"][0]["entry_id"]
    body = me(f"entries/{waiting}").json
    assert answers.EntrySchema().validate(body) == {}
    assert (body["reason"], body["waiting"]) == ("WAITING_FOR_BUDGET", "waiting")
    assert me("home").json["waiting_points"] == "625"
    fund_budget(city.engine, city.vault, "travel.bike_shared", 1000, "decision 2", city.clock())
    assert pay_waiting(city.engine, city.vault, city.registry, city.clock()) == 1
    body = me(f"entries/{waiting}").json
    assert body["waiting"] == "paid"
    paid = me(f"entries/{body['settled_by_entry_id']}").json
    assert (paid["concerns_entry_id"], paid["points"]) == (waiting, "625")
    provider.send("PUT", "/api/v1/activities/ride-1/correction", None)
    taken = me(f"entries/{waiting}").json["reversed_by_entry_id"]
    assert me(f"entries/{taken}").json["concerns_entry_id"] == waiting


def test_amounts_and_ids_are_strings_everywhere(me, entry_id):
    for path in ("home", "balances", "statement", f"entries/{entry_id}"):
        for name, value in _leaves(me(path).json):
            amount = any(part in name for part in ("_mg", "points", "amount", "_id", "bucket"))
            assert not amount or name == "points_per_kg" or isinstance(value, str | None), name


def _leaves(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value
