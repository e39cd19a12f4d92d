"""Drafts: written, held against bounds and the registry, submitted, decided by somebody else."""

from __future__ import annotations

import json
from datetime import timedelta
from secrets import token_bytes, token_hex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.api.draft_forms import DraftSchema, DraftsSchema, HeadSchema

BIKE = "travel.bike_shared"
BUS = ["travel.bus_km", "travel.bus_ride"]
FIRST = "2026-12-15"


def fresh(name):
    """A name that no other test of this run asks under: how often one may ask is counted."""
    return f"{name}-{token_hex(4)}"


def refused(answer, status, code):
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text
    return answer.json


@pytest.fixture
def editor(desk):
    return desk("editor", name=fresh("edith"))


@pytest.fixture
def reviewer(desk):
    return desk("reviewer", name=fresh("rae"))


@pytest.fixture
def later(city):
    """Moves the clock; everybody's session goes on."""

    def move(**by):
        city.clock.move(**by)
        with city.engine.begin() as tx:
            tx.execute(
                text("UPDATE admin_sessions SET began_at = :now, used_at = :now"),
                {"now": city.clock()},
            )

    return move


@pytest.fixture
def opened(editor):
    """Opens a draft that changes these scenarios; its id."""

    def make(*scenarios, first=FIRST, by=editor, **more):
        body = {"title": "骑行系数", "reason": "closer to the city's survey", **more}
        body |= {"effective_from": first, "scenarios": list(scenarios)}
        answer = by.post("drafts", body)
        assert answer.status_code == 201, answer.text
        assert HeadSchema().validate(answer.json) == {}
        return answer.json["id"]

    return make


@pytest.fixture
def tested(city):
    """Puts a finished backtest beside the draft's present revision."""

    def put(draft, state="done"):
        with city.engine.begin() as tx:
            tx.execute(
                text(
                    "INSERT INTO backtests (id, draft, revision, days, state, requested_at)"
                    " SELECT :id, id, revision, 30, :state, :now FROM drafts WHERE id = :draft"
                ),
                {
                    "id": token_bytes(16),
                    "draft": bytes.fromhex(draft),
                    "state": state,
                    "now": city.clock(),
                },
            )

    return put


@pytest.fixture
def submitted(editor, opened, tested):
    """A draft of these scenarios that waits for its reviewer; its id."""

    def make(*scenarios, change=None, **more):
        draft = opened(*scenarios, **more)
        if change:
            body = content(editor, draft)
            for edition in body["editions"]:
                change(edition)
            assert editor.put(f"drafts/{draft}", body, match=tag(1)).status_code == 200
        tested(draft)
        revision = editor.get(f"drafts/{draft}").json["revision"]
        answer = editor.post(f"drafts/{draft}/submit", match=tag(revision))
        assert (answer.status_code, answer.json["state"]) == (200, "submitted"), answer.text
        return draft

    return make


def content(who, draft):
    """The content of a draft as it may be put back."""
    read = who.get(f"drafts/{draft}").json
    return {name: read[name] for name in ("title", "reason", "effective_from", "rate", "editions")}


def tag(revision):
    return f'"{revision}"'


def revision_of(who, draft):
    return who.get(f"drafts/{draft}").json["revision"]


def count(city, table):
    with city.engine.connect() as tx:
        return tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def cap_once(edition):
    edition["caps"] = [
        {"per": "day", "of": "count", "limit": 1, "source": "decision 7", "url": "", "tag": "rec"}
    ]


def test_a_draft_begins_with_what_is_in_force_and_changes_nothing(client, editor, opened):
    draft = opened(BIKE)
    answer = editor.get(f"drafts/{draft}")
    assert DraftSchema().validate(answer.json) == {}
    assert answer.headers["ETag"] == '"1"'
    (compared,) = answer.json["compared"]
    assert (compared["number"], compared["replaces"], compared["changes"]) == (2, 1, [])
    published = client.get(f"/api/v1/scenarios/{BIKE}/versions/1").json
    for name in ("format", "number", "effective_from", "rate"):
        published.pop(name)
    assert answer.json["editions"] == [published]
    assert answer.json["findings"] == []
    page = editor.get("drafts", state="draft").json
    assert DraftsSchema().validate(page) == {}
    assert [one["id"] for one in page["items"]] == [draft]


