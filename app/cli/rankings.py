"""The rankings' sorted sets, made anew by hand; the worker does so by itself when it has to."""

from __future__ import annotations

from collections import deque

import click

from app.cli.clock import now
from app.cli.operate import parts
from app.config import Config, ConfigError
from app.flows.ranking import Rankings
from app.wiring import open_redis


@click.group()
def rankings() -> None:
    """The rankings of those who want to be in them."""


@rankings.command()
@click.pass_obj
def rebuild(config: Config) -> None:
    """Make them anew from the ledger beside those in use, and swap them in."""
    with parts(config) as (ready, engine, vault):
        if ready.redis_url is None:
            raise ConfigError("REDIS_URL is not set")
        pages = Rankings(engine, vault, open_redis(ready.redis_url)).rebuild(now())
        done = deque(pages, maxlen=1)
    click.echo(f"{done[0] if done else 0} residents ranked")


COMMANDS = (rankings,)
