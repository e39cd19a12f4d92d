"""The application over the city of a test, and a provider who signs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.auth import Received, issue_access_token, sign
from app.flows.enroll import enroll
from app.store import providers

_SPKI = PublicFormat.SubjectPublicKeyInfo


@pytest.fixture
def app(city) -> Flask:
    made = create_app(city.config, city.clock)
    yield made
    with made.app_context():
        made.extensions["puhui"].engine.dispose()
    made.extensions["puhui"].redis.close()


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
