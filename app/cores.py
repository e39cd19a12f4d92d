"""Which cores do what nobody waits for: all but the first, which is for those who do wait."""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine, event


def but_one() -> frozenset[int]:
    """The cores that this process may use, without the first; if it is the only one, that."""
    cores = sorted(os.sched_getaffinity(0))
    return frozenset(cores[1:] or cores)


def keep_to(cores: Set[int]) -> None:
    """Work on these cores, as far as they are there: the machine may have lost some since."""
    with suppress(OSError):
        os.sched_setaffinity(0, cores)


def bring(engine: Engine) -> None:
    """From now on have the database's processes work on the cores of whoever of us they work for,
    if they are of this machine and we may: they do half of the work."""
    event.listen(engine, "checkout", _follow)


def _follow(connection: psycopg.Connection[Any], *_: object) -> None:
    if connection.info.host.startswith("/"):  # a socket's folder
        process = connection.info.backend_pid
        with suppress(OSError):
            if Path(f"/proc/{process}/comm").read_text() == "postgres\n":
                os.sched_setaffinity(process, os.sched_getaffinity(0))
