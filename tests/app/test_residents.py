"""What a resident reads: balances, statement, calculation, receipt, opening, refusals."""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha256

import pytest

from app.api import answers
from app.flows.enroll import enroll
from app.flows.tokens import issue_access_token
from ledger import proof
from ledger.proof import Receipt


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
    assert me("rejections").json["items"][0]["title_zh"] == "行为编号已用于另一行为"


def test_amounts_and_ids_are_strings_everywhere(me, entry_id):
    for path in ("home", "balances", "statement", f"entries/{entry_id}"):
        for name, value in _leaves(me(path).json):
            amount = any(part in name for part in ("_mg", "points", "amount", "_id", "bucket"))
            assert not amount or name == "points_per_kg" or isinstance(value, str), name


def _leaves(value, name=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value
