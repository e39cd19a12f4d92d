"""Auditing an export on two processes against a floor that only reads it and hashes each leaf;
its memory at two sizes, and what an audit costs that goes on from a state."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from app.flows.export import export_log
from bench.made_log import write_export
from bench.stage import Result, Stage
from ledger.merkle import leaf_hash
from ledger.tiles import ENTRIES, WIDTH, Tile, decode_bundle

SMALL, LARGE, NEW = 100_000, 1_000_000, 10_000  # entries of a made-up log
RESIDENTS = 10_000  # of it: balances are not what is measured

# In a process of its own. Its ru_maxrss begins with what its parent had, so Linux's VmHWM is asked.
_RUN = """
import re, resource, sys
from pathlib import Path
from ledger.__main__ import main
if code := main(sys.argv[1:]):
    sys.exit(code)
own, workers = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(sum(u.ru_utime + u.ru_stime for u in (own, workers)), max(peak, workers.ru_maxrss))
"""


class Cost(NamedTuple):
    """What an audit took: seconds of CPU of all its processes, MB of the largest of them."""

    cpu: float
    memory: float


def measure(stage: Stage) -> list[Result]:
    """Entries audited a second, without and with openings, whole processes, start-up included;
    MB of the largest process at two sizes; CPU of the newest hundredth beside that of all."""
    folder = stage.config.data_dir / "export"
    size = export_log(stage.engine, stage.vault, folder, openings=False)
    floor = size / _timed(lambda: _hash_all(folder, size))
    plain = size / _timed(lambda: _audit(folder))
    export_log(stage.engine, stage.vault, folder, openings=True)
    opened = size / _timed(lambda: _audit(folder))
    small, whole, new = costs(SMALL, LARGE, LARGE + NEW)
    return [
        Result("audit", plain, "entries/s", floor, plain / floor),
        Result("audit with openings", opened, "entries/s", floor, opened / floor),
        Result("audit, memory", whole.memory, "MB", small.memory, whole.memory / small.memory),
        Result("audit, new only", new.cpu * 1e3, "ms", whole.cpu * 1e3, new.cpu / whole.cpu),
    ]


def costs(small: int, large: int, larger: int) -> tuple[Cost, Cost, Cost]:
    """Of audits in full of a small and a large log, and of going on to a larger one."""
    with tempfile.TemporaryDirectory(prefix="puhui-bench-") as name:
        folder, state = Path(name) / "export", Path(name) / "state"
        logs = write_export(folder, [small, large, larger], RESIDENTS)
        next(logs)
        first = _audit(folder)
        next(logs)
        second = _audit(folder, "--state", str(state))
        next(logs)
        return first, second, _audit(folder, "--state", str(state))


def _timed(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started


def _hash_all(folder: Path, size: int) -> None:
    for first in range(0, size, WIDTH):
        width = min(WIDTH, size - first)
        bundle = (folder / Tile(ENTRIES, first // WIDTH, width).path).read_bytes()
        for entry in decode_bundle(bundle, width):
            leaf_hash(entry)


def _audit(folder: Path, *more: str) -> Cost:
    command = [sys.executable, "-c", _RUN, str(folder), "--jobs", "2", *more]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cpu, kilobytes = done.stdout.splitlines()[-1].split()
    return Cost(float(cpu), float(kilobytes) / 1024)
