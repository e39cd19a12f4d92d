"""The sandbox as an integrator meets it: known keys, events on demand, and time that is moved."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import create_engine, text

from app.application import create_app
from app.cli.client import ProviderError
from app.cli.local import environment, prepare, started
from app.cli.market import MARKET, open_market
from app.cli.merchant_client import MerchantClient, ResidentClient
from app.cli.spend import spend
from app.cli.trigger import KINDS, Stage
from app.clock import city_clock, utc_now
from app.config import Mode
from app.flows.accept import Batch, accept
from app.flows.bill.reconcile import reconcile
from app.flows.budget import fund_budget
from app.flows.enroll import enroll
from app.flows.partner.apply import Application, apply
from app.flows.partner.licence import is_licence
from app.flows.partner.sandbox import CODE, private_key, public_key
from app.flows.partner.standing import PartnerError
from app.flows.public_key import key_id
from app.flows.webhook.emit import KINDS as WEBHOOK_KINDS
from app.flows.webhook.emit import TEST
from app.signature import Received, sign
from app.store import providers
from app.store.catalogue import Registry
from app.store.rewards import KINDS as REWARD_KINDS
from app.vault import open_vault

PROJECT = Path(__file__).resolve().parents[2]
CLIENT = PROJECT / "docs" / "clients" / "puhui_merchant.py"
_spec = importlib.util.spec_from_file_location("puhui_merchant", CLIENT)
puhui_merchant = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(puhui_merchant)


class Sandbox:
    """A demo that runs, with its own clock, and the command line beside it."""

    def __init__(self, config: Any, url: str, http: httpx.Client) -> None:
        self.config, self.url, self.http = config, url, http
        self.clock = city_clock(config)
        self.shop = MerchantClient(http, url, CODE, self.clock)

    def puhui(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            env=environment(self.config), cwd=PROJECT, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def trigger(self, kind: str) -> Any:
        return json.loads(self.puhui("trigger", kind, "--url", self.url))


@pytest.fixture(scope="module")
def sandbox(database, tmp_path_factory):
    """Web and worker over a city with its market and one resident who has points."""
    folder = tmp_path_factory.mktemp("sandbox")
    with database(folder) as fresh:
        config = prepare(replace(fresh, data_dir=folder, webhook_loopback=True))
        engine, vault = create_engine(config.database_url), open_vault(config.keys_dir)
        now = utc_now()
        fund_budget(engine, vault, "*", 10_000_000, "sandbox", now)
        assert open_market(engine, vault, now) == len(MARKET)
        assert open_market(engine, vault, now) == 0
        with engine.begin() as tx:
            providers.add(tx, "bikes", "Bikes", now)
        _give_points(engine, vault, now)
        with (
            started(config, log=folder / "servers.log") as server,
            httpx.Client(timeout=30, trust_env=False) as http,
        ):
            yield Sandbox(config, server.url, http)
        engine.dispose()


def _give_points(engine, vault, now) -> None:
    registry = Registry()
    enroll(engine, vault, registry, "bikes", ["rider-1"], "140403", now)
    rides = [
        {
            "id": f"ride-{ago}",
            "subject": "rider-1",
            "scenario": "travel.bike_shared",
            "occurred_at": (now - timedelta(days=ago)).isoformat(timespec="seconds"),
            "quantities": {"distance_km": "2.5"},
        }
        for ago in range(2, 8)
    ]
    batch = Batch("bikes", "b1", json.dumps(rides).encode(), rides)
    made = json.loads(accept(engine, vault, registry, batch, now))
    assert {one["outcome"] for one in made["outcomes"]} == {"accepted"}


@pytest.fixture
def stage(sandbox) -> Stage:
    """Whom things happen to, now."""
    (named,) = sandbox.http.get(f"{sandbox.url}/api/v1/sandbox/residents").json()["items"]
    me = ResidentClient(sandbox.http, sandbox.url, named)
    return Stage(sandbox.config, sandbox.clock, sandbox.shop, me)


STANDS = {  # what an answer says when the thing has happened
    "charge.succeeded": ("state", "succeeded"),
    "charge.refunded": ("state", "succeeded"),
    "charge.reversed": ("state", "reversed"),
    "order.confirmed": ("state", "confirmed"),
    "voucher.used": ("voucher_state", "used"),
    "voucher.voided": ("voucher_state", "voided"),
    "voucher.lapsed": ("state", "lapsed"),
    "bill.ready": ("state", "closed"),
    "merchant.state": ("state", "approved"),
    "allowance.low": ("code", CODE),
}


def test_there_is_a_trigger_for_each_kind_of_event():
    told = {*WEBHOOK_KINDS, TEST} - {"endpoint.disabled"}  # that one the receiver brings about
    assert KINDS.keys() == told == {*STANDS, TEST}


@pytest.mark.parametrize("kind", STANDS)
def test_what_is_triggered_has_really_happened(kind, stage):
    name, value = STANDS[kind]
    said = KINDS[kind](stage)
    assert said[name] == value
    if kind == "allowance.low":
        assert said["low_at"]
    if kind == "charge.succeeded":
        assert stage.shop.get(f"charges/{said['out_request_no']}")["entry_id"] == said["entry_id"]


def test_a_trigger_is_a_command_and_says_what_it_cannot_do(sandbox, stage):
    words = ("trigger", "charge.succeeded", "--url", sandbox.url)
    assert json.loads(sandbox.puhui(*words))["state"] == "succeeded"
    with pytest.raises(ProviderError, match="WEBHOOK_UNKNOWN: sandbox has no active endpoint"):
        KINDS["endpoint.test"](stage)


class Endpoint(BaseHTTPRequestHandler):
    """A merchant's endpoint as the page says it should be: it proves itself, and keeps events."""

    got: ClassVar[list[tuple[dict[str, str], bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((dict(self.headers.items()), body))
        challenge = json.loads(body)["data"].get("challenge", "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(challenge)))
        self.end_headers()
        self.wfile.write(challenge)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def test_what_is_triggered_is_told_to_a_proved_endpoint(stage, eventually):
    shop = stage.shop
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        made = shop.post("webhooks", {"url": url})
        shop.post(f"webhooks/{made['id']}/verify", {})
        eventually(lambda: shop.get(f"webhooks/{made['id']}")["state"] == "active")
        KINDS[TEST](stage)
        number = KINDS["charge.refunded"](stage)["out_refund_no"]

        def told(kind):
            found = [one for one in Endpoint.got if json.loads(one[1])["type"] == kind]
            return found and found[0]

        eventually(lambda: told(TEST))
        headers, body = eventually(lambda: told("charge.refunded"))
        server.shutdown()
    event = puhui_merchant.verify_webhook(made["secret"], headers, body)
    assert (event["data"]["number"], event["data"]["points"]) == (number, "-10")
    with pytest.raises(ValueError, match="no signature"):
        puhui_merchant.verify_webhook(made["secret"], headers, body + b" ")
    shop.post(f"webhooks/{made['id']}/disable", {})


def test_a_client_finds_the_time_of_a_sandbox_by_itself_and_fetches_its_bill(
    sandbox, stage, tmp_path
):
    day = KINDS["bill.ready"](stage)["date"]
    assert sandbox.clock() - utc_now() > timedelta(minutes=5)
    key = private_key(CODE).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "sandbox.pem").write_bytes(key)
    named = key_id(CODE, public_key(CODE).der)
    command = [sys.executable, str(CLIENT), sandbox.url, named, str(tmp_path / "sandbox.pem")]
    file = subprocess.run([*command, "bill", day], capture_output=True, check=True, timeout=60)
    assert sha256(file.stdout).hexdigest() == stage.shop.get(f"bills/{day}")["csv_sha256"]


def test_residents_spend_once_however_often_the_demo_runs(sandbox):
    def entries() -> int:
        engine = create_engine(sandbox.config.database_url)
        with engine.connect() as tx:
            count = tx.execute(text("SELECT count(*) FROM entries")).scalar_one()
        engine.dispose()
        return int(count)

    before = entries()
    spend(sandbox.http, sandbox.url, sandbox.clock)
    spent = entries()
    assert spent > before
    spend(sandbox.http, sandbox.url, sandbox.clock)
    assert entries() == spent


def test_after_all_this_the_bills_are_what_the_ledger_says(sandbox):
    engine = create_engine(sandbox.config.database_url)
    assert list(reconcile(engine)) == []
    engine.dispose()


def test_the_market_is_one_that_could_be(sandbox):
    assert all(is_licence(stall.licence) for stall in MARKET)
    own = next(stall for stall in MARKET if stall.code == CODE)
    assert {one["kind"] for one in own.rewards.values()} == set(REWARD_KINDS)
    listed = sandbox.shop.get("rewards?limit=50")["items"]
    assert {one["code"]: one["state"] for one in listed} == dict.fromkeys(own.rewards, "open")
    assert sandbox.shop.get("profile")["sandbox"] is True


def test_in_production_a_sandbox_key_opens_nothing(sandbox):
    real = create_app(replace(sandbox.config, mode=Mode.PRODUCTION))
    path, at = "/api/v1/merchant/profile", int(utc_now().timestamp())
    named = key_id(CODE, public_key(CODE).der)
    header = sign(private_key(CODE), named, Received("GET", path, b""), at, "n" * 16)
    with real.test_client() as client:
        answer = client.get(path, headers={"Authorization": header})
        assert (answer.status_code, answer.get_json()["code"]) == (401, "KEY_REVOKED")
        assert client.get("/api/v1/sandbox/residents").status_code == 404
    said = Application("sandbox", "x", MARKET[0].licence, {"person": "x", "phone": "1"})
    here = real.extensions["puhui"]
    with here.engine.connect() as tx, pytest.raises(PartnerError, match="everybody's"):
        apply(tx, here.vault, said, public_key("sandbox"), utc_now())
    here.engine.dispose()
    here.redis.close()
