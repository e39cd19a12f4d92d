"""A resident disputes; a reviewer answers with a reason; and what nobody answers is granted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from sqlalchemy import text

from app.api import appeal_forms as forms
from app.flows.appeal.overdue import grant_in_time
from app.flows.budget import fund_budget
from app.flows.check import check_database
from app.flows.enroll import enroll
from app.flows.erase import erase
from app.flows.notify import read_letter
from app.flows.tokens import issue_access_token
from app.store import appeals, messages, people, settings
from ledger.entries import Entry

MISSING = {
    "about": "missing",
    "text": "骑了车，没有记录",
    "scenario": "travel.bike_shared",
    "occurred_at": "2026-11-21T08:00:00+08:00",
    "quantities": {"distance_km": "2.5"},
}
SCRIPTS = "𠀀 ᠮᠣᠩᠭᠣᠯ བོད كلمة \u202e\u0000\n🚲" + "长" * 1970


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def post(client, city, rider):
    """Ask as a resident: post("appeals", {...}); the rider unless `who` says otherwise."""
    numbers = count()

    def send(path, document=None, who=rider, key=""):
        token = issue_access_token(city.vault.token, who, city.clock())
        headers = {
            "Authorization": f"Bearer {token}",
            "Idempotency-Key": key or f"request-{next(numbers):06d}",
        }
        return client.post(f"/api/v1/me/{path}", json=document, headers=headers)

    return send


@pytest.fixture
def entry_id(provider, rider, ride):
    return provider.batch("b1", ride(1)).get_json()["outcomes"][0]["entry_id"]


@pytest.fixture
def dispute(post, entry_id):
    """An appeal about the rider's entry, which claims so many points; its id."""

    def file(points="50", **changes):
        document = {"about": "entry", "entry_id": entry_id, "text": "少了", "points": points}
        made = post("appeals", document | changes)
        assert made.status_code == 201, made.get_json()
        return made.get_json()["id"]

    return file


@pytest.fixture
def rui(desk):
    """A reviewer who logs in anew whenever there is something to do."""

    class Reviewer:
        def get(self, path, **query):
            return desk("reviewer").get(path, **query)

        def post(self, path, document):
            return desk("reviewer").post(path, document)

    return Reviewer()


@pytest.fixture
def told(city, rider):
    """What the rider was told about appeals, oldest first."""

    def read():
        with city.engine.begin() as tx:
            own = city.vault.subject_key(rider, people.lock(tx, rider))
            found = messages.page(tx, rider, 2**62, 50)
        return [read_letter(own, one).text for one in reversed(found)]

    return read


@pytest.fixture
def due(city):
    """What the worker does about appeals now."""

    def run():
        return grant_in_time(city.engine, city.vault, city.registry, city.clock())

    return run


def points_of(me):
    return int(me("balances").get_json()["points"])


def test_an_appeal_is_opened_and_read_by_its_resident_and_a_reviewer(me, post, entry_id, rui):
    document = {"about": "entry", "entry_id": entry_id, "text": SCRIPTS, "points": "50"}
    made = post("appeals", document)
    assert made.status_code == 201
    body = made.get_json()
    assert forms.AppealSchema().validate(body) == {}
    assert (body["text"], body["claimed_points"], body["state"]) == (SCRIPTS, "50", "open")
    assert (body["scenario"], body["due_date"]) == ("travel.bike_shared", "2026-12-07")
    assert me(f"appeals/{body['id']}").get_json() == body
    assert rui.get(f"appeals/{body['id']}").get_json() == body
    for listed in (me("appeals").get_json(), rui.get("appeals").get_json()):
        assert forms.AppealsSchema().validate(listed) == {}
        assert [one["id"] for one in listed["items"]] == [body["id"]]


def test_what_it_says_and_whose_it_is_lie_nowhere_in_the_open(city, dispute, rider, rui):
    appeal = dispute(text="私密的话")
    rui.post(f"appeals/{appeal}/ask", {"text": "私密的话"})
    with city.engine.connect() as tx:
        row = tx.execute(text("SELECT a::text FROM appeals a")).scalar_one()
    assert "私密".encode().hex() not in row
    assert rider not in rui.get(f"appeals/{appeal}").get_data(as_text=True)


