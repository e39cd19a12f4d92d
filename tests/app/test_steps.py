"""A day's steps are credited by what is new, whatever is sent again, and held if beyond belief."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.flows import own, sign_in, tokens
from app.flows.consent import text_digest
from app.flows.erase import erase
from app.flows.join import add_resident
from app.flows.own import STEPS, SourceError
from app.flows.sign_in import Guest
from app.flows.steps import StepsError, accept_day, put_steps, read_steps, refuse_day
from app.store import consents, people, statements, steps
from app.store.db import transact
from ledger.accounts import Asset

FIRST, TODAY = 20261122, 20261127  # joined at noon of the first, and five days later at noon


@pytest.fixture
def consent(city):
    def give(resident, given=True):
        version = city.registry.current
        with city.engine.begin() as tx:
            texts = {STEPS: text_digest(version(tx).in_force(STEPS, TODAY))}
            who = bytes.fromhex(resident)
            if given:
                consents.give(tx, "werun", [who], texts, city.clock())
            else:
                consents.withdraw(tx, "werun", who, [STEPS], city.clock())

    return give


@pytest.fixture
def resident(city, consent) -> str:
    """Somebody who joined five days ago and consents to steps."""
    with city.engine.begin() as tx:
        made = add_resident(tx, city.vault, "140403", city.clock())
    consent(made)
    city.clock.move(days=5)
    return made


@pytest.fixture
def walk(city, resident):
    """Sends counts by day; gives the states by day, with the outcome of what was credited."""

    def send(counts):
        told = put_steps(city.engine, city.vault, city.registry, resident, counts, city.clock())
        return {
            one.day: f"{one.state} {one.outcome['outcome']}" if one.outcome else one.state
            for one in told
        }

    return send


@pytest.fixture
def credited(city, resident):
    """Steps credited so far, by the carbon in the wallet: 0.0164 g each."""

    def count():
        with city.engine.connect() as tx:
            wallet = people.wallet(tx, resident)
        mg = sum(amount for (asset, _), amount in wallet.items() if asset is Asset.CO2E)
        return mg * 10 // 164

    return count


@pytest.fixture
def held(city):
    def found():
        with city.engine.connect() as tx:
            return steps.held(
                tx, (city.clock.now.min.replace(tzinfo=city.clock.now.tzinfo), b""), 9
            )

    return found


def why_not(city, resident):
    with city.engine.connect() as tx:
        last = (city.clock() + timedelta(days=1), "~", "~", 9)
        return [(one.activity_id, one.code) for one in statements.refusals(tx, resident, last, 9)]


def test_each_day_is_credited_once_and_then_by_what_is_new(walk, credited, city):
    assert walk({TODAY - 1: 5000, TODAY: 1000}) == {
        TODAY - 1: "settled accepted", TODAY: "settled accepted",
    }  # fmt: skip
    assert credited() == 6000
    assert walk({TODAY - 1: 5000, TODAY: 1000}) == {TODAY - 1: "settled", TODAY: "settled"}
    city.clock.move(hours=2)
    assert walk({TODAY - 1: 5000, TODAY: 4000}) == {
        TODAY - 1: "settled", TODAY: "settled accepted",
    }  # fmt: skip
    assert credited() == 9000


def test_a_day_that_shrinks_changes_nothing(walk, credited):
    walk({TODAY: 4000})
    assert walk({TODAY: 1500}) == {TODAY: "settled"}
    assert walk({TODAY: 4000}) == {TODAY: "settled"}
    assert credited() == 4000


def test_a_few_steps_wait_until_they_are_enough_to_count(walk, credited):
    assert walk({TODAY: 4000}) == {TODAY: "settled accepted"}
    assert walk({TODAY: 4060}) == {TODAY: "pending"}
    assert walk({TODAY: 4060}) == {TODAY: "pending"}
    assert credited() == 4000
    assert walk({TODAY: 4120}) == {TODAY: "settled accepted"}
    assert credited() == 4120


def test_days_before_joining_and_days_to_come_do_not_count(walk, credited):
    told = walk({FIRST - 1: 9000, FIRST: 2000, TODAY + 1: 3000})
    assert told == {FIRST - 1: "outside", FIRST: "settled accepted", TODAY + 1: "outside"}
    assert credited() == 2000


def test_nothing_is_kept_without_consent(walk, consent, resident, credited, city):
    consent(resident, given=False)
    with pytest.raises(SourceError) as refusal:
        walk({TODAY: 4000})
    assert refusal.value.code == "CONSENT_MISSING"
    with city.engine.connect() as tx:
        assert steps.known(tx, resident, 0) == {}
    consent(resident)
    walk({TODAY: 4000})
    assert credited() == 4000


def test_who_restricts_processing_or_is_erased_reports_nothing(walk, resident, city):
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = now()"))
    with pytest.raises(SourceError) as refusal:
        walk({TODAY: 4000})
    assert refusal.value.code == "PROCESSING_RESTRICTED"
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = NULL"))
    walk({TODAY: 4000, TODAY - 1: 60_001})
    erase(city.engine, city.vault, resident, city.clock())
    with city.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM step_days")).scalar_one() == 0
    with pytest.raises(SourceError) as refusal:
        walk({TODAY: 5000})
    assert refusal.value.code == "SUBJECT_ERASED"


def test_more_than_anybody_walks_in_a_day_is_held(walk, credited, held):
    assert walk({TODAY - 1: 60_000}) == {TODAY - 1: "settled accepted"}
    assert walk({TODAY - 2: 60_001}) == {TODAY - 2: "held"}
    assert credited() == 60_000
    assert [one.day.steps for one in held()] == [60_001]


def test_a_leap_that_nobody_runs_is_held_and_the_day_stands_still(walk, credited, held, city):
    walk({TODAY: 1000})
    city.clock.move(minutes=10)  # and an hour's lag: 4,200 s at four steps a second
    assert walk({TODAY: 1000 + 16_801}) == {TODAY: "held"}
    assert walk({TODAY: 20_000}) == {TODAY: "held"}
    assert credited() == 1000
    assert [one.day.steps for one in held()] == [17_801]


def test_a_leap_within_what_legs_can_do_is_credited(walk, credited, city):
    walk({TODAY: 1000})
    city.clock.move(minutes=10)
    assert walk({TODAY: 17_800}) == {TODAY: "settled accepted"}
    assert credited() == 17_800


def test_what_a_reviewer_lets_count_is_credited_once(walk, credited, held, city, resident):
    walk({TODAY - 1: 5000})
    assert walk({TODAY - 1: 70_000}) == {TODAY - 1: "held"}
    (one,) = held()

    def accept(counted):
        with city.engine.begin() as tx:
            catalogue = city.registry.current(tx)
            return accept_day(tx, city.vault, catalogue, one.id, counted, city.clock())

    for counted in (5000, 70_001):
        with pytest.raises(StepsError, match="from 5001 to 70000"):
            accept(counted)
    assert accept(30_000)["outcome"] == "accepted"
    assert credited() == 30_000
    with pytest.raises(StepsError) as refusal:
        accept(30_000)
    assert refusal.value.code == "STEP_DAY_UNKNOWN"
    assert walk({TODAY - 1: 70_000}) == {TODAY - 1: "settled"}
    assert credited() == 30_000


def test_what_a_reviewer_refuses_never_counts_and_the_resident_is_told(
    walk, credited, held, city, resident
):
    walk({TODAY: 1000})
    walk({TODAY: 50_000})
    (one,) = held()
    with city.engine.begin() as tx:
        catalogue = city.registry.current(tx)
        refuse_day(tx, city.vault, catalogue, one.id, "手机绑在宠物身上", city.clock())
    assert why_not(city, resident) == [(f"{TODAY}-2", "STEPS_REFUSED")]
    assert walk({TODAY: 50_000}) == {TODAY: "settled"}
    city.clock.move(hours=1)
    assert walk({TODAY: 50_500}) == {TODAY: "settled accepted"}
    assert credited() == 1500
    with city.engine.connect() as tx:
        kinds = tx.execute(text("SELECT kind, key FROM messages")).all()
    assert kinds == [("report.decided", f"steps-{TODAY}-2")]


def test_what_the_rules_refuse_is_told_once_and_not_tried_again(walk, city, resident):
    with city.engine.begin() as tx:  # the same day was walked with navigation
        tx.execute(
            text(
                "INSERT INTO usage (resident, scenario, period, count, reduction_mg, points)"
                " VALUES (:who, 'travel.walk_km', :day, 1, 1000, 1)"
            ),
            {"who": bytes.fromhex(resident), "day": TODAY},
        )
    assert walk({TODAY: 4000}) == {TODAY: "settled rejected"}
    assert walk({TODAY: 4000}) == {TODAY: "settled"}
    assert why_not(city, resident) == [(f"{TODAY}-1", "EXCLUDED_BY_GROUP")]


def test_two_phones_at_once_credit_the_same_steps_once(city, resident, credited):
    def send(_):
        parts = (city.engine, city.vault, city.registry, resident)
        return put_steps(*parts, {TODAY - 1: 8000, TODAY: 3000}, city.clock())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(8)))
    assert credited() == 11_000


def test_the_same_day_of_two_people_is_two_entries_that_nobody_can_guess(city, walk, consent):
    walk({TODAY: 4000})
    with city.engine.begin() as tx:
        other = add_resident(tx, city.vault, "140403", city.clock())
    consent(other)
    (told,) = put_steps(city.engine, city.vault, city.registry, other, {TODAY: 4000}, city.clock())
    assert told.outcome["outcome"] == "accepted"
    assert told.outcome["entry_id"] == city.vault.entry_id("activity:werun", f"{other}\n{TODAY}-1")


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 12_000), min_size=1, max_size=6), st.integers(FIRST, TODAY - 1))
def test_whatever_comes_in_what_order_the_highest_count_is_credited(
    city, walk, credited, counts, day
):
    with city.engine.begin() as tx:
        tx.execute(text("DELETE FROM step_days"))
        tx.execute(text("DELETE FROM usage"))
    city.clock.move(seconds=1)
    before, revision = credited(), 0
    with city.engine.connect() as tx:
        revision = tx.execute(text("SELECT count(*) FROM openings")).scalar_one()
    with city.engine.begin() as tx:  # ids go on, so that no earlier example's piece is meant
        tx.execute(
            text(
                "INSERT INTO step_days (resident, day, steps, settled, revision, updated_at)"
                " SELECT id, :day, 0, 0, :revision, joined_at FROM residents"
            ),
            {"day": day, "revision": revision},
        )
    for count in counts:
        walk({day: count})
    new = credited() - before
    assert max(counts) - 100 < new <= max(counts)
    assert new == max(counts) or max(counts) - new < 100


@pytest.mark.parametrize(
    "data",
    [
        {}, {"stepInfoList": "many"}, {"stepInfoList": [7]}, {"stepInfoList": [{}]},
        {"stepInfoList": [{"timestamp": 1_700_000_000, "step": -1}]},
        {"stepInfoList": [{"timestamp": 1_700_000_000, "step": 1.5}]},
        {"stepInfoList": [{"timestamp": 1_700_000_000, "step": True}]},
        {"stepInfoList": [{"timestamp": "now", "step": 1}]},
        {"stepInfoList": [{"timestamp": -5, "step": 1}]},
        {"stepInfoList": [{"timestamp": 10**18, "step": 1}]},
        {"stepInfoList": [{"timestamp": 1_700_000_000, "step": 10**9}]},
        {"stepInfoList": [{"timestamp": 1_700_000_000, "step": 1}] * 63},
    ],
)  # fmt: skip
def test_what_is_no_step_count_is_refused_whole(data):
    with pytest.raises(StepsError) as refusal:
        read_steps(data)
    assert refusal.value.code == "STEPS_UNREADABLE"


def test_days_are_those_of_the_city_and_a_day_given_twice_counts_once():
    midnight = 1_795_708_800  # 2026-11-27T00:00:00+08:00
    listed = [(midnight, 10), (midnight - 1, 20), (midnight + 86_399, 30), (midnight - 5, 15)]
    data = {"stepInfoList": [{"timestamp": at, "step": count} for at, count in listed]}
    assert read_steps(data) == {20261127: 30, 20261126: 20}


@pytest.fixture
def put(client, city, resident, wechat):
    """PUT /me/steps as the resident, who has logged in by WeChat."""
    answer = client.post("/api/v1/login", json={"code": wechat.login_code("li")})
    claims = tokens.read(city.vault.token, "join", answer.json["join_token"])
    guest = Guest(bytes.fromhex(claims.subject), bytes.fromhex(claims.sid))
    with city.engine.begin() as tx:
        wrapped = people.lock(tx, resident)
        made = sign_in.admit(tx, city.vault, guest, resident, wrapped, city.clock())

    def send(document):
        headers = {"Authorization": f"Bearer {made.access_token}"}
        return client.put("/api/v1/me/steps", json=document, headers=headers)

    return send


def test_what_wechat_sealed_is_credited_and_replayed_in_vain(put, wechat, credited):
    blob = wechat.steps("li", {date(2026, 11, 26): 7000, date(2026, 11, 27): 1230})
    first = put(blob)
    assert first.status_code == 200, first.text
    days = first.get_json()["days"]
    assert [(one["date"], one["steps"], one["state"]) for one in days] == [
        ("2026-11-26", "7000", "settled"), ("2026-11-27", "1230", "settled"),
    ]  # fmt: skip
    assert [one["outcome"]["outcome"] for one in days] == ["accepted"] * 2
    again = put(blob).get_json()["days"]
    assert [one.get("outcome") for one in again] == [None, None]
    assert credited() == 8230


def test_what_another_app_or_another_key_sealed_or_long_ago_is_refused_alike(put, wechat, credited):
    counts = {date(2026, 11, 27): 1230}
    answers = [
        put(wechat.steps("li", counts, app_id="wx0000000000000001")),
        put(wechat.steps("li", counts, age_s=400)),
        put(wechat.steps("somebody else", counts)),
        put({"encrypted_data": "====", "iv": "AA=="}),
    ]
    assert {one.status_code for one in answers} == {422}
    assert {(one.get_json()["code"], one.get_json()["detail"]) for one in answers} == {
        (answers[0].get_json()["code"], answers[0].get_json()["detail"])
    }
    assert credited() == 0


def test_a_reviewer_sees_a_held_day_beside_the_others_and_decides(
    walk, desk, city, resident, credited, held
):
    walk({TODAY - 2: 8000, TODAY - 1: 61_000})
    walk({TODAY: 70_000})
    rui = desk("reviewer")
    (older, newer) = sorted(rui.get("step-days").get_json()["items"], key=lambda one: one["date"])
    assert older["steps"] == "61000"
    assert older["other_days"] == {"2026-11-25": "8000", "2026-11-27": "70000"}
    assert resident not in rui.get("step-days").text
    first = rui.get("step-days", limit=1).get_json()
    rest = rui.get("step-days", limit=1, cursor=first["next_cursor"]).get_json()
    assert {first["items"][0]["id"], rest["items"][0]["id"]} == {older["id"], newer["id"]}
    assert not rest["has_more"]
    decided = rui.post(f"step-days/{older['id']}/accept", {"steps": "20000"}, key="accept-day-1")
    assert decided.get_json()["outcome"] == "accepted"
    again = rui.post(f"step-days/{older['id']}/accept", {"steps": "20000"}, key="accept-day-1")
    assert again.data == decided.data
    assert credited() == 28_000
    refused = rui.post(f"step-days/{newer['id']}/refuse", {"reason": "不可能"}).get_json()
    assert refused == {"outcome": "rejected", "code": "STEPS_REFUSED", "detail": "不可能"}
    for one in (older, newer):
        gone = rui.post(f"step-days/{one['id']}/refuse", {"reason": "again"})
        assert (gone.status_code, gone.get_json()["code"]) == (404, "STEP_DAY_UNKNOWN")
    assert held() == []
    assert rui.post("step-days/nobody/refuse", {"reason": "x"}).status_code == 404


def test_only_reviewers_see_held_days(desk):
    for role in ("operator", "editor", "auditor"):
        assert desk(role).get("step-days").status_code == 403


def test_the_sources_are_registered_once(city):
    transact(city.engine, lambda tx: own.register(tx, city.clock()))
    with city.engine.connect() as tx:
        found = dict(tx.execute(text("SELECT code, name FROM providers")).all())
    assert own.SOURCES.items() <= found.items()
