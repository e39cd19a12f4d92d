"""Two web hosts before one database, one killed under load: nothing lost, no wrong answer.

Each host has web processes and a worker of its own, on a port of its own. Whoever loses an answer
sends the same again to the other host, as a load balancer in front would have it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count, pairwise
from typing import Any

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, create_engine

from app.cli.client import ProviderClient, ProviderError
from app.cli.local import PROJECT, Server, prepare, started
from app.cli.market import TILL, open_market
from app.cli.merchant_client import MerchantClient, ResidentClient
from app.clock import utc_now
from app.config import Config
from app.flows.bill.reconcile import reconcile
from app.flows.budget import fund_budget
from app.flows.check import check_database
from app.flows.enroll import enroll
from app.flows.export import export_log
from app.flows.partner.sandbox import CODE
from app.flows.seal import Sealer
from app.store import providers
from app.store.catalogue import Registry
from app.vault import Vault, open_vault

BEFORE_S, AFTER_S = 2.0, 3.0  # of load, around the kill
ACTS = 20  # a batch
PRICE = 1
PAUSE_S = 0.05  # between requests for a resident, who may ask 600 times a minute
_LOST = (httpx.TransportError, httpx.InvalidURL)


@dataclass
class City:
    """One database, two hosts."""

    config: Config
    engine: Engine
    vault: Vault
    hosts: tuple[Server, Server]
    http: httpx.Client
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def urls(self) -> list[str]:
        return [host.url for host in self.hosts]


@pytest.fixture
def city(database, tmp_path) -> Iterator[City]:
    with database(tmp_path) as fresh:
        config = prepare(replace(fresh, data_dir=tmp_path))
        engine, vault = create_engine(config.database_url), open_vault(config.keys_dir)
        fund_budget(engine, vault, "*", 10_000_000, "decision 1", utc_now())
        open_market(engine, vault, utc_now())
        with (
            started(config, log=tmp_path / "first.log") as first,
            started(config, log=tmp_path / "second.log") as second,
            httpx.Client(timeout=5, trust_env=False) as http,
        ):
            yield City(config, engine, vault, (first, second), http)
        engine.dispose()


def kill(host: Server) -> None:
    """All of a host's processes at once, as when its power fails."""
    for child in host.children:
        os.killpg(child.pid, signal.SIGKILL)


def on_some_host(hosts: list[Any], first: int, ask: Any) -> Any:
    """What the first host that answers says; each is asked in turn until one does."""
    for n in count(first):
        try:
            return ask(hosts[n % len(hosts)])
        except _LOST:
            pass
        except ProviderError as error:
            if error.code not in ("ANSWER_UNKNOWN", "UNAVAILABLE", "NO_ANSWER"):
                raise
        time.sleep(0.05)
    raise AssertionError("unreachable")


def ride(subject: str, name: str) -> dict[str, Any]:
    done = utc_now() - timedelta(days=1)
    return {
        "id": name,
        "subject": subject,
        "scenario": "travel.bike_shared",
        "occurred_at": done.isoformat(timespec="seconds"),
        "quantities": {"distance_km": "1.5"},
    }


def report(city: City, key: Any, name: str, subjects: list[str]) -> dict[bytes, dict[str, Any]]:
    """A provider's batches, host by turns: each body with its receipt."""
    receipts = {}
    # one attempt on one host: the other one is tried next
    clients = [ProviderClient(url, "bikes-1", key, city.http, sleep=_stop) for url in city.urls]
    for n in count():
        if city.over.is_set():
            return receipts
        acts = [ride(subjects[k % len(subjects)], f"{name}-{n}-{k}") for k in range(ACTS)]
        body = orjson.dumps({"batch_id": f"{name}-{n}", "activities": acts})
        receipts[body] = on_some_host(clients, n, lambda one, body=body: one.send_body(body))
    raise AssertionError("unreachable")


def _stop(_: float) -> None:
    raise httpx.ReadError("asked of the other host instead")