def test_a_double_tap_opens_one_appeal(me, post):
    first = post("appeals", MISSING, key="the-same-tap")
    again = post("appeals", MISSING, key="the-same-tap")
    assert again.get_json() == first.get_json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(me("appeals").get_json()["items"]) == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"about": "nothing"}, "about"),
        ({"entry_id": "0" * 32}, "entry_id"),
        ({"points": "5"}, "points"),
        ({"quantities": {"distance_km": 2.5}}, "quantities.distance_km.value"),
        ({"quantities": []}, "quantities"),
        ({"about": "entry"}, "entry_id"),
        ({"about": "rejection"}, "activity_id"),
        ({"about": "correction"}, "scenario"),
    ],
)
def test_an_appeal_of_the_wrong_shape_is_refused_by_field(post, changes, field):
    answer = post("appeals", MISSING | changes)
    assert code_of(answer) == (422, "VALIDATION_FAILED")
    assert field in {one["field"] for one in answer.get_json()["errors"]}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"scenario": "travel.rocket"}, "UNKNOWN_SCENARIO"),
        ({"occurred_at": "yesterday"}, "TIME_MALFORMED"),
        ({"occurred_at": "2026-11-23T08:00:00+08:00"}, "IN_FUTURE"),
        ({"quantities": {"distance_km": "9999"}}, "QUANTITY_TOO_LARGE"),
        ({"quantities": {}}, "QUANTITY_MISSING"),
    ],
)
def test_a_missing_act_that_the_rules_refuse_is_no_appeal(post, changes, code):
    assert code_of(post("appeals", MISSING | changes)) == (422, code)


def test_a_missing_act_claims_what_the_rules_give_and_one_that_is_credited_is_not_missing(
    post, provider, ride
):
    made = post("appeals", MISSING).get_json()
    accepted = provider.batch("b1", ride(1)).get_json()["outcomes"][0]
    assert made["claimed_points"] == accepted["points"]
    near = MISSING | {"occurred_at": "2026-11-20T08:01:00+08:00"}
    assert code_of(post("appeals", near)) == (409, "SAME_ACT")


def test_nobody_disputes_what_is_anothers(city, client, post, entry_id, dispute):
    other = enroll(
        city.engine, city.vault, city.registry, "bikes", ["rider-2"], "140403", city.clock()
    )["rider-2"]
    document = {"about": "entry", "entry_id": entry_id, "text": "我的"}
    assert code_of(post("appeals", document, who=other)) == (404, "ENTRY_UNKNOWN")
    appeal = dispute()
    for step, body in (("answer", {"text": "x"}), ("withdraw", None)):
        assert code_of(post(f"appeals/{appeal}/{step}", body, who=other)) == (404, "NOT_FOUND")
    token = issue_access_token(city.vault.token, other, city.clock())
    answer = client.get(
        f"/api/v1/me/appeals/{appeal}", headers={"Authorization": f"Bearer {token}"}
    )
    assert code_of(answer) == (404, "NOT_FOUND")
    missing = {"about": "rejection", "provider": "bikes", "activity_id": "no", "text": "x"}
    assert code_of(post("appeals", missing)) == (404, "REJECTION_UNKNOWN")


def test_one_thing_is_disputed_once_at_a_time(post, entry_id, dispute):
    appeal = dispute()
    document = {"about": "entry", "entry_id": entry_id, "text": "又来"}
    assert code_of(post("appeals", document)) == (409, "APPEAL_UNDER_WAY")
    assert post(f"appeals/{appeal}/withdraw").get_json()["state"] == "withdrawn"
    assert post("appeals", document).status_code == 201
    assert post("appeals", MISSING).status_code == 201
    same_minute = MISSING | {"occurred_at": "2026-11-21T00:00:59Z"}
    assert code_of(post("appeals", same_minute)) == (409, "APPEAL_UNDER_WAY")


def test_not_more_than_twenty_wait(post):
    for minute in range(20):
        at = f"2026-11-21T08:{minute:02d}:00+08:00"
        assert post("appeals", MISSING | {"occurred_at": at}).status_code == 201
    assert code_of(post("appeals", MISSING)) == (409, "TOO_MANY_APPEALS")


def test_two_requests_at_once_open_one_appeal(app, post):
    def send(_):
        return post("appeals", MISSING).status_code

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(send, range(4))) == [201, 409, 409, 409]