def test_drafts_are_listed_page_by_page_last_changed_first(editor, opened, city):
    made = []
    for _ in range(3):
        made.append(opened(BIKE))
        city.clock.move(seconds=1)
    first = editor.get("drafts", limit=2).json
    rest = editor.get("drafts", limit=2, cursor=first["next_cursor"]).json
    assert [one["id"] for one in first["items"] + rest["items"]] == made[::-1]
    assert not rest["has_more"]
    assert editor.get("drafts", state="approved").json["items"] == []
    refused(editor.get("drafts", cursor="bm9uc2Vuc2U"), 422, "CURSOR_INVALID")


def test_the_whole_way_from_a_draft_to_the_ledger(client, city, editor, reviewer, submitted):
    entries = count(city, "entries")
    draft = submitted(BIKE, change=cap_once)
    read = reviewer.get(f"drafts/{draft}").json
    (compared,) = read["compared"]
    assert {one["kind"] for one in compared["changes"]} == {"cap", "source"}
    assert read["backtest"]["state"] == "done"
    answer = reviewer.post(f"drafts/{draft}/approve", match=tag(2))
    assert (answer.status_code, answer.json["state"]) == (200, "approved")
    assert answer.json["reviewer"] == reviewer.admin.name
    scenario = client.get(f"/api/v1/scenarios/{BIKE}").json
    assert [one["state"] for one in scenario["versions"]] == ["in_force", "scheduled"]
    read = editor.get(f"drafts/{draft}").json
    assert read["compared"][0]["digest"] == scenario["versions"][1]["digest"]
    city.sealer.seal(city.clock())
    proof = client.get(f"/api/v1/log/proof?entry={read['compared'][0]['entry_id']}")
    assert proof.status_code == 200
    # opened, edited, submitted, approved, with two logins and one publication, and the city's own
    with city.engine.connect() as tx:
        kinds = tx.execute(text("SELECT action FROM trail ORDER BY arrival")).scalars().all()
    acts = [one for one in kinds if one.startswith("draft.")]
    assert acts == ["draft.opened", "draft.edited", "draft.submitted", "draft.approved"]
    assert count(city, "entries") > entries + len(acts)


def test_nobody_approves_what_they_wrote(desk, city, opened, tested, editor):
    both = desk("editor", "reviewer", name=fresh("bo"))
    mine = opened(BIKE, by=both)
    touched = opened("travel.metro_km")
    assert both.put(f"drafts/{touched}", content(both, touched), match=tag(1)).status_code == 200
    for draft, revision in ((mine, 1), (touched, 2)):
        # somebody else wrote it last, and it is still theirs too
        assert (
            editor.put(f"drafts/{draft}", content(both, draft), match=tag(revision)).status_code
            == 200
        )
        tested(draft)
        assert editor.post(f"drafts/{draft}/submit", match=tag(revision + 1)).status_code == 200
        versions = count(city, "scenario_versions")
        answer = both.post(f"drafts/{draft}/approve", match=tag(revision + 1))
        refused(answer, 403, "OWN_APPROVAL")
        assert count(city, "scenario_versions") == versions


def test_only_a_reviewer_approves_and_only_an_editor_writes(editor, reviewer, submitted, opened):
    draft = submitted(BIKE)
    refused(editor.post(f"drafts/{draft}/approve", match=tag(1)), 403, "ROLE_MISSING")
    other = opened("travel.metro_km")
    refused(
        reviewer.put(f"drafts/{other}", content(reviewer, other), match=tag(1)), 403, "ROLE_MISSING"
    )


