"""The command line, `puhui`: what operators do, and what providers try out."""

from __future__ import annotations

import os
import sys

import click

from app.cli import demo, operate, serve, sign, trips
from app.config import ConfigError, read_config


@click.group()
@click.pass_context
def puhui(context: click.Context) -> None:
    """Puhui (碳普惠): carbon-inclusion platform."""
    context.obj = read_config(os.environ)


for command in demo.COMMANDS + operate.COMMANDS + serve.COMMANDS + sign.COMMANDS + trips.COMMANDS:
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
    except ConfigError as error:
        click.echo(f"puhui: {error}", err=True)
        sys.exit(1)
