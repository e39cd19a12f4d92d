"""`puhui demo`: a sample city through the whole product, from signed batches to checked receipt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import click
import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import Engine, create_engine

from app.cli.client import TIMEOUT_S, ProviderError
from app.cli.clock import now
from app.cli.local import Server, free_port, prepare, started
from app.cli.market import MARKET, open_market, write_keys
from app.cli.merchant_client import MerchantClient, ResidentClient
from app.cli.populate import SHORT_AREA, Sent, open_doors, reports, send, settle_in
from app.cli.sample_city import Person, SampleCity
from app.cli.serve import claim, stay
from app.cli.spend import spend
from app.clock import city_clock
from app.config import CITY_ZONE, Config
from app.flows.export import export_log
from app.store import people
from app.vault import Vault, open_vault
from ledger import checkpoint
from scenarios import AREAS, load

_SEAL_S = 120
_PYTHON = os.path.relpath(sys.executable)
_PUHUI = f"{_PYTHON} -m app.cli"
_AREA_NAMES = dict(zip(AREAS, "衣食住行银购游", strict=True))
_KEY_FILE, _RECEIPT, _OPENING = "log.vkey", "receipt.tlog-proof", "opening.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo plays on: the running service, and somewhere to say what happens."""

    config: Config
    engine: Engine
    vault: Vault
    server: Server
    http: httpx.Client
    console: Console

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """An answer of the service. Raises click.ClickException for any but a good one."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return _good(self.http.get(self.server.url + path, headers=headers))

    def say(self, text: str) -> None:
        """A line of plain text, as it is."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


@click.command()
@click.option("--residents", default=1000, show_default=True, type=click.IntRange(1, 99_999))
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 366))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 999_999))
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--no-serve", is_flag=True, help="end when everything is shown")
@click.pass_obj
def demo(config: Config, residents: int, days: int, seed: int, port: int, no_serve: bool) -> None:
    """A sample city through the whole product; then the server stays up. Safe to run again."""
    claim(config)
    port = free_port("127.0.0.1", 0 if no_serve else port)  # said before anything is prepared
    city = SampleCity(seed, residents, load())
    console = Console(width=None if sys.stdout.isatty() else 110)
    with _stage(config, console, port) as stage:
        crowd = city.people()
        open_doors(stage.engine, stage.vault, city, days, now())
        joined = settle_in(stage.engine, stage.vault, city, crowd, now())
        stage.say(f"{residents:,} residents, {joined:,} of them new; seven budgets funded")
        open_market(stage.engine, stage.vault, now())
        write_keys(stage.config.data_dir / "merchants")
        sent = _send(stage, city, crowd, days)
        spend(stage.http, stage.server.url, city_clock(config))
        _wait_until_sealed(stage)
        _show_city(stage, city, sent)
        _show_market(stage)
        _audit(stage)
        _show_resident(stage, city, crowd)
        _say_how_to_repeat(stage)
        if not no_serve:
            stay(stage.server)


@contextmanager
def _stage(config: Config, console: Console, port: int) -> Iterator[Stage]:
    begin = time.monotonic()
    config = prepare(config)
    engine = create_engine(config.database_url or "")  # prepare has filled it in
    log = config.data_dir / "server.log"
    with (
        started(config, port=port, workers=2, log=log) as server,
        httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http,
    ):
        stage = Stage(config, engine, open_vault(config.keys_dir), server, http, console)
        seconds = time.monotonic() - begin
        stage.say(f"PostgreSQL, Valkey, web and worker are up after {seconds:.1f} s ({server.url})")
        yield stage
    engine.dispose()


def _send(stage: Stage, city: SampleCity, crowd: list[Person], days: int) -> Sent:
    today = now().astimezone(CITY_ZONE).date()
    span = [today - timedelta(days=ago) for ago in range(days, 0, -1)]
    todo = list(reports(city, crowd, span))
    stage.say(f"Sending {span[0]} to {span[-1]} as {len(todo)} signed batches over HTTP")
    columns = (TextColumn("{task.description}"), BarColumn(40), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=stage.console) as progress:
        try:
            return send(stage.config, stage.engine, stage.server.url, todo, progress)
        except ProviderError as error:
            stage.server.check()
            raise click.ClickException(str(error)) from error


def _wait_until_sealed(stage: Stage) -> None:
    deadline = time.monotonic() + _SEAL_S
    while stage.get("/health/ready").json()["unsealed_entries"] != "0":
        stage.server.check()
        if time.monotonic() > deadline:
            raise click.ClickException(f"the worker did not seal everything within {_SEAL_S} s")
        time.sleep(0.1)