def test_a_stale_revision_is_refused_and_none_at_all_too(editor, reviewer, opened, submitted):
    draft = opened(BIKE)
    body = content(editor, draft)
    refused(editor.put(f"drafts/{draft}", body), 428, "IF_MATCH_MISSING")
    assert editor.put(f"drafts/{draft}", body, match=tag(1)).headers["ETag"] == '"2"'
    refused(editor.put(f"drafts/{draft}", body, match=tag(1)), 412, "REVISION_STALE")
    assert editor.get(f"drafts/{draft}").json["revision"] == 2
    waiting = submitted("travel.metro_km")
    refused(reviewer.post(f"drafts/{waiting}/approve", match=tag(7)), 412, "REVISION_STALE")


def test_a_draft_needs_a_backtest_of_the_very_revision(editor, opened, tested):
    draft = opened(BIKE)
    refused(editor.post(f"drafts/{draft}/submit", match=tag(1)), 409, "BACKTEST_MISSING")
    tested(draft, "running")
    refused(editor.post(f"drafts/{draft}/submit", match=tag(1)), 409, "BACKTEST_MISSING")
    tested(draft)
    editor.put(f"drafts/{draft}", content(editor, draft), match=tag(1))
    refused(editor.post(f"drafts/{draft}/submit", match=tag(2)), 409, "BACKTEST_MISSING")
    tested(draft)
    assert editor.post(f"drafts/{draft}/submit", match=tag(2)).status_code == 200


def test_a_submitted_draft_stands_still_until_it_is_given_back(editor, reviewer, submitted):
    draft = submitted(BIKE)
    body = content(editor, draft)
    refused(editor.put(f"drafts/{draft}", body, match=tag(1)), 409, "DRAFT_STATE")
    refused(reviewer.post(f"drafts/{draft}/reject", {}, match=tag(1)), 422, "VALIDATION_FAILED")
    given = reviewer.post(f"drafts/{draft}/reject", {"reason": "no source"}, match=tag(1)).json
    assert (given["state"], given["decision"]) == ("rejected", "no source")
    refused(editor.post(f"drafts/{draft}/submit", match=tag(1)), 409, "DRAFT_STATE")
    written = editor.put(f"drafts/{draft}", body, match=tag(1)).json
    assert (written["state"], written["decision"]) == ("draft", None)
    away = editor.post(f"drafts/{draft}/discard", {"reason": "overtaken"}, match=tag(2)).json
    assert away["state"] == "discarded"
    refused(editor.put(f"drafts/{draft}", body, match=tag(2)), 409, "DRAFT_STATE")


def test_the_same_request_again_opens_no_second_draft(editor, city):
    body = {"title": "t", "reason": "r", "effective_from": FIRST, "scenarios": [BIKE]}
    first, again = (editor.post("drafts", body, key="the-same-one") for _ in range(2))
    assert first.data == again.data
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["ETag"] == '"1"'
    assert count(city, "drafts") == 1


def test_there_is_no_draft_of_another_id(editor):
    for draft in ("ab" * 16, "nonsense", "%00"):
        refused(editor.get(f"drafts/{draft}"), 404, "NOT_FOUND")
    refused(editor.post(f"drafts/{'ab' * 16}/submit", match=tag(1)), 404, "NOT_FOUND")


# what an edition may not be: each is refused with the field it is about, and nothing is kept


def coefficient(edition):
    return edition["coefficients"][0]


def above(edition):
    coefficient(edition)["value"] = "999999"


def unsourced(edition):
    coefficient(edition)["source"] = ""


def odd_unit(edition):
    coefficient(edition)["unit"] = "g/furlong"


def numbered(edition):
    edition["number"] = 7


def misspelt(edition):
    edition["confidense"] = "A"


def without_consent(edition):
    del edition["consent"]


def fractional(edition):
    cap_once(edition)
    edition["caps"][0]["limit"] = 1.5


