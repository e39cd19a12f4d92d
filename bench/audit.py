"""Auditing an export on two processes against a floor that only reads it and hashes each leaf."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from app.flows.export import export_log
from bench.stage import Result, Stage
from ledger.merkle import leaf_hash
from ledger.tiles import ENTRIES, WIDTH, Tile, decode_bundle


def measure(stage: Stage) -> list[Result]:
    """Entries audited a second, without and with openings; whole processes, start-up included."""
    folder = stage.config.data_dir / "export"
    size = export_log(stage.engine, stage.vault, folder, openings=False)
    floor = size / _timed(lambda: _hash_all(folder, size))
    plain = size / _timed(lambda: _audit(folder))
    export_log(stage.engine, stage.vault, folder, openings=True)
    opened = size / _timed(lambda: _audit(folder))
    return [
        Result("audit", plain, "entries/s", floor, plain / floor),
        Result("audit with openings", opened, "entries/s", floor, opened / floor),
    ]


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


def _audit(folder: Path) -> None:
    command = [sys.executable, "-m", "ledger", str(folder), "--jobs", "2"]
    subprocess.run(command, check=True, capture_output=True)