def test_a_reviewer_grants_points_out_of_the_budget_and_everybody_is_told(
    city, me, dispute, rui, desk, told
):
    appeal, before = dispute(), points_of(me)
    made = rui.post(f"appeals/{appeal}/grant", {"points": "70", "reason": "核实无误"}).get_json()
    assert (made["state"], made["granted_points"], made["reason"]) == ("granted", "70", "核实无误")
    assert points_of(me) == before + 70
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT payload FROM entries WHERE kind = 'adjust'")).scalars()
        (entry,) = [Entry.parse(payload) for payload in rows]
    assert entry.detail["reason"] == f"appeal {appeal} granted"
    assert told() == ["您的申诉已获支持，补发 70 积分。核实无误"]
    acts = desk("auditor").get("trail").get_json()["items"]
    assert [(one["action"], one["detail"]) for one in acts] == [("appeal.granted", {"points": 70})]
    again = rui.post(f"appeals/{appeal}/grant", {"points": "70", "reason": "x"})
    assert code_of(again) == (409, "APPEAL_STATE")
    city.sealer.seal(city.clock())
    assert list(check_database(city.engine, city.vault)) == []


def test_a_reviewer_refuses_with_a_reason_and_the_resident_may_come_again(me, dispute, rui, told):
    appeal, before = dispute(), points_of(me)
    assert (
        rui.post(f"appeals/{appeal}/refuse", {"reason": "已达上限"}).get_json()["state"]
        == "refused"
    )
    assert told() == ["您的申诉未获支持。已达上限"]
    assert me(f"appeals/{appeal}").get_json()["reason"] == "已达上限"
    assert points_of(me) == before
    assert dispute() != appeal


def test_words_alone_are_granted_without_an_entry(city, post, rui, told):
    appeal = post("appeals", {"about": "correction", "text": "区县有误"}).get_json()["id"]
    made = rui.post(f"appeals/{appeal}/grant", {"points": "0", "reason": "已更正"}).get_json()
    assert (made["state"], made["granted_points"]) == ("granted", "0")
    assert told() == ["您的申诉已获支持。已更正"]
    with city.engine.connect() as tx:
        statement = text("SELECT count(*) FROM entries WHERE kind = 'adjust'")
        assert tx.execute(statement).scalar_one() == 0


def test_a_budget_that_is_short_refuses_the_reviewer_and_nothing_changes(me, dispute, rui):
    appeal = dispute()
    with_all = {"points": "6000000", "reason": "x"}
    assert (
        rui.post(f"appeals/{appeal}/grant", with_all).status_code == 200
    )  # ten million were funded
    second = dispute()
    assert code_of(rui.post(f"appeals/{second}/grant", with_all)) == (409, "BUDGET_SHORT")
    assert me(f"appeals/{second}").get_json()["state"] == "open"


def test_questions_and_answers_go_to_and_fro_while_the_deadline_stands_still(
    city, me, post, dispute, rui, told, due
):
    appeal = dispute()
    city.clock.move(days=10)
    assert code_of(post(f"appeals/{appeal}/answer", {"text": "?"})) == (409, "APPEAL_STATE")
    assert rui.post(f"appeals/{appeal}/ask", {"text": "哪一天？"}).get_json()["state"] == "asked"
    assert code_of(rui.post(f"appeals/{appeal}/ask", {"text": "再问"})) == (409, "APPEAL_STATE")
    city.clock.move(days=14)
    assert due() == 0
    made = post(f"appeals/{appeal}/answer", {"text": "周五"}).get_json()
    assert (made["state"], made["due_date"]) == ("open", "2026-12-21")
    assert [(one["by"], one["text"]) for one in made["said"]] == [
        ("reviewer", "哪一天？"),
        ("resident", "周五"),
    ]
    assert told() == ["您的申诉需要您补充说明。哪一天？"]
    city.clock.move(days=4)
    assert due() == 0
    city.clock.move(days=2)
    assert due() == 1


def test_questions_come_to_an_end(post, dispute, rui):
    appeal = dispute()
    for n in range(5):
        assert rui.post(f"appeals/{appeal}/ask", {"text": f"{n}"}).status_code == 200
        assert post(f"appeals/{appeal}/answer", {"text": f"{n}"}).status_code == 200
    assert code_of(rui.post(f"appeals/{appeal}/ask", {"text": "?"})) == (409, "APPEAL_STATE")
    assert rui.post(f"appeals/{appeal}/refuse", {"reason": "x"}).status_code == 200


def test_a_question_that_is_never_answered_closes_the_appeal(city, me, dispute, rui, told, due):
    appeal = dispute()
    rui.post(f"appeals/{appeal}/ask", {"text": "哪一天？"})
    city.clock.move(days=15)
    due()
    assert me(f"appeals/{appeal}").get_json()["state"] == "asked"
    city.clock.move(hours=1)
    assert due() == 0
    assert me(f"appeals/{appeal}").get_json()["state"] == "withdrawn"
    assert told()[-1] == "您的申诉因未收到您的补充说明已关闭，您可以重新提出。"