@pytest.mark.parametrize(
    ("spoil", "code", "field", "told"),
    [
        (above, "COEFFICIENT_OUT_OF_BOUNDS", "coefficients.{}.value", "published value"),
        (unsourced, "SOURCE_MISSING", "coefficients.{}.source", "name the document"),
        (odd_unit, "UNIT_UNKNOWN", "coefficients.{}.unit", "kWh"),
        (numbered, "FIELD_UNKNOWN", "number", "leave it out"),
        (misspelt, "FIELD_UNKNOWN", "confidense", "confidence"),
        (without_consent, "FIELD_MISSING", "consent", "zh and en"),
        (fractional, "FIELD_MALFORMED", "caps.0.limit", "it must be int"),
    ],
)
def test_what_an_edition_may_not_be_is_said_at_its_field(
    editor, opened, city, spoil, code, field, told
):
    draft = opened("travel.metro_km", BIKE)
    body = content(editor, draft)
    edition = body["editions"][1]
    field = field.format(coefficient(edition)["name"])
    spoil(edition)
    before = count(city, "entries")
    problem = refused(editor.put(f"drafts/{draft}", body, match=tag(1)), 422, code)
    (error,) = problem["errors"]
    assert error["field"] == f"editions[1].{field}"
    assert told in error["message"]
    assert revision_of(editor, draft) == 1
    assert count(city, "entries") == before


def test_every_edition_that_is_wrong_is_named_at_once(editor, opened):
    draft = opened("travel.metro_km", BIKE)
    body = content(editor, draft)
    above(body["editions"][0])
    unsourced(body["editions"][1])
    errors = editor.put(f"drafts/{draft}", body, match=tag(1)).json["errors"]
    assert [one["field"].split(".")[0] for one in errors] == ["editions[0]", "editions[1]"]


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("2018-01-01", "EFFECT_IN_PAST"),
        ("2026-11-22", "EFFECT_IN_PAST"),
        ("2026-11-23", "NOTICE_TOO_SHORT"),
        ("2026-11-29", "NOTICE_TOO_SHORT"),
    ],
)
def test_a_first_day_in_the_past_or_inside_the_notice_is_refused(editor, city, first, code):
    body = {"title": "t", "reason": "r", "effective_from": first, "scenarios": [BIKE]}
    problem = refused(editor.post("drafts", body), 422, code)
    (error,) = problem["errors"]
    assert error["field"] == "effective_from"
    assert "2026-11-30" in error["message"]
    assert count(city, "drafts") == 0
    assert editor.post("drafts", body | {"effective_from": "2026-11-30"}).status_code == 201


def test_the_notice_is_asked_for_again_at_approval(city, later, editor, reviewer, submitted):
    draft = submitted(BIKE, first="2026-12-01")
    later(days=3)
    assert [one["code"] for one in editor.get(f"drafts/{draft}").json["findings"]] == [
        "NOTICE_TOO_SHORT"
    ]
    versions = count(city, "scenario_versions")
    refused(reviewer.post(f"drafts/{draft}/approve", match=tag(1)), 422, "NOTICE_TOO_SHORT")
    assert count(city, "scenario_versions") == versions
    assert editor.get(f"drafts/{draft}").json["state"] == "submitted"


def test_of_two_drafts_for_one_scenario_the_later_approved_must_take_effect_later(
    reviewer, submitted, editor
):
    late, early = submitted(BIKE, first="2026-12-20"), submitted(BIKE, first="2026-12-10")
    assert reviewer.post(f"drafts/{late}/approve", match=tag(1)).status_code == 200
    problem = refused(
        reviewer.post(f"drafts/{early}/approve", match=tag(1)), 422, "EFFECT_OVERLAPS"
    )
    assert "2026-12-20" in problem["errors"][0]["message"]
    body = {"title": "t", "reason": "r", "effective_from": "2026-12-20", "scenarios": [BIKE]}
    refused(editor.post("drafts", body), 422, "EFFECT_OVERLAPS")
    refused(editor.post("drafts", body | {"scenarios": [BIKE, BIKE]}), 422, "EFFECT_OVERLAPS")


