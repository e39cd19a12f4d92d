"""A whole Puhui on this machine: servers, schema, keys, rules, web and worker, for demo and test.

In production each of these is a step of its own that an operator takes; here they follow from
there being no DATABASE_URL.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
from sqlalchemy import create_engine

from app.config import Config, ConfigError
from app.flows.publish import publish
from app.store.db import migrate
from app.vault import create_keys, open_vault
from app.wiring import utc_now, with_servers
from scenarios import load

_START_S = 30
_PROJECT = Path(__file__).resolve().parents[2]


def prepare(config: Config) -> Config:
    """Servers started, schema migrated, keys made if there are none, rules published.

    Returns the settings with every address filled in. Demo and test mode only.
    """
    if not config.sandbox:
        raise ConfigError("in production each step is taken by an operator; see docs/operators.md")
    config.data_dir.mkdir(parents=True, exist_ok=True)
    config = with_servers(config)
    if config.owner_url is None or config.database_url is None:
        raise ConfigError("DATABASE_OWNER_URL is not set; migrations need the owner's connection")
    migrate(config.owner_url)
    if not config.keys_dir.exists():
        create_keys(config.keys_dir, config.log_origin)
    engine = create_engine(config.database_url)
    publish(engine, open_vault(config.keys_dir), load(), utc_now())
    engine.dispose()
    return config


def environment(config: Config) -> dict[str, str]:
    """The environment in which a child process reads exactly these settings."""
    given = {
        "PUHUI_MODE": str(config.mode),
        "PUHUI_DATA": str(config.data_dir),
        "PUHUI_KEYS": str(config.keys_dir),
        "PUHUI_HEAD_FILE": str(config.head_file),
        "PUHUI_LOG_ORIGIN": config.log_origin,
        "DATABASE_URL": config.database_url,
        "DATABASE_OWNER_URL": config.owner_url,
        "REDIS_URL": config.redis_url,
    }
    return os.environ | {name: value for name, value in given.items() if value}


@contextmanager
def running(
    config: Config, port: int = 0, workers: int = 1, threads: int = 4, worker: bool = True
) -> Iterator[str]:
    """Web processes and the sealing worker as children; yields the base URL, ends them after."""
    port = port or _free_port()
    web = [
        sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1",
        "--port", str(port), "--workers", str(workers), "--blocking-threads", str(threads),
        "--no-ws", "--log-level", "warning", "wsgi:app",
    ]  # fmt: skip
    commands = [web, [sys.executable, "-m", "app.cli", "worker"]] if worker else [web]
    children = [
        subprocess.Popen(command, env=environment(config), cwd=_PROJECT)  # noqa: S603  (ours)
        for command in commands
    ]
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, children)
        yield url
    finally:
        for child in children:
            child.terminate()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(10)
            child.kill()


@contextmanager
def reachable(config: Config, url: str | None) -> Iterator[str]:
    """The given or the running server's URL; in demo and test mode, one started for this call."""
    if url is not None or _answers("http://127.0.0.1:8000"):
        yield url or "http://127.0.0.1:8000"
        return
    with running(config) as own:
        yield own


def local_config(config: Config) -> Config:
    """Settings that a command on this machine works with: prepared in demo and test mode."""
    return prepare(config) if config.sandbox else replace(config)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=1).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _wait_until_ready(url: str, children: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(url):
        for child in children:
            if child.poll() is not None:
                raise RuntimeError(f"{child.args!r} ended with code {child.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{url} did not answer within {_START_S} s")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