def test_what_nobody_answers_in_time_is_granted_by_itself_and_once(city, me, post, due, told):
    appeal = post("appeals", MISSING).get_json()["id"]
    city.clock.move(days=15)
    assert due() == 0
    city.clock.move(seconds=1)
    assert due() == 1
    assert due() == 0
    made = me(f"appeals/{appeal}").get_json()
    assert (made["state"], made["granted_points"]) == ("granted_in_time", made["claimed_points"])
    assert points_of(me) == int(made["claimed_points"]) > 0
    assert told() == [f"您的申诉超过期限未答复，已自动补发 {points_of(me)} 积分。"]
    city.sealer.seal(city.clock())
    assert list(check_database(city.engine, city.vault)) == []


def test_two_workers_grant_it_once(city, me, post, due):
    for minute in range(3):
        at = f"2026-11-21T0{minute}:00:00+08:00"
        post("appeals", MISSING | {"occurred_at": at})
    claimed = sum(
        int(me(f"appeals/{one['id']}").get_json()["claimed_points"])
        for one in me("appeals").get_json()["items"]
    )
    city.clock.move(days=16)
    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(lambda _: due(), range(3))) == 3
    assert points_of(me) == claimed


@pytest.mark.parametrize(
    ("setting", "value"), [("appeal_limit_points", 49), ("appeal_month_points", 49)]
)
def test_beyond_a_limit_nothing_is_granted_and_a_person_must_decide(
    city, client, me, dispute, desk, rui, due, told, setting, value
):
    appeal, before = dispute(), points_of(me)
    desk("operator").put(f"settings/{setting}", {"value": value}, match='"0"')
    city.clock.move(days=16)
    for _ in range(2):
        assert due() == 0
    assert points_of(me) == before
    assert told() == ["您的申诉已超过答复期限，须由人工处理，我们会尽快答复。"]
    (listed,) = rui.get("appeals", due_before="2026-12-07").get_json()["items"]
    assert (listed["id"], listed["state"], listed["overdue"]) == (appeal, "open", True)
    assert rui.get("appeals", due_before="2026-12-06").get_json()["items"] == []
    assert "puhui_appeals_overdue 1.0" in client.get("/metrics").get_data(as_text=True)
    assert rui.post(f"appeals/{appeal}/grant", {"points": "50", "reason": "x"}).status_code == 200


def test_a_months_limit_is_of_the_month(city, provider, ride, dispute, due):
    days = [f"2026-11-{day}T08:00:00+08:00" for day in range(15, 20)]
    rides = [ride(n, occurred_at=day) for n, day in enumerate(days, 10)]
    for outcome in provider.batch("days", *rides).get_json()["outcomes"]:
        dispute(points="50", entry_id=outcome["entry_id"])
    with city.engine.begin() as tx:
        settings.put(tx, "appeal_month_points", 120, 0, city.clock())
    granted = []
    for pause in (16, 1, 23, 1):
        city.clock.move(days=pause)
        granted.append(due())
    assert city.clock().isoformat() == "2027-01-02T04:00:00+00:00"
    assert granted == [2, 0, 2, 0]


def test_the_same_thing_is_granted_by_itself_only_once(city, dispute, due):
    dispute()
    city.clock.move(days=16)
    assert due() == 1
    dispute()
    city.clock.move(days=40)
    assert due() == 0


def test_an_empty_budget_leaves_it_open_until_it_is_funded(empty_city_of_appeals, due, me):
    city, fund = empty_city_of_appeals
    city.clock.move(days=16)
    assert due() == 0
    fund()
    assert due() == 1
    assert points_of(me) > 0


@pytest.fixture
def empty_city_of_appeals(city, post):
    """A scenario whose own budget is empty, and an appeal about an act of it."""
    from_scratch = "travel.bike_shared"
    with city.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO budgets (token, name, scope, created_at)"
                " VALUES (decode(repeat('ab', 16), 'hex'), 'bikes', :scope, now())"
            ),
            {"scope": from_scratch},
        )
    assert post("appeals", MISSING).status_code == 201

    def fund():
        fund_budget(city.engine, city.vault, from_scratch, 10_000, "decision 2", city.clock())

    return city, fund