def test_exclusivity_that_runs_in_a_circle_or_to_one_side_is_refused(editor, opened):
    draft = opened("travel.bus_km", "travel.bus_ride", BIKE)
    body = content(editor, draft)
    bus_km, bus_ride, bike = body["editions"]
    rest = {"per": "day"}
    bus_km["group"] = {**rest, "name": "ab", "members": ["travel.bus_km", "travel.bus_ride"]}
    bus_ride["group"] = {**rest, "name": "bc", "members": ["travel.bus_ride", BIKE]}
    bike["group"] = {**rest, "name": "ca", "members": [BIKE, "travel.bus_km"]}
    problem = refused(editor.put(f"drafts/{draft}", body, match=tag(1)), 422, "GROUP_CIRCULAR")
    assert problem["errors"][0]["field"].endswith(".group.members")
    alone = opened("travel.bus_km")
    body = content(editor, alone)
    del body["editions"][0]["group"]
    refused(editor.put(f"drafts/{alone}", body, match=tag(1)), 422, "GROUP_INCONSISTENT")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"title": "t", "reason": "r", "effective_from": FIRST},
        {"title": "t", "reason": "r", "effective_from": "20261215", "scenarios": [BIKE]},
        {"title": "t", "reason": "r", "effective_from": "2026-02-30", "scenarios": [BIKE]},
        {"title": "", "reason": "r", "effective_from": FIRST, "scenarios": [BIKE]},
        {"title": "t\x00", "reason": "r", "effective_from": FIRST, "scenarios": [BIKE]},
        {"title": "t", "reason": "r" * 2000, "effective_from": FIRST, "scenarios": [BIKE]},
        {"title": "t", "reason": "r", "effective_from": FIRST, "editions": ["x"]},
        {"title": "t", "reason": "r", "effective_from": FIRST, "scenarios": [BIKE], "state": "x"},
        {"title": "t", "reason": "r", "effective_from": FIRST, "scenarios": [1]},
    ],
)
def test_an_envelope_that_is_wrong_is_refused_by_field(editor, city, body):
    assert refused(editor.post("drafts", body), 422, "VALIDATION_FAILED")["errors"]
    assert count(city, "drafts") == 0


@pytest.mark.parametrize(
    ("editions", "code"),
    [
        ([{}], "FIELD_MISSING"),
        ([{"scenario": 7}], "FIELD_MISSING"),
        ([{"scenario": "travel.no\x00"}], None),
        ([{"scenario": "travel.new", "coefficients": {"a": [[[]]]}}], None),
    ],
)
def test_editions_of_nonsense_are_refused_in_words(editor, editions, code):
    body = {"title": "t", "reason": "r", "effective_from": FIRST, "editions": editions}
    answer = editor.post("drafts", body)
    assert answer.status_code == 422
    assert answer.json["errors"][0]["field"].startswith("editions[0]")
    assert code in (None, answer.json["code"])


def test_what_the_registry_does_not_know_cannot_be_copied(editor):
    body = {"title": "t", "reason": "r", "effective_from": FIRST, "scenarios": ["travel.rocket"]}
    problem = refused(editor.post("drafts", body), 422, "UNKNOWN_SCENARIO")
    assert problem["errors"][0]["field"] == "scenarios[0]"


# one coefficient


