"""Post: one signed request to an endpoint, on a connection to exactly the address that was checked.

No redirect is followed, no proxy of the environment asked, no cookie or connection kept. All of it
(name, connection, TLS, request, answer) has one deadline, however slowly the other side drips.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import httpcore
import httpx

from app.flows.webhook.address import AddressError, Resolve, Target, addresses, resolve

TIMEOUT_S: Final = 10.0
MAX_ANSWER: Final = 4096


class Answer(NamedTuple):
    """What came back: the HTTP status (None if none did), a fixed word for what went wrong ("" if
    nothing), the first bytes of the body, and the seconds or moment of a Retry-After."""

    status: int | None
    error: str
    body: bytes = b""
    retry_after: str = ""


def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@dataclass(frozen=True)
class Poster:
    """Posts to endpoints. Safe to use from several threads."""

    timeout_s: float = TIMEOUT_S
    look_up: Resolve = resolve
    trust: ssl.SSLContext = field(default_factory=_trusted)

    def post(
        self, target: Target, headers: Mapping[str, str], body: bytes, *, read: bool = False
    ) -> Answer:
        """Send it; whatever happens is an answer. Its body is looked at only to `read` it."""
        ends = time.monotonic() + self.timeout_s
        try:
            backend = _Pinned(addresses(target, self.look_up), ends)
            return self._ask(backend, target.url, headers, body, read)
        except AddressError:
            return Answer(None, "ADDRESS_REFUSED")
        except (httpcore.TimeoutException, TimeoutError):
            return Answer(None, "TIMEOUT")
        except (httpcore.ProtocolError, httpcore.ReadError, httpcore.WriteError):
            return Answer(None, "BROKEN_ANSWER")
        except _TLSError:
            return Answer(None, "TLS_FAILED")
        except httpcore.ConnectError:
            return Answer(None, "NO_CONNECTION")
        except (OSError, UnicodeError):
            return Answer(None, "NAME_UNKNOWN")

    def _ask(
        self, backend: _Pinned, url: str, headers: Mapping[str, str], body: bytes, read: bool
    ) -> Answer:
        sent: list[tuple[bytes | str, bytes | str]] = [
            ("Content-Type", "application/json"),
            ("User-Agent", "Puhui-Webhooks/1"),
            *headers.items(),
        ]
        with (
            httpcore.ConnectionPool(self.trust, network_backend=backend) as pool,
            pool.stream("POST", url, headers=sent, content=body) as got,
        ):
            after = next((v for k, v in got.headers if k.lower() == b"retry-after"), b"")
            error = "" if 200 <= got.status < 300 else f"HTTP_{got.status}"
            said = _beginning(got.iter_stream()) if read else b""
            return Answer(got.status, error, said, after.decode("ascii", "replace"))


def _beginning(parts: Iterable[bytes]) -> bytes:
    """The first bytes of a body. That it never ends does not undo the status that came before."""
    body = b""
    try:
        for part in parts:
            body += part
            if len(body) >= MAX_ANSWER:
                break
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        pass
    return body[:MAX_ANSWER]


class _TLSError(httpcore.ConnectError):
    """The connection stands, and TLS over it does not: another name, an unknown issuer."""


class _Pinned(httpcore.NetworkBackend):
    """Connects to one of these addresses, whatever the host is called: the name goes on into TLS
    and the Host field, and nobody looks it up again."""

    def __init__(self, to: list[str], ends: float) -> None:
        self._to, self._ends, self._real = to, ends, httpcore.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any
    ) -> httpcore.NetworkStream:
        failed: Exception | None = None
        for number, address in enumerate(self._to):
            share = _left(self._ends) / (len(self._to) - number)  # one that is silent is not all
            try:
                return _Stream(self._real.connect_tcp(address, port, share), self._ends)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError("no address")


class _Stream(httpcore.NetworkStream):
    """A connection that ends at its deadline, whatever it is in the middle of."""

    def __init__(self, inner: httpcore.NetworkStream, ends: float) -> None:
        self._inner, self._ends = inner, ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._ends))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._ends))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        try:
            inner = self._inner.start_tls(ssl_context, server_hostname, _left(self._ends))
        except httpcore.ConnectError as error:
            raise _TLSError(*error.args) from None
        return _Stream(inner, self._ends)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise httpcore.ConnectTimeout("the deadline has passed")
    return left
