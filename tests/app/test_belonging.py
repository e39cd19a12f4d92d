"""Challenges and badges: reckoned from the acts that stand, and from nothing else."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import count
from secrets import token_hex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.flows import badges, challenge
from app.flows.erase import erase
from app.flows.standing import Act, standing
from app.flows.tokens import issue_access_token
from scenarios import AREAS

RIDE_MG = 625_000  # 2.5 km at 250 g
MONTH = "2026-11"


@pytest.fixture
def ask(client, city):
    """Asks as a resident: ask(resident, "GET", "badges")."""
    numbers = count()

    def send(resident, method, path, document=None, key=""):
        token = issue_access_token(city.vault.token, resident, city.clock())
        headers = {"Authorization": f"Bearer {token}"}
        if method == "POST":
            headers["Idempotency-Key"] = key or f"{resident}-{next(numbers):06d}"
        return client.open(f"/api/v1/me/{path}", method=method, json=document, headers=headers)

    return send


@pytest.fixture
def editor(desk):
    return desk("editor", name=f"ed-{token_hex(4)}")


@pytest.fixture
def reviewer(desk):
    return desk("reviewer", name=f"rae-{token_hex(4)}")


@pytest.fixture
def rode(provider, ride):
    """The rider rode on these days: rode("2026-11-20", ...); the activities' ids."""
    numbers = count(1)

    def report(*days, **more):
        rides = [
            ride(next(numbers), occurred_at=f"{day}T{8 + n % 10:02d}:00:00+08:00", **more)
            for n, day in enumerate(days)
        ]
        outcomes = provider.batch(f"rode-{next(numbers)}", *rides).json["outcomes"]
        assert {one["outcome"] for one in outcomes} == {"accepted"}, outcomes
        return [one["id"] for one in rides]

    return report


def content(of="acts", at_least=2, month=MONTH, **goal):
    return {
        "month": month,
        "title_zh": "骑行月",
        "title_en": "A month of rides",
        "goal": {"of": of, "at_least": at_least, **goal},
    }


@pytest.fixture
def opened(editor, reviewer):
    """Opens a challenge; its id."""

    def make(**body):
        made = editor.post("challenges", content(**body))
        assert made.status_code == 201, made.text
        path = f"challenges/{made.json['id']}"
        answer = reviewer.post(f"{path}/open", match=made.headers["ETag"])
        assert (answer.status_code, answer.json["state"]) == (200, "open"), answer.text
        return made.json["id"]

    return make


def messages(city, resident):
    with city.engine.connect() as tx:
        return tx.execute(
            text("SELECT count(*) FROM messages WHERE resident = :id AND kind = :kind"),
            {"id": bytes.fromhex(resident), "kind": "challenge.reached"},
        ).scalar_one()


def test_a_challenge_is_reached_by_the_acts_of_its_month(rider, rode, opened, ask):
    made = opened(of="days", at_least=2, area="travel")
    rode("2026-11-20", "2026-11-20", "2026-10-31")
    before = ask(rider, "GET", "challenges").json["items"]
    assert [(one["joined"], one["done"]) for one in before] == [(False, None)]
    joined = ask(rider, "POST", f"challenges/{made}/join").json
    assert (joined["joined"], joined["done"], joined["reached_on"]) == (True, "1", None)
    rode("2026-11-18")
    (after,) = ask(rider, "GET", "challenges").json["items"]
    assert (after["done"], after["reached_on"]) == ("2", "2026-11-20")
    assert ask(rider, "GET", "home").json["challenges"] == [after]


@pytest.mark.parametrize(
    ("goal", "done"),
    [
        ({"of": "acts"}, "3"),
        ({"of": "days"}, "2"),
        ({"of": "grams"}, "1875"),
        ({"of": "acts", "area": "food"}, "0"),
        ({"of": "acts", "scenarios": ["travel.bike_shared", "travel.bus_km"]}, "3"),
        ({"of": "acts", "scenarios": ["travel.bus_km"]}, "0"),
    ],
)
def test_a_goal_counts_what_it_says(rider, rode, opened, ask, goal, done):
    rode("2026-11-19", "2026-11-20", "2026-11-20")
    made = opened(**goal)
    assert ask(rider, "POST", f"challenges/{made}/join").json["done"] == done