def test_a_listed_alternative_is_chosen_with_its_own_source(editor, opened):
    draft = opened(BIKE)
    before = content(editor, draft)["editions"][0]["coefficients"][0]
    unit, low, high = before["unit"], *map(float, before["bounds"])
    other = next(
        one
        for one in before["alternatives"]
        if one["unit"] == unit
        and one["value"] != before["value"]
        and low <= float(one["value"]) <= high
    )
    path = f"drafts/{draft}/coefficients/{BIKE}/{before['name']}"
    refused(editor.put(path, {"value": other["value"]}), 428, "IF_MATCH_MISSING")
    assert editor.put(path, {"value": other["value"]}, match=tag(1)).status_code == 200
    after = content(editor, draft)["editions"][0]["coefficients"][0]
    assert (after["value"], after["source"]) == (other["value"], other["source"])
    kept = [one for one in after["alternatives"] if one["value"] == before["value"]]
    assert before["source"] in [one["source"] for one in kept]
    changed = {one["field"] for one in editor.get(f"drafts/{draft}").json["compared"][0]["changes"]}
    assert f"coefficients.{before['name']}.value" in changed
    assert editor.put(path, {"value": before["value"]}, match=tag(2)).status_code == 200  # and back


def test_a_value_without_a_source_or_out_of_bounds_is_refused(editor, opened):
    draft = opened(BIKE)
    name = content(editor, draft)["editions"][0]["coefficients"][0]["name"]
    path = f"drafts/{draft}/coefficients/{BIKE}/{name}"
    problem = refused(editor.put(path, {"value": "123.456"}, match=tag(1)), 422, "SOURCE_MISSING")
    assert problem["errors"][0]["field"] == "source"
    alone = {"value": "123.456", "source": "survey 2026"}
    problem = refused(editor.put(path, alone, match=tag(1)), 422, "SOURCE_MISSING")
    assert problem["errors"][0]["field"] == "tag"
    own = {"value": "999999", "source": "survey 2026", "tag": "P", "url": "", "year": 2026}
    problem = refused(editor.put(path, own, match=tag(1)), 422, "COEFFICIENT_OUT_OF_BOUNDS")
    assert problem["errors"][0]["field"] == f"editions[0].coefficients.{name}.value"
    refused(editor.put(path, {"value": "-1"}, match=tag(1)), 422, "VALIDATION_FAILED")
    refused(editor.put(path + "x", {"value": "1"}, match=tag(1)), 404, "NOT_FOUND")
    assert revision_of(editor, draft) == 1


def test_a_value_of_ones_own_takes_nothing_of_the_old_ones_source(editor, opened):
    draft = opened(BIKE)
    path = f"drafts/{draft}/coefficients/{BIKE}/factor"
    own = {"value": "123.456", "source": "survey 2026", "tag": "P"}
    assert editor.put(path, own, match=tag(1)).status_code == 200
    made = content(editor, draft)["editions"][0]["coefficients"][0]
    assert {**own, "url": "", "year": 0}.items() <= made.items()


# withdrawing and undoing


def test_what_was_published_is_withdrawn_whole_and_its_number_stays_used(
    client, city, editor, reviewer, submitted, opened
):
    draft = submitted(*BUS)
    reviewer.post(f"drafts/{draft}/approve", match=tag(1))
    why = {"reason": "the survey is in doubt"}
    answer = editor.post(f"drafts/{draft}/withdraw", why, match=tag(1))
    assert (answer.status_code, answer.json["state"]) == (200, "withdrawn"), answer.text
    for name in BUS:
        scenario = client.get(f"/api/v1/scenarios/{name}").json
        assert [one["state"] for one in scenario["versions"]] == ["in_force", "withdrawn"]
        assert scenario["next"] is None
    with city.engine.connect() as tx:
        kinds = tx.execute(text("SELECT kind FROM entries ORDER BY arrival")).scalars().all()
    assert kinds.count("scenario.withdrawn") == 2
    again = opened(*BUS)
    assert [one["number"] for one in editor.get(f"drafts/{again}").json["compared"]] == [3, 3]
    refused(editor.post(f"drafts/{draft}/withdraw", why, match=tag(1)), 409, "DRAFT_STATE")


