"""Charges at tills, against a bare Flask view that writes the same rows with one statement, and
one that writes a single row.

Thirty-two tills, each with a key of its own, ask one after another for residents' codes, each a new
one: at as many merchants, then all at one, whose allowance is then the row that all of them want.
The same for orders of thirty-two rewards and of one. Both servers are the same, on one database.
Last, the tills go on while two providers report at full speed, for how long the slowest wait. How
long anybody waits is held against the write of a single row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count, cycle, islice
from secrets import token_bytes, token_hex
from statistics import median, quantiles
from typing import Any, NamedTuple

import orjson
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Connection

from app.cli.local import running
from app.config import CITY_ZONE
from app.flows import pay_code
from app.flows.reward.make import make
from app.flows.tokens import issue_access_token
from app.signature import Received, sign
from app.store import budgets, entries, merchants, premises, rewards
from bench.balance import bare
from bench.ingest import reporting
from bench.load import post, times
from bench.stage import BATCH, Result, Stage, analyze, copy_shape
from ledger import transfers
from ledger.buckets import expiry_bucket
from ledger.entries import instant

TILLS = 32
SECONDS = 4.0
ROUNDS = 3
WALLET = 100_000  # points
ALLOWANCE = 10**12
PRICE = 10
READY = 1_500  # requests a second that are made ready
FLOOR_READY = int(2 * READY * SECONDS)
# What a charge writes to: tables of the same shape for the bare view.
TABLES = [
    "entries",
    "outbox",
    "postings",
    "balances",
    "pay_codes",
    "nonces",
    "charges",
    "bill_lines",
]
SERVER = {"workers": 2, "threads": 8}


class Till(NamedTuple):
    """A till and the key it signs with."""

    code: str
    key_id: str
    key: Ed25519PrivateKey


class Shop(NamedTuple):
    """A merchant with as many tills as are asked for, and a reward."""

    merchant: str
    tills: list[Till]
    reward: str


def measure(stage: Stage) -> list[Result]:
    """Charges and orders a second, and the 99th percentile of a charge beside ingestion."""
    shops, crowd, numbers = _open(stage), cycle(stage.residents), count()
    spread = [shop.tills[0] for shop in shops]
    scenes = {"charges": spread, "charges, one merchant": shops[0].tills}
    goods = {
        "orders": [shop.reward for shop in shops],
        "orders, one reward": [shops[0].reward] * TILLS,
    }
    rates: dict[str, list[float]] = {name: [] for name in (*scenes, *goods, "same rows", "row")}
    waits = []
    with running(stage.config, **SERVER, worker=False) as url, _floor(stage) as floor_url:

        def count_all() -> None:
            asked = list(_bare_charges(stage, shops, crowd, numbers))
            for name in ("same rows", "row"):
                path = f"{floor_url}/{name.replace(' ', '-')}"
                floors = times(floor_url, [post(path, body) for body in asked], SECONDS, TILLS)
                rates[name].append(len(floors))
            waits.append(median(floors))
            for name, tills in scenes.items():
                ready = list(_charges(stage, url, tills, crowd, numbers))
                rates[name].append(len(times(url, ready, SECONDS, TILLS)))
            for name, some in goods.items():
                ready = list(_orders(stage, url, some, crowd, numbers))
                rates[name].append(len(times(url, ready, SECONDS, TILLS)))

        count_all()  # for a city in which there are charges and orders, and statistics of them
        analyze(stage.config)
        for some in (*rates.values(), waits):
            some.clear()
        for _ in range(ROUNDS):
            count_all()
        turns = [list(_charges(stage, url, spread, crowd, numbers)) for _ in range(ROUNDS)]
        with reporting(stage, url):
            slow = [quantiles(times(url, ready, SECONDS, TILLS), n=100)[98] for ready in turns]
    rate = {name: median(some) / SECONDS for name, some in rates.items()}
    wait, beside = median(waits), median(slow)
    return [
        *(
            Result(said, rate[name], unit, rate[base], rate[name] / rate[base])
            for said, name, unit, base in (
                ("charges", "charges", "charges/s", "same rows"),
                ("charges, to one row", "charges", "charges/s", "row"),
                ("charges, one merchant", "charges, one merchant", "charges/s", "charges"),
                ("orders, one reward", "orders, one reward", "orders/s", "orders"),
            )
        ),
        Result("charge beside ingestion, p99", beside * 1e6, "µs", wait * 1e6, beside / wait),
    ]


def _charges(
    stage: Stage, url: str, tills: list[Till], crowd: Iterator[str], numbers: Iterator[int]
) -> Iterator[bytes]:
    """Signed requests, each with a code that was shown just now; by turns of the tills."""
    path, now = "/api/v1/merchant/charges", stage.now()
    some = list(islice(crowd, int(READY * SECONDS)))
    with stage.engine.begin() as tx:
        codes = [pay_code.new_code(tx, stage.vault, one, None, now).code for one in some]
    for code, till in zip(codes, cycle(tills), strict=False):
        body = _body(next(numbers), code, till.code)
        signed = Received("POST", path, body)
        header = sign(till.key, till.key_id, signed, int(time.time()), token_hex(16))
        yield post(url + path, body, Authorization=header)


def _bare_charges(
    stage: Stage, shops: list[Shop], crowd: Iterator[str], numbers: Iterator[int]
) -> Iterator[bytes]:
    """What the bare view is asked for: whose points, and at which merchant."""
    bucket = _bucket(stage.now())
    for shop, resident in zip(cycle(shops), islice(crowd, FLOOR_READY), strict=False):
        asked = orjson.loads(_body(next(numbers), resident, shop.merchant))
        yield orjson.dumps(asked | {"bucket": bucket})


def _orders(
    stage: Stage, url: str, wanted: list[str], crowd: Iterator[str], numbers: Iterator[int]
) -> Iterator[bytes]:
    now = stage.now()
    for resident, reward in zip(islice(crowd, int(READY * SECONDS)), cycle(wanted), strict=False):
        token = issue_access_token(stage.vault.token, resident, now)
        yield post(
            f"{url}/api/v1/me/orders",
            orjson.dumps({"reward": reward}),
            Authorization=f"Bearer {token}",
            Idempotency_Key=f"order-{next(numbers):012d}",
        )


def _body(number: int, code: str, till: str) -> bytes:
    asked = {"out_request_no": f"bench-{number:012d}", "code": code, "points": str(PRICE)}
    return orjson.dumps(asked | {"till": till})


def _open(stage: Stage) -> list[Shop]:
    """As many merchants as tills, with allowances without end, and points in every wallet."""
    now = stage.now()
    with stage.engine.begin() as tx:
        shops = [open_shop(tx, stage, n, now) for n in range(TILLS)]
        budget = budgets.scopes(tx)["travel"]
    bucket = _bucket(now)
    for first in range(0, len(stage.residents), BATCH):
        with stage.engine.begin() as tx:
            gifts = [
                transfers.adjust(
                    id=token_hex(16), at=instant(now), resident=one, budget=budget,
                    points=WALLET, bucket=bucket, reason="bench",
                )
                for one in stage.residents[first : first + BATCH]
            ]  # fmt: skip
            entries.append(tx, gifts)
    while stage.sealer.seal(stage.now()):
        pass
    analyze(stage.config)
    return shops


def _bucket(now: datetime) -> int:
    """Where the points of all wallets are."""
    return expiry_bucket(now.astimezone(CITY_ZONE).date(), 12)


def open_shop(tx: Connection, stage: Stage, number: int, now: datetime) -> Shop:
    token, code = token_hex(16), f"shop-{number}"
    merchants.add(
        tx,
        merchants.Merchant(token, code, code, "", b"", "approved", "", 1, False, now, now, None),
    )
    merchants.add_contract(
        tx, token, merchants.Contract(1, "city", "prepaid", 100, 0, 0, "bench", now)
    )
    fund = transfers.fund_merchant(
        id=token_hex(16), at=instant(now), merchant=token, points=ALLOWANCE, reference="bench"
    )
    entries.append(tx, [fund])
    store = token_bytes(16)
    premises.put_store(tx, token, premises.Store(store, "s", "s", "140403", "s", True))
    tills = []
    for n in range(TILLS if number == 0 else 1):
        till, place, key = f"t{n}", token_bytes(16), Ed25519PrivateKey.generate()
        premises.put_till(tx, token, place, store, till, is_open=True)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        merchants.add_key(tx, f"{code}-{till}", token, place, "ed25519", public, now)
        tills.append(Till(till, f"{code}-{till}", key))
    reward = make(tx, stage.vault, token, "reward", _terms(now), 10**9, now)
    rewards.bring(tx, reward, "open")
    return Shop(token, tills, reward)


def _terms(now: datetime) -> dict[str, Any]:
    return {
        "kind": "voucher", "codes": "generated", "title_zh": "券", "title_en": "Voucher",
        "text_zh": "", "project": "", "points": PRICE, "per_person": None, "per_day": None,
        "valid_days": 30, "unused": "refund", "opens_at": now - timedelta(days=1),
        "closes_at": now + timedelta(days=30), "districts": None, "from_14": False,
        "min_reduction_mg": 0, "store": None,
    }  # fmt: skip


@contextmanager
def _floor(stage: Stage) -> Iterator[str]:
    assert stage.config.owner_url
    with psycopg.connect(stage.config.owner_url.replace("+psycopg", "")) as owner:
        owner.execute("CREATE TABLE bare_writes (number text PRIMARY KEY, body bytea NOT NULL)")
        copy_shape(owner, "bare", TABLES)
        owner.execute("ALTER TABLE bare_balances SET (fillfactor = 80)")  # as that of balances
        owner.execute("INSERT INTO bare_balances SELECT * FROM balances")
        owner.execute(
            "INSERT INTO bare_pay_codes SELECT sha256(id), id, NULL, NULL, now() FROM residents"
        )
        owner.execute("CREATE SEQUENCE bare_arrivals")
        for name in ("writes", *TABLES):
            owner.execute(f"GRANT SELECT, INSERT, UPDATE ON bare_{name} TO puhui_app")
        owner.execute("GRANT USAGE ON bare_arrivals TO puhui_app")
    analyze(stage.config)
    with bare(stage.config, stage.residents[0], **SERVER) as url:
        yield url
