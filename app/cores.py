"""Which cores do what nobody waits for: all but the first, which is for those who do wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.pool import ConnectionPoolEntry

_CORES: Final = "cores"  # under this name a connection remembers where its process is


def ours() -> frozenset[int]:
    """The cores that this process may use."""
    return frozenset(os.sched_getaffinity(0))


def but_one() -> frozenset[int]:
    """The cores that this process may use, without the first; if it is the only one, that."""
    cores = sorted(ours())
    return frozenset(cores[1:] or cores)


def keep_to(cores: Set[int]) -> None:
    """Work on these cores, as far as they are there: the machine may have lost some since."""
    with suppress(OSError):
        os.sched_setaffinity(0, cores)


def bring(engine: Engine, cores: Callable[[], Set[int]]) -> None:
    """From now on have the database's processes work for us on the cores that this gives when they
    are asked, if they are of this machine and we may: they do half of the work."""

    def follow(connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _: object) -> None:
        wanted = cores()
        if record.info.get(_CORES) == wanted:
            return
        record.info[_CORES] = wanted
        if connection.info.host.startswith("/"):  # a socket's folder
            process = connection.info.backend_pid
            with suppress(OSError):
                if Path(f"/proc/{process}/comm").read_text() == "postgres\n":
                    os.sched_setaffinity(process, wanted)

    event.listen(engine, "checkout", follow)
