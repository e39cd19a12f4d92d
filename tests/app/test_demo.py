"""The sample city: the same for the same seed, all seven areas, and honest about bad reports."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta

import orjson
import pytest

from app.cli.populate import reports
from app.cli.sample_city import PROVIDERS, SampleCity
from scenarios import Rejected, load, read

DAYS = [date(2026, 10, 1) + timedelta(days=n) for n in range(30)]
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def city() -> SampleCity:
    return SampleCity(7, 300, load())


@pytest.fixture(scope="module")
def month(city):
    """Every activity of the month, as (provider, activity)."""
    crowd = city.people()
    return [
        (provider, activity)
        for day in DAYS
        for provider, activities in city.day(crowd, day).items()
        for activity in activities
    ]


def test_the_same_seed_tells_the_same_story_byte_for_byte(city):
    again = SampleCity(city.seed, city.size, load())
    first, second = (
        [(one.provider, one.body) for one in reports(it, it.people(), DAYS[:3])]
        for it in (city, again)
    )
    assert first == second
    other = SampleCity(city.seed + 1, city.size, load())
    assert {one.body for one in reports(other, other.people(), DAYS[:3])}.isdisjoint(
        body for _, body in first
    )


def test_a_later_day_or_another_resident_changes_nothing_that_was_reported(city):
    bodies = [one.body for one in reports(city, city.people(), DAYS[:2])]
    assert [one.body for one in reports(city, city.people(), DAYS[:3])][: len(bodies)] == bodies
    larger = SampleCity(city.seed, city.size + 20, city.catalogue)
    crowd = larger.people()
    assert crowd[: city.size] == city.people()
    reported = larger.day(crowd, DAYS[0])
    for provider, activities in city.day(city.people(), DAYS[0]).items():
        assert all(activity in reported[provider] for activity in activities)


def test_batches_are_within_the_limit_and_named_after_their_content(city):
    seen = {}
    for one in reports(city, city.people(), DAYS[:5]):
        document = orjson.loads(one.body)
        assert 1 <= len(document["activities"]) <= 5000
        assert document["activities"] == list(one.activities)
        assert seen.setdefault((one.provider, document["batch_id"]), one.body) == one.body


def test_everybody_who_reports_is_a_provider_and_every_enabled_behaviour_occurs(city, month):
    assert {provider for provider, _ in month} == PROVIDERS.keys()
    enabled = {
        name for name in city.catalogue.scenarios if city.catalogue.versions(name)[-1].enabled
    }
    assert {activity["scenario"] for _, activity in month} == enabled


def test_a_behaviour_is_always_reported_by_the_same_provider_or_twice(month):
    told = defaultdict(set)
    for provider, activity in month:
        told[activity["id"]].add((provider, activity["scenario"]))
    alone = {pair for pairs in told.values() if len(pairs) == 1 for pair in pairs}
    assert len(alone) == len({scenario for _, scenario in alone})
    twice = [pairs for pairs in told.values() if len(pairs) > 1]
    assert 0 < len(twice) < len(month) / 50
    for (one, scenario), (other, same) in map(sorted, twice):  # what a second app reports too
        assert scenario == same
        assert "platform" in (one, other)
        assert alone & {(one, scenario), (other, scenario)}


def test_nearly_all_reports_pass_the_rules_and_the_rest_fails_for_the_reasons_meant(city, month):
    codes: Counter[str] = Counter()
    for _, activity in month:
        try:
            read(
                city.catalogue,
                activity["scenario"],
                activity["occurred_at"],
                activity["quantities"],
                NOW,
            )
        except Rejected as error:
            codes[error.code] += 1
    assert codes.keys() == {
        "IN_FUTURE", "QUANTITY_TOO_LARGE", "NOT_ELIGIBLE", "QUANTITY_MALFORMED",
    }  # fmt: skip
    assert 0 < codes.total() < len(month) / 50


def test_an_id_comes_twice_only_with_the_same_content_and_now_and_then_it_does(month):
    first: dict[tuple[str, str], dict[str, object]] = {}
    for provider, activity in month:
        assert first.setdefault((provider, activity["id"]), activity) == activity
    assert 0 < len(month) - len(first) < len(month) / 50


def test_some_subjects_are_visitors_whom_nobody_knows(city, month):
    known = {
        city.subject(provider, person.number) for person in city.people() for provider in PROVIDERS
    }
    visits = sum(activity["subject"] not in known for _, activity in month)
    assert 0 < visits < len(month) / 50


def test_a_tenth_of_the_people_do_more_than_a_quarter_of_it(month):
    people = Counter(activity["id"].split("-")[1] for _, activity in month)
    most = sorted(people.values(), reverse=True)
    assert sum(most[:30]) > len(month) / 4
