"""The registry as anybody reads it: editions and their states, differences, changes, sources."""

from __future__ import annotations

from datetime import date
from hashlib import sha256

import pytest
from sqlalchemy import text

from app.api.registry import (
    ChangesSchema,
    DifferencesSchema,
    GridSchema,
    ScenarioSchema,
    ScenariosSchema,
)
from app.flows import tune
from app.flows.changeset import ChangeSet, Wanted, chosen, copies

BIKE, METRO = "travel.bike_shared", "travel.metro_km"
FIRST, SECOND = date(2026, 12, 1), date(2026, 12, 10)


@pytest.fixture
def seat(desk, city):
    """A desk as the flows know it: seat("editor")."""
    people = {role: desk(role).admin for role in ("editor", "reviewer")}

    def make(role):
        who = people[role]
        return tune.Desk(city.vault, city.registry, 7, who.id, who.name, city.clock())

    return make


@pytest.fixture
def publish(city, seat):
    """Publishes editions as a draft does, the shared bike's with another number; its id."""

    def make(first, *scenarios, grams="40", rate=None):
        with city.engine.begin() as tx:
            editions = copies(city.registry.current(tx), scenarios, first)
            if BIKE in scenarios:
                editions = chosen(editions, (BIKE, "factor"), Wanted(grams, {}))
            change = ChangeSet("骑行系数", "closer to the survey", first, editions, rate)
            draft = tune.open_draft(tx, seat("editor"), change)
            tx.execute(text("UPDATE drafts SET state = 'submitted' WHERE state = 'draft'"))
        with city.engine.begin() as tx:
            tune.approve(tx, seat("reviewer"), draft, "1")
        return draft

    return make


@pytest.fixture
def withdraw(city, seat):
    def make(draft):
        with city.engine.begin() as tx:
            tune.withdraw(tx, seat("reviewer"), draft, "1", "doubt")

    return make


def states(client, scenario=BIKE):
    one = client.get(f"/api/v1/scenarios/{scenario}").json
    return [version["state"] for version in one["versions"]], one["in_force"], one["next"]


def test_a_published_edition_is_the_bytes_its_digest_says(client):
    registry = client.get("/api/v1/scenarios").json
    assert ScenariosSchema().validate(registry) == {}
    assert registry["notice_days"] == 7
    assert len(registry["items"]) == 67
    assert len({one["area"] for one in registry["items"]}) == 7
    for one in registry["items"]:
        for version in one["versions"]:
            answer = client.get(f"/api/v1/scenarios/{one['id']}/versions/{version['number']}")
            assert sha256(answer.data).hexdigest() == version["digest"]
            assert answer.json["confidence"] == one["confidence"]
            assert ("disabled" not in answer.json) == one["enabled"]
    first = registry["items"][0]["id"]
    for path in (f"{first}/versions/0", f"{first}/versions/9", "none/versions/1", "none"):
        assert client.get(f"/api/v1/scenarios/{path}").status_code == 404


@pytest.mark.parametrize("number", ["9" * 5000, "01", "１", "-1", "1.0", "x"])
def test_a_number_that_no_edition_has_is_not_found(client, number):
    answer = client.get(f"/api/v1/scenarios/{BIKE}/versions/{number}")
    assert (answer.status_code, answer.json["code"]) == (404, "NOT_FOUND")


def test_scenarios_are_found_by_area_and_by_whether_they_take_activities(client):
    def ids(**query):
        answer = client.get("/api/v1/scenarios", query_string=query)
        return {one["id"] for one in answer.json["items"]}

    travel = ids(area="travel")
    assert travel
    assert {name.partition(".")[0] for name in travel} == {"travel"}
    on, off = ids(enabled="true"), ids(enabled="false")
    assert on
    assert off
    assert on | off == ids()
    assert not on & off
    assert ids(area="travel", enabled="true") == travel & on
    for query in ({"area": "space"}, {"enabled": "yes"}, {"x": "1"}):
        assert client.get("/api/v1/scenarios", query_string=query).status_code == 422


def test_an_edition_is_scheduled_then_in_force_then_superseded(client, city, publish):
    assert states(client) == (["in_force"], 1, None)
    publish(FIRST, BIKE)
    publish(SECOND, BIKE, grams="93.3")
    assert ScenarioSchema().validate(client.get(f"/api/v1/scenarios/{BIKE}").json) == {}
    assert states(client) == (["in_force", "scheduled", "scheduled"], 1, 2)
    city.clock.move(days=8, hours=12)  # 2026-12-01 in Asia/Shanghai
    assert states(client) == (["superseded", "in_force", "scheduled"], 2, 3)
    city.clock.move(days=9)
    assert states(client) == (["superseded", "superseded", "in_force"], 3, None)


