"""Run the whole service in the foreground, and end one that runs."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from app.cli.local import Server, free_port, local_config, started
from app.config import Config
from app.store import embedded

_STOP_S = 30
_PAUSE_S = 0.5


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64))
@click.pass_obj
def serve(config: Config, host: str, port: int, workers: int) -> None:
    """Web and worker in the foreground until Ctrl-C; in demo mode on servers of its own."""
    claim(config)
    free_port(host, port)  # said before anything is prepared
    with started(local_config(config), host, port, workers) as server:
        stay(server)


@click.command()
@click.pass_obj
def stop(config: Config) -> None:
    """End the `puhui serve` or `puhui demo` of this data folder, and its database servers."""
    holder = _holder(config)
    if holder is not None:
        os.kill(holder, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while _holder(config) is not None:
            if time.monotonic() > deadline:
                raise click.ClickException(f"process {holder} did not end within {_STOP_S} s")
            time.sleep(_PAUSE_S)
    embedded.stop(config.data_dir)
    click.echo("stopped" if holder is not None else "nothing was running")


def stay(server: Server) -> None:
    """Say where the server is and wait for Ctrl-C. Raises click.ClickException if a child ends."""
    click.echo(f"\nPuhui is at {server.url} (Ctrl-C ends it)")
    with suppress(KeyboardInterrupt):
        while True:
            server.check()
            time.sleep(_PAUSE_S)


def claim(config: Config) -> None:
    """Hold the data folder until this process has ended, its database servers included, so that
    one service at a time runs on it and `stop` finds it.

    A termination signal then ends the process as Ctrl-C does, so that its children end too.
    Raises click.ClickException if another process holds the folder.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    file = os.open(_pid_file(config), os.O_RDWR | os.O_CREAT, 0o600)  # closed by the system, last
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise click.ClickException(
            f"process {_holder(config)} serves {config.data_dir} already;"
            " end it there with Ctrl-C, or from here with `puhui stop`"
        ) from None
    os.truncate(file, 0)
    os.write(file, str(os.getpid()).encode())


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _pid_file(config: Config) -> Path:
    return config.data_dir / "serving.pid"


def _holder(config: Config) -> int | None:
    """The process that holds the data folder; a number left behind by a dead one is nobody's."""
    path = _pid_file(config)
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0) or None
    return None


COMMANDS = (serve, stop)
