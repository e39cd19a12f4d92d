"""Rankings: opt-in, right at every moment, made anew from the ledger, silent about small groups."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from itertools import count
from secrets import token_hex

import pytest
import redis
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.cli.rankings import rebuild
from app.flows.enroll import enroll
from app.flows.erase import erase
from app.flows.ranking import FEWEST, Rankings, RankingsUnavailableError, competition, show
from app.flows.tokens import issue_access_token
from app.flows.work import Worker
from app.store import embedded, friends
from app.store import standing as ledger
from app.store.db import by_index, bytea_array, fetch
from bench.stage import analyze

NORTH, SOUTH = "140403", "140404"


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    """A Redis of this module's own, which may be emptied; its address."""
    folder = tmp_path_factory.mktemp("ranked")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    url = embedded.start_valkey(folder / "valkey")
    yield url
    with redis.Redis.from_url(url) as client:
        client.shutdown(nosave=True)


@pytest.fixture
def config(config, valkey):
    return replace(config, redis_url=valkey)


@pytest.fixture
def client_of_redis(valkey):
    with redis.Redis.from_url(valkey, protocol=3) as client:
        client.flushall()
        yield client


@pytest.fixture
def ranked(city, client_of_redis):
    return Rankings(city.engine, city.vault, client_of_redis)


@pytest.fixture
def ask(client, city):
    numbers = count()

    def send(resident, method, path, document=None):
        token = issue_access_token(city.vault.token, resident, city.clock())
        headers = {"Authorization": f"Bearer {token}"}
        if method == "POST":
            headers["Idempotency-Key"] = f"{resident}-{next(numbers):06d}"
        return client.open(f"/api/v1/me/{path}", method=method, json=document, headers=headers)

    return send


class Crowd:
    """Residents who ride; what each of them must come to is reckoned beside the program."""

    def __init__(self, city, provider, ride, ranked):
        self.city, self.provider, self.ride, self.ranked = city, provider, ride, ranked
        self.numbers = count(1)
        self.district, self.mg, self.rides, self.subject = {}, Counter(), {}, {}
        self.shown = {}

    def settle_in(self, how_many, district):
        subjects = [f"crowd-{next(self.numbers)}" for _ in range(how_many)]
        parts = self.city.engine, self.city.vault, self.city.registry, "bikes", subjects
        made = enroll(*parts, district, self.city.clock())
        for subject, resident in made.items():
            self.subject[resident] = subject
            self.district[resident] = district
            self.rides[resident] = []
        return [made[subject] for subject in subjects]

    def go(self, resident, km=1, day="2026-11-20"):
        """Ride so far on a day of this month, or of the one before."""
        number = next(self.numbers)
        activity = self.ride(
            number,
            subject=self.subject[resident],
            quantities={"distance_km": str(km)},
            occurred_at=f"{day}T08:00:00+08:00",
        )
        (outcome,) = self.provider.batch(f"b-{number}", activity).json["outcomes"]
        assert outcome["outcome"] == "accepted", outcome
        if day.startswith("2026-11"):
            self.mg[resident] += km * 250_000
            self.rides[resident].append((activity["id"], km * 250_000))

    def void(self, resident):
        """Have the newest ride of a resident reversed, if there is one."""
        if self.rides[resident]:
            ride, mg = self.rides[resident].pop()
            path = f"/api/v1/activities/{ride}/correction"
            assert self.provider.send("PUT", path, None).status_code == 200
            self.mg[resident] -= mg

    def join(self, resident, name=""):
        now = self.city.clock()
        name = name or f"人{next(self.numbers)}"
        show(self.city.engine, self.city.vault, resident, name, now)
        self.shown[resident] = name
        self.ranked.settle(resident, now)

    def leave(self, resident):
        with self.city.engine.begin() as tx:
            friends.hide(tx, resident)
        self.shown.pop(resident, None)
        self.ranked.settle(resident, self.city.clock())

    def move(self, resident):
        self.district[resident] = SOUTH if self.district[resident] == NORTH else NORTH
        with self.city.engine.begin() as tx:
            tx.execute(
                text("UPDATE residents SET district = :district WHERE id = :id"),
                {"district": self.district[resident], "id": bytes.fromhex(resident)},
            )
        self.ranked.settle(resident, self.city.clock())

    def catch_up(self):
        while self.city.sealer.seal(self.city.clock()):
            pass
        while self.ranked.step(self.city.clock()):
            pass

    def check(self):
        """Hold every resident's view against one reckoned in the plainest way."""
        now = self.city.clock()
        for resident, district in self.district.items():
            seen = self.ranked.district(resident, now)
            if resident not in self.shown:
                assert (seen.people, seen.mine, seen.rows) == (None, None, [])
                continue
            group = [one for one in self.shown if self.district[one] == district]
            mine = self.mg[resident]
            assert seen.mine.mg == mine
            if len(group) < FEWEST:
                assert (seen.people, seen.mine.rank, seen.rows) == (None, None, [])
                continue
            assert seen.people == len(group)
            assert seen.mine.rank == 1 + sum(self.mg[one] > mine for one in group)
            expected = sorted(
                (1 + sum(self.mg[o] > self.mg[one] for o in group), self.shown[one], self.mg[one])
                for one in group
            )
            assert sorted((row.rank, row.nickname, row.mg) for row in seen.rows) == expected
            assert [row.mg for row in seen.rows] == sorted((r.mg for r in seen.rows), reverse=True)
            assert [row.nickname for row in seen.rows if row.me] == [self.shown[resident]]