def _show_city(stage: Stage, city: SampleCity, sent: Sent) -> None:
    budgets = {one["scope"]: one for one in stage.get("/api/v1/budgets").json()["items"]}
    numbers = ("sent", "accepted", "duplicate", "unclaimed", "rejected", "kg CO2e avoided")
    table = Table("area", *numbers, "points issued", "points waiting", title="The sample city")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    sums = [0] * 8
    for area in AREAS:
        tally, waiting = sent.areas[area], int(budgets[area]["waiting_points"])
        row = [
            tally.rows,
            *(tally.outcomes[name] for name in numbers[1:4]),
            tally.rejected.total(),
            tally.reduction_mg,
            tally.points + max(tally.waiting_points - waiting, 0),  # some were paid later
            waiting,
        ]
        sums = [one + other for one, other in zip(sums, row, strict=True)]
        table.add_row(f"{_AREA_NAMES[area]} {area}", *_shown(row))
    table.add_section()
    table.add_row("all", *_shown(sums))
    stage.console.print(table)
    codes = sum((tally.rejected for tally in sent.areas.values()), start=type(tally.rejected)())
    stage.say(
        "Rejected: " + (", ".join(f"{n} {code}" for code, n in codes.most_common()) or "none")
    )
    stage.say("Where a cap was reached the points are fewer; the carbon is recorded all the same.")
    if sums[7]:
        stage.say(
            f"The {SHORT_AREA} budget was made short on purpose: {sums[7]:,} points wait. This pays"
            f" them, in the order they were earned:\n  {_PUHUI} budget fund {SHORT_AREA} {sums[7]}"
            ' --reference "decision 2"'
        )
    stage.say(f"Residents: {city.size:,}")
    if sent.fresh:
        rate = sent.fresh / sent.seconds
        stage.say(f"Throughput: {sent.fresh:,} activities in {sent.seconds:.1f} s, {rate:,.0f}/s")
    if sent.fresh < sums[0]:
        stage.say(
            f"{sums[0] - sent.fresh:,} were answered in an earlier run: nothing credited twice"
        )


def _shown(row: list[int]) -> list[str]:
    return [f"{n / 1e6:,.1f}" if place == 5 else f"{n:,}" for place, n in enumerate(row)]


def _show_market(stage: Stage) -> None:
    """What each merchant took and gave back today, as its own bill says."""
    kinds = {"at tills": ("charge",), "orders": ("order",), "given back": ("refund", "reverse")}
    table = Table("merchant", *kinds, "points redeemed", "points left", title="The market today")
    for column in table.columns[1:]:
        column.justify = "right"
    clock = city_clock(stage.config)
    for stall in MARKET:
        shop = MerchantClient(stage.http, stage.server.url, stall.code, clock)
        try:
            bill = shop.get(f"bills/{clock().astimezone(CITY_ZONE).date()}?preview=true")
        except ProviderError:  # nothing was spent there today
            bill = {"kinds": [], "points": "0"}
        lines = {one["kind"]: int(one["lines"]) for one in bill["kinds"]}
        counts = [sum(lines.get(kind, 0) for kind in named) for named in kinds.values()]
        figures = [*counts, int(bill["points"]), int(shop.get("profile")["allowance_points"])]
        table.add_row(f"{stall.name} {stall.code}", *[f"{figure:,}" for figure in figures])
    stage.console.print(table)
    named = stage.get("/api/v1/sandbox/residents").json()["items"][0]
    spender = ResidentClient(stage.http, stage.server.url, named)
    stage.say(f"What resident {named} spent last:")
    lines_of_day = spender.get("statement?limit=20")["items"]
    for line in [one for one in lines_of_day if one["points"].startswith("-")][:3]:
        when, what = line["recorded_at"][:19], f"{line['title_zh']} {line.get('merchant', '')}"
        stage.say(f"  {when}  {line['points']:>6} points  {what}")


def _audit(stage: Stage) -> None:
    """Export the log and have it audited by a program that sees nothing but the files."""
    folder, keys = stage.config.data_dir / "export", stage.config.data_dir / _KEY_FILE
    keys.write_text(stage.get("/log/keys").text)
    export_log(stage.engine, stage.vault, folder, openings=True)
    note = (folder / "checkpoint").read_text()
    head = checkpoint.open(note, stage.vault.ring.verifiers, stage.config.log_origin)
    stage.say(f"\nLog: {head.size:,} entries, root {note.splitlines()[2]}")
    begin = time.monotonic()
    lines = _check(stage, str(folder), "--vkey", str(keys), "--jobs", "2").splitlines()
    stage.say(f"Full audit of the export, without database ({time.monotonic() - begin:.1f} s):")
    for line in lines:
        stage.say(f"  {line}")


