"""The application over the city of a test, a provider who signs, and administrators at desks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from secrets import token_bytes, token_urlsafe
from threading import Thread
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask, Response, g, request
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from app import limits
from app.application import create_app
from app.flows.enroll import enroll
from app.flows.join import add_resident
from app.flows.login import hash_token
from app.flows.partner.apply import Application, apply
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.fund import pay_in
from app.flows.partner.keys import add_key
from app.flows.partner.stores import put_store, put_till
from app.flows.public_key import PublicKey, key_id
from app.flows.tokens import issue_access_token
from app.signature import Received, sign
from app.store import admins, budgets, entries, merchants, providers
from app.wiring import open_redis, put_together
from ledger.entries import instant
from ledger.transfers import adjust

_SPKI = PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(scope="session")
def routes(servers) -> Flask:
    """The application whose parts are put in anew for each test: what its routes and schemas cost
    is paid once a process. It serves no request but those of tests that have an `app`."""
    made = create_app(servers)
    leave_a_trail(made)
    with made.app_context():
        made.extensions["puhui"].engine.dispose()
    made.extensions["puhui"].redis.close()
    return made


@pytest.fixture
def app(routes, city) -> Flask:
    """The application over the test's city and by its clock."""
    assert city.config.redis_url
    with open_redis(city.config.redis_url) as shared:
        routes.extensions["puhui"] = put_together(city.config, city.engine, shared, city.clock)
        limits.install(routes, shared)
        yield routes


@pytest.fixture
def superuser(city) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection to the city's database."""
    url = city.owner_url.replace("+psycopg", "").replace("puhui_owner@", "postgres@")
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def leave_a_trail(app: Flask) -> None:
    """Hold every change that an administrator makes in any test to leaving a record."""

    def acts() -> int:
        with app.extensions["puhui"].engine.connect() as tx:
            return tx.execute(text("SELECT count(*) FROM trail")).scalar_one()

    @app.before_request
    def count_before() -> None:
        g.acts = acts() if request.path.startswith("/api/v1/admin/") else 0

    @app.after_request
    def compare(answer: Response) -> Response:
        if (
            request.path.startswith("/api/v1/admin/")
            and request.method != "GET"
            and answer.status_code < 300
            and "Idempotency-Replayed" not in answer.headers
        ):
            assert acts() > g.acts, f"{request.method} {request.path} left no trail"
        return answer


@pytest.fixture
def client(app) -> FlaskClient:
    return app.test_client()


@dataclass
class Provider:
    """Sends signed requests as the provider `bikes` does, with a fresh nonce each."""

    client: FlaskClient
    city: Any
    key: Any = field(default_factory=Ed25519PrivateKey.generate)
    key_id: str = "bikes-1"
    numbers: Any = field(default_factory=count)

    def headers(self, method: str, path: str, body: bytes = b"", **changes: Any) -> dict[str, str]:
        parts = {
            "timestamp": int(self.city.clock().timestamp()),
            "nonce": f"nonce-number-{next(self.numbers):06d}",
        } | changes
        received = Received(method, path, body)
        return {"Authorization": sign(self.key, self.key_id, received, **parts)}

    def send(self, method: str, path: str, document: Any = None, **changes: Any) -> TestResponse:
        body = b"" if method == "GET" else json.dumps(document).encode()
        headers = self.headers(method, path, body, **changes)
        kind = None if method == "GET" else "application/json"
        return self.client.open(path, method=method, data=body, headers=headers, content_type=kind)

    def batch(self, batch_id: str, *activities: Any) -> TestResponse:
        document = {"batch_id": batch_id, "activities": list(activities)}
        return self.send("POST", "/api/v1/batches", document)


@pytest.fixture
def provider(client, city) -> Provider:
    made = Provider(client, city)
    public = made.key.public_key().public_bytes(Encoding.DER, _SPKI)
    with city.engine.begin() as tx:
        providers.add(tx, "bikes", "Bikes", city.clock())
        providers.add_key(tx, made.key_id, "bikes", "ed25519", public, city.clock())
    return made


@pytest.fixture
def rider(provider, city) -> str:
    """A consenting resident whom the provider knows as rider-1."""
    parts = (city.engine, city.vault, city.registry, "bikes", ["rider-1"], "140403", city.clock())
    return enroll(*parts)["rider-1"]


@pytest.fixture
def me(client, city, rider):
    """Read as the rider: me("balances") asks for /api/v1/me/balances."""

    def get(path: str, **query: Any) -> TestResponse:
        token = issue_access_token(city.vault.token, rider, city.clock())
        headers = {"Authorization": f"Bearer {token}"}
        return client.get(f"/api/v1/me/{path}", query_string=query, headers=headers)

    return get


@pytest.fixture
def ride():
    """A ride as the provider reports it: ride(3, quantities=...)."""

    def make(number: int, **changes: Any) -> dict[str, Any]:
        return {
            "id": f"ride-{number}",
            "subject": "rider-1",
            "scenario": "travel.bike_shared",
            "occurred_at": "2026-11-20T08:00:00+08:00",
            "quantities": {"distance_km": "2.5"},
        } | changes

    return make