def test_an_act_is_quantified_by_the_edition_in_force_when_it_happened(
    client, city, provider, rider, ride, publish
):
    publish(FIRST, BIKE)
    city.clock.move(days=20)
    last, first = "2026-11-30T23:59:59+08:00", "2026-12-01T00:00:00+08:00"
    answer = provider.batch(
        "late", ride(1, occurred_at=first), ride(2, occurred_at=last), ride(3, occurred_at=first)
    )
    grams = [int(one["reduction_mg"]) // 1000 for one in answer.json["outcomes"]]
    assert grams == [100, 625, 100]  # 2.5 km at 40 and at 250 g/km


def test_an_act_after_a_withdrawn_first_day_goes_by_the_edition_before(
    city, provider, rider, ride, publish, withdraw
):
    withdraw(publish(FIRST, BIKE))
    city.clock.move(days=20)
    (outcome,) = provider.batch("b", ride(1, occurred_at="2026-12-05T08:00:00+08:00")).json[
        "outcomes"
    ]
    assert outcome["reduction_mg"] == "625000"


def test_the_difference_of_any_two_editions_is_told_field_by_field(client, publish):
    publish(FIRST, BIKE)
    publish(SECOND, BIKE, grams="93.3")
    path = f"/api/v1/scenarios/{BIKE}/differences"
    there = client.get(f"{path}?from=1&to=3").json
    assert DifferencesSchema().validate(there) == {}
    value = {"field": "coefficients.factor.value", "kind": "coefficient", "old": "250"}
    assert value | {"new": "93.3"} in there["items"]
    assert {one["kind"] for one in there["items"]} == {"coefficient", "source"}
    back = client.get(f"{path}?from=3&to=1").json["items"]
    assert [(one["old"], one["new"]) for one in back] == [
        (one["new"], one["old"]) for one in there["items"]
    ]
    assert client.get(f"{path}?from=2&to=2").json["items"] == []
    assert client.get(f"{path}?from=1&to=9").status_code == 404
    for query in ("", "?from=1", "?from=x&to=1", "?from=1&to=2&x=1"):
        assert client.get(path + query).status_code == 422


def test_the_feed_tells_each_change_once_with_the_entry_that_says_so(
    client, city, publish, withdraw
):
    city.clock.move(hours=1)
    kept = publish(FIRST, BIKE, METRO)
    city.clock.move(hours=1)
    gone = publish(SECOND, BIKE, grams="93.3")
    city.clock.move(hours=1)
    withdraw(gone)
    assert kept != gone
    body = client.get("/api/v1/scenarios/changes").json
    assert ChangesSchema().validate(body) == {}
    withdrawn, second, first, beginning = body["items"]
    assert [one["change"] for one in body["items"]] == ["withdrawn"] + ["published"] * 3
    assert (withdrawn["effective_from"], withdrawn["title"]) == ("2026-12-10", "骑行系数")
    assert (first["areas"], first["kinds"]) == (["travel"], ["coefficient", "source"])
    assert [one["scenario"] for one in first["editions"]] == [BIKE, METRO]
    assert first["editions"][1]["kinds"] == []
    assert (beginning["kinds"], len(beginning["areas"])) == (["new"], 7)
    assert (beginning["title"], beginning["reason"]) == (None, None)
    city.sealer.seal(city.clock())
    told = [edition["entry_id"] for one in body["items"] for edition in one["editions"]]
    assert len(set(told)) == len(told) == 67 + 2 + 1 + 1
    for entry in (withdrawn, second, first):
        proof = f"/api/v1/log/proof?entry={entry['editions'][0]['entry_id']}"
        assert client.get(proof).status_code == 200


def test_the_feed_goes_on_where_its_page_ended(client, city, publish):
    for grams in ("40", "46.6", "48.7"):  # two of them at one and the same moment
        publish(date(2026, 12, 1 + int(float(grams)) - 40), BIKE, grams=grams)
    whole = client.get("/api/v1/scenarios/changes").json["items"]
    assert len(whole) == 4
    paged, cursor = [], None
    while len(paged) < 4:
        query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = client.get("/api/v1/scenarios/changes", query_string=query).json
        paged += page["items"]
        cursor = page["next_cursor"]
    assert paged == whole
    assert cursor is None
    for place in ("x", "bm90aGluZw", "MjAyNi0xMS0yMlQwMDowMCBhIDIwMjYtMTEtMjIgYg"):
        answer = client.get(f"/api/v1/scenarios/changes?cursor={place}")
        assert (answer.status_code, answer.json["code"]) == (422, "CURSOR_INVALID")


def test_grid_factors_are_told_with_their_notices_and_what_is_not_used(client):
    body = client.get("/api/v1/grid-factors").json
    assert GridSchema().validate(body) == {}
    shanxi = [one for one in body["factors"] if (one["area"], one["year"]) == ("Shanxi", 2023)]
    (edition,) = [
        one
        for one in client.get("/api/v1/scenarios/housing.elec_save/versions/1").json["coefficients"]
        if one["unit"] == "g/kWh"
    ]
    assert [(one["value"], one["source"]) for one in shanxi] == [
        (edition["value"], edition["source"])
    ]
    assert all(one["reason_zh"] and one["reason_en"] for one in body["unused"])
