"""A city's life, so many activities long, by the flows that live it in earnest.

Batches of both providers go through `accept`, each day at that day's end; people charge what they
have at a shop, with rows and bill lines; points expire; what the worker forgets is forgotten; all
is sealed. Nothing is kept in memory but the month at hand.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from itertools import count, groupby, islice
from secrets import token_hex

import orjson
from flask.testing import FlaskClient
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Connection, create_engine, text

from app.config import CITY_ZONE, Config
from app.flows.accept import Batch, accept
from app.flows.expire import expire_points
from app.flows.fingerprint import oldest_kept
from app.flows.process import collect_seldom
from app.store import acts, bills, charges, entries, merchants
from app.store.catalogue import Registry
from app.store.db import bytea_array
from app.vault import open_vault
from bench.charges import Shop
from bench.stage import BATCH, Provider, Stage, decimal
from ledger import transfers
from ledger.buckets import day_number
from ledger.entries import instant

PRICE = 2  # points of a charge
_SPENT = 50  # activities to one charge
_WALLETS = text(
    "SELECT account, bucket, amount FROM balances WHERE account = ANY(CAST(:ids AS bytea[]))"
    " AND account_kind = 1 AND asset = 2 AND amount > 0 AND bucket >= :today"
)
console = Console(stderr=True)


@dataclass
class City:
    """A city and who uses it; `lived` is how many activities it has taken."""

    stage: Stage
    shops: list[Shop]
    client: FlaskClient
    lived: int = 0
    numbers: Iterator[int] = field(default_factory=count)


def live(city: City, wanted: int, span: timedelta, name: str, part: int = 1) -> None:
    """Let so many activities happen, evenly over the days up to yesterday, month by month; one
    customer in `part` does them."""
    today = city.stage.now().astimezone(CITY_ZONE).date()
    days = [today - span + timedelta(days=n) for n in range(span.days)]
    bounds = [wanted * n // len(days) for n in range(len(days) + 1)]
    plan = {day: bounds[n + 1] - bounds[n] for n, day in enumerate(days)}
    doers = [
        one._replace(customers=one.customers[: max(1, len(one.customers) // part)])
        for one in city.stage.providers
    ]
    context = multiprocessing.get_context("spawn")
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console) as progress,
        ProcessPoolExecutor(len(city.stage.providers), context, collect_seldom) as pool,
    ):
        bar = progress.add_task(name, total=wanted)
        for _, group in groupby(days, key=lambda day: (day.year, day.month)):
            month = {day: plan[day] for day in group}
            jobs = [
                pool.submit(_report, city.stage.config, provider, half, month)
                for half, provider in enumerate(doers)
            ]
            city.lived += sum(job.result() for job in jobs)
            end = datetime.combine(max(month), clock_time.max, CITY_ZONE)
            _spend(city.stage, sum(month.values()) // _SPENT, end)
            _tidy(city.stage, end)
            progress.advance(bar, sum(month.values()))


def _report(config: Config, provider: Provider, half: int, plan: dict[date, int]) -> int:
    """A provider's month, in a process of its own; how many activities were accepted."""
    engine, vault = create_engine(config.database_url or ""), open_vault(config.keys_dir)
    registry, accepted = Registry(), 0
    for day, wanted in plan.items():
        now = datetime.combine(day, clock_time(23, 59), CITY_ZONE)
        todo = doings(provider, day, random.Random(f"{provider.code} {day}"))
        for first in range(0, share := (wanted + 1 - half) // 2, BATCH):
            some = list(islice(todo, min(BATCH, share - first)))
            batch = Batch(provider.code, f"{day}-{first}", orjson.dumps(some), some)
            answer = orjson.loads(accept(engine, vault, registry, batch, now))
            accepted += answer["counts"]["accepted"]
    engine.dispose()
    return accepted


def doings(
    provider: Provider, day: date, draw: random.Random, prefix: str = ""
) -> Iterator[dict[str, object]]:
    """Made-up acts of a day, without end."""
    for n in count():
        yield {
            "id": f"{prefix}{day:%y%m%d}-{n:06d}",
            "subject": draw.choice(provider.customers),
            "scenario": provider.scenario,
            "occurred_at": f"{day}T{draw.randrange(6, 22):02d}:{draw.randrange(60):02d}:00+08:00",
            "quantities": {provider.quantity: decimal(draw.randint(100, provider.most))},
        }


def _spend(made: Stage, wanted: int, now: datetime) -> None:
    """Charges at that moment by some who have points, each once."""
    names = random.Random(str(now)).sample(made.residents, min(wanted, len(made.residents)))
    for first in range(0, len(names), BATCH):
        with made.engine.begin() as tx:
            _charge(tx, names[first : first + BATCH], now)


def _charge(tx: Connection, names: list[str], now: datetime) -> None:
    """The entries go through the one door together; each row and bill line as at a till."""
    today, shop = day_number(now.date()), merchants.find(tx, "shop-0")
    assert shop
    wallets: dict[str, dict[int, int]] = {}
    given = {"ids": bytea_array(map(bytes.fromhex, names)), "today": today}
    for account, bucket, amount in tx.execute(_WALLETS, given):
        wallets.setdefault(account.hex(), {})[bucket] = amount
    rich = [who for who in sorted(wallets) if sum(wallets[who].values()) >= PRICE]
    moved = [
        transfers.charge(
            id=token_hex(16), at=instant(now), resident=who, points=PRICE, wallet=wallets[who],
            today=today, merchant=shop.id,
        )
        for who in rich
    ]  # fmt: skip
    for who, entry, arrival in zip(rich, moved, entries.append(tx, moved), strict=True):
        number = f"life-{arrival}"
        row = charges.Charge(
            shop.id, number, token_hex(16), bytes(32), who, None, None, None, None, PRICE, 0,
            "succeeded", "", "", None, entry.id, now, None, now,
        )  # fmt: skip
        charges.put(tx, row)
        line = bills.Line(arrival, shop.id, "charge", number, "", entry.id, PRICE, None, None)
        bills.add(tx, line, now)


def _tidy(made: Stage, now: datetime) -> None:
    """What the worker has done by that moment."""
    expire_points(made.engine, made.vault, now)
    with made.engine.begin() as tx:
        acts.forget_before(tx, oldest_kept(now))
    while made.sealer.seal(now):
        pass
