"""Backtests over HTTP and the command line: asked for, run elsewhere, kept with the draft."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from sqlalchemy import text

from app.api.backtests import BacktestResultSchema, BacktestSchema, BacktestsSchema
from app.cli.local import PROJECT, environment
from app.cli.runner import Runner
from app.flows.backtest import queue
from app.store import backtests

BIKE = "travel.bike_shared"


@pytest.fixture
def editor(desk):
    return desk("editor", name="edith")


@pytest.fixture
def rides(provider, rider, ride):
    """Three rides of one day: the second is the last that earns points."""
    acts = [
        ride(n, occurred_at=f"2026-11-20T{8 + n:02d}:00:00+08:00", quantities={"distance_km": "4"})
        for n in range(3)
    ]
    answer = provider.batch("b1", *acts)
    assert answer.json["counts"]["accepted"] == 3


@pytest.fixture
def draft(editor):
    """A draft under which only the first ride of a day earns points; its id."""
    body = {"title": "骑行", "reason": "a trial", "effective_from": "2026-12-15"}
    made = editor.post("drafts", body | {"scenarios": [BIKE]}).json["id"]
    read = editor.get(f"drafts/{made}").json
    body |= {name: read[name] for name in ("rate", "editions")}
    cap = {"per": "day", "of": "count", "limit": 1, "source": "decision 7", "url": "", "tag": "rec"}
    body["editions"][0]["caps"] = [cap]
    assert editor.put(f"drafts/{made}", body, match='"1"').status_code == 200
    return made


def run(city, **more):
    return queue.run_next(city.engine, city.vault, city.clock, processes=1, **more)


def refused(answer, status, code):
    assert (answer.status_code, answer.json["code"]) == (status, code), answer.text


def test_a_draft_is_backtested_and_the_result_is_kept_with_it(city, editor, rides, draft):
    asked = editor.post(f"drafts/{draft}/backtest", {"days": 30})
    assert asked.status_code == 202, asked.text
    assert BacktestSchema().validate(asked.json) == {}
    assert (asked.json["state"], asked.json["revision"]) == ("queued", 2)
    refused(editor.post(f"drafts/{draft}/submit", match='"2"'), 409, "BACKTEST_MISSING")

    seen = []
    run(city, progress=lambda *at: seen.append(at))
    assert seen[-1] == (3, 3)
    read = editor.get(f"backtests/{asked.json['id']}").json
    assert BacktestResultSchema().validate(read) == {}
    assert (read["state"], read["done"], read["total"]) == ("done", 3, 3)
    (bike,) = read["result"]["scenarios"]
    assert bike["in_force"]["acts"] == bike["draft"]["acts"] == 3
    assert int(bike["in_force"]["points"]) == 2 * int(bike["draft"]["points"]) > 0
    assert bike["in_force"]["reduction_mg"] == bike["draft"]["reduction_mg"]
    assert read["result"]["drift"] == {"acts": 0, "examples": [], "budgets": []}
    assert [one["worse"] for one in read["result"]["deciles"] if one["residents"]] == [1]

    shown = editor.get(f"drafts/{draft}").json["backtest"]
    assert shown == {"id": read["id"], "state": "done"}
    page = editor.get(f"drafts/{draft}/backtests").json
    assert BacktestsSchema().validate(page) == {}
    assert [one["id"] for one in page["items"]] == [read["id"]]
    assert editor.post(f"drafts/{draft}/submit", match='"2"').status_code == 200


def test_the_rules_in_force_are_backtested_without_a_draft(city, editor, rides):
    asked = editor.post("backtests", {"days": 7}).json
    run(city)
    result = editor.get(f"backtests/{asked['id']}").json["result"]
    assert result["drift"] == {"acts": 0, "examples": [], "budgets": []}
    assert result["total"]["in_force"] == result["total"]["draft"]
    assert [one["id"] for one in editor.get("backtests").json["items"]] == [asked["id"]]


def test_what_was_asked_for_is_in_the_trail(city, editor, draft):
    asked = editor.post(f"drafts/{draft}/backtest", {"days": 30}).json
    with city.engine.connect() as tx:
        record = tx.execute(
            text("SELECT record FROM trail WHERE action = 'backtest.requested'")
        ).scalar_one()
    told = json.loads(record)
    assert (told["actor"], told["target"]) == ("edith", asked["id"])
    assert told["detail"] == {"draft": draft, "revision": 2, "days": 30}


def test_backtests_are_listed_page_by_page_the_latest_first(city, editor):
    made = []
    for _ in range(3):
        city.clock.move(seconds=1)
        made.append(editor.post("backtests", {"days": 1}).json["id"])
    first = editor.get("backtests", limit=2).json
    rest = editor.get("backtests", limit=2, cursor=first["next_cursor"]).json
    assert [one["id"] for one in first["items"] + rest["items"]] == made[::-1]
    assert rest["next_cursor"] is None
    refused(editor.get("backtests", cursor="bm9uZQ"), 422, "CURSOR_INVALID")


@pytest.mark.parametrize("days", [0, 367, "30", 1.5, None])
def test_days_are_a_whole_number_within_bounds(editor, days):
    refused(editor.post("backtests", {"days": days}), 422, "VALIDATION_FAILED")


@pytest.mark.parametrize("unknown", ["f" * 32, "x"])
def test_what_is_not_there_is_not_found(editor, unknown):
    refused(editor.post(f"drafts/{unknown}/backtest", {"days": 1}), 404, "NOT_FOUND")
    refused(editor.get(f"backtests/{unknown}"), 404, "NOT_FOUND")


def test_a_draft_that_was_put_away_is_not_backtested(editor, draft):
    assert editor.post(f"drafts/{draft}/discard", {"reason": "no"}, match='"2"').status_code == 200
    refused(editor.post(f"drafts/{draft}/backtest", {"days": 1}), 409, "DRAFT_STATE")


def test_a_backtest_of_an_older_revision_fails_in_words(city, editor, draft):
    asked = editor.post(f"drafts/{draft}/backtest", {"days": 1}).json["id"]
    value = editor.get(f"drafts/{draft}").json["editions"][0]["coefficients"][0]
    path = f"drafts/{draft}/coefficients/{BIKE}/{value['name']}"
    assert editor.put(path, {"value": value["value"]}, match='"2"').status_code == 200
    run(city)
    read = editor.get(f"backtests/{asked}").json
    assert (read["state"], read["result"]) == ("failed", None)
    assert read["problem"] == "the draft was changed since; backtest it again"


def test_what_fails_by_our_fault_says_so_and_the_next_one_runs(city, editor, rides):
    first = editor.post("backtests", {"days": 7}).json["id"]
    city.clock.move(seconds=1)
    second = editor.post("backtests", {"days": 7}).json["id"]

    def fails(_done, _total):
        raise ZeroDivisionError

    assert run(city, progress=fails).id == first
    assert run(city).id == second
    assert run(city) is None
    states = [editor.get(f"backtests/{one}").json["state"] for one in (first, second)]
    assert states == ["failed", "done"]


def test_what_never_finishes_is_given_up_after_a_day(city, editor):
    asked = editor.post("backtests", {"days": 7}).json["id"]
    city.clock.move(hours=25)
    assert run(city).id == asked
    with city.engine.connect() as tx:
        assert backtests.find(tx, asked).problem.startswith("it did not finish within a day")


def test_one_at_a_time(city, editor):
    editor.post("backtests", {"days": 7})
    with backtests.turn(city.engine) as mine:
        assert mine
        assert run(city) is None
    assert run(city).state == "done"


def test_a_killed_run_is_begun_again_by_the_workers_next_process(city, editor, rides):
    """The killed one held the turn and had taken the job; both are free at once."""
    asked = editor.post("backtests", {"days": 7}).json["id"]
    hold = (
        "import sys, time\n"
        "from sqlalchemy import create_engine\n"
        "from app.store import backtests\n"
        "from app.clock import utc_now\n"
        "engine = create_engine(sys.argv[1])\n"
        "with backtests.turn(engine) as mine, engine.begin() as tx:\n"
        "    backtests.take(tx, sys.argv[2], utc_now())\n"
        "    tx.commit()\n"
        "    print(mine, flush=True)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", hold, city.config.database_url, asked]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        assert editor.get(f"backtests/{asked}").json["state"] == "running"
        assert run(city) is None
        process.kill()
    deadline = time.monotonic() + 10
    while (done := run(city)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (done.id, done.state) == (asked, "done")


def test_the_worker_starts_a_process_for_the_queue_on_its_cores_and_only_then(city, editor):
    cores = {max(os.sched_getaffinity(0))}
    runner = Runner(city.config, city.engine, cores)
    runner()
    assert runner._child is None
    asked = editor.post("backtests", {"days": 7}).json["id"]
    with city.engine.begin() as tx:  # the other process has a clock of its own
        tx.execute(text("UPDATE backtests SET requested_at = now()"))
    runner()
    child = runner._child
    assert os.sched_getaffinity(child.pid) == cores
    runner()
    assert runner._child is child
    assert child.wait(60) == 0
    assert editor.get(f"backtests/{asked}").json["state"] == "done"


@pytest.fixture
def puhui(city):
    def call(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "backtest", *arguments],
            env=environment(city.config),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return call


def test_the_command_line_runs_one_and_shows_the_fairness_table(puhui, rides, draft):
    code, said, _ = puhui("run", draft, "--days", "366")
    assert code == 0, said
    assert "the rules in force give exactly what the ledger has" in said
    assert BIKE in said
    assert "per kg then" in said
    asked = said.split()[1]
    code, whole, _ = puhui("show", asked, "--json")
    assert json.loads(whole)["backtest"] == asked
    assert puhui("show", asked)[1] == said


def test_the_command_line_says_what_cannot_be_done(puhui):
    code, _, said = puhui("run", "f" * 32)
    assert (code, said.splitlines()[-1]) == (1, "puhui: there is no draft of this id")
    assert "32 lower-case hex digits" in puhui("show", "x")[2]