@pytest.mark.parametrize(("minutes", "late"), [(60, False), (59, True), (-1, True)])
def test_until_an_hour_before_its_first_day_and_no_later(
    city, later, reviewer, submitted, minutes, late
):
    draft = submitted(BIKE, first="2026-12-01")
    reviewer.post(f"drafts/{draft}/approve", match=tag(1))
    midnight = city.clock.now.replace(month=11, day=30, hour=16, minute=0)  # in Asia/Shanghai
    later(seconds=(midnight - timedelta(minutes=minutes) - city.clock()).total_seconds())
    answer = reviewer.post(f"drafts/{draft}/withdraw", {"reason": "r"}, match=tag(1))
    if late:
        refused(answer, 409, "WITHDRAWAL_TOO_LATE")
        assert count(city, "scenario_withdrawals") == 0
    else:
        assert answer.status_code == 200


def test_what_others_were_published_on_cannot_be_withdrawn_under_them(
    city, editor, reviewer, submitted
):
    def joined(edition):
        edition["group"] = {"name": "travel.road", "per": "day", "members": [*BUS, BIKE]}

    below = submitted(*BUS, BIKE, change=joined, first="2026-12-10")
    assert reviewer.post(f"drafts/{below}/approve", match=tag(2)).status_code == 200
    above = submitted("travel.bus_km", first="2026-12-20")  # a copy of the edition from below
    assert reviewer.post(f"drafts/{above}/approve", match=tag(1)).status_code == 200
    why = {"reason": "r"}
    answer = editor.post(f"drafts/{below}/withdraw", why, match=tag(2))
    refused(answer, 422, "GROUP_INCONSISTENT")
    assert count(city, "scenario_withdrawals") == 0
    assert editor.post(f"drafts/{above}/withdraw", why, match=tag(1)).status_code == 200
    assert editor.post(f"drafts/{below}/withdraw", why, match=tag(2)).status_code == 200


def test_a_first_day_may_be_as_far_away_as_dates_go(client, city, editor, reviewer, submitted):
    draft = submitted(BIKE, first="9999-12-31")
    assert reviewer.post(f"drafts/{draft}/approve", match=tag(1)).status_code == 200
    assert client.get(f"/api/v1/scenarios/{BIKE}").json["next"] == 2
    assert (
        editor.post(f"drafts/{draft}/withdraw", {"reason": "a slip"}, match=tag(1)).status_code
        == 200
    )


def test_undoing_brings_back_what_was_in_force_before(client, later, editor, reviewer, submitted):
    draft = submitted(BIKE, change=cap_once, first="2026-12-01")
    refused(
        editor.post(f"drafts/{draft}/undo", {"reason": "r", "effective_from": FIRST}),
        409,
        "DRAFT_STATE",
    )
    reviewer.post(f"drafts/{draft}/approve", match=tag(2))
    later(days=12)
    body = {"reason": "too strict", "effective_from": "2026-12-24"}
    answer = editor.post(f"drafts/{draft}/undo", body)
    assert answer.status_code == 201, answer.text
    read = editor.get(f"drafts/{answer.json['id']}").json
    first = client.get(f"/api/v1/scenarios/{BIKE}/versions/1").json
    assert read["editions"][0]["caps"] == first["caps"]
    assert (read["compared"][0]["number"], read["compared"][0]["replaces"]) == (3, 2)
    assert {one["kind"] for one in read["compared"][0]["changes"]} <= {"cap", "source"}


