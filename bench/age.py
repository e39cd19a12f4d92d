"""What a city's third year costs beside its first days, and the bytes that an activity takes.

Two cities of the same people, providers and shops stand beside each other in one run. The old one
is given as many activities as are asked for, over three years. The young one has three weeks behind
it and a hundredth of the activities, by a hundredth of its people, who have done as much each: what
is read of them is as long. Then both do the same in turns, so that the machine's mood falls on both
alike: the floor of each figure is the young one's, by the clock and in CPU time, with that of
PostgreSQL's backends.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from secrets import token_hex
from statistics import median
from typing import NamedTuple

import orjson
import psutil
from rich.progress import Progress
from sqlalchemy import text

from app.application import create_app
from app.config import CITY_ZONE
from app.flows import pay_code
from app.flows.accept import Batch, accept
from app.flows.tokens import issue_access_token
from app.signature import Received, sign
from app.store.embedded import APP_ROLE
from bench import disk
from bench.charges import open_shop
from bench.life import PRICE, City, console, doings, live
from bench.stage import BATCH, Result, Stage, stage
from ledger.buckets import day_number

ENTRIES = 1_000_000
_EACH = 250  # activities a resident, of the old city
_CUSTOMERS = 20_000  # of a provider, at most
_FEWEST = 100
_PART = 100  # one in so many has lived in the young city
_YOUNG = timedelta(days=21)
_OLD = timedelta(days=3 * 365)
_SHOPS = 4
_ROUNDS = 5
_WARM = 10  # rounds before: the servers of both have been up for a while
_SOME = 200  # reads or charges a round
_CHARGES = "/api/v1/merchant/charges"
_READS = {
    "home": "home",
    "statement page": "statement",
    "receipt": "entries/{}/receipt",
}
_RICH = text(
    "SELECT account FROM balances WHERE account_kind = 1 AND asset = 2 AND amount >= :price"
    " AND bucket >= :today GROUP BY account ORDER BY random() LIMIT :count"
)
_OF_ANY_AGE = text(
    "SELECT o.resident, e.id FROM openings o JOIN entries e USING (arrival)"
    " JOIN leaf_of(e.arrival) l ON true WHERE arrival = ANY(ARRAY("
    "SELECT (random() * (SELECT max(arrival) FROM openings))::bigint"
    " FROM generate_series(1, 4 * :count))) LIMIT :count"
)
THINGS = ("ingestion", "sealing", "charge", *_READS)
Ready = tuple[int, Callable[[], None]]
"""How many of its kind are about to be done, and what does them."""


class Cost(NamedTuple):
    """Seconds by the clock and of CPU, for one of what was done."""

    clock: float
    cpu: float


def measure(_stage: Stage | None, entries: int = ENTRIES) -> list[Result]:
    """Microseconds of each thing in the old city to those in the young one; bytes an activity."""
    customers = max(_FEWEST, min(_CUSTOMERS, entries // _EACH // 2))
    with _city(customers) as young, _city(customers) as old:
        live(young, max(entries // _PART, 20 * _FEWEST), _YOUNG, "young city", _PART)
        live(old, entries, _OLD, "old city")
        results = disk.sizes(old)
        for city in (young, old):
            disk.vacuum(city.stage)
        results += _compare(young, old)
        return results + disk.bloat(old)


@contextmanager
def _city(customers: int) -> Iterator[City]:
    """People, providers and shops; nothing was done yet."""
    with stage(customers) as made:
        now = made.now()
        with made.engine.begin() as tx:
            shops = [open_shop(tx, made, n, now) for n in range(_SHOPS)]
        yield City(made, shops, create_app(made.config).test_client())


def _compare(young: City, old: City) -> list[Result]:
    """Each thing in each city, round by round and in turns; medians."""
    work: dict[str, Callable[[City], Ready]] = {
        "ingestion": _ingestion,
        "sealing": _sealing,
        "charge": _charge,
        **{name: partial(_read, path) for name, path in _READS.items()},
    }
    costs: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in work}
    with Progress(console=console) as progress:
        bar = progress.add_task("compare", total=(_WARM + _ROUNDS) * len(work))
        for turn in range(_WARM + _ROUNDS):
            for name, prepare in work.items():
                both = _cost(young, *prepare(young)), _cost(old, *prepare(old))
                if turn >= _WARM:
                    costs[name].append(both)
                progress.advance(bar)
    results = []
    for name, rounds in costs.items():
        for part, suffix in enumerate(("", ", CPU")):
            was, now = (1e6 * median(both[who][part] for both in rounds) for who in (0, 1))
            results.append(Result(f"{name}, aged{suffix}", now, "µs", was, now / was))
    return results


def _cost(city: City, units: int, run: Callable[[], None]) -> Cost:
    folder = city.stage.config.data_dir / "postgres"
    postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
    backends = [one for one in postmaster.children() if APP_ROLE in " ".join(one.cmdline())]
    cpu, clock = _cpu(backends), time.perf_counter()
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # a line a request
        run()
    clock, cpu = time.perf_counter() - clock, _cpu(backends) - cpu
    return Cost(clock / units, cpu / units)


def _cpu(backends: list[psutil.Process]) -> float:
    """Seconds of this process and of these."""
    spent = [one.cpu_times() for one in backends]
    theirs: float = sum(one.user + one.system for one in spent)
    return time.process_time() + theirs


def _ingestion(city: City) -> Ready:
    """A batch of each provider, of yesterday's acts."""
    made, day = city.stage, city.stage.now().astimezone(CITY_ZONE).date() - timedelta(days=1)
    batches = []
    for provider in made.providers:
        number = next(city.numbers)
        some = list(islice(doings(provider, day, random.Random(number), f"{number}-"), BATCH))
        batches.append(Batch(provider.code, f"late-{number}", orjson.dumps(some), some))
    city.lived += BATCH * len(batches)

    def run() -> None:
        for batch in batches:
            accept(made.engine, made.vault, made.registry, batch, made.now())

    return BATCH * len(batches), run


