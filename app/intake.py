"""Processes of lower priority, each a web process's own, that work on provider batches.

A batch computes for a third of a second. In a web process that would hold up every read beside it,
so that the web process reads the request and hands it on whole; the answer comes back the same
way, over a pair of sockets that nobody else can reach. A process is started for the first batch
and again whenever it has ended, and it ends with the web process, however that does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Set
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import structlog

from app.api import providers
from app.config import read_config
from app.cores import bring, keep_to, ours
from app.flows.process import end_with_parent
from app.gateway import Headers, answering
from app.shell import shell

# Below the web process, and not by much: a batch holds residents whose charges then wait for it, so
# that one which tills keep from the processor would keep the tills waiting.
NICE: Final = 2

_START = "from app import intake; intake.serve({})"
_PROJECT = Path(__file__).resolve().parents[1]


class EndedError(Exception):
    """The process ended before it had answered; whether the batch was taken is not known."""


class Intake:
    """One such process, as the web process has it; asked by one thread."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._link: Connection | None = None

    def ask(
        self, environ: dict[str, Any], body: bytes, cores: Set[int]
    ) -> tuple[int, Headers, bytes]:
        """The answer to a request, worked on by these cores alone: status, headers, body. Raises
        EndedError."""
        link = self._link
        if link is None or self._child is None or self._child.poll() is not None:
            link = self._start()
        try:
            link.send((environ, body, cores))
            answer: tuple[int, Headers, bytes] = link.recv()
        except (OSError, EOFError) as error:
            self._end()
            raise EndedError("the process that worked on this batch ended") from error
        return answer

    def _start(self) -> Connection:
        self._end()
        ours, theirs = Pipe()
        with theirs:
            self._child = subprocess.Popen(  # noqa: S603 (our own interpreter and arguments)
                [sys.executable, "-c", _START.format(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd=_PROJECT,
            )
        self._link = ours
        return ours

    def _end(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._child is not None:
            self._child.kill()  # it has ended, or is about to
            structlog.get_logger().error("intake ended", code=self._child.wait())
        self._link = self._child = None


def serve(descriptor: int) -> None:
    """What such a process does: answer one request after another, until nobody asks any more."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    link, (app, api) = Connection(descriptor), shell(read_config(os.environ))
    api.register_blueprint(providers.blp)
    bring(app.extensions["puhui"].engine, ours)
    os.nice(NICE)  # only now: who sent the first batch waits for the second of computing until here
    with suppress(EOFError, OSError):
        while True:
            environ, body, cores = link.recv()
            keep_to(cores)
            with answering(app.wsgi_app, environ, body) as (status, headers, pieces):
                link.send((status, headers, b"".join(pieces)))
