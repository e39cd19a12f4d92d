"""Editions that come in files: first ones on any day, later ones under the notice, none edited."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pytest
from sqlalchemy import text

from app.config import ConfigError, read_config
from app.flows.publish import NoticeError, PublishedVersionChangedError, check_notice, publish
from scenarios import Fault, Version, load

BIKE = "travel.bike_shared"


def another(version, **changes):
    """An edition as it is, but for these fields."""
    return Version.parse({**json.loads(version.canonical()), **changes})


@pytest.fixture
def files():
    """The files with one more edition of the shared bike: files("2026-12-01")."""

    def make(first, **changes):
        held = load()
        second = another(held.versions(BIKE)[0], number=2, effective_from=first, **changes)
        return held.amended([second])

    return make


class _Loose:
    """Editions that nobody has held against each other."""

    def __init__(self, versions):
        self._versions = versions

    @property
    def scenarios(self):
        return sorted({one.scenario for one in self._versions})

    def versions(self, scenario):
        return [one for one in self._versions if one.scenario == scenario]


def count(city):
    with city.engine.connect() as tx:
        return tx.execute(text("SELECT count(*) FROM scenario_versions")).scalar_one()


@pytest.mark.parametrize(
    ("first", "notice_days", "code"),
    [
        ("2026-11-21", 0, "EFFECT_IN_PAST"),
        ("2026-11-22", 0, "EFFECT_IN_PAST"),
        ("2026-11-23", 0, None),
        ("2026-11-29", 7, "NOTICE_TOO_SHORT"),
        ("2026-11-30", 7, None),
        ("2027-11-22", 365, "NOTICE_TOO_SHORT"),
    ],
)
def test_a_later_edition_obeys_the_notice(city, files, first, notice_days, code):
    before = count(city)
    parts = (city.engine, city.vault, files(first), city.clock(), notice_days)
    if code is None:
        assert publish(*parts) == 1
        assert publish(*parts) == 0  # again, also when its first day has come
        city.clock.move(days=400)
        assert publish(*parts[:3], city.clock(), notice_days) == 0
    else:
        with pytest.raises(NoticeError) as refused:
            publish(*parts)
        assert refused.value.code == code
        earliest = date(2026, 11, 22) + timedelta(days=notice_days + 1)
        assert str(earliest) in str(refused.value)
        assert count(city) == before


def test_today_is_the_citys_today(city):
    almost = city.clock().replace(hour=15, minute=59)  # 23:59 in Asia/Shanghai
    check_notice(date(2026, 11, 23), almost, 0)
    with pytest.raises(NoticeError):
        check_notice(date(2026, 11, 23), almost + timedelta(minutes=1), 0)


def test_what_was_published_is_not_published_with_other_words(city, files):
    title = {"zh": "骑车", "en": "Cycling"}
    publish(city.engine, city.vault, files("2026-12-01"), city.clock())
    edited = files("2026-12-01", title=title)
    with pytest.raises(PublishedVersionChangedError, match=f"{BIKE} version 2"):
        publish(city.engine, city.vault, edited, city.clock())


def test_files_that_do_not_fit_what_is_published_publish_nothing(city, files):
    publish(city.engine, city.vault, files("2026-12-20"), city.clock())
    held = load()
    late, early = files("2026-12-20"), "2026-12-10"
    third = another(late.versions(BIKE)[1], number=3, effective_from=early)
    missing = [one for name in held.scenarios for one in held.versions(name)]
    before = count(city)
    with pytest.raises(Fault) as refused:
        publish(city.engine, city.vault, _Loose([*missing, third]), city.clock())
    assert refused.value.code == "EFFECT_OVERLAPS"
    assert count(city) == before


def test_two_who_publish_at_once_publish_each_edition_once(city, files):
    catalogue = files("2026-12-01")

    def run(_):
        return publish(city.engine, city.vault, catalogue, city.clock())

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(run, range(4))) == [0, 0, 0, 1]


@pytest.mark.parametrize("given", ["-1", "366", "1.5", "", "07", "seven", "1" * 9, "٣"])
def test_a_notice_that_is_no_number_of_days_is_refused(given):
    with pytest.raises(ConfigError, match="PUHUI_NOTICE_DAYS"):
        read_config({"PUHUI_NOTICE_DAYS": given})


def test_the_notice_is_a_week_if_nothing_is_set():
    assert read_config({}).notice_days == 7
    assert read_config({"PUHUI_NOTICE_DAYS": "0"}).notice_days == 0