def _sealing(city: City) -> Ready:
    """What the batches left."""
    made = city.stage

    def run() -> None:
        while made.sealer.seal(made.now()):
            pass

    return BATCH * len(made.providers), run


def _charge(city: City) -> Ready:
    """Signed charges of people who have points, at each shop in turn."""
    made, now = city.stage, city.stage.now()
    today = day_number(now.astimezone(CITY_ZONE).date())
    with made.engine.begin() as tx:
        found = tx.execute(_RICH, {"price": PRICE, "today": today, "count": _SOME})
        codes = [
            pay_code.new_code(tx, made.vault, row[0].hex(), None, now).code for row in found.all()
        ]
    asked = []
    for n, code in enumerate(codes):
        till, number = city.shops[n % _SHOPS].tills[0], f"age-{next(city.numbers):012d}"
        body = orjson.dumps(
            {"out_request_no": number, "code": code, "points": str(PRICE), "till": till.code}
        )
        signed = Received("POST", _CHARGES, body)
        header = sign(till.key, till.key_id, signed, int(time.time()), token_hex(16))
        asked.append((body, {"Authorization": header}))

    def run() -> None:
        for body, headers in asked:
            answer = city.client.post(
                _CHARGES, data=body, headers=headers, content_type="application/json"
            )
            if (answer.json or {}).get("state") != "succeeded":
                raise RuntimeError(answer.text)

    return len(asked), run


def _read(path: str, city: City) -> Ready:
    """What residents read, each about an entry of any age."""
    made, now = city.stage, city.stage.now()
    with made.engine.begin() as tx:
        rows = tx.execute(_OF_ANY_AGE, {"count": _SOME}).all()
    asked = []
    for resident, entry_id in rows:
        token = issue_access_token(made.vault.token, resident.hex(), now)
        address = f"/api/v1/me/{path.format(entry_id.hex())}"
        asked.append((address, {"Authorization": f"Bearer {token}"}))

    def run() -> None:
        for address, headers in asked:
            answer = city.client.get(address, headers=headers)
            if answer.status_code != 200:
                raise RuntimeError(answer.text)

    return len(asked), run
