"""The command line, `puhui`: what operators do, and what providers try out."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Final

import click
from sqlalchemy.exc import OperationalError, ProgrammingError

from app.config import read_config

MODULES: Final = {  # which commands each module of this package has: the words of its COMMANDS
    "admins": ("admin", "trail"),
    "backtest": ("backtest",),
    "bills": ("bills",),
    "clock": ("clock",),
    "demo": ("demo",),
    "detach": ("detach",),
    "merchants": ("merchant",),
    "operate": (
        "keys", "migrate", "publish", "provider", "budget", "worker", "log", "erase", "export",
        "check",
    ),
    "rankings": ("rankings",),
    "serve": ("serve", "stop"),
    "sign": ("sign",),
    "trigger": ("trigger", "pay-code"),
    "trips": ("import",),
}  # fmt: skip


class _Commands(click.Group):
    """Loads the module of a command when it is asked for: whoever signs needs no database."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(name for names in MODULES.values() for name in names)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        for module, names in MODULES.items():
            if name in names:
                found: tuple[click.Command, ...] = import_module(f"app.cli.{module}").COMMANDS
                return next(command for command in found if command.name == name)
        return None


@click.group(cls=_Commands)
@click.pass_context
def puhui(context: click.Context) -> None:
    """Puhui (碳普惠): carbon-inclusion platform."""
    context.obj = read_config(os.environ)


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
