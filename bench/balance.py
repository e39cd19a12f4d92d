"""A balance read against a bare Flask view that does one primary-key SELECT on the same server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import httpx

from app.cli.local import environment, running
from app.config import Config
from app.flows.tokens import issue_access_token
from bench.load import get, rate
from bench.stage import Result, Stage

SECONDS = 4.0
CLIENTS = 4
ROUNDS = 3
RESIDENTS = 1000  # a resident may ask 600 times a minute


def measure(stage: Stage) -> list[Result]:
    """Requests a second of each, in turn, several rounds; the medians are compared."""
    some, now = stage.residents[:RESIDENTS], datetime.now(UTC)
    tokens = [issue_access_token(stage.vault.token, resident, now) for resident in some]
    ours, bares = [], []
    with (
        running(stage.config, workers=1, threads=2, worker=False) as url,
        bare(stage.config, stage.residents[0]) as floor_url,
    ):
        reads = [
            get(f"{url}/api/v1/me/balances", Authorization=f"Bearer {token}") for token in tokens
        ]
        floors = [get(f"{floor_url}/{resident}") for resident in some]
        for _ in range(ROUNDS):
            ours.append(rate(url, reads, SECONDS, CLIENTS))
            bares.append(rate(floor_url, floors, SECONDS, CLIENTS))
    value, floor = median(ours), median(bares)
    return [Result("balance read", value, "requests/s", floor, value / floor)]


@contextmanager
def bare(config: Config, resident: str, workers: int = 1, threads: int = 2) -> Iterator[str]:
    """The floor's server over this database; a resident is asked for until it answers."""
    port = 18_000 + time.time_ns() % 20_000
    command = [
        sys.executable, "-m", "granian", "--interface", "rsgi", "--host", "127.0.0.1",
        "--port", str(port), "--workers", str(workers), "--no-ws", "--log-level", "warning",
        "bench.bare:door",
    ]  # fmt: skip
    root = Path(__file__).resolve().parents[1]
    settings = environment(replace(config, threads=threads))
    process = subprocess.Popen(command, env=settings, cwd=root)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                httpx.get(f"{url}/{resident}", timeout=1)
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()
