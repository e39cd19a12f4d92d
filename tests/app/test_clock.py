"""A sandbox's time: moved by one file for all processes, forward only, and never in production."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from app.application import create_app
from app.cli.clock import clock_group
from app.clock import FILE, city_clock, utc_now
from app.config import ConfigError, Mode
from app.flows.budget import fund_budget

SOON = timedelta(seconds=30)


@pytest.fixture
def config(config, tmp_path):
    """Settings with a data folder of their own: the run's is everybody's."""
    return replace(config, data_dir=tmp_path)


@pytest.fixture
def run(config, monkeypatch):
    """Say `puhui clock ...`; the words and the exit code."""
    monkeypatch.setattr("app.cli.clock.local_config", lambda config: config)

    def said(*words):
        return CliRunner().invoke(clock_group, words, obj=config)

    return said


def ahead(clock) -> timedelta:
    return clock() - utc_now()


def test_every_process_sees_the_move_at_once(config, run):
    one, other = city_clock(config), city_clock(config)
    assert abs(ahead(one)) < SOON
    assert run("advance", "2d").exit_code == 0
    for clock in (one, other):
        assert abs(ahead(clock) - timedelta(days=2)) < SOON
    assert run("advance", "90s").exit_code == 0
    assert run("advance", "3h").exit_code == 0
    both = timedelta(days=2, hours=3, seconds=90)
    assert abs(ahead(one) - both) < SOON
    (config.data_dir / FILE).unlink()
    assert abs(ahead(one)) < SOON


def test_the_application_goes_by_it(config, run, city):
    with create_app(config).test_client() as client:
        run("advance", "1d")
        said = client.get("/api/v1/time").get_json()
    assert abs(int(said["timestamp"]) - (utc_now() + timedelta(days=1)).timestamp()) < 30
    assert int(datetime.fromisoformat(said["now"]).timestamp()) == int(said["timestamp"])


def test_time_is_set_forward_and_never_back(config, run):
    then = (utc_now() + timedelta(days=40)).replace(microsecond=0)
    assert run("set", then.isoformat()).exit_code == 0
    assert timedelta() <= city_clock(config)() - then < SOON
    back = run("set", (then - timedelta(days=1)).isoformat())
    assert back.exit_code
    assert "only goes forward" in back.output
    assert city_clock(config)() >= then
    for malformed in ("2026-12-01T00:00:00", "tomorrow", "2026-12-01"):
        assert run("set", malformed).exit_code == 2
    for malformed in ("2", "d", "-1d", "0d", "1.5d", "1y"):
        assert run("advance", malformed).exit_code == 2


def test_reset_goes_back_as_long_as_no_entry_lies_later(config, run, city):
    run("advance", "5d")
    assert run("reset").exit_code == 0
    assert abs(ahead(city_clock(config))) < SOON
    run("advance", "5d")
    fund_budget(city.engine, city.vault, "*", 1, "decision 2", city_clock(config)())
    refused = run("reset")
    assert refused.exit_code
    assert "fresh demo" in refused.output
    assert ahead(city_clock(config)) > timedelta(days=4)


def test_production_knows_only_the_machines_time(config):
    real = replace(config, mode=Mode.PRODUCTION)
    (config.data_dir / FILE).write_text("86400\n")
    assert city_clock(real) is utc_now
    for words in (["advance", "1d"], ["show"], ["reset"], ["set", "2099-01-01T00:00:00Z"]):
        answer = CliRunner().invoke(clock_group, words, obj=real)
        assert isinstance(answer.exception, ConfigError)


def test_show_says_the_time_of_the_city(run):
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+08:00  \(not ahead", run("show").output)
    run("advance", "2d")
    assert "(2 days, 0:00:00 ahead of the machine)" in run("show").output


def test_the_machines_time_has_a_zone():
    assert utc_now().tzinfo is UTC