def test_a_behaviour_that_began_with_the_draft_is_switched_off_by_its_undoing(
    client, editor, reviewer, tested
):
    new = client.get(f"/api/v1/scenarios/{BIKE}/versions/1").json
    for name in ("format", "number", "effective_from", "rate", "group", "act"):
        new.pop(name, None)
    new |= {"scenario": "travel.kick_scooter", "code": "TRV_KICK_SCOOTER"}
    body = {"title": "t", "reason": "r", "effective_from": FIRST, "editions": [new]}
    draft = editor.post("drafts", body).json["id"]
    assert editor.get(f"drafts/{draft}").json["compared"][0]["replaces"] is None
    tested(draft)
    editor.post(f"drafts/{draft}/submit", match=tag(1))
    assert reviewer.post(f"drafts/{draft}/approve", match=tag(1)).status_code == 200
    undone = editor.post(
        f"drafts/{draft}/undo", {"reason": "no evidence", "effective_from": "2026-12-30"}
    ).json["id"]
    edition = editor.get(f"drafts/{undone}").json["editions"][0]
    assert edition["disabled"] == {"zh": "no evidence", "en": "no evidence"}


def test_a_new_rate_needs_every_behaviour_and_is_undone_as_a_rate(
    client, editor, reviewer, tested, later
):
    rate = {"points_per_kg": 500, "validity_months": 60}
    rate["sources"] = [{"source": "decision 9", "tag": "rec"}]
    body = {"title": "t", "reason": "r", "effective_from": "2026-12-01", "rate": rate}
    problem = editor.post("drafts", body | {"scenarios": [BIKE]}).json
    assert problem["status"] == 422
    assert "every behaviour" in problem["detail"]
    every = [one["id"] for one in client.get("/api/v1/scenarios").json["items"]]
    draft = editor.post("drafts", body | {"scenarios": every}).json["id"]
    compared = editor.get(f"drafts/{draft}").json["compared"]
    assert {one["kind"] for each in compared for one in each["changes"]} >= {"rate"}
    tested(draft)
    editor.post(f"drafts/{draft}/submit", match=tag(1))
    assert reviewer.post(f"drafts/{draft}/approve", match=tag(1)).status_code == 200
    edition = client.get(f"/api/v1/scenarios/{BIKE}/versions/2").json
    assert (edition["rate"]["number"], edition["rate"]["points_per_kg"]) == (2, 500)
    later(days=12)
    undone = editor.post(
        f"drafts/{draft}/undo", {"reason": "r", "effective_from": "2026-12-24"}
    ).json["id"]
    read = editor.get(f"drafts/{undone}").json
    assert read["rate"]["points_per_kg"] == 1000
    assert len(read["editions"]) == len(every)


def test_the_trail_says_what_a_draft_changed(city, editor, opened):
    draft = opened(BIKE)
    body = content(editor, draft)
    cap_once(body["editions"][0])
    editor.put(f"drafts/{draft}", body, match=tag(1))
    with city.engine.connect() as tx:
        record = tx.execute(
            text("SELECT record FROM trail WHERE action = 'draft.edited'")
        ).scalar_one()
    said = json.loads(record)
    assert (said["actor"], said["target"]) == (editor.admin.name, draft)
    assert said["detail"]["revision"] == 2
    assert said["detail"]["editions"] == [f"{BIKE} 2"]
    assert [BIKE, "caps.day.count.limit", "2", "1"] in said["detail"]["changes"]


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    held = {dict: dict.items, list: enumerate}.get(type(value), lambda _: ())
    for key, item in held(value):
        yield from places(item, (*path, key))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "0", "-1", "1e9", "\x00", "day", BIKE, "travel.nowhere"])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_whatever_an_edition_holds_it_is_kept_whole_or_refused_in_words(editor, opened, data):
    draft = opened(BIKE)
    body = content(editor, draft)
    path = data.draw(st.sampled_from(list(places(body["editions"]))))
    value = data.draw(JSON)
    at = body
    for key in ("editions", *path)[:-1]:
        at = at[key]
    at[("editions", *path)[-1]] = value
    answer = editor.put(f"drafts/{draft}", body, match=tag(1))
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code == 200:
        assert editor.get(f"drafts/{draft}").json["revision"] == 2
        again = editor.put(f"drafts/{draft}", content(editor, draft), match=tag(2))
        assert again.status_code == 200
    elif answer.status_code == 422:
        assert answer.json["errors"]
        assert revision_of(editor, draft) == 1
