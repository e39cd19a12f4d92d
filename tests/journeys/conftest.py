"""A running service, reached over HTTP only, and the people who use it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import Engine, create_engine

from app.cli.local import environment, prepare, started
from app.clock import utc_now
from app.config import Config
from app.flows.enroll import enroll
from app.signature import Received, sign
from app.store import providers
from app.store.catalogue import Registry
from app.vault import Vault, open_vault

PROJECT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20


@dataclass
class Provider:
    """Sends signed requests, with a fresh nonce each."""

    http: httpx.Client
    code: str
    key_id: str
    key: Any
    numbers: Any = field(default_factory=count)

    def header(self, method: str, path: str, body: bytes = b"", **changes: Any) -> str:
        parts = {"timestamp": int(time.time()), "nonce": f"{self.key_id}-{next(self.numbers):016d}"}
        return sign(self.key, self.key_id, Received(method, path, body), **(parts | changes))

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Any = None, **changes: Any
    ) -> httpx.Response:
        """`changes` are to what is signed; `headers` replace those sent."""
        sent = {"Authorization": self.header(method, path, body, **changes)}
        if method != "GET":
            sent["Content-Type"] = "application/json"
        return self.http.request(method, path, content=body, headers=sent | (headers or {}))

    def post(self, document: Any) -> httpx.Response:
        return self.send("POST", "/api/v1/batches", json.dumps(document).encode())

    def batch(self, batch_id: str, *activities: Any) -> httpx.Response:
        return self.post({"batch_id": batch_id, "activities": activities})

    def correct(self, activity_id: str, document: Any) -> httpx.Response:
        path = f"/api/v1/activities/{activity_id}/correction"
        return self.send("PUT", path, json.dumps(document).encode())


@dataclass
class Resident:
    """Reads with a token of the sandbox's login."""

    http: httpx.Client
    token: str
    account: str

    def ask(self, path: str, **query: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.http.get(f"/api/v1/me/{path}", params=query, headers=headers)

    def get(self, path: str, **query: Any) -> Any:
        answer = self.ask(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@dataclass
class Town:
    """The service at its address, and the operator's side of it."""

    config: Config
    engine: Engine
    vault: Vault
    http: httpx.Client

    def puhui(self, *arguments: str) -> str:
        """What the command line prints; it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            env=environment(self.config), cwd=PROJECT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def provider(self, code: str) -> Provider:
        """One that an operator has registered, with a new key."""
        key, key_id = Ed25519PrivateKey.generate(), f"{code}-1"
        der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        with self.engine.begin() as tx:
            providers.add(tx, code, code, utc_now())
            providers.add_key(tx, key_id, code, "ed25519", der, utc_now())
        return self.sender(code, key_id, key)

    def sender(self, code: str, key_id: str, key: Any) -> Provider:
        """One whose key is registered already."""
        return Provider(self.http, code, key_id, key)

    def resident(self, provider: Provider, subject: str) -> Resident:
        """Somebody the provider knows by this name, logged in."""
        parts = (self.engine, self.vault, Registry(), provider.code, [subject])
        return self.log_in(enroll(*parts, "140403", utc_now())[subject])

    def log_in(self, account: str) -> Resident:
        answer = self.http.post("/api/v1/sandbox/login", json={"resident": account})
        assert answer.status_code == 200, answer.text
        return Resident(self.http, answer.json()["access_token"], account)


def until(ask: Any) -> Any:
    """The first true answer, waited for as long as the worker may reasonably take."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
    return answer


@contextmanager
def _opened(database: Any, folder: Path, worker: bool) -> Iterator[Town]:
    with database(folder) as fresh:
        config = prepare(replace(fresh, data_dir=folder))
        assert config.database_url
        engine = create_engine(config.database_url)
        with (
            started(config, worker=worker, log=folder / "servers.log") as server,
            httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http,
        ):
            yield Town(config, engine, open_vault(config.keys_dir), http)
        engine.dispose()


@pytest.fixture(scope="module")
def town(database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Web and worker over a fresh database, rules published, nothing funded."""
    with _opened(database, tmp_path_factory.mktemp("town"), worker=True) as made:
        yield made


@pytest.fixture(scope="module")
def still_town(database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The same without a worker: nothing is written that no request has written."""
    with _opened(database, tmp_path_factory.mktemp("still"), worker=False) as made:
        yield made


@pytest.fixture(scope="session")
def eventually():
    """Waits for the worker: eventually(lambda: ...) is the first true answer."""
    return until
