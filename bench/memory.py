"""The most memory that our processes hold, beside what they held when half as much was done.

Two providers send full batches to two web workers, each with a process for batches, while the
worker seals; then a process of its own exports everything with openings. Then the same again. What
streams is as large the second time.
"""

from __future__ import annotations

import multiprocessing
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine

from app.cli.local import running
from app.config import Config
from app.flows.export import export_log
from app.vault import open_vault
from bench.ingest import BATCHES, send
from bench.stage import BATCH, Result, Stage

_FIRST = 7_000_000  # of the activities' numbers: no other part sends these
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB").search
_WORDS = re.compile(r"[a-z.]+").findall
_NAMES = {
    "granian": "web worker, memory",
    "intake.serve": "batch process, memory",
    "worker": "worker, memory",
}


def measure(stage: Stage) -> list[Result]:
    """MB of the largest process of each kind, at the full size and (the floor) at half of it."""
    sizes: list[dict[str, float]] = []
    with running(stage.config, workers=2, threads=2) as url:
        for first in (_FIRST, _FIRST + BATCHES * BATCH):
            send(stage, url, stage.providers, first)
            while stage.sealer.seal(stage.now()):
                pass
            sizes.append(_servers() | {"export, memory": _exported(stage.config)})
    half, full = sizes
    return [Result(name, most, "MB", half[name], most / half[name]) for name, most in full.items()]


def peak(pid: int | str) -> float:
    """The most MB that a process ever held; Linux alone says it."""
    found = _PEAK(Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/{pid}/status does not say VmHWM")
    return int(found[1]) / 1024


def _servers() -> dict[str, float]:
    """The largest process of each kind among those that this one started."""
    most: dict[str, float] = defaultdict(float)
    for child in psutil.Process().children(recursive=True):
        for word, name in _NAMES.items():
            if word in _WORDS(" ".join(child.cmdline())):
                most[name] = max(most[name], peak(child.pid))
    return dict(most)


def _exported(config: Config) -> float:
    context = multiprocessing.get_context("spawn")
    answer: Any = context.Queue()
    process = context.Process(target=_export, args=(config, answer))
    process.start()
    most: float = answer.get()
    process.join()
    return most


def _export(config: Config, answer: Any) -> None:
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    export_log(engine, vault, config.data_dir / "export-memory", openings=True, acts=True)
    engine.dispose()
    answer.put(peak("self"))