@pytest.fixture
def crowd(city, provider, ride, ranked):
    return Crowd(city, provider, ride, ranked)


def test_ties_share_a_rank_and_the_next_one_is_lower(crowd):
    people = crowd.settle_in(10, NORTH)
    for at, one in enumerate(people):
        crowd.go(one, km=[9, 7, 7, 5, 5, 5, 3, 2, 1, 1][at])
        crowd.join(one)
    crowd.catch_up()
    crowd.check()
    rows = crowd.ranked.district(people[0], crowd.city.clock()).rows
    assert [row.rank for row in rows] == [1, 2, 2, 4, 4, 4, 7, 8, 9, 9]


def test_no_rank_is_shown_of_fewer_than_ten(crowd):
    people = crowd.settle_in(10, NORTH)
    for one in people[:9]:
        crowd.go(one)
        crowd.join(one)
    crowd.catch_up()
    few = crowd.ranked.district(people[0], crowd.city.clock())
    assert (few.people, few.mine.rank, few.rows) == (None, None, [])
    crowd.join(people[9])
    assert crowd.ranked.district(people[0], crowd.city.clock()).people == 10
    crowd.leave(people[9])  # who leaves is gone at once, with nobody's help
    few = crowd.ranked.district(people[0], crowd.city.clock())
    assert (few.people, few.mine.rank, few.rows) == (None, None, [])
    crowd.check()


def test_a_ride_that_is_taken_back_is_followed_by_itself(crowd):
    people = crowd.settle_in(10, NORTH)
    for one in people:
        crowd.go(one, km=2)
        crowd.join(one)
    crowd.catch_up()
    crowd.void(people[3])
    crowd.catch_up()
    crowd.check()


OPS = st.lists(
    st.tuples(
        st.sampled_from(["go", "go", "go", "void", "join", "leave", "move", "old", "seal", "step"]),
        st.integers(0, 23),
        st.integers(1, 3),
    ),
    max_size=25,
)