def _show_resident(stage: Stage, city: SampleCity, crowd: list[Person]) -> None:
    """What one resident sees, and that the resident's receipt holds without us."""
    person = sorted(crowd, key=_variety)[-1 - len(crowd) // 10]  # eager, and not the most extreme
    habit = person.habits[0]
    subject = stage.vault.subject(habit.provider, city.subject(habit.provider, person.number))
    with stage.engine.connect() as tx:
        resident = people.bound_to(tx, [subject])[subject]
    login = stage.http.post(f"{stage.server.url}/api/v1/sandbox/login", json={"resident": resident})
    token = _good(login).json()["access_token"]
    home = stage.get("/api/v1/me/home", token).json()
    held = home["balances"]
    stage.say(f"\nResident {resident} of district {person.district}")
    stage.say(
        f"  {int(held['points']):,} points, {int(home['waiting_points']):,} waiting,"
        f" {int(held['reduction_mg']) / 1e6:,.3f} kg CO2e avoided;"
        f" next expiry {held['next_expiry'] and held['next_expiry']['expires_on']}"
    )
    for line in home["recent"]:
        grams, when = int(line["reduction_mg"]) / 1000, line["recorded_at"][:19]
        stage.say(f"  {when}  {grams:>10,.1f} g  {line['points']:>6} points  {line['title_zh']}")
    issued = stage.get("/api/v1/me/statement?kind=issue&limit=1", token).json()["items"]
    if not issued:
        stage.say("  nothing was credited to this resident yet, so there is no receipt to check")
        return
    _show_entry(stage, issued[0]["entry_id"], token)


def _variety(person: Person) -> tuple[int, float]:
    areas = {habit.version.area for habit in person.habits}
    return len(areas), sum(habit.daily for habit in person.habits)


def _show_entry(stage: Stage, entry_id: str, token: str) -> None:
    path = f"/api/v1/me/entries/{entry_id}"
    entry = stage.get(path, token).json()
    how = entry["calculation"]
    stage.say(f"\nHow {entry['title_zh']} came to {entry['points']} points")
    stage.say(f"  {how['occurred_at']}, reported by {how['provider']}: {how['arithmetic']}")
    for one in how["coefficients"]:
        stage.say(f"  {one['title_en']} {one['value']} {one['unit']}: {one['source']}")
    stage.say(f"  rule {how['scenario']} version {how['version']}")
    folder = stage.config.data_dir
    opening = stage.get(f"{path}/opening", token).json()
    only = {name: opening[name] for name in ("opening", "salt")}
    (folder / _RECEIPT).write_text(stage.get(f"{path}/receipt", token).text)
    (folder / _OPENING).write_bytes(orjson.dumps(only))
    stage.say("The receipt of this entry, verified offline:")
    for line in _check(stage, *_receipt_arguments(folder)).splitlines():
        stage.say(f"  {line}")


def _receipt_arguments(folder: Path) -> list[str]:
    keys, opening = str(folder / _KEY_FILE), str(folder / _OPENING)
    return ["receipt", str(folder / _RECEIPT), "--vkey", keys, "--opening", opening]


def _check(stage: Stage, *arguments: str) -> str:
    """Run the verifier, a process with no way to the database; its words.

    Raises click.ClickException with them if anything does not hold.
    """
    done = subprocess.run(  # noqa: S603 (our own interpreter and module)
        [sys.executable, "-m", "ledger", *arguments],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"python -m ledger says: {done.stdout}{done.stderr}")
    return done.stdout.rstrip()


def _say_how_to_repeat(stage: Stage) -> None:
    folder = Path(os.path.relpath(stage.config.data_dir))
    verify = f"  {_PYTHON} -m ledger"
    stage.say("\nCheck both yourself, with nothing of ours running:")
    stage.say(f"{verify} {folder / 'export'} --vkey {folder / _KEY_FILE}")
    stage.say(f"{verify} {' '.join(_receipt_arguments(folder))}")


def _good(response: httpx.Response) -> httpx.Response:
    if not response.is_success:
        raise click.ClickException(f"{response.request.url} answered {response.status_code}")
    return response


COMMANDS = (demo,)
