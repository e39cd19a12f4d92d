"""A provider's HTTP client: signs a batch, sends it, and sends it again until it is answered.

Sending again is safe: the body and so the batch id stay the same, and a batch that was taken
before gets its stored receipt. Only timestamp and nonce are new each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from secrets import token_urlsafe
from typing import Any, Final, Self

import httpx
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.clock import Clock, utc_now
from app.signature import Received, sign

PrivateKey = Ed25519PrivateKey | RSAPrivateKey

ATTEMPTS: Final = 8
TIMEOUT_S: Final = 60
MAX_WAIT_S: Final = 120  # between two attempts; the server's rate window is a minute

_FIRST_WAIT_S = 0.25  # doubled each time: about half a minute of patience in all
_AGAIN = {429, 502, 503, 504}  # not taken, or nobody knows; every other answer is final
_HERE = {"127.0.0.1", "::1", "localhost"}  # never by way of the environment's proxy
_LOST = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)


class ProviderError(Exception):
    """The server refused the request (its own `code`), or gave no answer to the last attempt."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


def read_private_key(pem: bytes) -> PrivateKey:
    """An Ed25519 or RSA private key from PEM. Raises ProviderError KEY_MALFORMED."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey | RSAPrivateKey):
        raise ProviderError("KEY_MALFORMED", "this is no Ed25519 or RSA private key in PEM")
    return key


class ProviderClient:
    """Sends batches to `url` (scheme, host, maybe a path) as the owner of a registered key.

    Raises ProviderError for a malformed URL or key.
    """

    def __init__(
        self,
        url: str,
        key_id: str,
        key: PrivateKey | bytes,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Clock = utc_now,
    ) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/batches"
        self._key_id = key_id
        self._key = read_private_key(key) if isinstance(key, bytes) else key
        try:
            here = httpx.URL(url).host in _HERE
        except httpx.InvalidURL as error:
            raise ProviderError("URL_MALFORMED", f"{url!r}: {error}") from None
        self._http = http or httpx.Client(timeout=TIMEOUT_S, trust_env=not here)
        self._sleep, self._clock = sleep, clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send_batch(self, batch_id: str, activities: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Send 1 to 5,000 activities; return the receipt. Raises ProviderError."""
        return self.send_body(orjson.dumps({"batch_id": batch_id, "activities": activities}))

    def send_body(self, body: bytes) -> dict[str, Any]:
        """Send a batch's exact bytes, at most ATTEMPTS times; return the receipt.

        Raises ProviderError.
        """
        for attempt in range(ATTEMPTS):
            wait_s = _FIRST_WAIT_S * 2**attempt
            try:
                response = self._post(body)
            except _LOST as error:
                problem = ProviderError(
                    "NO_ANSWER", f"{self._url}: {error or type(error).__name__}"
                )
            except httpx.HTTPError as error:
                raise ProviderError("NO_ANSWER", f"{self._url}: {error}") from error
            else:
                if response.is_success:
                    return _receipt(response)
                problem = _problem(response)
                if response.status_code not in _AGAIN:
                    raise problem
                wait_s = max(wait_s, _retry_after_s(response))
            if attempt == ATTEMPTS - 1 or wait_s > MAX_WAIT_S:
                raise problem
            self._sleep(wait_s)
        raise AssertionError("unreachable")

    def _post(self, body: bytes) -> httpx.Response:
        """One attempt, with a timestamp and nonce of its own."""
        request = self._http.build_request(
            "POST", self._url, content=body, headers={"Content-Type": "application/json"}
        )
        signed = Received("POST", request.url.raw_path.decode(), body)
        request.headers["Authorization"] = sign(
            self._key, self._key_id, signed, int(self._clock().timestamp()), token_urlsafe(24)
        )
        return self._http.send(request)


def _receipt(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict) or "outcomes" not in document:
        raise _problem(response)
    return document


def _problem(response: httpx.Response) -> ProviderError:
    """The refusal in the words of the server, or what can be said of an answer that is not ours."""
    try:
        document = response.json()
        return ProviderError(document["code"], document["detail"])
    except (ValueError, KeyError, TypeError):
        return ProviderError(
            "ANSWER_UNKNOWN", f"{response.url} answered {response.status_code}, not as Puhui does"
        )


def _retry_after_s(response: httpx.Response) -> int:
    """Delay-seconds of RFC 9110 section 10.2.3; its date form is left to our own waiting."""
    value = response.headers.get("Retry-After", "")
    return int(value[:9]) if value.isascii() and value.isdigit() else 0