def test_a_random_city_is_ranked_as_by_hand_followed_or_made_anew(crowd):
    people = [*crowd.settle_in(14, NORTH), *crowd.settle_in(10, SOUTH)]
    for at, one in enumerate(people):
        if at % 4:
            crowd.join(one)

    @settings(
        max_examples=8, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(OPS)
    def live(steps):
        for what, who, km in steps:
            one = people[who]
            if what == "go":
                crowd.go(one, km)
            elif what == "old":
                crowd.go(one, km, day="2026-10-30")
            elif what in ("seal", "step"):
                crowd.city.sealer.seal(crowd.city.clock())
                if what == "step":
                    crowd.ranked.step(crowd.city.clock())
            else:
                getattr(crowd, what)(one)
        crowd.catch_up()
        crowd.check()
        for _ in crowd.ranked.rebuild(crowd.city.clock()):
            pass
        crowd.check()

    live()


def test_whoever_joins_rides_or_leaves_during_a_rebuild_is_where_they_belong(crowd):
    people = crowd.settle_in(13, NORTH)
    for one in people[:12]:
        crowd.go(one)
        crowd.join(one)
    crowd.catch_up()
    building = crowd.ranked.rebuild(crowd.city.clock())
    next(building)  # everybody has been read, nothing is swapped in
    crowd.check()
    crowd.join(people[12])
    crowd.leave(people[3])
    crowd.move(people[4])
    crowd.go(people[5], km=4)
    with pytest.raises(StopIteration):
        next(building)
    crowd.catch_up()
    crowd.check()


def test_who_joins_while_the_log_is_followed_is_counted_once(crowd, monkeypatch):
    people = crowd.settle_in(11, NORTH)
    for one in people[:10]:
        crowd.join(one)
    crowd.catch_up()
    for one in people:
        crowd.go(one)
    crowd.city.sealer.seal(crowd.city.clock())
    read = crowd.ranked._read

    def read_and_see_one_join(*given):
        found = read(*given)
        if people[10] not in crowd.shown:
            crowd.shown[people[10]] = ""  # lest their own reading makes them join again
            crowd.join(people[10])
        return found

    monkeypatch.setattr(crowd.ranked, "_read", read_and_see_one_join)
    crowd.ranked.refresh(crowd.city.clock())
    crowd.check()


def test_what_is_read_of_people_is_planned_by_index_though_there_are_hardly_any_lines(crowd):
    """Such a plan is kept until the table is analyzed, by when there may be millions."""
    people = crowd.settle_in(3, NORTH)
    crowd.go(people[0])
    analyze(crowd.city.config)
    people = bytea_array(map(bytes.fromhex, people))
    with crowd.city.engine.begin() as tx:
        by_index(tx)
        plan = fetch(tx, f"EXPLAIN {ledger._SEALED}", (people, 0, 9, 0, 9))
    for table in ("postings", "entries", "openings"):
        assert f"Seq Scan on {table}" not in str(plan)


@pytest.mark.parametrize("reader", ["_as_now", "_read"])
def test_who_leaves_in_the_last_moment_is_not_put_back(crowd, monkeypatch, reader):
    """Between the reading of the database and the writing of the sets."""
    people = crowd.settle_in(12, NORTH)
    for one in people:
        crowd.join(one)
    crowd.catch_up()
    writer = Rankings(crowd.city.engine, crowd.city.vault, crowd.ranked._sets._redis)
    read = getattr(writer, reader)

    def read_and_see_one_leave(*given):
        found = read(*given)
        if people[3] in crowd.shown:
            crowd.leave(people[3])
        return found

    monkeypatch.setattr(writer, reader, read_and_see_one_leave)
    if reader == "_as_now":
        for _ in writer.rebuild(crowd.city.clock()):
            pass
    else:
        for one in people:
            crowd.go(one)
        crowd.city.sealer.seal(crowd.city.clock())
        writer.refresh(crowd.city.clock())
    assert people[3] not in crowd.shown
    assert crowd.ranked._sets.size() == 11
    crowd.check()


def test_an_emptied_redis_is_filled_again_with_the_same_answers(crowd, client_of_redis):
    people = crowd.settle_in(12, NORTH)
    for at, one in enumerate(people):
        crowd.go(one, km=1 + at % 4)
        crowd.join(one)
    crowd.catch_up()
    now = crowd.city.clock()
    before = [crowd.ranked.district(one, now) for one in people]
    client_of_redis.flushall()
    assert [crowd.ranked.district(one, now).mine for one in people] == [b.mine for b in before]
    crowd.check()
    client_of_redis.flushall()
    while crowd.ranked.step(now):
        pass
    crowd.check()


def test_sets_that_are_ahead_of_a_restored_log_are_made_anew(crowd, client_of_redis):
    people = crowd.settle_in(10, NORTH)
    for one in people:
        crowd.join(one)
    crowd.catch_up()
    (state,) = client_of_redis.keys("*ranking:state")
    client_of_redis.hset(state, "leaf", 10**9)
    crowd.go(people[0])
    crowd.catch_up()
    crowd.check()


def test_a_new_month_begins_at_zero_for_everybody(crowd):
    people = crowd.settle_in(10, NORTH)
    for one in people:
        crowd.go(one)
        crowd.join(one)
    crowd.catch_up()
    crowd.city.clock.now = crowd.city.clock.now.replace(month=12, day=1)
    found = crowd.ranked.district(people[0], crowd.city.clock())
    assert found.month == 202612
    assert {(row.rank, row.mg) for row in found.rows} == {(1, 0)}


def test_while_redis_is_away_only_rankings_are(crowd, app, ask):
    (one,) = crowd.settle_in(1, NORTH)
    assert ask(one, "PUT", "ranking", {"nickname": "阿伟"}).status_code == 200
    parts = app.extensions["puhui"]
    nowhere = redis.Redis.from_url(f"unix://{os.devnull}")
    app.extensions["puhui"] = replace(parts, redis=nowhere)
    away = ask(one, "GET", "ranking")
    assert (away.status_code, away.json["code"]) == (503, "RANKINGS_UNAVAILABLE")
    assert away.headers["Retry-After"]
    assert ask(one, "GET", "ranking?of=friends").status_code == 503
    for path in ("challenges", "badges", "friends", "balances"):
        assert ask(one, "GET", path).status_code == 200
    left = ask(one, "POST", "ranking/leave")  # a right that hangs on nothing
    assert (left.status_code, left.json["joined"]) == (200, False)
    app.extensions["puhui"] = parts
    crowd.catch_up()  # finds out that fewer people are to be seen than Redis holds
    assert ask(one, "GET", "ranking").json["joined"] is False
    assert not any(one in str(parts.redis.zrange(key, 0, -1)) for key in _sets(parts.redis))


def _sets(client):
    return [key for key in client.keys("*ranking*") if client.type(key) == b"zset"]


def test_a_large_city_is_not_made_by_whoever_asks(crowd, client_of_redis, monkeypatch):
    monkeypatch.setattr("app.flows.ranking._PAGE", 5)
    people = crowd.settle_in(11, NORTH)
    for one in people:
        crowd.join(one)
    crowd.catch_up()
    client_of_redis.flushall()
    with pytest.raises(RankingsUnavailableError):
        crowd.ranked.district(people[0], crowd.city.clock())
    assert crowd.ranked.step(crowd.city.clock())  # a page of people a round
    crowd.catch_up()
    crowd.check()


@pytest.mark.parametrize("how", ["erased", "restricted"])
def test_the_erased_and_the_restricted_are_in_no_ranking(crowd, client_of_redis, how):
    people = crowd.settle_in(11, NORTH)
    for one in people:
        crowd.go(one)
        crowd.join(one)
    crowd.catch_up()
    gone, city = people[0], crowd.city
    if how == "erased":
        erase(city.engine, city.vault, gone, city.clock())
    else:
        with city.engine.begin() as tx:
            tx.execute(
                text("UPDATE residents SET restricted_at = :now WHERE id = :id"),
                {"now": city.clock(), "id": bytes.fromhex(gone)},
            )
    name = crowd.shown.pop(gone)
    seen = crowd.ranked.district(people[1], city.clock())  # before anybody told Redis
    assert seen.people == 10
    assert name not in {row.nickname for row in seen.rows}
    crowd.ranked.settle(gone, city.clock())
    held = b"".join(client_of_redis.dump(key) for key in client_of_redis.keys("*ranking*"))
    assert gone.encode() not in held
    crowd.check()


def test_the_worker_makes_them_and_goes_on_without_redis(crowd):
    people = crowd.settle_in(10, NORTH)
    for one in people:
        crowd.go(one)
        show(crowd.city.engine, crowd.city.vault, one, "人", crowd.city.clock())
        crowd.shown[one] = "人"
    city = crowd.city
    Worker(city.engine, city.vault, city.sealer, city.clock, rankings=crowd.ranked).step()
    crowd.check()
    nowhere = Rankings(city.engine, city.vault, redis.Redis.from_url(f"unix://{os.devnull}"))
    crowd.go(people[0])
    assert Worker(city.engine, city.vault, city.sealer, city.clock, rankings=nowhere).step() > 0


def test_the_command_line_makes_them_anew(crowd, monkeypatch):
    people = crowd.settle_in(10, NORTH)
    for one in people:
        crowd.go(one)
        crowd.join(one)
    city = crowd.city
    city.sealer.seal(city.clock())
    monkeypatch.setattr("app.cli.operate.local_config", lambda config: config)
    monkeypatch.setattr("app.cli.rankings.now", city.clock)
    said = CliRunner().invoke(rebuild, obj=city.config, catch_exceptions=False)
    assert said.output == "10 residents ranked\n"
    crowd.check()


def make_friends(ask, one, other):
    code = ask(one, "POST", "friend-codes").json["code"]
    answer = ask(other, "POST", "friends", {"code": code.lower()})
    assert answer.status_code == 201, answer.text
    return code


def test_friends_see_each_other_without_ranks_until_they_are_ten(crowd, ask):
    people = crowd.settle_in(10, NORTH)
    for at, one in enumerate(people):
        crowd.go(one, km=1 + at // 2)
        crowd.join(one, f"友{at}")
    crowd.catch_up()
    for other in people[1:9]:
        make_friends(ask, people[0], other)
    few = ask(people[0], "GET", "ranking?of=friends").json
    assert few["too_few"]
    assert few["people"] is None
    assert [row["nickname"] for row in few["items"]] == [f"友{at}" for at in range(9)]
    assert {row["rank"] for row in few["items"]} == {None}
    make_friends(ask, people[9], people[0])
    ten = ask(people[0], "GET", "ranking?of=friends").json
    assert (ten["too_few"], ten["people"]) == (False, 10)
    assert [row["rank"] for row in ten["items"]] == [1, 1, 3, 3, 5, 5, 7, 7, 9, 9]
    assert ten["mine"] == {"rank": 9, "nickname": "友0", "reduction_mg": "250000", "me": True}
    alone = ask(people[1], "GET", "ranking?of=friends").json  # a friend's friend is nobody's
    assert [row["nickname"] for row in alone["items"]] == ["友0", "友1"]


def test_a_code_makes_one_friend_both_ways_for_fifteen_minutes(crowd, ask):
    one, other, third = crowd.settle_in(3, NORTH)
    refused = ask(one, "POST", "friend-codes")
    assert (refused.status_code, refused.json["code"]) == (409, "RANKING_NOT_JOINED")
    for at, who in enumerate((one, other, third)):
        crowd.join(who, f"友{at}")
    code = make_friends(ask, one, other)
    used = ask(third, "POST", "friends", {"code": code})
    assert (used.status_code, used.json["code"]) == (404, "FRIEND_CODE_UNKNOWN")
    late = ask(one, "POST", "friend-codes").json["code"]
    crowd.city.clock.move(minutes=16)
    assert ask(third, "POST", "friends", {"code": late}).json["code"] == "FRIEND_CODE_UNKNOWN"
    own = ask(one, "POST", "friend-codes").json["code"]
    assert ask(one, "POST", "friends", {"code": own}).json["code"] == "FRIEND_CODE_OWN"
    (mine,) = ask(one, "GET", "friends").json["items"]
    (theirs,) = ask(other, "GET", "friends").json["items"]
    assert (mine["nickname"], theirs["nickname"]) == ("友1", "友0")
    assert other not in str(mine)  # no account's token, under whatever name
    assert mine["id"] != theirs["id"]
    assert ask(one, "POST", f"friends/{theirs['id']}/remove").status_code == 404
    assert ask(one, "POST", f"friends/{mine['id']}/remove").status_code == 200
    assert ask(other, "GET", "friends").json["items"] == []


def test_who_leaves_takes_name_codes_and_friendships_along(crowd, ask):
    one, other = crowd.settle_in(2, NORTH)
    for at, who in enumerate((one, other)):
        crowd.join(who, f"友{at}")
    make_friends(ask, one, other)
    code = ask(one, "POST", "friend-codes").json["code"]
    assert ask(one, "POST", "ranking/leave").json == {"joined": False, "nickname": None}
    assert ask(other, "GET", "friends").json["items"] == []
    assert ask(other, "POST", "friends", {"code": code}).json["code"] == "FRIEND_CODE_UNKNOWN"
    with crowd.city.engine.connect() as tx:
        left = tx.execute(text("SELECT count(*) FROM rankings WHERE resident = :id"),
                          {"id": bytes.fromhex(one)}).scalar_one()  # fmt: skip
    assert left == 0


def test_a_nickname_is_sealed_and_can_be_changed(crowd, ask):
    (one,) = crowd.settle_in(1, NORTH)
    name = f"秘{token_hex(2)}"
    assert ask(one, "PUT", "ranking", {"nickname": "first"}).json["nickname"] == "first"
    assert ask(one, "PUT", "ranking", {"nickname": name}).json["nickname"] == name
    assert ask(one, "GET", "ranking").json["mine"]["nickname"] == name
    refused = ask(one, "PUT", "ranking", {"nickname": "碳普惠官方"})
    assert (refused.status_code, refused.json["code"]) == (422, "NICKNAME_REFUSED")
    with crowd.city.engine.connect() as tx:
        (kept,) = tx.execute(text("SELECT nickname FROM rankings")).scalars()
    assert name.encode() not in kept


@given(st.lists(st.integers(0, 6), max_size=30))
def test_competition_ranks_are_one_more_than_those_with_more(amounts):
    amounts.sort(reverse=True)
    assert competition(amounts) == [1 + sum(o > one for o in amounts) for one in amounts]
