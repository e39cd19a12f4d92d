"""Backtests from the command line: one in the foreground, and the process that runs the queue."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.cli.clock import now as _now
from app.cli.operate import parts
from app.config import Config
from app.flows.administer import CLI
from app.flows.backtest import queue
from app.flows.backtest.queue import MAX_DAYS
from app.store import backtests
from app.store.backtests import Backtest
from app.store.db import transact

_NICE = 10
_SHOWN = 15  # rows of a table; the result itself holds them all


@click.group("backtest")
def backtest_group() -> None:
    """What other rules would have made of the acts of the last days."""


@backtest_group.command("run")
@click.argument("draft", required=False)
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, MAX_DAYS))
@click.pass_obj
def backtest_run(config: Config, draft: str | None, days: int) -> None:
    """Backtest DRAFT (32 hex digits) now; without one, the rules in force against themselves."""
    if draft is not None:
        _check(draft)
    columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn())
    with (
        parts(config) as (_, engine, vault),
        Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as shown,
    ):
        bar = shown.add_task("acts", total=None)
        made = transact(engine, lambda tx: queue.request(tx, CLI, None, draft, days, _now()))
        ended = queue.run_next(
            engine,
            vault,
            _now,
            lambda done, total: shown.update(bar, completed=done, total=total),
            only=made,
        )
    if ended is None:
        click.echo(f"another backtest runs; this one, {made}, is queued, and the worker runs it")
        return
    _show(ended)


@backtest_group.command("show")
@click.argument("backtest")
@click.option("--json", "as_json", is_flag=True, help="the whole result, for programs")
@click.pass_obj
def backtest_show(config: Config, backtest: str, as_json: bool) -> None:
    """Show what came out of BACKTEST, or how far it is."""
    _check(backtest)
    with parts(config) as (_, engine, _vault), engine.connect() as tx:
        found = backtests.find(tx, backtest)
    if found is None:
        raise click.ClickException(f"there is no backtest {backtest}")
    if as_json and found.result:
        click.echo(found.result)
    else:
        _show(found)


@backtest_group.command("queue")
@click.pass_obj
def backtest_queue(config: Config) -> None:
    """Run what editors asked for, until nothing is queued; the worker starts this by itself."""
    os.nice(_NICE)
    signal.signal(signal.SIGTERM, _end)
    with parts(config) as (_, engine, vault):
        while ended := queue.run_next(engine, vault, _now):
            click.echo(f"backtest {ended.id}: {ended.state}")


def _end(_number: int, _frame: Any) -> NoReturn:
    raise SystemExit(0)


def _check(identifier: str) -> None:
    if not re.fullmatch("[0-9a-f]{32}", identifier):
        raise click.UsageError("an id is 32 lower-case hex digits")


def _show(one: Backtest) -> None:
    what = f"draft {one.draft}, revision {one.revision}" if one.draft else "the rules in force"
    click.echo(f"backtest {one.id} of {what}: {one.state}")
    if one.problem:
        raise click.ClickException(one.problem)
    if one.result is None:
        click.echo(f"{one.done:,} of {one.total:,} acts")
        return
    result = orjson.loads(one.result)
    console = Console(width=None if sys.stdout.isatty() else 110)
    _say(result)
    for table in _tables(result):
        console.print(table)
    for note in result["notes"]:
        click.echo(f"- {note}")


def _say(result: dict[str, Any]) -> None:
    window, drift = result["window"], result["drift"]
    click.echo(
        f"{window['from']} to {window['until']}: {window['acts']:,} acts of"
        f" {window['residents']:,} residents, {window['reversed']:,} reversed since"
    )
    if drift["acts"] or drift["budgets"]:
        click.echo(
            f"DRIFT: the rules in force do not give what the ledger has, for {drift['acts']} acts"
            f" and {len(drift['budgets'])} budgets; see --json, and run `puhui check`"
        )
    else:
        click.echo("the rules in force give exactly what the ledger has")


def _tables(result: dict[str, Any]) -> list[Table]:
    """The fairness table first; then who wins and loses, and who pays."""
    scenarios = [[one["scenario"], *_worths(one)] for one in result["scenarios"]]
    scenarios.sort(key=lambda row: -abs(int(row[4]) - int(row[3])))
    worth = ("acts now", "acts then", "points now", "points then", "per kg now", "per kg then")
    made = [
        _table("Scenarios, the greatest change first", ("scenario", *worth), scenarios[:_SHOWN]),
        _table(
            "Districts",
            ("district", *worth),
            [[one["district"] or "unknown", *_worths(one)] for one in result["districts"]],
        ),
        _table(
            "Residents by tenths, fewest points first",
            ("tenth", "residents", "points now", "change", "mean", "better", "worse", "same"),
            [list(one.values()) for one in result["deciles"]],
        ),
        _table(
            "Budgets",
            ("scope", "had and got", "needed now", "needed then", "waiting now", "waiting then"),
            [
                [
                    one["scope"],
                    int(one["opening_points"]) + int(one["funded_points"]),
                    *(one[side]["needed_points"] for side in ("in_force", "draft")),
                    *(one[side]["waiting_points"] for side in ("in_force", "draft")),
                ]
                for one in result["budgets"]
            ],
        ),
    ]
    if result["capped"]:
        rows = [[one["scenario"] or "any", *list(one.values())[1:]] for one in result["capped"]]
        head = ("scenario", "now", "then", "newly")
        made.append(_table("Residents who reach a cap", head, rows[:_SHOWN]))
    if result["refused"]:
        rows = [list(one.values()) for one in result["refused"]]
        made.append(_table("Refused then", ("scenario", "why", "acts"), rows[:_SHOWN]))
    return made


def _worths(one: dict[str, Any]) -> list[Any]:
    both = [one["in_force"], one["draft"]]
    return [side[name] for name in ("acts", "points", "points_per_kg") for side in both]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    table = Table(*head, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = str(value)
    return f"{int(text):,}" if re.fullmatch("-?[0-9]+", text) else text


COMMANDS = (backtest_group,)
