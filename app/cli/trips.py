"""`puhui import trips`: an operator's ride file, sent as a provider would send it.

Rows are streamed. A batch's id is made of the run's id and the batch's content, and the run's id is
kept in the data folder until the run is complete. So an interrupted import that is run again gets
the stored receipts of what it sent before, and its table is that of one whole run; a complete
import that is run again finds duplicates.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any
from zoneinfo import ZoneInfo

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from sqlalchemy import Engine

from app.cli.client import ProviderClient, ProviderError
from app.cli.clock import now
from app.cli.local import started
from app.cli.mapping import DEFAULT, MappingError, read_mapping
from app.cli.operate import parts
from app.cli.ride_file import RideFile, RideFileError, open_rides
from app.cli.rides import Reader, RowError
from app.cli.tally import Tally
from app.cli.tryout import POINTS, fund_if_empty, provider_key
from app.clock import city_clock
from app.config import Config
from app.flows.enroll import enroll
from app.store.catalogue import Registry
from app.vault import Vault

MAX_BATCH = 5000
_ENROLLED_AT_ONCE = 500
_DISTRICT = "140400"  # the whole city: a ride file does not say where its rider lives


class BadInputError(click.ClickException):
    """The command cannot begin with what it was given."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Sender:
    """As whom, and where to; with no `url` a server is started for the call."""

    url: str | None
    provider: str
    key: Path | None
    key_id: str | None

    def check(self, config: Config, enrolling: bool) -> None:
        """Raises BadInputError."""
        if enrolling and not config.sandbox:
            raise BadInputError(
                "--enroll makes residents who were never asked; it is for demo and test mode only"
            )
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,30}", self.provider):
            raise BadInputError("--provider must be 2 to 31 of a-z 0-9 -")
        if (self.key is None) != (self.key_id is None):
            raise BadInputError("--key and --key-id belong together: give both or neither")
        if not config.sandbox and (self.url is None or self.key is None):
            raise BadInputError("outside demo and test mode, give --url, --key and --key-id")


@click.group("import")
def import_group() -> None:
    """Send an operator's files as a provider would."""


@import_group.command("trips")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--timezone", "zone", required=True, help="of the file's times: America/New_York")
@click.option(
    "--mapping", type=click.Path(exists=True, path_type=Path), help="TOML like app/cli/trips.toml"
)
@click.option("--enroll", "enrolling", is_flag=True, help="first make a resident of each rider")
@click.option("--json", "as_json", is_flag=True, help="one line of JSON instead of a table")
@click.option("--url", help="the service's address; without it, one is started for this call")
@click.option("--provider", default="trips", show_default=True, help="made if new (demo, test)")
@click.option("--key", type=click.Path(exists=True, path_type=Path), help="private key, PEM")
@click.option("--key-id", help="the id under which the key is registered")
@click.option("--batch-size", default=1000, show_default=True, type=click.IntRange(1, MAX_BATCH))
@click.pass_obj
def trips(
    config: Config,
    /,
    file: Path,
    zone: str,
    mapping: Path | None,
    enrolling: bool,
    as_json: bool,
    batch_size: int,
    **sender: Any,
) -> None:
    """Send the rides of FILE (CSV with a header); the same file again credits nothing twice."""
    to = Sender(**sender)
    to.check(config, enrolling)
    try:
        read = Reader(read_mapping(mapping or DEFAULT), _zone(zone))
        rides = open_rides(file, read.mapping.columns)
    except (MappingError, RideFileError) as error:
        raise BadInputError(str(error)) from None
    try:
        with _run_id(config, rides) as run:
            with _client(config, to, rides if enrolling else None) as client:
                began = time.monotonic()
                tally = _send(client, run, rides, read, batch_size)
                seconds = time.monotonic() - began
            if as_json:
                click.echo(tally.line())
            else:
                tally.show(Console(), seconds)
    except ProviderError as error:
        raise click.ClickException(f"{error}; run it again to go on from here") from None
    except KeyboardInterrupt:
        click.echo("interrupted; run it again to go on from here", err=True)
        raise


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadInputError(
            f"there is no time zone {name!r}; give a name such as Asia/Shanghai"
        ) from None


@contextmanager
def _run_id(config: Config, rides: RideFile) -> Iterator[str]:
    """The id of the run that this file's last import did not complete, or of a new one."""
    path = config.data_dir / "imports" / rides.digest
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(token_hex(8))
        new.replace(path)  # whole or not at all
    yield path.read_text()
    path.unlink(missing_ok=True)


@contextmanager
def _client(config: Config, to: Sender, enrolled: RideFile | None) -> Iterator[ProviderClient]:
    """A client that can send. In demo and test mode what it needs is made first."""
    if to.url is not None and to.key is not None and to.key_id is not None and enrolled is None:
        with ProviderClient(to.url, to.key_id, to.key.read_bytes()) as client:
            yield client
        return
    with parts(config) as (ready, engine, vault):
        key_id, key = provider_key(ready, engine, to.provider)
        if to.key is not None and to.key_id is not None:
            key_id, key = to.key_id, to.key.read_bytes()
        if fund_if_empty(engine, vault):
            click.echo(f"the general budget was empty: {POINTS:,} points for trying out", err=True)
        if enrolled is not None:
            _enroll(engine, vault, to.provider, enrolled)
        if to.url is not None:
            with ProviderClient(to.url, key_id, key) as client:
                yield client
        else:
            with (
                started(ready, log=ready.data_dir / "import.log") as server,
                ProviderClient(server.url, key_id, key, clock=city_clock(ready)) as client,
            ):
                yield client


def _enroll(engine: Engine, vault: Vault, provider: str, rides: RideFile) -> None:
    registry, riders, total = Registry(), rides.riders(), 0
    while chunk := list(islice(riders, _ENROLLED_AT_ONCE)):
        enroll(engine, vault, registry, provider, chunk, _DISTRICT, now())
        total += len(chunk)
    click.echo(f"{total:,} riders are residents who consent", err=True)


def _send(
    client: ProviderClient, run: str, rides: RideFile, read: Reader, batch_size: int
) -> Tally:
    """Send what is a plausible ride, count what becomes of every row. Raises ProviderError."""
    tally = Tally()
    batch: list[dict[str, Any]] = []
    sent = 0

    def flush() -> None:
        nonlocal sent
        if batch:
            sent += 1
            content = sha256(orjson.dumps(batch)).hexdigest()[:16]
            tally.add(client.send_batch(f"{run}-{sent}-{content}", batch))
            batch.clear()

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("rides", total=rides.lines - 1)
        for row in rides.rows():
            tally.rows += 1
            try:
                batch.append(read.activity(row))
            except RowError as error:
                tally.refuse(error.code, str(error))
            if len(batch) == batch_size:
                flush()
                progress.update(bar, completed=tally.rows)
        flush()
        progress.update(bar, completed=tally.rows)
    return tally


COMMANDS = (import_group,)
