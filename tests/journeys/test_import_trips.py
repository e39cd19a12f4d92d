"""An operator's ride file through the real command into the ledger, also when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from app.cli.local import environment, running

HEADER = "trip_id,rider_ref,started_at,ended_at,start_lat,start_lng,end_lat,end_lng,duration_s"
PROJECT = Path(__file__).resolve().parents[2]
REAL = Path(
    os.environ.get("PUHUI_TRIPS", PROJECT.parent / "shared" / "data" / "bike_trips_2018_01.csv")
)


def ride(number, **changes):
    row = {
        "trip_id": f"t-{number}",
        "rider_ref": f"r-{number % 7}",
        "started_at": f"2018-01-{1 + number % 28:02d} 08:00:00",
        "ended_at": f"2018-01-{1 + number % 28:02d} 08:10:00",
        "start_lat": "40.0",
        "start_lng": "-74.0",
        "end_lat": "40.01",
        "end_lng": "-74.0",
        "duration_s": "600",
    }
    return ",".join((row | changes).values())


@pytest.fixture
def own(config, tmp_path):
    """The settings of a database and a data folder of this test's own."""
    return replace(config, data_dir=tmp_path / "data")


@pytest.fixture
def rides(tmp_path):
    path = tmp_path / "rides.csv"

    def write(*rows):
        path.write_text("\n".join([HEADER, *rows, ""]))
        return path

    return write


def command(path, *options):
    zone = ("--timezone", "America/New_York", "--json")
    return [sys.executable, "-m", "app.cli", "import", "trips", str(path), *zone, *options]


def imported(own, path, *options):
    """The command's answer; it prints nothing else on standard output."""
    done = subprocess.run(
        command(path, *options),
        env=environment(own), cwd=PROJECT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    ended = answer["accepted"] + answer["duplicate"] + answer["unclaimed"]
    assert ended + sum(answer["rejected"].values()) == answer["rows"]
    return answer


def issued(own):
    engine = create_engine(own.database_url)
    with engine.connect() as tx:
        count = tx.execute(text("SELECT count(*) FROM openings")).scalar()
    engine.dispose()
    return count


@contextmanager
def between(url):
    """A server between command and service; calls `saw(n)` when the nth batch was answered by the
    service, before the command hears of it."""

    class Handler(BaseHTTPRequestHandler):
        count = 0
        saw = staticmethod(lambda _: None)

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = ("Authorization", "Content-Type")
            headers = {name: self.headers[name] for name in names}
            answer = httpx.post(url + self.path, content=body, headers=headers, trust_env=False)
            Handler.count += 1
            Handler.saw(Handler.count)
            try:
                self.send_response(answer.status_code)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)
            except OSError:  # nobody is there any more, as this test wants it
                self.close_connection = True

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_killed_import_goes_on_where_it_was_and_credits_nothing_twice(own, city, rides):
    path = rides(*map(ride, range(40)), ride(40, duration_s="nan"))
    options = ("--enroll", "--batch-size", "5")
    whole = {"rows": 41, "accepted": 40, "duplicate": 0, "unclaimed": 0}
    rejected = {"rejected": {"ROW_MALFORMED": 1}}
    with running(own, worker=False) as url, between(url) as (address, handler):
        started = subprocess.Popen(
            command(path, *options, "--url", address),
            env=environment(own), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        handler.saw = lambda n: started.send_signal(signal.SIGKILL) if n == 3 else None
        out, _ = started.communicate(timeout=60)
        assert started.returncode == -signal.SIGKILL
        assert out == b""
        assert issued(own) == 15

        assert imported(own, path, *options, "--url", address) == whole | rejected
        assert handler.count == 3 + 8
        assert issued(own) == 40

        again = imported(own, path, *options, "--url", address)
        assert again == whole | rejected | {"accepted": 0, "duplicate": 40}
        assert issued(own) == 40


def test_rides_wait_for_their_riders_and_bad_rows_stand_alone(own, empty, rides):
    path = rides(
        ride(1),
        ride(1),
        ride(2),
        ride(3, trip_id="bad id"),
        ride(4, rider_ref="x" * 200),
        ride(5, end_lat="40.0"),
        "a,b",
        ride(6, started_at="2118-01-01 08:00:00", ended_at="2118-01-01 08:10:00"),
        ride(7, started_at="2017-06-01 08:00:00", ended_at="2017-06-01 08:10:00"),
    )
    refused = {
        "ACTIVITY_ID_MALFORMED": 1,
        "BEFORE_SCENARIO": 1,
        "DISTANCE_TOO_SHORT": 1,
        "IN_FUTURE": 1,
        "ROW_MALFORMED": 1,
        "SUBJECT_MALFORMED": 1,
    }
    answer = {"rows": 9, "accepted": 0, "duplicate": 0, "unclaimed": 3, "rejected": refused}
    with running(own, worker=False) as url:
        assert imported(own, path, "--url", url) == answer
        assert imported(own, path, "--url", url) == answer
        assert issued(own) == 0
        enrolled = imported(own, path, "--url", url, "--enroll")
    assert enrolled == answer | {"duplicate": 3, "unclaimed": 0}  # credited when they were bound
    assert issued(own) == 2


@pytest.mark.skipif(not REAL.exists(), reason=f"no ride file at PUHUI_TRIPS or {REAL}")
def test_a_real_month_of_rides_adds_up_and_is_credited_once(own, empty):
    first = imported(own, REAL, "--enroll")
    assert first["rows"] == 12_677
    assert first["accepted"] > 12_000
    assert first["duplicate"] == first["unclaimed"] == 0
    assert set(first["rejected"]) == {"DISTANCE_TOO_SHORT", "DURATION_TOO_LONG"}
    assert issued(own) == first["accepted"]
    second = imported(own, REAL, "--enroll")
    assert second == first | {"accepted": 0, "duplicate": first["accepted"]}
    assert issued(own) == first["accepted"]