def test_a_correction_takes_its_part_away_again(rider, rode, provider, opened, ask):
    first, _ = rode("2026-11-19", "2026-11-20")
    made = opened()
    joined = ask(rider, "POST", f"challenges/{made}/join").json
    assert (joined["done"], joined["reached_on"]) == ("2", "2026-11-20")
    earned = {one["code"]: one["earned_on"] for one in ask(rider, "GET", "badges").json["items"]}
    assert earned["challenge"] == "2026-11-20"
    assert earned["first.travel"] == "2026-11-19"
    assert provider.send("PUT", f"/api/v1/activities/{first}/correction", None).status_code == 200
    (after,) = ask(rider, "GET", "challenges").json["items"]
    assert (after["done"], after["reached_on"]) == ("1", None)
    earned = {one["code"]: one["earned_on"] for one in ask(rider, "GET", "badges").json["items"]}
    assert earned["challenge"] is None
    assert earned["first.travel"] == "2026-11-20"


def test_who_reaches_a_challenge_is_told_once(city, rider, rode, opened, ask):
    made = opened()
    watch = challenge.Watch(city.engine, city.vault)
    while watch.step(city.clock()):
        pass
    ask(rider, "POST", f"challenges/{made}/join")
    rode("2026-11-19", "2026-11-20")
    city.sealer.seal(city.clock())
    assert messages(city, rider) == 0
    watch.step(city.clock())
    assert messages(city, rider) == 1
    rode("2026-11-21")
    city.sealer.seal(city.clock())
    for other in (watch, challenge.Watch(city.engine, city.vault)):  # and one that starts anew
        while other.step(city.clock()):
            pass
        other.step(city.clock())
    assert messages(city, rider) == 1


def test_a_worker_that_starts_late_tells_those_who_reached_it_before(
    city, rider, rode, opened, ask
):
    made = opened()
    ask(rider, "POST", f"challenges/{made}/join")
    rode("2026-11-19", "2026-11-20")
    city.sealer.seal(city.clock())
    challenge.Watch(city.engine, city.vault).step(city.clock())
    assert messages(city, rider) == 1


@pytest.mark.parametrize(
    "goal",
    [
        {"of": "acts", "at_least": 5},
        {"of": "days", "at_least": 4},
        {"of": "days", "at_least": 3},
        {"of": "grams", "at_least": 3000},
        {"of": "grams", "at_least": 1875},
        {"of": "acts", "at_least": 1, "area": "food"},
    ],
)
def test_who_comes_to_it_bit_by_bit_is_told_then_and_no_sooner(
    city, rider, rode, opened, ask, goal
):
    ask(rider, "POST", f"challenges/{opened(**goal)}/join")
    watch = challenge.Watch(city.engine, city.vault)
    steps = ["2026-11-18"], ["2026-11-18", "2026-11-19"], ["2026-10-31"]
    for days in (*steps, ["2026-11-19", "2026-11-20"], ["2026-11-17"]):
        rode(*days)
        city.sealer.seal(city.clock())
        while watch.step(city.clock()):
            pass
        (mine,) = ask(rider, "GET", "challenges").json["items"]
        assert messages(city, rider) == (mine["reached_on"] is not None)


