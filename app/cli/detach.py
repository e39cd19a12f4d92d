"""The bytes of old entries leave the database for a folder of files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from sqlalchemy import create_engine

from app.cli.clock import now as _now
from app.cli.operate import parts
from app.config import CITY_ZONE, Config, ConfigError
from app.flows.administer import CLI
from app.flows.detach import detach
from app.flows.trail import act


@click.command("detach")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--before", required=True, metavar="YYYY-MM", help="the first month that stays")
@click.pass_obj
def detach_months(config: Config, folder: Path, before: str) -> None:
    """Move the bytes of entries sealed before a month into FOLDER, where they are read from then.

    Runs as DATABASE_OWNER_URL. Every host must see FOLDER at the same path.
    """
    try:
        month = datetime.strptime(before, "%Y-%m").replace(tzinfo=CITY_ZONE)
    except ValueError:
        raise click.UsageError("--before is a month as YYYY-MM") from None
    if month > _now():
        raise click.UsageError("--before is this month at the latest")
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with parts(config) as (ready, engine, vault):
        if ready.owner_url is None:
            raise ConfigError("DATABASE_OWNER_URL is not set; only the schema's owner detaches")
        owner = create_engine(ready.owner_url)
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task("entries")
            size = detach(
                *(owner, vault, ready.head_file, folder, month),
                lambda done, total: progress.update(bar, completed=done, total=total),
            )
        owner.dispose()
        with engine.begin() as tx:
            act(tx, CLI, "entries.detached", before, {"entries": size}, _now())
    click.echo(f"{size} entries are read from {folder.absolute()}; back it up with the database")


COMMANDS = (detach_months,)
