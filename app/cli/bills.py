"""`puhui bills`: close days, hold all bills against the ledger, write the CSV of one to a file."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from app.cli.clock import now
from app.cli.operate import parts
from app.config import Config
from app.flows.bill.close import close_days, date_of
from app.flows.bill.reconcile import reconcile
from app.flows.bill.write import Tally, csv_of
from app.store import bills as lines
from app.store import merchants, settlement
from app.store.db import snapshot
from ledger.buckets import day_number


@click.group()
def bills() -> None:
    """What merchants redeemed, settled the next morning."""


@bills.command()
@click.pass_obj
def close(config: Config) -> None:
    """Close the days that are over and make their bills; the worker does so by itself."""
    with parts(config) as (_, engine, vault):
        day = close_days(engine, vault, now())
    click.echo(f"closed up to {date_of(day)}")


@bills.command("reconcile")
@click.pass_obj
def reconcile_all(config: Config) -> None:
    """Hold every line of every bill against the ledger's entry for it, and all sums."""
    with parts(config) as (_, engine, _vault):
        found = 0
        for fault in reconcile(engine):
            click.echo(f"{fault.where}: {fault.what}")
            found += 1
        with engine.connect() as tx:
            points = settlement.position(tx).ledger_points
    if found:
        raise click.ClickException(
            f"{found} things do not hold; pay no bill before they are cleared"
        )
    click.echo(f"everything holds: {points} points redeemed, and as many on bills and open lines")


@bills.command()
@click.argument("merchant")
@click.argument("day", type=click.DateTime(["%Y-%m-%d"]))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def write(config: Config, merchant: str, day: datetime, file: Path) -> None:
    """Write the CSV of a MERCHANT's closed DAY (YYYY-MM-DD) to FILE, as the merchant gets it."""
    with parts(config) as (_, engine, _vault), snapshot(engine) as tx:
        found = merchants.find(tx, merchant)
        bill = settlement.find(tx, found.id, day_number(day.date())) if found else None
        if bill is None:
            raise click.ClickException(f"{merchant} has no bill of {day.date()}")
        rows = lines.rows(tx, bill.merchant, bill.day)
        with file.open("xb") as target:
            target.writelines(csv_of(rows, bill.terms.milli_fen_per_point, Tally()))
    click.echo(f"{bill.lines} documents, SHA-256 {bill.csv_sha256.hex()}")


COMMANDS = (bills,)
