"""The worker's hand for work that would hold it up: a process of its own for backtests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Set

from sqlalchemy import Engine

from app.cli.local import PROJECT, environment
from app.config import Config
from app.cores import keep_to
from app.flows.process import end_with_parent
from app.store import backtests


class Runner:
    """Starts the process of the queue when there is something in it, on these cores, which may be
    more than the worker's own; ended with its worker."""

    def __init__(self, config: Config, engine: Engine, cores: Set[int]) -> None:
        self._config, self._engine, self._cores = config, engine, cores
        self._child: subprocess.Popen[bytes] | None = None

    def __call__(self) -> None:
        """Have a look; what is to be done is done elsewhere."""
        if self._child is not None and self._child.poll() is None:
            return
        with self._engine.connect() as tx:
            if backtests.waiting(tx) is None:
                return
        with backtests.turn(self._engine) as free:
            if not free:
                return
        self._child = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "backtest", "queue"],
            env=environment(self._config),
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            preexec_fn=self._begin,
        )

    def _begin(self) -> None:
        end_with_parent()
        keep_to(self._cores)