def test_an_act_that_arrived_meanwhile_is_not_paid_twice(city, me, post, provider, ride, due):
    post("appeals", MISSING)
    city.clock.move(days=1)
    provider.batch("late", ride(1, occurred_at=MISSING["occurred_at"]))
    before = points_of(me)
    city.clock.move(days=16)
    assert due() == 0
    assert points_of(me) == before


def test_an_act_that_arrives_after_it_was_granted_is_the_same_act(
    city, me, post, provider, ride, due
):
    post("appeals", MISSING)
    city.clock.move(days=16)
    assert due() == 1
    granted = points_of(me)
    late = ride(1, occurred_at=MISSING["occurred_at"])
    (outcome,) = provider.batch("late", late).get_json()["outcomes"]
    assert outcome["code"] == "SAME_ACT"
    assert points_of(me) == granted
    city.sealer.seal(city.clock())
    assert list(check_database(city.engine, city.vault)) == []


def test_nothing_is_granted_by_itself_to_whoever_restricted_what_we_do(city, post, rider, due):
    post("appeals", MISSING)
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = now()"))
    city.clock.move(days=16)
    assert due() == 0
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = NULL"))
    assert due() == 1


def test_appeals_of_the_erased_are_gone(city, client, dispute, rider, rui, due):
    appeal = dispute()
    erase(city.engine, city.vault, rider, city.clock())
    assert code_of(rui.get(f"appeals/{appeal}")) == (404, "NOT_FOUND")
    assert code_of(rui.post(f"appeals/{appeal}/refuse", {"reason": "x"})) == (404, "NOT_FOUND")
    assert client.get("/api/v1/appeals/figures").get_json()["opened"] == "0"
    city.clock.move(days=16)
    assert due() == 0


def test_everybody_sees_how_it_goes_and_nobody(city, client, post, rui, due):
    ids = []
    for hour in range(5):
        at = f"2026-11-21T{hour:02d}:00:00+08:00"
        ids.append(post("appeals", MISSING | {"occurred_at": at}).get_json()["id"])
    assert client.get("/api/v1/appeals/figures").get_json()["median_hours"] is None
    city.clock.move(days=1)
    rui.post(f"appeals/{ids[0]}/refuse", {"reason": "x"})
    city.clock.move(days=2)
    rui.post(f"appeals/{ids[1]}/grant", {"points": "1", "reason": "x"})
    post(f"appeals/{ids[2]}/withdraw")
    city.clock.move(days=13)
    assert due() == 2
    seen = client.get("/api/v1/appeals/figures").get_json()
    assert forms.AppealFiguresSchema().validate(seen) == {}
    assert seen == {
        "opened": "5",
        "open": "0",
        "overdue": "0",
        "granted": "1",
        "granted_in_time": "2",
        "refused": "1",
        "withdrawn": "1",
        "median_hours": str((3 + 16) * 12),
    }


def test_pages_show_every_appeal_once(me, post, rui):
    ids = []
    for minute in range(5):
        at = f"2026-11-21T08:{minute:02d}:00+08:00"
        ids.append(post("appeals", MISSING | {"occurred_at": at}).get_json()["id"])
    for read in (lambda **more: me("appeals", **more), lambda **more: rui.get("appeals", **more)):
        seen, more = [], {}
        while True:
            body = read(limit=2, **more).get_json()
            seen += [one["id"] for one in body["items"]]
            if not body["has_more"]:
                break
            more = {"cursor": body["next_cursor"]}
        assert sorted(seen) == sorted(ids)
        assert read(cursor="MQ").status_code == 422


def test_only_reviewers_hear_appeals(desk, dispute):
    appeal = dispute()
    for role in ("editor", "operator", "auditor"):
        assert code_of(desk(role).get(f"appeals/{appeal}")) == (403, "ROLE_MISSING")
        answer = desk(role).post(f"appeals/{appeal}/grant", {"points": "1", "reason": "x"})
        assert code_of(answer) == (403, "ROLE_MISSING")


def test_many_overdue_appeals_are_looked_at_in_pages(city, rider, due):
    with city.engine.begin() as tx:
        own = city.vault.subject_key(rider, people.lock(tx, rider))
        for n in range(230):
            appeal = f"{n:032x}"
            sealed = forms.Case("x").sealed(own, appeal)
            now = city.clock()
            thing = n.to_bytes(16, "big")
            appeals.add(
                tx, appeals.Appeal(appeal, rider, "correction", thing, sealed, "open", now, now)
            )
    city.clock.move(seconds=1)
    assert due() == 0
    with city.engine.connect() as tx:
        assert messages.unread(tx, rider) == 230