def charge(city: City, name: str, shopper: str) -> dict[str, dict[str, Any]]:
    """A till: charges one number after another; the last answer to each."""
    known = {}
    tills = [MerchantClient(city.http, url, CODE, utc_now) for url in city.urls]
    who = [ResidentClient(city.http, url, shopper) for url in city.urls]
    for n in count():
        if city.over.wait(PAUSE_S):
            return known
        number = f"{name}-{n:06d}"
        code = on_some_host(who, n, lambda one: one.post("pay-code", {}))["code"]
        body = {"out_request_no": number, "code": code, "points": str(PRICE), "till": TILL}
        known[number] = on_some_host(tills, n, lambda one, body=body: one.post("charges", body))
    raise AssertionError("unreachable")


def read(city: City, rider: str) -> list[tuple[int, int]]:
    """What a resident who only earns sees, host by turns: grams and points."""
    seen = []
    who = [ResidentClient(city.http, url, rider) for url in city.urls]
    for n in count():
        if city.over.wait(PAUSE_S):
            return seen
        said = on_some_host(who, n, lambda one: one.get("balances"))
        seen.append((int(said["reduction_mg"]), int(said["points"])))
    raise AssertionError("unreachable")


@pytest.fixture
def key(city):
    """The key of a provider that both hosts know."""
    made = Ed25519PrivateKey.generate()
    der = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with city.engine.begin() as tx:
        providers.add(tx, "bikes", "Bikes", utc_now())
        providers.add_key(tx, "bikes-1", "bikes", "ed25519", der, utc_now())
    return made


@pytest.fixture
def people(city, key):
    """Riders, and a shopper with points, by the provider's names for them."""
    names = [*(f"rider-{n}" for n in range(10)), "shopper"]
    made = enroll(city.engine, city.vault, Registry(), "bikes", names, "140403", utc_now())
    acts = [ride("shopper", f"first-{n}") for n in range(20)]
    for n, act in enumerate(acts):
        act["occurred_at"] = (utc_now() - timedelta(days=n // 2 + 1)).isoformat("T", "seconds")
    ProviderClient(city.urls[0], "bikes-1", key, city.http).send_batch("first", acts)
    return made


def points(city: City, url: str, resident: str) -> int:
    return int(ResidentClient(city.http, url, resident).get("balances")["points"])


def test_a_host_that_dies_takes_nothing_with_it(city, key, people, tmp_path):
    had = points(city, city.urls[0], people["shopper"])
    riders = [name for name in people if name != "shopper"]
    with ThreadPoolExecutor(6) as pool:
        reports = [pool.submit(report, city, key, f"p{n}", riders) for n in range(2)]
        tills = [pool.submit(charge, city, f"t{n}", people["shopper"]) for n in range(2)]
        readers = [pool.submit(read, city, people["rider-0"]) for _ in range(2)]
        time.sleep(BEFORE_S)
        kill(city.hosts[0])
        time.sleep(AFTER_S)
        city.over.set()
        receipts = {body: said for one in reports for body, said in one.result().items()}
        known = {number: said for one in tills for number, said in one.result().items()}
        seen = [one.result() for one in readers]
    left = city.urls[1]

    # nothing lost: what either host answered is what the one that is left knows
    client = ProviderClient(left, "bikes-1", key, city.http)
    for body, receipt in receipts.items():
        assert client.send_body(body) == receipt
        assert receipt["counts"]["accepted"] == ACTS
    till = MerchantClient(city.http, left, CODE, utc_now)
    for number, said in known.items():
        assert till.get(f"charges/{number}")["state"] == said["state"]

    # no wrong answer: nobody paid twice, no balance went back, bills and ledger agree
    paid = sum(said["state"] == "succeeded" for said in known.values())
    assert 0 < paid == had - points(city, left, people["shopper"])
    for one in seen:
        assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(one))
    sealer = Sealer(city.engine, city.vault, city.config.head_file)
    while sealer.seal(utc_now()):
        pass
    assert list(check_database(city.engine, city.vault)) == []
    assert list(reconcile(city.engine)) == []
    out = tmp_path / "export"
    export_log(city.engine, city.vault, out, openings=False)
    audit = [sys.executable, "-m", "ledger", str(out), "--vkey", str(out / "log.vkey")]
    done = subprocess.run(audit, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