def test_what_is_late_counts_for_a_week_after_the_month(city, rider, rode, opened, ask):
    made = opened()
    ask(rider, "POST", f"challenges/{made}/join")
    rode("2026-11-20")
    city.clock.now = city.clock.now.replace(month=12, day=5)
    watch = challenge.Watch(city.engine, city.vault)
    while watch.step(city.clock()):
        pass
    rode("2026-11-30")
    city.sealer.seal(city.clock())
    watch.step(city.clock())
    assert messages(city, rider) == 1
    (mine,) = ask(rider, "GET", "challenges").json["items"]
    assert mine["reached_on"] == "2026-11-30"
    city.clock.move(days=5)
    assert ask(rider, "GET", "challenges").json["items"] == []
    earned = ask(rider, "GET", "badges").json["items"]
    assert next(one for one in earned if one["code"] == "challenge")["earned_on"] == "2026-11-30"
    over = ask(rider, "POST", f"challenges/{made}/join")
    assert (over.status_code, over.json["code"]) == (409, "CHALLENGE_STATE")


def test_who_leaves_a_challenge_takes_no_part_in_it(rider, rode, opened, ask):
    made = opened()
    ask(rider, "POST", f"challenges/{made}/join")
    rode("2026-11-19", "2026-11-20")
    (left,) = ask(rider, "POST", f"challenges/{made}/leave").json["items"]
    assert (left["joined"], left["done"]) == (False, None)
    earned = ask(rider, "GET", "badges").json["items"]
    assert next(one for one in earned if one["code"] == "challenge")["earned_on"] is None


def test_only_what_a_reviewer_opened_is_seen(rider, editor, reviewer, ask):
    made = editor.post("challenges", content())
    path = f"challenges/{made.json['id']}"
    assert ask(rider, "GET", "challenges").json["items"] == []
    assert ask(rider, "POST", f"{path}/join").status_code == 404
    stale = reviewer.post(f"{path}/open", match='"7"')
    assert (stale.status_code, stale.json["code"]) == (412, "REVISION_STALE")
    assert editor.post(f"{path}/open", match='"1"').json["code"] == "ROLE_MISSING"
    changed = editor.put(path, content(at_least=5), match='"1"')
    assert (changed.status_code, changed.json["goal"]["at_least"]) == (200, 5)
    assert reviewer.post(f"{path}/open", match='"2"').status_code == 200
    (seen,) = ask(rider, "GET", "challenges").json["items"]
    assert seen["goal"] == {"of": "acts", "at_least": 5, "area": None, "scenarios": []}
    fixed = editor.put(path, content(), match='"3"')
    assert (fixed.status_code, fixed.json["code"]) == (409, "CHALLENGE_STATE")
    closed = reviewer.post(f"{path}/close", {"reason": "wrong goal"}, match='"3"')
    assert closed.json["state"] == "closed"
    assert ask(rider, "GET", "challenges").json["items"] == []


def test_nobody_opens_what_they_wrote(desk):
    both = desk("editor", "reviewer", name=f"bo-{token_hex(4)}")
    made = both.post("challenges", content())
    refused = both.post(f"challenges/{made.json['id']}/open", match='"1"')
    assert (refused.status_code, refused.json["code"]) == (403, "OWN_APPROVAL")


def test_a_month_that_is_over_is_not_opened(editor, reviewer):
    made = editor.post("challenges", content(month="2026-10"))
    refused = reviewer.post(f"challenges/{made.json['id']}/open", match='"1"')
    assert (refused.status_code, refused.json["code"]) == (409, "CHALLENGE_STATE")


@pytest.mark.parametrize(
    "wrong",
    [
        {"month": "2026-13"},
        {"of": "kilometres"},
        {"at_least": 0},
        {"of": "days", "at_least": 40},
        {"area": "travel", "scenarios": ["travel.bike_shared"]},
        {"scenarios": ["travel.teleport"]},
    ],
)
def test_a_goal_that_cannot_be_is_refused(editor, wrong):
    refused = editor.post("challenges", content(**wrong))
    assert (refused.status_code, refused.json["code"]) == (422, "VALIDATION_FAILED")


