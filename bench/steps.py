"""What each step of ingestion costs: microseconds of CPU an activity, Python and PostgreSQL apart.

Signed batches go through the whole WSGI application in this one process, one after the other. A
step's time is its own: what it calls and stands in the table by itself is not in it. CPU time, not
the clock on the wall: it is the same beside other work. PostgreSQL's is that of its backends, from
the kernel's scheduler; what its writers do behind them is a line of its own.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import orjson
from psutil import Process
from rich.console import Console
from rich.table import Table

from app import auth
from app.api import strict_json
from app.application import create_app
from app.cli.client import read_private_key
from app.flows import accept, credit, limit
from app.flows.process import collect_seldom
from app.signature import Received, sign
from app.store import acts, batches, entries, people, usage
from app.store import delays as delays_store
from app.store.embedded import APP_ROLE
from bench.stage import BATCH, Provider, Result, Stage, activities

_FIRST = 20_000_000  # of the activities' numbers: no other benchmark uses these
_WARM, _COUNTED = 4, 12  # batches of each provider
_PATH = "/api/v1/batches"

# Each step with what it is in the program: functions that are called once a batch, or a few times.
_STEPS: tuple[tuple[str, ModuleType, str], ...] = (
    ("signature and nonce", auth, "verify_request"),
    ("JSON", strict_json, "read_json"),
    ("claim of the batch", batches, "claim"),
    ("shape, keyed subject", accept, "_read"),
    ("version, quantify, entry id", credit, "_quantify"),
    ("binding, consent, lock", people, "resolve_and_lock"),
    ("what the binding means", credit, "_resolve"),
    ("ids known before", entries, "known"),
    ("openings written, duplicates", credit, "_drop_duplicates"),
    ("commitment, sealed openings", credit, "_seal_openings"),
    ("fingerprints", limit, "_drop_same_acts"),
    ("same acts held", acts, "held"),
    ("counters locked", usage, "lock"),
    ("counters read", usage, "read"),
    ("caps, rules, exclusivity", credit, "limit"),
    ("counters kept", usage, "store"),
    ("budget", credit, "_fund"),
    ("debts", people, "debts"),
    ("double entry, payload", credit, "_append"),
    ("sums of balances", entries, "_changes"),
    ("balances", entries, "_move"),
    ("entries, arrivals", entries, "_write"),
    ("postings, outbox", entries, "append"),
    ("openings", people, "put_openings"),
    ("acts", acts, "put"),
    ("outcomes", accept, "credit"),
    ("receipt", accept, "_answer"),
    ("receipt stored", batches, "store"),
    ("arrival clock", delays_store, "add"),
    ("begin, commit", accept, "transact"),
)
_REST = "HTTP and the rest"


class Meter:
    """CPU nanoseconds by step, of this process and of the backends."""

    def __init__(self, backends: list[int]) -> None:
        self._files = [Path(f"/proc/{pid}/schedstat") for pid in backends]
        self._stack = [_REST]
        self.python: Counter[str] = Counter()
        self.postgres: Counter[str] = Counter()
        self._last = self._now()

    def _now(self) -> tuple[int, int]:
        return time.process_time_ns(), sum(int(f.read_text().split()[0]) for f in self._files)

    def turn(self) -> None:
        """Charge what has passed since the last turn to the step under way."""
        python, postgres = self._now()
        self.python[self._stack[-1]] += python - self._last[0]
        self.postgres[self._stack[-1]] += postgres - self._last[1]
        self._last = self._now()  # what reading took is nobody's

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time charged to the step."""

        @wraps(function)
        def measured(*args: Any, **kwargs: Any) -> Any:
            self.turn()
            self._stack.append(step)
            try:
                return function(*args, **kwargs)
            finally:
                self.turn()
                self._stack.pop()

        return measured


def measure(stage: Stage) -> list[Result]:
    """Print the table. The figures are no ratios, so none is kept."""
    client = create_app(stage.config).test_client()
    for n in range(_WARM):
        for provider in stage.providers:
            _post(client, *_signed(provider, n))
    collect_seldom()  # as a web process does
    backends, writers = _processes(stage)
    meter, behind = Meter(backends), Meter(writers)
    for n in range(_WARM, _WARM + _COUNTED):
        for provider in stage.providers:
            request = _signed(provider, n)
            with _measuring(meter):
                _post(client, *request)
    behind.turn()
    _print(meter, behind.postgres.total(), _COUNTED * BATCH * len(stage.providers))
    return []


@contextmanager
def _measuring(meter: Meter) -> Iterator[None]:
    with ExitStack() as patched:
        for step, module, name in _STEPS:
            timed = meter.timed(step, getattr(module, name))
            patched.enter_context(patch.object(module, name, timed))
        meter._last = meter._now()
        yield
        meter.turn()


def _signed(provider: Provider, n: int) -> tuple[bytes, str]:
    first = _FIRST + n * BATCH
    made = activities(provider, first, BATCH, seed=first)
    body = orjson.dumps({"batch_id": f"{provider.code}-{first}", "activities": made})
    nonce, key = f"{provider.code}-steps-{first:010d}", read_private_key(provider.key.read_bytes())
    return body, sign(key, provider.key_id, Received("POST", _PATH, body), int(time.time()), nonce)


def _post(client: Any, body: bytes, header: str) -> None:
    given = {"Authorization": header, "Content-Type": "application/json"}
    answer = client.post(_PATH, data=body, headers=given)
    if answer.status_code != 200 or answer.json["counts"]["accepted"] != BATCH:
        raise RuntimeError(f"a batch was not taken as it should be: {answer.data[:200]!r}")


def _processes(stage: Stage) -> tuple[list[int], list[int]]:
    """PostgreSQL's processes: those that serve the application, and those that write behind."""
    postmaster = (stage.config.data_dir / "postgres" / "postmaster.pid").read_text().split()[0]
    titles = {child.pid: " ".join(child.cmdline()) for child in Process(int(postmaster)).children()}
    serving = {pid for pid, title in titles.items() if APP_ROLE in title}
    return sorted(serving), sorted(titles.keys() - serving)


def _print(meter: Meter, behind_ns: int, count: int) -> None:
    table = Table("step", "Python, µs", "PostgreSQL, µs", "both, µs")

    def line(step: str, python: int, postgres: int) -> None:
        parts = (python, postgres, python + postgres)
        table.add_row(step, *(f"{part / count / 1000:.2f}" for part in parts))

    for step in (_REST, *(step for step, _, _ in _STEPS)):
        line(step, meter.python[step], meter.postgres[step])
    line("PostgreSQL's writers", 0, behind_ns)
    line("all", meter.python.total(), meter.postgres.total() + behind_ns)
    Console(width=100).print(table)