@dataclass
class Desk:
    """An administrator who is logged in. Every POST has an Idempotency-Key of its own."""

    client: FlaskClient
    admin: admins.Admin
    token: str
    numbers: Any = field(default_factory=count)

    def send(
        self, method: str, path: str, document: Any = None, *, match: str = "", key: str = ""
    ) -> TestResponse:
        """Ask /api/v1/admin/{path}; `match` is the ETag to send, quotes and all."""
        headers = {"Authorization": f"Bearer {self.token}"}
        if method == "POST":
            headers["Idempotency-Key"] = key or f"{self.admin.name}-{next(self.numbers):08d}"
        if match:
            headers["If-Match"] = match
        path = f"/api/v1/admin/{path}"
        return self.client.open(path, method=method, json=document, headers=headers)

    def get(self, path: str, **query: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.client.get(f"/api/v1/admin/{path}", query_string=query, headers=headers)

    def post(self, path: str, document: Any = None, **more: str) -> TestResponse:
        return self.send("POST", path, document, **more)

    def put(self, path: str, document: Any = None, **more: str) -> TestResponse:
        return self.send("PUT", path, document, **more)


@pytest.fixture
def desk(client, city) -> Callable[..., Desk]:
    """Seats a new administrator: desk("editor"), desk("reviewer", name="rui")."""
    numbers = count(1)

    def seat(*roles: str, name: str = "") -> Desk:
        who = admins.Admin(
            token_bytes(16), name or f"{roles[0]}{next(numbers)}", tuple(sorted(roles))
        )
        token = token_urlsafe(32)
        with city.engine.begin() as tx:
            admins.add(tx, who, "no password", b"no code", city.clock())
            admins.begin_session(tx, hash_token(token), who.id, city.clock())
        return Desk(client, who, token)

    return seat


@dataclass
class Shop(Provider):
    """Sends signed requests as a merchant does: shop.send("POST", "charges", {...}).

    `id` is its account; it has a store `s1` with tills `t1` and `t2`.
    """

    code: str = "noodles"
    id: str = ""

    def send(self, method: str, path: str, document: Any = None, **changes: Any) -> TestResponse:
        return super().send(method, f"/api/v1/merchant/{path}", document, **changes)

    def get(self, path: str) -> TestResponse:
        return self.send("GET", path)

    def post(self, path: str, document: Any = None, **changes: Any) -> TestResponse:
        return self.send("POST", path, document, **changes)

    def put(self, path: str, document: Any = None, **changes: Any) -> TestResponse:
        return self.send("PUT", path, document, **changes)

    def left(self) -> int:
        """Its allowance."""
        with self.city.engine.connect() as tx:
            return merchants.allowance(tx, self.id)

    def key_of(self, till: str | None) -> Shop:
        """The same merchant signing by a new key, of a till's own if one is named."""
        key = Ed25519PrivateKey.generate()
        public = PublicKey("ed25519", key.public_key().public_bytes(Encoding.DER, _SPKI))
        with self.city.engine.begin() as tx:
            key_id = add_key(tx, self.code, till, public, self.city.clock())
        return replace(self, key=key, key_id=key_id)


LICENCE = "91140400MA0GXXXX3R"
AGREED = datetime(2026, 1, 1, tzinfo=UTC)
TERMS = merchants.Contract(0, "city", "prepaid", 100, 0, 1000, "terms 1", AGREED)


@pytest.fixture
def open_shop(client, city) -> Callable[..., Shop]:
    """Opens a merchant: open_shop("tea", points=500), postpaid with this limit unless
    prepaid=True; approved=False leaves it applied."""

    def make(
        code: str = "noodles",
        *,
        points: int = 100_000,
        prepaid: bool = False,
        approved: bool = True,
    ) -> Shop:
        made, now = Shop(client, city, code=code), city.clock()
        public = PublicKey("ed25519", made.key.public_key().public_bytes(Encoding.DER, _SPKI))
        said = Application(
            code, f"{code} 面馆", LICENCE, {"person": "王某", "phone": "13900000000"}
        )
        credit = {"mode": "prepaid"} if prepaid else {"mode": "postpaid", "limit_points": points}
        with city.engine.begin() as tx:
            made.id = apply(tx, city.vault, said, public, now).id
            made.key_id = key_id(code, public.der)
            place = {"name": "一店", "district": "140403", "address": "英雄路1号", "open": True}
            put_store(tx, made.id, "s1", place)
            for till in ("t1", "t2"):
                put_till(tx, made.id, till, "s1", is_open=True)
            agree(tx, city.vault, "olga", code, None, TERMS._replace(**credit), now)
            if approved:
                decide(tx, city.vault, "olga", code, None, "approve", "in order", now)
            if prepaid and points:
                pay_in(tx, city.vault, "olga", code, points, "first payment", now)
        return made

    return make


@pytest.fixture
def shop(open_shop) -> Shop:
    """An approved merchant `noodles` that may redeem 100,000 points on a postpaid contract, at 100
    fen for 100 points."""
    return open_shop()


@dataclass
class Receiver:
    """A real HTTP server as a merchant runs one for webhooks. It answers a verification with the
    challenge and all else with 204, unless `answer` says otherwise: from a path, headers and body
    it makes status, headers and body, or writes to the handler itself and returns None."""

    server: ThreadingHTTPServer
    answer: Callable[[BaseHTTPRequestHandler, bytes], Any] | None = None
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def bodies(self, kind: str = "") -> list[Any]:
        """What arrived, in order, of one kind or of all."""
        said = [json.loads(body) for _, _, body in self.got]
        return [one for one in said if kind in ("", one["type"])]

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.got.append((handler.path, dict(handler.headers.items()), body))
        made = self.answer(handler, body) if self.answer else answered(body)
        if made is None:
            return
        status, headers, text = made
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(text)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(text)


def answered(body: bytes) -> tuple[int, dict[str, str], bytes]:
    """What an honest endpoint answers."""
    said = json.loads(body)
    if said["type"] == "endpoint.verification":
        return 200, {}, said["data"]["challenge"].encode()
    return 204, {}, b""


@pytest.fixture
def open_receiver() -> Iterator[Callable[[], Receiver]]:
    """Starts receivers: open_receiver()."""
    made: list[Receiver] = []

    def start() -> Receiver:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with suppress(ConnectionError):
                    one.take(self)

            def log_message(self, *_: Any) -> None:
                """Nobody reads it."""

        one = Receiver(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        one.server.daemon_threads = True
        Thread(target=one.server.serve_forever, args=(0.02,), daemon=True).start()
        made.append(one)
        return one

    yield start
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture
def receiver(open_receiver) -> Receiver:
    """A merchant's server for webhooks."""
    return open_receiver()


@dataclass
class Buyer:
    """A resident who asks: buyer.post("orders", {...}). Every POST has a key of its own."""

    client: FlaskClient
    city: Any
    id: str
    numbers: Any = field(default_factory=count)

    def get(self, path: str, **query: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self._token()}"}
        return self.client.get(f"/api/v1/me/{path}", query_string=query, headers=headers)

    def post(self, path: str, document: Any = None, key: str = "") -> TestResponse:
        headers = {
            "Authorization": f"Bearer {self._token()}",
            "Idempotency-Key": key or f"buyer-{next(self.numbers):06d}",
        }
        return self.client.post(f"/api/v1/me/{path}", json=document, headers=headers)

    def points(self) -> tuple[int, int]:
        """Points in the wallet, and on hold."""
        held = self.get("balances").get_json()
        return int(held["points"]), int(held["held_points"])

    def _token(self) -> str:
        return issue_access_token(self.city.vault.token, self.id, self.city.clock())


@pytest.fixture
def buyer(client, city) -> Callable[..., Buyer]:
    """Lets somebody join and gives them points: buyer(500), buyer(500, district="140404")."""

    def make(points: int = 1000, district: str = "140403", bucket: int = 20271231) -> Buyer:
        with city.engine.begin() as tx:
            who = add_resident(tx, city.vault, district, city.clock())
            if points:
                gift = adjust(
                    id=token_bytes(16).hex(),
                    at=instant(city.clock()),
                    resident=who,
                    budget=budgets.scopes(tx)["*"],
                    points=points,
                    bucket=bucket,
                    reason="test",
                )
                entries.append(tx, [gift])
        return Buyer(client, city, who)

    return make


REWARD = {
    "kind": "voucher",
    "title_zh": "面条一碗",
    "title_en": "A bowl of noodles",
    "text_zh": "任选一碗，不含饮料。",
    "points": "100",
    "stock": "50",
    "valid_days": 30,
    "unused": "refund",
    "opens_at": "2026-11-01T00:00:00+08:00",
    "closes_at": "2027-11-01T00:00:00+08:00",
}


@pytest.fixture
def draft(shop) -> Callable[..., Any]:
    """A merchant's draft of a reward: draft("bowl", points="200"); the answer. What is None in
    the changes is left out."""

    def make(code: str = "bowl", shop: Shop = shop, **changes: Any) -> TestResponse:
        document = {name: it for name, it in (REWARD | changes).items() if it is not None}
        return shop.put(f"rewards/{code}", document)

    return make


@pytest.fixture
def on_offer(draft, desk) -> Callable[..., str]:
    """A reward that an operator opened: on_offer("bowl", stock="5"); its id."""

    def make(code: str = "bowl", **changes: Any) -> str:
        made = draft(code, **changes)
        assert made.status_code == 200, made.get_json()
        reward = made.get_json()
        etag = f'"{reward["revision"]}"'
        opened = desk("operator").post(f"rewards/{reward['id']}/open", match=etag)
        assert opened.status_code == 200, opened.get_json()
        return reward["id"]

    return make
