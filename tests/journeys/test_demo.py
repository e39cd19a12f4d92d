"""`puhui demo` as a newcomer runs it: what it prints holds, and running it again adds nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("clothing", "food", "housing", "travel", "banking", "shopping", "tourism")


def _environment(data: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PUHUI")}
    kept.pop("DATABASE_URL", None)
    kept.pop("REDIS_URL", None)
    return kept | {"PUHUI_DATA": str(data)}


def _puhui(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=ROOT,
        env=_environment(data),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _demo(data: Path) -> str:
    done = _puhui(data, "demo", "--residents", "100", "--days", "4", "--no-serve")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _left_behind(data: Path) -> list[str]:
    """Processes that have to do with the data folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(data) in word for word in words):
            found.append(" ".join(words))
    return found


def _folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # as root, PostgreSQL runs as another user
    return folder / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return _folder(tmp_path_factory)


@pytest.fixture(scope="module")
def first(data) -> str:
    return _demo(data)


_MARKET = "The market today"


def _table(shown: str) -> dict[str, list[float]]:
    """The rows of a table: area or merchant, and its figures."""
    rows = [line.strip("│ ").split("│") for line in shown.splitlines() if line.startswith("│")]
    return {
        cells[0].split()[-1]: [float(cell.replace(",", "")) for cell in cells[1:]] for cells in rows
    }


def test_every_activity_has_one_outcome_and_the_areas_add_up(first):
    table = _table(first.partition(_MARKET)[0])
    total = table.pop("all")
    assert tuple(table) == AREAS
    assert all(row[0] > 0 and row[1] > 0 and row[5] > 0 for row in table.values())
    for row in (*table.values(), total):
        assert row[0] == sum(row[1:5])
    for place in (0, 1, 2, 3, 4, 6, 7):
        assert sum(row[place] for row in table.values()) == total[place]
    assert f"{int(total[0]):,} activities in" in first


def test_the_short_budget_makes_people_wait_and_the_others_do_not(first):
    waiting = {
        area: row[7] for area, row in _table(first.partition(_MARKET)[0]).items() if area != "all"
    }
    assert waiting.pop("tourism") > 0
    assert set(waiting.values()) == {0}
    assert "points wait" in first


def test_what_residents_spent_is_what_the_audit_says_was_redeemed(first):
    market = _table(first.partition(_MARKET)[2])
    assert tuple(market) == ("sandbox", "bus", "shangdang-market", "green-fund")
    assert all(row[0] > 0 and row[3] > 0 for row in market.values())
    redeemed = int(sum(row[3] for row in market.values()))
    assert re.search(rf"^  redeemed +{redeemed} points, with merchants:$", first, re.MULTILINE)


def test_the_log_holds_every_accepted_activity_and_the_audit_recomputes_each(first):
    accepted = int(_table(first)["all"][1])
    assert re.search(rf"^    issue +{accepted}$", first, re.MULTILINE)
    assert re.search(rf"^  claims recomputed +{accepted}$", first, re.MULTILINE)
    assert re.search(r"^Log: [\d,]+ entries, root [A-Za-z0-9+/]{43}=$", first, re.MULTILINE)
    assert "  Everything holds." in first


def test_a_resident_sees_the_statement_and_the_receipt_holds_offline(first, data):
    assert re.search(r"^Resident [0-9a-f]{32} of district 1404\d\d$", first, re.MULTILINE)
    assert "The opening is what the entry committed to." in first
    paths = [data / "receipt.tlog-proof", "--vkey", data / "log.vkey"]
    check = [sys.executable, "-m", "ledger", "receipt", *map(str, paths)]
    assert subprocess.run(check, cwd=ROOT, capture_output=True, check=False).returncode == 0
    broken = data / "broken.tlog-proof"
    other = re.sub(rb"index (\d+)", lambda m: b"index %d" % (int(m[1]) ^ 1), paths[0].read_bytes())
    broken.write_bytes(other)
    check[4] = str(broken)
    assert subprocess.run(check, cwd=ROOT, capture_output=True, check=False).returncode == 1


def test_run_again_it_credits_nothing_and_shows_the_same(first, data):
    again = _demo(data)
    assert _table(again) == _table(first)
    assert "nothing credited twice" in again
    assert "100 residents, 0 of them new" in again
    roots = [re.search(r"^Log: .*$", shown, re.MULTILINE) for shown in (first, again)]
    assert roots[0]
    assert roots[1]
    assert roots[0][0] == roots[1][0]


def test_nothing_is_left_running(first, data):
    assert _left_behind(data) == []


def test_a_taken_port_is_said_in_one_sentence_before_anything_is_prepared(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = _puhui(tmp_path / "data", "serve", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1 port {port}:")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "data" / "postgres").exists()


def test_interrupted_while_sending_it_leaves_no_process_and_the_next_run_finishes(
    tmp_path_factory,
):
    data = _folder(tmp_path_factory)
    words = [sys.executable, "-m", "app.cli", "demo", "--residents", "60", "--days", "4"]
    with subprocess.Popen(
        [*words, "--no-serve"],
        cwd=ROOT,
        env=_environment(data) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("Sending"):
                process.send_signal(signal.SIGTERM)
                break
        process.communicate(timeout=60)
        assert process.returncode == 130
    assert _left_behind(data) == []
    done = _puhui(data, *words[3:], "--no-serve")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "  Everything holds." in done.stdout


def test_the_makefile_runs_these_commands():
    shown = subprocess.run(
        ["make", "--dry-run", "demo", "test", "SERVE=0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"-m app\.cli demo .*--no-serve", shown, re.DOTALL)
    assert "-m pytest" in shown
    readme = ROOT / "README.md"
    if readme.exists():
        assert {"make demo", "make test"} <= set(re.findall(r"make \w+", readme.read_text()))