def test_challenges_are_listed_page_by_page(editor):
    made = [
        editor.post("challenges", content(month=month)).json["id"]
        for month in ("2026-12", "2026-11", "2026-12")
    ]
    seen, cursor = [], None
    while True:
        more = {"cursor": cursor} if cursor else {}
        answer = editor.get("challenges", limit=1, **more).json
        seen += [(one["month"], one["id"]) for one in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert [month for month, _ in seen] == ["2026-12", "2026-12", "2026-11"]
    assert {one for _, one in seen} == set(made)


def test_the_erased_take_no_part(city, rider, rode, opened, ask):
    made = opened()
    ask(rider, "POST", f"challenges/{made}/join")
    rode("2026-11-19", "2026-11-20")
    erase(city.engine, city.vault, rider, city.clock())
    city.sealer.seal(city.clock())
    challenge.Watch(city.engine, city.vault).step(city.clock())
    assert messages(city, rider) == 0
    with city.engine.connect() as tx:
        assert standing(tx, city.vault, [rider]) == {rider: []}
        assert tx.execute(text("SELECT count(*) FROM challenge_members")).scalar_one() == 0


acts = st.builds(
    Act,
    st.sampled_from([f"{area}.{name}" for area in AREAS for name in ("one", "two")]),
    st.dates(date(2026, 1, 1), date(2026, 12, 31)).map(lambda day: int(f"{day:%Y%m%d}")),
    st.integers(1, 30_000_000),
)


@given(st.lists(acts, max_size=60), st.randoms())
def test_badges_are_the_first_day_on_which_it_was_enough(done, dice):
    earned = badges.earned(done, [])
    shuffled = dice.sample(done, len(done))
    assert badges.earned(shuffled, []) == earned
    days = sorted({act.day for act in done})
    for badge in badges.BADGES[:-1]:
        first = next((day for day in days if _has(badge.code, done, day)), None)
        assert earned.get(badge.code) == first


def _has(code, done, day):
    """Whether the acts up to a day are enough, asked in the plainest way."""
    past = [act for act in done if act.day <= day]
    if code == "all_areas":
        return len({act.area for act in past}) == 7
    kind, _, what = code.partition(".")
    if kind == "first":
        return any(act.area == what for act in past)
    if kind == "days":
        return len({act.day for act in past}) >= int(what)
    return sum(act.reduction_mg for act in past) >= int(what) * 1_000_000


goals = st.fixed_dictionaries(
    {
        "of": st.sampled_from(challenge.UNITS),
        "at_least": st.integers(1, 20_000),
        "area": st.none(),
        "scenarios": st.just([]),
    }
) | st.fixed_dictionaries(
    {
        "of": st.sampled_from(challenge.UNITS),
        "at_least": st.integers(1, 10),
        "area": st.sampled_from(AREAS),
        "scenarios": st.just([]),
    }
)


@given(goals, st.lists(acts, max_size=40))
def test_a_goal_is_reached_on_the_first_day_that_is_enough(goal, done):
    def reckoned(until):
        past = [
            act
            for act in done
            if act.day <= until and (goal["area"] is None or act.area == goal["area"])
        ]
        return {
            "acts": len(past),
            "grams": sum(act.reduction_mg for act in past) // 1000,
            "days": len({act.day for act in past}),
        }[goal["of"]]

    total, reached = challenge.reckon(goal, done)
    assert total == reckoned(99999999)
    days = sorted({act.day for act in done})
    assert reached == next((day for day in days if reckoned(day) >= goal["at_least"]), None)


def test_an_act_belongs_to_the_city_day_on_which_it_was_done(city, rider, provider, ride):
    late = ride(1, occurred_at="2026-10-31T17:30:00Z")  # already November in the city
    city.clock.move(days=1)
    provider.batch("a", late)
    with city.engine.connect() as tx:
        found = standing(tx, city.vault, [rider])[rider]
    assert found == [Act("travel.bike_shared", 20261101, RIDE_MG)]
    assert found[0].month == 202611


def test_months_follow_each_other():
    first = date(2025, 12, 1)
    for _ in range(14):
        month = first.year * 100 + first.month
        before = first - timedelta(days=1)
        assert challenge.month_before(month) == before.year * 100 + before.month
        first = (first + timedelta(days=31)).replace(day=1)
