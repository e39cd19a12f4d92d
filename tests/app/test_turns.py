"""Batches of several web processes beside each other, and beside whoever else asks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest

from app import turns
from app.config import ConfigError
from app.turns import Turns

HOLD = """
import sys, time
from pathlib import Path
from app.turns import Turns
with Turns(Path(sys.argv[1]), 1).taken():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def host(tmp_path):
    """The folder of a host on which nobody has asked for a while."""
    folder = tmp_path / "turns"
    Turns(folder)
    os.utime(folder / "asked", (0, 0))
    return folder


@pytest.fixture
def made(host):
    """A web process's turns; time is when somebody last asked."""

    def make(most=1):
        asked = (host / "asked").stat().st_mtime
        one = Turns(host, most)
        os.utime(host / "asked", (asked, asked))
        return one

    return make


def test_all_work_at_once_and_everywhere_while_nobody_else_asks(made):
    with made().taken() as one, made().taken() as two, made().taken() as three:
        assert one == two == three == os.sched_getaffinity(0)


def test_while_somebody_asks_as_many_work_as_leave_a_core_and_the_next_waits(made):
    let_go, began = Event(), []

    def work(one, n):
        with one.taken():
            began.append(n)
            let_go.wait()

    asked = made(2)
    asked.note()
    with ThreadPoolExecutor(3) as pool, ExitStack() as end:
        end.callback(let_go.set)
        done = [pool.submit(work, made(2), n) for n in range(3)]
        while len(began) < 2:
            time.sleep(0.01)
        time.sleep(5 * turns._PAUSE_S)
        assert len(began) == 2
        let_go.set()
        for one in done:
            one.result()
    assert sorted(began) == [0, 1, 2]


def test_while_somebody_asks_the_first_core_is_theirs_if_it_is_not_the_only_one(made):
    all_cores = os.sched_getaffinity(0)
    asked = made()
    asked.note()
    with asked.taken() as cores:
        assert cores == (all_cores - {min(all_cores)} or all_cores)
    os.sched_setaffinity(0, {max(all_cores)})
    try:
        with made().taken() as cores:
            assert cores == {max(all_cores)}
    finally:
        os.sched_setaffinity(0, all_cores)


@pytest.mark.parametrize(("cores", "others"), [({3, 5}, {3}), ({3}, {3}), ({3, 5, 7}, {3, 5, 7})])
def test_of_a_pair_of_cores_the_database_has_the_one_that_a_batch_leaves(
    made, monkeypatch, cores, others
):
    monkeypatch.setattr(turns, "ours", lambda: frozenset(cores))
    monkeypatch.setattr(turns, "but_one", lambda: frozenset(sorted(cores)[1:] or cores))
    monkeypatch.setattr(turns, "_NOTE_S", 0)
    one, other = made(), made()
    one.note()
    assert one.left() == cores
    with other.taken():
        one.note()
        assert one.left() == others
    one.note()
    assert one.left() == cores


def test_who_waits_goes_on_when_nobody_has_asked_for_a_while(made, monkeypatch):
    monkeypatch.setattr(turns, "CALM_S", 0.2)
    made().note()
    with made().taken(), made().taken():
        pass


def test_the_place_of_a_process_that_was_killed_is_free(host, made):
    held = subprocess.Popen([sys.executable, "-c", HOLD, str(host)], stdout=subprocess.PIPE)
    try:
        assert held.stdout.readline() == b"held\n"
        made().note()
        with ThreadPoolExecutor(1) as pool:
            waits = pool.submit(made().taken().__enter__)
            time.sleep(5 * turns._PAUSE_S)
            assert not waits.done()
            held.kill()
            waits.result()
    finally:
        held.kill()
        held.wait()
        held.stdout.close()


def test_a_folder_that_cannot_be_written_to_is_named_at_the_start(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="PUHUI_DATA"):
        Turns(tmp_path / "file" / "turns")
