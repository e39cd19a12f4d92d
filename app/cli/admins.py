"""Administrators from the command line: the first one, and a way in when nobody else has one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from app.cli.clock import now as _now
from app.cli.operate import parts
from app.config import Config
from app.flows import administer
from app.flows.administer import CLI, Setup
from app.flows.trail import export_trail
from app.store import admins, trail
from app.store.db import transact

_STDIN = click.option("--password-stdin", is_flag=True, help="read the password from a line of it")


@click.group("admin")
def admin_group() -> None:
    """Administrators; all that is done here is in the audit trail, as done by "cli"."""


@admin_group.command("add")
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, required=True, type=click.Choice(admins.ROLES), help="repeat"
)
@_STDIN
@click.pass_obj
def admin_add(config: Config, name: str, roles: tuple[str, ...], password_stdin: bool) -> None:
    """Add an administrator, for example `puhui admin add ada --role operator`."""
    if not re.fullmatch(admins.NAME, name):
        raise click.UsageError("NAME must be 3 to 32 of a-z 0-9 . _ -, beginning with a letter")
    password = _password(password_stdin)
    with parts(config) as (_, engine, vault):
        made = transact(
            engine,
            lambda tx: administer.create(tx, vault, CLI, name, roles, _now(), password),
        )
    _show(made)


@admin_group.command("reset")
@click.argument("name")
@_STDIN
@click.pass_obj
def admin_reset(config: Config, name: str, password_stdin: bool) -> None:
    """Give NAME another password and one-time code; unlocks and enables the account."""
    password = _password(password_stdin)
    with parts(config) as (_, engine, vault):
        made = transact(engine, lambda tx: administer.reset(tx, vault, CLI, name, _now(), password))
    _show(made)


@admin_group.command("disable")
@click.argument("name")
@click.pass_obj
def admin_disable(config: Config, name: str) -> None:
    """Let NAME in no more; open sessions end at once."""
    with parts(config) as (_, engine, _vault):
        transact(engine, lambda tx: administer.disable(tx, CLI, name, _now()))
    click.echo(f"{name} is disabled; `puhui admin reset {name}` lets them in again")


@admin_group.command("list")
@click.pass_obj
def admin_list(config: Config) -> None:
    """Every administrator with the roles held."""
    with parts(config) as (_, engine, _vault), engine.connect() as tx:
        for one in admins.everyone(tx):
            state = "  disabled" if one.disabled_at else ""
            click.echo(f"{one.name}  {', '.join(one.roles)}{state}")


@click.group("trail")
def trail_group() -> None:
    """What administrators did."""


@trail_group.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def trail_export(config: Config, file: Path) -> None:
    """Write all sealed acts to FILE, a line of JSON each, as an export's audit reads them."""
    with parts(config) as (_, engine, _vault), file.open("xb") as out:
        total = 0
        for line in export_trail(engine, trail.Wanted()):
            out.write(line)
            total += 1
    click.echo(f"{total} acts written to {file}")


def _password(stdin: bool) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    asked: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return asked


def _show(made: Setup) -> None:
    click.echo(f"{made.name} has the roles {', '.join(made.roles)}")
    click.echo("put this address into an authenticator now; it is not shown again:")
    click.echo(made.otpauth)


COMMANDS = (admin_group, trail_group)
