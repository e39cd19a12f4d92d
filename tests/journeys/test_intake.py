"""Batches in processes of their own: killed in the middle of one, or left behind."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import httpx
import psutil
import psycopg
import pytest
from psycopg.errors import LockNotAvailable

from app.cli.local import started
from app.clock import utc_now
from app.intake import NICE

_PATIENCE_S = 20


@pytest.fixture(scope="module")
def bikes(still_town):
    return still_town.provider("killed-bikes")


@pytest.fixture(scope="module")
def rider(still_town, bikes):
    return still_town.resident(bikes, "rider")


@pytest.fixture
def held(still_town, eventually):
    """No batch gets beyond this table while this lasts; waits until one has come that far and gives
    the process of the database that is held up."""

    @contextmanager
    def held(table):
        url = still_town.config.owner_url.replace("+psycopg", "")
        with psycopg.connect(url) as owner:
            owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield lambda: eventually(lambda: _waiting(url, table))

    def _waiting(url, table):
        waiting = "SELECT pid FROM pg_locks WHERE relation = %s::regclass AND NOT granted"
        with psycopg.connect(url) as owner:
            found = owner.execute(waiting, (table,)).fetchall()
        return found[0][0] if len(found) == 1 else None

    return held


def ride(name):
    done = utc_now() - timedelta(days=1)
    return {
        "id": name,
        "subject": "rider",
        "scenario": "travel.bike_shared",
        "occurred_at": done.isoformat(timespec="seconds"),
        "quantities": {"distance_km": "1.5"},
    }


def intakes():
    """The processes that work on batches for the servers this one has started."""
    return started_as("intake.serve")


def started_as(part):
    """The processes that this one and its own have started, by a part of their command."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended, or has and nobody noticed yet
            found += [child] if part in " ".join(child.cmdline()) else []
    return found


def counted(town, status):
    line = (
        rf'puhui_requests_total\{{method="POST",route="/api/v1/batches",status="{status}"\}} (\d+)'
    )
    found = re.search(line, town.http.get("/metrics").text)
    return int(found[1]) if found else 0


def test_a_batch_is_worked_on_below_the_priority_of_reads_and_is_counted(still_town, bikes, rider):
    before = counted(still_town, 200)
    assert bikes.batch("first", ride("first")).status_code == 200
    (intake,) = intakes()
    assert intake.nice() == min(19, psutil.Process().nice() + NICE)
    assert counted(still_town, 200) == before + 1


def test_the_worker_leaves_the_first_core_to_those_who_wait(town, eventually):
    cores = sorted(os.sched_getaffinity(0))
    theirs = [cores[1:] or cores]
    eventually(lambda: [one.cpu_affinity() for one in started_as("app.cli worker")] == theirs)


def test_while_others_ask_a_batch_leaves_the_first_core_to_them(still_town, bikes, rider, held):
    cores = sorted(os.sched_getaffinity(0))
    rider.get("balances")
    with ThreadPoolExecutor(1) as pool, held("acts") as until_it_waits:
        sent = pool.submit(bikes.batch, "aside", ride("aside"))
        backend = psutil.Process(until_it_waits())
        (intake,) = intakes()
        assert intake.cpu_affinity() == backend.cpu_affinity() == (cores[1:] or cores)
    assert sent.result().status_code == 200


def test_meanwhile_the_database_works_for_the_others_where_the_batch_does_not(
    still_town, bikes, rider, held, eventually
):
    cores = sorted(os.sched_getaffinity(0))
    rider.get("balances")
    with ThreadPoolExecutor(1) as pool, held("acts") as until_it_waits:
        sent = pool.submit(bikes.batch, "beside", ride("beside"))
        batch = until_it_waits()

        def where():
            rider.get("balances")
            return [one.cpu_affinity() for one in backends(still_town) - {psutil.Process(batch)}]

        left = cores[:1] if len(cores) == 2 else cores
        eventually(lambda: left in where())
    assert sent.result().status_code == 200
    eventually(lambda: cores in where())


def backends(town):
    """The database's processes that work for the application."""
    with psycopg.connect(town.config.owner_url.replace("+psycopg", "")) as owner:
        found = owner.execute(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = 'puhui_app'"
        )
        return {psutil.Process(pid) for (pid,) in found}


def test_a_batch_whose_process_is_killed_counts_once_when_it_is_sent_again(
    still_town, bikes, rider, held
):
    bikes.batch("before", ride("before"))
    act, had = ride("killed"), rider.get("balances")["reduction_mg"]
    with ThreadPoolExecutor(1) as pool, held("acts") as until_it_waits:
        lost = pool.submit(bikes.batch, "killed", act)
        until_it_waits()
        assert rider.get("balances")["reduction_mg"] == had  # reads go on
        (intake,) = intakes()
        intake.kill()
        answer = lost.result()
    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) > 0
    again = bikes.batch("killed", act)
    assert again.json()["counts"]["accepted"] == 1
    assert bikes.batch("killed", act).content == again.content
    each = int(again.json()["outcomes"][0]["reduction_mg"])
    assert int(rider.get("balances")["reduction_mg"]) == int(had) + each


def test_who_is_in_a_batch_may_spend_while_it_lasts(still_town, bikes, rider, held):
    url = still_town.config.owner_url.replace("+psycopg", "")
    rider_id, headers = bytes.fromhex(rider.account), {"Authorization": f"Bearer {rider.token}"}
    with ThreadPoolExecutor(1) as pool, held("usage") as until_it_waits:
        sent = pool.submit(bikes.batch, "spent", ride("spent"))
        until_it_waits()
        assert (
            still_town.http.post("/api/v1/me/pay-code", json={}, headers=headers).status_code == 200
        )
        with psycopg.connect(url) as owner, pytest.raises(LockNotAvailable):
            owner.execute("SELECT FROM residents WHERE id = %s FOR UPDATE NOWAIT", (rider_id,))
    assert sent.result().status_code == 200


def test_it_does_not_outlive_its_web_process_even_in_the_middle_of_a_batch(
    still_town, bikes, rider, held
):
    others = intakes()
    with (
        started(still_town.config, worker=False) as host,
        httpx.Client(base_url=host.url, timeout=30, trust_env=False) as http,
        ThreadPoolExecutor(1) as pool,
        held("acts") as until_it_waits,
    ):
        lost = pool.submit(replace(bikes, http=http).batch, "left", ride("left"))
        until_it_waits()
        (intake,) = (one for one in intakes() if one not in others)
        os.kill(intake.ppid(), signal.SIGKILL)
        intake.wait(_PATIENCE_S)
        assert isinstance(lost.exception(), httpx.TransportError)
