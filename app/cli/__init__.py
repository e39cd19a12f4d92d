"""The command line, `puhui`: what operators do, and what providers try out."""

from __future__ import annotations

import os
import sys

import click
from sqlalchemy.exc import OperationalError, ProgrammingError

from app.cli import (
    admins,
    backtest,
    bills,
    clock,
    demo,
    detach,
    merchants,
    operate,
    rankings,
    serve,
    sign,
    trigger,
    trips,
)
from app.config import read_config


@click.group()
@click.pass_context
def puhui(context: click.Context) -> None:
    """Puhui (碳普惠): carbon-inclusion platform."""
    context.obj = read_config(os.environ)


for module in (
    admins,
    backtest,
    bills,
    clock,
    demo,
    detach,
    merchants,
    operate,
    rankings,
    serve,
    sign,
    trigger,
    trips,
):
    for command in module.COMMANDS:
        puhui.add_command(command)


def main() -> None:
    """Run the command line; a refusal is one sentence on stderr and exit code 1."""
    try:
        puhui(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        click.echo(f"puhui: {sentence}", err=True)
        sys.exit(1)


def _sentence(error: Exception) -> str | None:
    """What an operator can act on; None for a fault of ours, which keeps its traceback."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OperationalError):
        return f"the database does not answer: {error.orig}"
    if isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", "") == "42P01":
        return "the database lacks a table of this program; run `puhui migrate`"
    code = getattr(error, "code", None)  # ours are UPPER_SNAKE; SQLAlchemy has codes of its own
    return str(error) if isinstance(code, str) and code.isupper() else None
