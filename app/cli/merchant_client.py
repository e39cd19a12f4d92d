"""A merchant's side of HTTP, for the demo and `puhui trigger`: signs each request, reads answers.

It does not send again: what a till does when an answer is lost, docs/clients shows.
"""

from __future__ import annotations

from secrets import token_urlsafe
from typing import Any

import httpx
import orjson

from app.cli.client import ProviderError
from app.clock import Clock
from app.flows.partner.sandbox import private_key, public_key
from app.flows.public_key import key_id
from app.signature import Received, sign


class MerchantClient:
    """Asks as a sandbox merchant, whose keys are known to all."""

    def __init__(self, http: httpx.Client, url: str, code: str, clock: Clock) -> None:
        self._http, self._url, self._clock, self.code = http, url.rstrip("/"), clock, code
        self._key, self._key_id = private_key(code), key_id(code, public_key(code).der)

    def get(self, path: str) -> dict[str, Any]:
        """GET /api/v1/merchant/{path}. Raises ProviderError."""
        return self._ask("GET", path, b"")

    def post(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """POST to /api/v1/merchant/{path}. Raises ProviderError."""
        return self._ask("POST", path, orjson.dumps(document))

    def _ask(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        address = f"/api/v1/merchant/{path}"
        at = int(self._clock().timestamp())
        received = Received(method, address, body)
        headers = {"Authorization": sign(self._key, self._key_id, received, at, token_urlsafe(24))}
        if body:
            headers["Content-Type"] = "application/json"
        answer = self._http.request(method, self._url + address, content=body, headers=headers)
        return read(answer)


class ResidentClient:
    """Asks as a resident of the sandbox."""

    def __init__(self, http: httpx.Client, url: str, resident: str) -> None:
        self._http, self._url, self.resident = http, url.rstrip("/"), resident
        said = http.post(f"{self._url}/api/v1/sandbox/login", json={"resident": resident})
        self._headers = {"Authorization": f"Bearer {read(said)['access_token']}"}

    def again(self) -> ResidentClient:
        """The same resident with a fresh token."""
        return ResidentClient(self._http, self._url, self.resident)

    def get(self, path: str) -> dict[str, Any]:
        """GET /api/v1/me/{path}. Raises ProviderError."""
        return read(self._http.get(f"{self._url}/api/v1/me/{path}", headers=self._headers))

    def post(self, path: str, document: dict[str, Any] | None, key: str = "") -> dict[str, Any]:
        """POST to /api/v1/me/{path}, under an Idempotency-Key. Raises ProviderError."""
        headers = self._headers | {"Idempotency-Key": key or token_urlsafe(24)}
        url = f"{self._url}/api/v1/me/{path}"
        return read(self._http.post(url, json=document, headers=headers))


def read(answer: httpx.Response) -> dict[str, Any]:
    """The JSON of a good answer. Raises ProviderError with the server's own code and sentence."""
    try:
        document: dict[str, Any] = answer.json()
        if answer.is_success:
            return document
        raise ProviderError(document["code"], document["detail"])
    except (ValueError, KeyError, TypeError):
        said = f"{answer.request.url} answered {answer.status_code}, not as Puhui does"
        raise ProviderError("ANSWER_UNKNOWN", said) from None
