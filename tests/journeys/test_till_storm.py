"""Tills in a storm, against real processes: everybody at once, answers lost, servers killed.

Whatever happens on the way, each till in the end knows what became of each of its numbers, and what
the tills know is what wallets, allowances and bills say.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, cycle
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, create_engine, text

from app.cli.local import free_port, prepare, started
from app.clock import utc_now
from app.config import Config
from app.flows.bill.reconcile import reconcile
from app.flows.budget import fund_budget
from app.flows.check import check_database
from app.flows.join import add_resident
from app.flows.partner.apply import Application, apply
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.stores import put_store, put_till
from app.flows.pay_code import REFRESH_S, digest_of, new_code
from app.flows.public_key import PublicKey, key_id
from app.signature import Received, sign
from app.store import budgets, entries, merchants, pay_codes
from app.store.merchants import Contract
from app.store.pay_codes import PayCode
from app.vault import Vault, open_vault
from ledger.entries import instant
from ledger.transfers import adjust

TILLS = 100
CROWD = 32  # threads that stand for tills where not all ask in the same instant
LICENCE = "91140400MA0GXXXX3R"
BUCKETS = (20361231, 20371231)
PATIENCE_S = 30
_numbers = count(1)


@dataclass
class Town:
    """A service of two web processes, and the city's side of it."""

    config: Config
    engine: Engine
    vault: Vault
    url: str

    def value(self, query: str, **values: Any) -> Any:
        with self.engine.connect() as tx:
            return tx.execute(text(query), values).scalar_one()

    def resident(self, points: int) -> str:
        """Somebody with points in two buckets."""
        with self.engine.begin() as tx:
            who = add_resident(tx, self.vault, "140403", utc_now())
            parts = zip(BUCKETS, (points // 3, points - points // 3), strict=True)
            known = {"at": instant(utc_now()), "budget": budgets.scopes(tx)["*"], "reason": "test"}
            gifts = [
                adjust(id=token_hex(16), resident=who, points=part, bucket=bucket, **known)
                for bucket, part in parts
            ]
            entries.append(tx, gifts)
        return who

    def codes(self, who: str, many: int) -> list[str]:
        """Codes of one resident that all live at once: as if a hundred phones had shown them."""
        now = utc_now()
        shown = [f"96{next(_numbers):018d}" for _ in range(many)]
        ends = now + timedelta(seconds=REFRESH_S)
        with self.engine.begin() as tx:
            for one in shown:
                code = PayCode(digest_of(self.vault, one), who, None, None, ends, None)
                pay_codes.put(tx, code, many)
        return shown

    def code(self, who: str) -> str:
        with self.engine.begin() as tx:
            return new_code(tx, self.vault, who, None, utc_now()).code

    def left(self, who: str) -> int:
        return self.value(
            "SELECT coalesce(sum(amount), 0)::bigint FROM balances"
            " WHERE account = :who AND account_kind IN (1, 2) AND asset = 2",
            who=bytes.fromhex(who),
        )

    def shop(self, points: int) -> Shop:
        """An approved merchant that may redeem so many points, with a hundred tills."""
        key, code, now = Ed25519PrivateKey.generate(), f"shop-{next(_numbers)}", utc_now()
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        said = Application(code, code, LICENCE, {"person": "王某", "phone": "13900000000"})
        terms = Contract(0, "city", "postpaid", 100, points, 0, "terms", now)
        place = {"name": "一店", "district": "140403", "address": "", "open": True}
        with self.engine.begin() as tx:
            one = apply(tx, self.vault, said, PublicKey("ed25519", der), now)
            put_store(tx, one.id, "s1", place)
            for n in range(TILLS):
                put_till(tx, one.id, f"t{n}", "s1", is_open=True)
            agree(tx, self.vault, "olga", code, None, terms, now)
            decide(tx, self.vault, "olga", code, None, "approve", "in order", now)
        return Shop(self, one.id, code, key, key_id(code, der), points)


@dataclass
class Shop:
    """A merchant's tills. `known` is what they know of each number: the last answer there was."""

    town: Town
    id: str
    code: str
    key: Any
    key_id: str
    allowed: int
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(self, url: str, method: str, path: str, document: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own. Raises OSError, HTTPException."""
        address = urlsplit(url)
        body = b"" if document is None else json.dumps(document).encode()
        path = f"/api/v1/merchant/{path}"
        received = Received(method, path, body)
        header = sign(self.key, self.key_id, received, int(time.time()), token_hex(16))
        headers = {"Authorization": header, "Content-Type": "application/json"}
        to = HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)
        try:
            to.request(method, path, body or None, headers)
            answer = to.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            to.close()

    def charge(self, code: str, points: int, till: int = 0, url: str = "") -> dict[str, Any]:
        """Charge as a till does: what has no answer is asked for, what never came is reversed."""
        url, number = url or self.town.url, f"sale-{next(_numbers):08d}"
        asked = {"out_request_no": number, "code": code, "points": str(points), "till": f"t{till}"}
        requests = cycle([("GET", f"charges/{number}", None)])
        ask: tuple[str, str, Any] = ("POST", "charges", asked)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                status, answer = self.ask(url, *ask)
            except (OSError, HTTPException):  # nobody there, or the answer was lost
                time.sleep(0.02)
                status, answer = 0, None
            if status in (200, 202) or (400 <= status < 500 and ask[0] == "POST"):
                made = {"points": str(points), "state": "failed"} | answer
                self.known[number] = made
                return made
            ask = next(requests) if status != 404 else ("POST", f"charges/{number}/reverse", {})
        raise AssertionError(f"nobody could say what became of {number}")

    def reverse(self, number: str) -> None:
        status, answer = self.ask(self.town.url, "POST", f"charges/{number}/reverse", {})
        assert status == 200
        self.known[number] |= {"state": answer["state"]}

    def outcomes(self) -> Counter[str]:
        """How often each: succeeded, reversed, or why it failed."""
        said = (one.get("code") if one["state"] == "failed" else one["state"]
                for one in self.known.values())  # fmt: skip
        return Counter(map(str, said))

    def settle(self, people: list[str], had: int) -> int:
        """Hold what the tills know against all the rest; the points that were spent."""
        for number, known in self.known.items():
            status, found = self.ask(self.town.url, "GET", f"charges/{number}")
            assert status == 200
            assert (found["state"], found["code"]) == (known["state"], known.get("code"))
        paid = (one for one in self.known.values() if one["state"] == "succeeded")
        spent = sum(int(one["points"]) for one in paid)
        query = "SELECT coalesce(sum(points), 0)::bigint FROM bill_lines WHERE merchant = :id"
        assert self.town.value(query, id=bytes.fromhex(self.id)) == spent
        with self.town.engine.connect() as tx:
            assert self.allowed - merchants.allowance(tx, self.id) == spent
        assert had - sum(map(self.town.left, people)) == spent
        assert list(reconcile(self.town.engine)) == []
        return spent


@pytest.fixture(scope="module")
def town(database, tmp_path_factory) -> Iterator[Town]:
    """Two web processes and the worker."""
    folder = tmp_path_factory.mktemp("storm")
    with database(folder) as fresh:
        config = prepare(replace(fresh, data_dir=folder))
        engine, vault = (
            create_engine(config.database_url, pool_size=20),
            open_vault(config.keys_dir),
        )
        fund_budget(engine, vault, "*", 10_000_000, "decision 1", utc_now())
        with started(config, workers=2, log=folder / "servers.log") as server:
            yield Town(config, engine, vault, server.url)
        assert list(check_database(engine, vault)) == []
        engine.dispose()


def at_once(work: Callable[..., Any], *each: Any, threads: int = TILLS) -> list[Any]:
    """work(...) for each of them, by so many threads that begin together."""
    together = threading.Barrier(threads)

    with ThreadPoolExecutor(threads, initializer=together.wait) as pool:
        return list(pool.map(work, *each))


def test_a_hundred_tills_take_no_more_of_a_wallet_than_is_in_it(town):
    shop, who = town.shop(100_000), town.resident(1000)
    at_once(shop.charge, town.codes(who, TILLS), [30] * TILLS, range(TILLS))
    assert shop.outcomes() == {"succeeded": 33, "INSUFFICIENT_POINTS": TILLS - 33}
    assert shop.settle([who], 1000) == 990


def test_one_code_at_many_tills_is_used_once(town):
    shop, who = town.shop(100_000), town.resident(1000)
    at_once(shop.charge, [town.code(who)] * CROWD, [30] * CROWD, range(CROWD), threads=CROWD)
    assert shop.outcomes() == {"succeeded": 1, "PAY_CODE_USED": CROWD - 1}
    assert shop.settle([who], 1000) == 30


def test_an_allowance_that_runs_out_in_the_middle_is_spent_to_the_end(town):
    shop, crowd = town.shop(500), [town.resident(100) for _ in range(CROWD)]
    at_once(shop.charge, map(town.code, crowd), [25] * CROWD, range(CROWD), threads=CROWD)
    assert shop.outcomes() == {"succeeded": 20, "ALLOWANCE_EXHAUSTED": CROWD - 20}
    assert shop.settle(crowd, 100 * CROWD) == 500


def test_a_merchant_suspended_in_the_middle_takes_no_more_and_can_give_back(town):
    shop, who = town.shop(100_000), town.resident(1000)
    codes = town.codes(who, TILLS)
    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(shop.charge, code, 10) for code in codes]
        done[20].result()
        with town.engine.begin() as tx:
            parts = (tx, town.vault, "olga", shop.code, None, "suspend", "looked into", utc_now())
            decide(*parts)
    found = shop.outcomes()
    assert found.keys() == {"succeeded", "MERCHANT_SUSPENDED"}
    shop.reverse(next(n for n, one in shop.known.items() if one["state"] == "succeeded"))
    assert shop.settle([who], 1000) == 10 * (found["succeeded"] - 1)


class Cutting(ThreadingHTTPServer):
    """A proxy on a bad line: of each seven requests one never arrives, one answer is lost, and one
    is cut in two."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Line)
        self.target = urlsplit(target).netloc
        self.fates = cycle(["", "lose", "", "drop", "", "cut", ""])
        self.met: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Line(BaseHTTPRequestHandler):
    server: Cutting

    def do_GET(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def _pass(self) -> None:
        fate = next(self.server.fates)
        self.server.met[fate] += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fate == "drop":
            return
        to = HTTPConnection(self.server.target, timeout=PATIENCE_S)
        to.request(self.command, self.path, body or None, dict(self.headers.items()))
        answer = to.getresponse()
        said = answer.read()
        to.close()
        if fate == "lose":
            return
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said[: len(said) // 2] if fate == "cut" else said)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def test_tills_on_a_bad_line_learn_what_became_of_every_charge(town):
    shop, crowd = town.shop(100_000), [town.resident(100) for _ in range(2 * CROWD)]
    with Cutting(town.url) as line:
        threading.Thread(target=line.serve_forever, args=(0.02,), daemon=True).start()
        codes, urls = [town.code(who) for who in crowd], [line.url] * len(crowd)
        amounts = [25] * len(crowd)
        at_once(shop.charge, codes, amounts, [0] * len(crowd), urls, threads=8)
        line.shutdown()
    assert min(line.met[fate] for fate in ("lose", "drop", "cut")) > 5
    assert shop.outcomes().keys() == {"succeeded", "reversed"}
    assert shop.settle(crowd, 100 * len(crowd)) > 0


def free_again(port: int) -> int:
    """The port, once whoever was killed has let it go."""
    for _ in range(100):
        with suppress(click.ClickException):
            return free_port("127.0.0.1", port)
        time.sleep(0.1)
    raise AssertionError(f"port {port} is still in use")


def test_a_web_host_killed_under_load_loses_nothing_and_does_nothing_twice(town, tmp_path):
    shop, crowd = town.shop(100_000), [town.resident(100) for _ in range(3 * CROWD)]
    codes = [town.code(who) for who in crowd]
    with (
        ThreadPoolExecutor(16) as pool,
        started(town.config, workers=2, worker=False, log=tmp_path / "killed.log") as host,
    ):
        done = [pool.submit(shop.charge, code, 25, 0, host.url) for code in codes]
        done[CROWD].result()
        os.killpg(host.children[0].pid, signal.SIGKILL)
        port = free_again(urlsplit(host.url).port)
        log = tmp_path / "after.log"
        with started(town.config, port=port, workers=2, worker=False, log=log):
            for one in done:
                one.result()
    assert len(shop.known) == len(crowd)
    assert shop.outcomes().keys() <= {"succeeded", "reversed"}
    assert shop.settle(crowd, 100 * len(crowd)) > 25 * CROWD
