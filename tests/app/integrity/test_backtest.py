"""The rules in force against themselves are the ledger; other rules differ as they should."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from app.flows.backtest.run import Plan, backtest
from app.flows.budget import pay_waiting
from app.flows.correct import CorrectionError, UnknownActivityError, correct
from app.flows.enroll import enroll
from app.flows.erase import erase
from app.flows.expire import expire_points
from app.flows.publish import publish
from app.store import providers
from ledger.errors import Insufficient, Refused
from scenarios import Catalogue, Version

YEARS = 3651  # points are valid for ten years: those of the first days end inside the window
DISTRICTS = ("140403", "140404", "140425")
ACTS = (
    ("travel.bike_shared", {"distance_km": "2.5"}),
    ("travel.bike_shared", {"distance_km": "7", "duration_s": "1500"}),
    ("travel.bus_ride", {"count": "1"}),
    ("travel.bus_km", {"distance_km": "10"}),
    ("food.no_cutlery", {"count": "1"}),
    ("food.no_chopsticks", {"count": "1"}),
    ("housing.recycle_pet", {"mass_kg": "2"}),
    ("tourism.no_linen", {"nights": "3"}),
    ("banking.e_card", {"count": "1"}),
)

# What the ledger's own postings say, without any code of ours: acts that stand, by scenario and
# business day of crediting.
_POSTED = """
WITH e AS (SELECT arrival, encode(id, 'hex') AS id, convert_from(payload, 'UTF8')::jsonb AS p
    FROM entries WHERE kind IN ('issue', 'reverse')),
  acts AS (SELECT arrival, id, p->'detail'->'rule'->>0 AS scenario,
      to_char((p->>'at')::timestamptz AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM-DD') AS day,
      coalesce((p->'detail'->>'awaiting')::bigint, 0) AS awaiting,
      coalesce((p->'detail'->>'withheld')::bigint, 0) AS withheld
    FROM e WHERE p->'detail'->'rule' IS NOT NULL AND (p->>'at')::timestamptz >= :since),
  gains AS (SELECT arrival, coalesce(sum(amount) FILTER (WHERE asset = 1), 0) AS mg,
      coalesce(sum(amount) FILTER (WHERE asset = 2), 0) AS points
    FROM postings WHERE amount > 0 GROUP BY arrival)
SELECT scenario, day, count(*), sum(mg)::bigint, sum(points + awaiting)::bigint,
  sum(withheld)::bigint
FROM acts JOIN gains USING (arrival)
WHERE NOT EXISTS (SELECT FROM e WHERE e.p->'detail'->>'reverses' = acts.id)
GROUP BY 1, 2 ORDER BY 1, 2"""
_EXPIRED = """
SELECT coalesce(sum(p.amount), 0)::bigint FROM postings p JOIN entries e USING (arrival)
WHERE e.kind = 'expire' AND p.amount > 0
  AND (convert_from(e.payload, 'UTF8')::jsonb->>'at')::timestamptz >= :since"""
_WAITING = """
SELECT b.scope, coalesce(sum(w.points), 0)::bigint FROM budgets b
LEFT JOIN waiting w ON w.budget = b.token GROUP BY 1 ORDER BY 1"""


class Story:
    """A town's life by a seed: caps are hit, groups exclude, budgets run dry and are funded."""

    def __init__(self, town, seed):
        self.town, self.dice = town, random.Random(seed)
        self.acts, self.holds, self.redeemed, self.numbers = [], [], [], count()
        town.budget("travel")
        town.allow(10**9)
        self.people = self.join(*(f"rider-{n}" for n in range(9)))
        self.refused = self.corrected = 0

    def join(self, *subjects):
        people = []
        for n, subject in enumerate(subjects):
            parts = (*self.town.parts, "bikes", [subject], DISTRICTS[n % 3])
            people += enroll(*parts, self.town.clock()).values()
        return people

    def days(self, n, funded=()):
        for day in range(n):
            for _ in range(2):
                self.town.clock.move(hours=11, minutes=self.dice.randrange(60))
                self.report()
                self.some_verbs()
            if day in funded:
                self.town.fund("travel", self.dice.choice((900, 5000)), f"no. {next(self.numbers)}")
            if self.dice.random() < 0.6:
                pay_waiting(*self.town.parts, self.town.clock())
            expire_points(self.town.engine, self.town.vault, self.town.clock())

    def report(self):
        made = []
        for _ in range(self.dice.randrange(4, 14)):
            scenario, quantities = self.dice.choice(ACTS)
            late = timedelta(hours=self.dice.choice((1, 2, 3, 5, 30, 400)))
            made.append(
                {
                    "id": f"act-{next(self.numbers)}",
                    "subject": f"rider-{min(self.dice.randrange(11), self.dice.randrange(11))}",
                    "scenario": scenario,
                    "occurred_at": (self.town.clock() - late).isoformat(timespec="seconds"),
                    "quantities": quantities,
                }
            )
        outcomes = self.town.send(f"b{next(self.numbers)}", *made)
        self.acts += made
        self.refused += sum(one["outcome"] == "rejected" for one in outcomes)

    def some_verbs(self):
        dice, town = self.dice, self.town
        for verb in dice.sample((self.correct, self.hold, self.resolve, self.refund), 2):
            town.clock.move(seconds=dice.randrange(1, 90))
            try:
                verb()
            except (CorrectionError, UnknownActivityError, Insufficient, Refused):
                self.refused += 1

    def correct(self):
        act = self.dice.choice(self.acts[-40:])
        other = None
        if self.dice.random() < 0.5 and act["scenario"] == "travel.bike_shared":
            other = {**act, "quantities": {"distance_km": self.dice.choice(("1", "9.5"))}}
        parts = (*self.town.parts, "bikes", act["id"], other)
        outcome = correct(*parts, self.town.clock())
        self.corrected += "entry_id" in outcome

    def hold(self):
        """Some of a person's points, or all: what is reversed after that is owed."""
        who, request = self.dice.choice(self.people), str(next(self.numbers))
        points = self.dice.choice((40, 700, self.town.points(who) or 1))
        if self.dice.random() < 0.7:
            self.holds.append(self.town.till().hold(who, points, request).id)
        else:
            self.redeemed.append(self.town.till().charge(who, points, request).id)

    def resolve(self):
        if self.holds:
            held = self.holds.pop(self.dice.randrange(len(self.holds)))
            if self.dice.random() < 0.3:
                self.town.till().release(held)
            else:
                self.redeemed.append(self.town.till().redeem(held).id)

    def refund(self):
        if self.redeemed:
            sold = self.dice.choice(self.redeemed)
            self.town.till().refund(sold, 30, str(next(self.numbers)))

    def overspend(self):
        """Somebody spends all, and then it turns out that not all of it was earned."""
        who = self.people[0]
        with suppress(Insufficient):
            self.town.till().hold(who, max(1, self.town.points(who)), "all of it")
        for act in [one for one in self.acts if one["subject"] == "rider-0"][-12:]:
            with suppress(UnknownActivityError):
                correct(*self.town.parts, "bikes", act["id"], None, self.town.clock())

    def erase(self, number):
        while True:
            try:
                erase(self.town.engine, self.town.vault, self.people[number], self.town.clock())
                return
            except Refused:
                self.resolve()

    def quiet_days(self, n, funded=()):
        """Days on which nothing depends on how many points somebody has."""
        for day in range(n):
            self.town.clock.move(hours=24)
            self.report()
            with suppress(CorrectionError, UnknownActivityError):
                self.correct()
            if day in funded:
                self.town.fund("travel", 1500, f"no. {day}")
            pay_waiting(*self.town.parts, self.town.clock())
            expire_points(self.town.engine, self.town.vault, self.town.clock())

    def has_everything(self):
        """So that what is tested on it means something."""
        value = self.town.value
        kinds = dict(self.town.rows("SELECT kind, count(*) FROM entries GROUP BY kind"))
        assert {"reverse", "hold", "release", "redeem", "refund", "expire"} <= kinds.keys()
        for sign in ('"settles"', '"withheld"', '"awaiting"', '"debt:%-', "subject.erased"):
            query = "SELECT count(*) FROM entries WHERE convert_from(payload, 'UTF8') LIKE :sign"
            assert value(query, sign=f"%{sign}%") > 0, sign
        assert value("SELECT count(*) FROM rejections WHERE code = 'EXCLUDED_BY_GROUP'") > 0
        assert value("SELECT count(*) FROM waiting") > 0
        assert self.corrected > 3


@pytest.fixture(params=[1, 2])
def story(town, request):
    told = Story(town, request.param)
    town.fund("travel", 3000, "the first money")
    told.days(6)
    told.people += told.join("rider-9")  # what waited for the binding is credited now
    town.clock.move(days=YEARS - 20)
    told.days(12, funded=(3, 4, 11))
    told.overspend()
    told.days(8)
    told.erase(4)
    told.days(10, funded=(2,))
    told.people += told.join("rider-10")
    told.days(3)
    return told


def run(town, days, *editions, processes=1):
    plan = Plan(editions, days, town.clock(), processes)
    seen = []
    result = backtest(town.engine, town.vault, plan, lambda *at: seen.append(at))
    assert seen[-1][0] == seen[-1][1]
    return json.loads(json.dumps(result))


def drawn(town, scenario, **changes):
    """The edition in force with something changed, as an edition to come."""
    with town.engine.connect() as tx:
        now = town.registry.current(tx).versions(scenario)[-1]
    table = json.loads(now.canonical()) | {"number": now.number + 1, "effective_from": "2037-01-01"}
    for field, value in changes.items():
        if value is None:
            table.pop(field, None)
        else:
            table[field] = value
    return Version.parse(table)


def no_drift(result):
    return result["drift"] == {"acts": 0, "examples": [], "budgets": []}


def test_the_rules_in_force_against_themselves_are_the_ledger(story, monkeypatch):
    story.has_everything()
    for days in (0, 9, 25, 40):
        result = run(story.town, days)
        assert no_drift(result), result["drift"]
        since = f"{result['window']['from']}T00:00:00+08:00"
        posted = story.town.rows(_POSTED, since=since)
        for place, name in ((0, "scenario"), (1, "day")):
            sums = defaultdict(Counter)
            for row in posted:
                sums[row[place]].update(dict(enumerate(row[2:])))
            told = {one[name]: amounts(one["in_force"]) for one in result[f"{name}s"]}
            assert told == {key: tuple(own[n] for n in range(4)) for key, own in sums.items()}
        expired = story.town.value(_EXPIRED, since=since)
        assert result["expiry"]["expired"]["in_force_points"] == str(expired)
        ending = sum(int(one["in_force_points"]) for one in result["expiry"]["years"])
        assert ending == int(result["total"]["in_force"]["points"])
        for one in [result["total"], *result["scenarios"], *result["days"], *result["districts"]]:
            assert one["in_force"] == one["draft"]
    pay_waiting(*story.town.parts, story.town.clock())
    result = run(story.town, 25)
    told = {one["scope"]: int(one["in_force"]["waiting_points"]) for one in result["budgets"]}
    assert told == dict(story.town.rows(_WAITING))
    editions = [drawn(story.town, scenario) for scenario in dict(ACTS)]
    assert run(story.town, 25, *editions) == result  # a draft that changes nothing
    monkeypatch.setattr("app.flows.backtest.run._SLICE", 100)  # many slices, their files merged
    assert run(story.town, 25, processes=2) == result


def amounts(side):
    return (
        side["acts"],
        int(side["reduction_mg"]),
        int(side["points"]),
        int(side["withheld_points"]),
    )


def column(result, side):
    told = {
        name: [{**one, "in_force": None, "draft": one[side]} for one in result[name]]
        for name in ("scenarios", "districts", "days", "budgets")
    }
    expiry = result["expiry"]
    told["ending"] = {one["year"]: one[f"{side}_points"] for one in expiry["years"]}
    told["ending"] = {year: points for year, points in told["ending"].items() if points != "0"}
    told["expired"] = expiry["expired"][f"{side}_points"]
    told["capped"] = {one["scenario"]: one[side] for one in result["capped"] if one[side]}
    return told


@pytest.fixture
def other_town(database, open_town, empty, tmp_path):
    """A town like the first, in which nothing is published yet."""
    (tmp_path / "other").mkdir()
    with database(tmp_path / "other") as config:
        clock = type(empty.clock)(empty.clock.now)
        made = replace(open_town(config), clock=clock, registry=type(empty.registry)())
        yield made
        made.engine.dispose()


@pytest.mark.parametrize("short", [False, True])
def test_what_a_draft_would_have_come_to_is_what_comes_of_it_where_it_is_in_force(
    town, other_town, short
):
    """The same story in two towns: one has other rules from the start, one only backtests them."""
    other = {name: other_rules(version) for name, version in latest(town).items()}
    publish(other_town.engine, other_town.vault, Catalogue(other.values()), other_town.clock())
    other_town.fund("*", 10_000_000, "decision 1")
    with other_town.engine.begin() as tx:
        providers.add(tx, "bikes", "Bikes", other_town.clock())
    for one in (town, other_town):
        told = Story(one, seed=3)
        one.fund("travel", 1 if short else 10_000_000, "the first money")
        told.quiet_days(45, funded=(0, 3, 20, 21))
    would, did = run(town, 60, *other.values()), run(other_town, 60)
    assert no_drift(would)
    assert no_drift(did)
    said, came = column(would, "draft"), column(did, "in_force")
    assert int(said["expired"]) > 0
    assert (int(would["budgets"][1]["draft"]["waiting_points"]) > 0) == short
    if short:  # who was paid when is taken from life: with less to pay, some were paid earlier
        said.pop("expired"), came.pop("expired")
    assert said == came
    assert said != column(would, "in_force")


def latest(town):
    with town.engine.connect() as tx:
        catalogue = town.registry.current(tx)
        return {name: catalogue.versions(name)[-1] for name in catalogue.scenarios}


def other_rules(version):
    """Fewer points for a kilogram, valid for a month; other caps; a shadow rule."""
    table = json.loads(version.canonical())
    table["rate"] |= {"points_per_kg": 700, "validity_months": 1}
    if version.scenario == "travel.bike_shared":
        table["caps"] = [cap("day", "count", 1), cap("month", "points", 4000)]
    if version.scenario == "housing.recycle_pet":
        table["caps"] = [cap("month", "grams", 2000)]
    if version.scenario == "banking.e_card":
        table["caps"] = []
    return Version.parse(table)


def cap(per, of, limit):
    return {"per": per, "of": of, "limit": limit, "source": "ours", "url": "", "tag": "rec"}


def test_a_new_cap_by_the_month_counts_what_came_before_the_window(town):
    town.enroll("rider-0")
    for day in range(6):
        at = f"2026-11-{22 + day}T08:00:00+08:00"
        act = {"scenario": "travel.bus_km", "quantities": {"distance_km": "10"}}
        town.send(f"b{day}", town.ride(day, **act, occurred_at=at))
        town.clock.move(days=1)
    correct(*town.parts, "bikes", "ride-0", None, town.clock())
    draft = drawn(town, "travel.bus_km", caps=[cap("month", "count", 4)])
    (bus,) = run(town, 3, draft)["scenarios"]
    assert (bus["in_force"]["acts"], bus["draft"]["acts"]) == (3, 3)
    assert int(bus["in_force"]["points"]) == 3 * int(bus["draft"]["points"]) > 0


def test_what_a_draft_refuses_is_told_by_scenario_and_code(town):
    town.enroll("rider-0")
    acts = [town.ride(n, occurred_at=f"2026-11-22T0{n}:00:00+08:00") for n in range(4)]
    bus = {"scenario": "travel.bus_ride", "quantities": {"count": "1"}}
    town.send("b1", *acts, town.ride(9, **bus))
    rule = {"name": "acts_a_day", "kind": "count", "per": "day", "maximum": "3", "basis": "ours"}
    speed = {"name": "given", "kind": "given", "of": "duration_s", "basis": "ours"}
    bike = drawn(
        town, "travel.bike_shared", rules=[rule | {"mode": "refuse"}, speed | {"mode": "shadow"}]
    )
    off = drawn(town, "travel.bus_ride", disabled={"zh": "停", "en": "off"})
    result = run(town, 1, bike, off)
    assert no_drift(result)
    assert result["refused"] == [
        {"scenario": "travel.bike_shared", "code": "TOO_MANY_ACTS", "acts": 1},
        {"scenario": "travel.bus_ride", "code": "SCENARIO_DISABLED", "acts": 1},
    ]
    shadow = {(one["scenario"], one["rule"]): one["draft"] for one in result["shadow"]}
    assert shadow["travel.bike_shared", "given"] == 3


def test_a_counter_that_is_wrong_is_told_as_drift(town):
    """The rules in force are held against the ledger whatever else is asked."""
    town.enroll("rider-0")
    town.send("b1", *(town.ride(n, occurred_at=f"2026-11-22T0{n}:00:00Z") for n in range(3)))
    with town.admin() as admin:
        admin.execute("UPDATE usage SET count = count + 1")
    drift = run(town, 1)["drift"]
    assert drift["acts"] == 1
    (example,) = drift["examples"]
    assert "625 points, 0 withheld" in example["recorded"]
    assert "0 points, 625 withheld" in example["replayed"]


def test_residents_are_ranked_by_what_they_have_and_equals_are_not_parted(town):
    for n in range(20):
        enroll(*town.parts, "bikes", [f"rider-{n}"], "140403", town.clock())
        kilometres = str(1 + n // 4)
        town.send(f"b{n}", town.ride(n, f"rider-{n}", quantities={"distance_km": kilometres}))
    few = drawn(town, "travel.bike_shared", caps=[cap("day", "points", 600)])
    deciles = run(town, 1, few)["deciles"]
    assert [one["residents"] for one in deciles] == [4, 0, 4, 0, 4, 0, 4, 0, 4, 0]
    assert [one["worse"] for one in deciles] == [0, 0, 0, 0, 4, 0, 4, 0, 4, 0]
    assert [one["mean_change_points"] for one in deciles[::2]] == [
        "0.0",
        "0.0",
        "-150.0",
        "-400.0",
        "-650.0",
    ]
