"""A whole Puhui on this machine: servers, schema, keys, rules, web and worker, for demo and test.

In production each of these is a step of its own that an operator takes; here they follow from
there being no DATABASE_URL.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import click
import httpx
from sqlalchemy import create_engine

from app.cli import stand_in
from app.clock import city_clock
from app.config import Config, ConfigError
from app.flows.privacy import publish_notices
from app.flows.process import end_with_parent
from app.flows.publish import publish
from app.store.db import migrate
from app.vault import create_keys, open_vault
from app.wiring import with_servers
from scenarios import load

CONNECTIONS: Final = 1024  # that a web process holds at once
HEADER_MS: Final = 10_000  # for the lines before a body
_START_S = 30
_STOP_S = 10
PROJECT = Path(__file__).resolve().parents[2]


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
        part = config.keys_dir.with_name(f"{config.keys_dir.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        create_keys(part, config.log_origin)
        part.rename(config.keys_dir)  # all of them or none, whenever this is interrupted
    engine = create_engine(config.database_url)
    now = city_clock(config)()
    publish(engine, open_vault(config.keys_dir), load(), now)
    publish_notices(engine, now)
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
        "PUHUI_PROXIES": str(config.proxies),
        "PUHUI_NOTICE_DAYS": str(config.notice_days),
        "WECHAT_API_BASE": config.wechat_base,
        "WECHAT_APP_ID": config.wechat_app_id,
        "WECHAT_APP_SECRET": config.wechat_secret,
        "DATABASE_URL": config.database_url,
        "DATABASE_OWNER_URL": config.owner_url,
        "REDIS_URL": config.redis_url,
        "PUHUI_THREADS": str(config.threads),
        "PUHUI_INTAKE": str(config.intake),
        "PUHUI_WEBHOOK_LOOPBACK": "1" if config.webhook_loopback else "0",
    }
    return os.environ | {name: value for name, value in given.items() if value}


@dataclass(frozen=True, slots=True)
class Server:
    """Web processes and maybe the sealing worker, as children of this process."""

    url: str
    children: tuple[subprocess.Popen[bytes], ...]

    def check(self) -> None:
        """Raise click.ClickException if a child has ended."""
        for child in self.children:
            if child.poll() is not None:
                name = "the worker" if "worker" in child.args else "the web server"  # type: ignore[operator]
                raise click.ClickException(f"{name} ended with code {child.returncode}")


@contextmanager
def started(
    config: Config,
    host: str = "127.0.0.1",
    port: int = 0,
    workers: int = 1,
    threads: int | None = None,
    worker: bool = True,
    log: Path | None = None,
) -> Iterator[Server]:
    """Start web processes and the worker (port 0: any free one; threads None: as the settings
    say); end them after.

    What they print goes to the file `log`, or to the terminal. Raises click.ClickException if the
    port is taken or a child does not come up.
    """
    port = free_port(host, port)
    web = [
        sys.executable, "-m", "granian", "--interface", "rsgi", "--host", host,
        "--port", str(port), "--workers", str(workers), "--backpressure", str(CONNECTIONS),
        "--http1-header-read-timeout", str(HEADER_MS), "--no-ws", "--log-level", "warning",
        "wsgi:door",
    ]  # fmt: skip
    commands = [web, [sys.executable, "-m", "app.cli", "worker"]] if worker else [web]
    with ExitStack() as stack:
        config = stack.enter_context(stand_in.beside(config))
        config = replace(config, threads=threads or config.threads)
        server = Server(
            f"http://{f'[{host}]' if ':' in host else host}:{port}",
            tuple(stack.enter_context(_child(command, config, log)) for command in commands),
        )
        _wait_until_ready(server)
        yield server


@contextmanager
def running(
    config: Config, port: int = 0, workers: int = 1, threads: int | None = None, worker: bool = True
) -> Iterator[str]:
    """What `started` starts, when only its base URL is of interest."""
    with started(config, "127.0.0.1", port, workers, threads, worker) as server:
        yield server.url


@contextmanager
def _child(
    command: list[str], config: Config, log: Path | None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") if log else nullcontext() as sink:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and arguments)
            command,
            env=environment(config),
            cwd=PROJECT,
            stdout=sink,
            stderr=sink,
            start_new_session=True,  # Ctrl-C is for us; the child ends when we no longer need it
            preexec_fn=end_with_parent,
        )
    try:
        yield child
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with processes of its own that did not end
        child.wait()


def local_config(config: Config) -> Config:
    """Settings that a command on this machine works with: prepared in demo and test mode."""
    return prepare(config) if config.sandbox else config


def _answers(url: str) -> bool:
    try:
        answer = httpx.get(f"{url}/health/live", timeout=1, trust_env=False)  # never by a proxy
        return answer.status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + _START_S
    while not _answers(server.url):
        server.check()
        if time.monotonic() > deadline:
            raise click.ClickException(f"{server.url} did not answer within {_START_S} s")
        time.sleep(0.1)


def free_port(host: str, port: int = 0) -> int:
    """The port if nobody listens there, or any free one for 0. Raises click.ClickException."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"cannot listen on {host} port {port}: {error.strerror};"
                " free it, or choose another with --port"
            ) from None
        return int(probe.getsockname()[1])
