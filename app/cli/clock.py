"""`puhui clock`: move a sandbox's time, so that what takes days is seen at once.

Time only goes forward, as the ledger's does. Back to the machine's time leads only `reset`, as long
as no entry lies later: in a fresh demo, before anything was done at the moved time.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import click
from sqlalchemy import create_engine

from app.cli.local import local_config
from app.clock import FILE, MovedClock, city_clock, utc_now
from app.config import CITY_ZONE, Config, ConfigError
from app.store import gauges
from ledger.entries import Entry

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def now() -> datetime:
    """The city's time, for a command that runs in it."""
    return city_clock(click.get_current_context().find_root().obj)()


@click.group("clock")
def clock_group() -> None:
    """The time of a sandbox; in production there is only the machine's."""


@clock_group.command()
@click.pass_obj
def show(config: Config) -> None:
    """Say what time it is in the city."""
    _say(_moved(config))


@clock_group.command()
@click.argument("duration")
@click.pass_obj
def advance(config: Config, duration: str) -> None:
    """Move the time forward by DURATION: 90s, 5m, 12h or 2d. All processes see it at once."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", duration)
    if not found:
        raise click.UsageError("DURATION is a number and s, m, h or d, such as 2d")
    clock = _moved(config)
    clock()
    clock.move(clock.offset + timedelta(**{_UNITS[found[2]]: int(found[1])}))
    _say(clock)


@clock_group.command("set")
@click.argument("moment", metavar="RFC3339")
@click.pass_obj
def set_to(config: Config, moment: str) -> None:
    """Move the time forward to a moment, such as 2027-01-01T00:05:00+08:00."""
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise click.UsageError("give a moment with its offset, such as 2027-01-01T00:05:00+08:00")
    clock = _moved(config)
    if at <= clock():
        raise click.ClickException("time only goes forward; to go back, begin a fresh demo")
    clock.move(at - utc_now())
    _say(clock)


@clock_group.command()
@click.pass_obj
def reset(config: Config) -> None:
    """Go back to the machine's time; refused once an entry of the ledger lies later."""
    clock = _moved(config)
    ready = local_config(config)
    engine = create_engine(ready.database_url or "")  # local_config has filled it in
    with engine.connect() as tx:
        newest = gauges.newest(tx)
    engine.dispose()
    if newest is not None and datetime.fromisoformat(Entry.parse(newest).at) > utc_now():
        raise click.ClickException(
            "an entry of the ledger lies later than now, and its time never runs backwards;"
            " begin a fresh demo"
        )
    clock.move(timedelta())
    _say(clock)


def _moved(config: Config) -> MovedClock:
    if not config.sandbox:
        raise ConfigError("in production there is only the machine's clock")
    config.data_dir.mkdir(parents=True, exist_ok=True)
    return MovedClock(config.data_dir / FILE)


def _say(clock: MovedClock) -> None:
    at = clock().astimezone(CITY_ZONE).isoformat(timespec="seconds")
    ahead = clock.offset or "not"
    click.echo(f"{at}  ({ahead} ahead of the machine)")


COMMANDS = (clock_group,)
