"""The front door: what a request waits for before a thread takes it, under granian's RSGI.

A WSGI server reads the body in the thread that answers, so four clients that send a byte a second
hold four threads. Here the event loop reads bodies, each in its time and all in a bounded space; a
thread takes whole requests only. There are two lines to stand in: provider batches, which take a
thread for half a second each, and everything else, which so always finds a thread. Both are
bounded, and who finds a line full is told when to come again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from io import BytesIO
from itertools import chain
from math import ceil
from queue import SimpleQueue
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Any, Final, NamedTuple

import structlog
from flask import Flask, Response
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope
from prometheus_client import CollectorRegistry, Counter, Gauge

from app.errors import refusal

BODY_S: Final = 30  # for the whole body; a phone on a slow line sends a picture in less
BODIES_BYTES: Final = 64 * 1024 * 1024  # of all bodies that are being read
WAITING: Final = 512  # requests that wait for a thread
BATCHES: Final = 2  # batches at work: while one waits for the database the other computes
BATCHES_WAITING: Final = 8
LONG_BYTES: Final = 1024 * 1024  # an answer above this goes by way of a file
PIECE_BYTES: Final = 64 * 1024
MOST_WAIT_S: Final = 30  # that anybody is told to stay away

_BATCHES_PATH = "/api/v1/batches"
_SWITCH_S = 0.0005  # a thread that computes lets the others in; the default is ten times as long
_FIRST_GUESS_S = 0.5  # a batch takes, until one was timed
_BODILESS = frozenset({"GET", "HEAD"})


class Long(NamedTuple):
    """An answer that is sent from a file, at the reader's speed, with no thread held."""

    status: int
    headers: list[tuple[str, str]]
    file: IO[bytes]


class Asked(NamedTuple):
    """A whole request, and where its answer goes. What `answered` brings is left to be sent."""

    scope: Scope
    proto: HTTPProtocol
    body: bytes
    answered: asyncio.Future[Long | None]


class Line:
    """Requests in the order they came, and the threads that take them.

    All but `work` is called on the event loop alone, so the numbers need no lock.
    """

    def __init__(self, threads: int, most_waiting: int) -> None:
        self.threads, self._most = threads, threads + most_waiting
        self._queue: SimpleQueue[Asked] = SimpleQueue()
        self.inside = 0  # waiting or at work
        self._each_s = _FIRST_GUESS_S  # smoothed
        self._promised_until = 0.0

    def has_room(self) -> bool:
        """Whether one more may stand here."""
        return self.inside < self._most

    async def stand(
        self, door: Door, scope: Scope, proto: HTTPProtocol, body: bytes
    ) -> Long | None:
        """Wait for a thread and until it has answered."""
        self.inside += 1
        began = time.monotonic()
        ahead = 1 + (self.inside - 1) // self.threads
        try:
            answered: asyncio.Future[Long | None] = door.loop.create_future()
            self._queue.put(Asked(scope, proto, body, answered))
            return await answered
        finally:
            self.inside -= 1
            self._each_s += ((time.monotonic() - began) / ahead - self._each_s) / 8

    def come_again_s(self) -> int:
        """Seconds until there is room for one more, who knows that others were told so before:
        each who is sent away is told a later moment, and so they do not all come back at once."""
        now, each = time.monotonic(), self._each_s / self.threads
        first = now + (self.inside - self._most + 1) * each
        self._promised_until = max(self._promised_until, first) + each
        self._promised_until = min(self._promised_until, now + MOST_WAIT_S)
        return max(1, ceil(self._promised_until - now))

    def work(self, door: Door) -> None:
        """What each of the line's threads does for good."""
        while True:
            asked, left = self._queue.get(), None
            try:
                left = door.answer(asked)
            except Exception as error:  # granian then answers 500
                structlog.get_logger().error("unanswered", exc_info=error)
            with suppress(RuntimeError):  # the loop has ended, and with it the process
                door.loop.call_soon_threadsafe(_finish, asked.answered, left)


def _finish(answered: asyncio.Future[Long | None], left: Long | None) -> None:
    if not answered.done():
        answered.set_result(left)


class Door:
    """The application behind its door: what granian is given as an RSGI application."""

    def __init__(self, app: Flask, metrics: CollectorRegistry, threads: int) -> None:
        self._wsgi = app.wsgi_app
        self._most_body: int = app.config["MAX_CONTENT_LENGTH"]
        self._all, self._batches = Line(threads, WAITING), Line(BATCHES, BATCHES_WAITING)
        self._reading = 0  # bytes of bodies on their way
        self._refused = Counter(
            "puhui_refused", "Requests refused at the door", ["reason"], registry=metrics
        )
        for reason in ("CITY_BUSY", "UNAVAILABLE", "BODY_TOO_SLOW"):
            self._refused.labels(reason)  # there, and nought, from the beginning
        for name, line in (("requests", self._all), ("batches", self._batches)):
            gauge = Gauge(f"puhui_{name}_inside", f"{name} waiting or at work", registry=metrics)
            gauge.set_function(partial(getattr, line, "inside"))
        self.loop: asyncio.AbstractEventLoop

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        sys.setswitchinterval(_SWITCH_S)
        for line in (self._all, self._batches):
            for _ in range(line.threads):
                Thread(target=line.work, args=(self,), daemon=True).start()

    async def __rsgi__(self, scope: Scope, proto: HTTPProtocol) -> None:
        body = b""
        if scope.method not in _BODILESS:
            try:
                read = await self._read(scope, proto)
            except ProtocolClosed:
                return  # gone before it was said
            if read is None:
                return
            body = read
        batch = scope.path == _BATCHES_PATH and scope.method == "POST"
        line = self._batches if batch else self._all
        if line.has_room():
            left = await line.stand(self, scope, proto, body)
            if left is not None:
                await _stream(proto, left)
        elif batch:
            detail = f"{BATCHES_WAITING} batches wait here already; send this one again later"
            self._refuse(proto, "CITY_BUSY", detail, line.come_again_s())
        else:
            detail = f"{WAITING} requests wait here already; send this one again later"
            self._refuse(proto, "UNAVAILABLE", detail)

    async def _read(self, scope: Scope, proto: HTTPProtocol) -> bytes | None:
        """The body, or None if the request was refused. One that says it is too large is left
        unread, and the application refuses it; one that turns out so is cut, for the same."""
        given = scope.headers.get("content-length", "")
        known = int(given) if given.isascii() and given.isdigit() else None
        if known is not None and (known == 0 or known > self._most_body):
            return b""
        space = self._most_body if known is None else known
        if self._reading + space > BODIES_BYTES:
            detail = "too many bodies are on their way to this server; send this one again later"
            self._refuse(proto, "UNAVAILABLE", detail)
            return None
        self._reading += space
        try:
            async with asyncio.timeout(BODY_S):
                if known is not None:
                    return bytes(await proto())
                body = bytearray()
                async for part in proto:
                    body += part
                    if len(body) > self._most_body:
                        break
                return bytes(body)
        except TimeoutError:
            detail = f"the body did not arrive within {BODY_S} s"
            self._refuse(proto, "BODY_TOO_SLOW", detail)
            return None
        finally:
            self._reading -= space

    def _refuse(
        self, proto: HTTPProtocol, code: str, detail: str, come_again_s: int | None = None
    ) -> None:
        headers = {} if come_again_s is None else {"Retry-After": str(come_again_s)}
        self._refused.labels(code).inc()
        _send(proto, refusal(code, detail, headers=headers))

    def answer(self, asked: Asked) -> Long | None:
        """Run the application for one request and send what it says, or return what is long."""
        begun: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
            begun[:] = int(status[:3]), headers

        pieces: Iterable[bytes] = self._wsgi(_environ(asked), start)
        try:
            parts, size, rest = [], 0, iter(pieces)
            for piece in rest:
                parts.append(piece)
                size += len(piece)
                if size > LONG_BYTES:
                    break
            status, headers = begun
            if size > LONG_BYTES:
                file = TemporaryFile()  # noqa: SIM115 (closed by who sends it)
                file.writelines(chain(parts, rest))
                file.seek(0)
                return Long(status, headers, file)
        finally:
            if close := getattr(pieces, "close", None):
                close()
        asked.proto.response_bytes(status, headers, b"".join(parts))
        return None


async def _stream(proto: HTTPProtocol, answer: Long) -> None:
    with answer.file as file, suppress(ProtocolClosed, TimeoutError):
        out = proto.response_stream(answer.status, answer.headers)
        while piece := file.read(PIECE_BYTES):
            async with asyncio.timeout(BODY_S):
                await out.send_bytes(piece)


def _send(proto: HTTPProtocol, response: Response) -> None:
    proto.response_bytes(response.status_code, list(response.headers), response.get_data())


_BASE: Final[dict[str, Any]] = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "granian",
    "wsgi.version": (1, 0),
    "wsgi.errors": sys.stderr,
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
}


def _environ(asked: Asked) -> dict[str, Any]:
    """The request as PEP 3333 wants it. Headers with _ in their names are dropped: behind a proxy
    X_Forwarded_For would else be taken for what the proxy says."""
    scope = asked.scope
    server, _, port = scope.server.rpartition(":")
    environ = _BASE | {
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": BytesIO(asked.body),
    }
    if scope.authority:
        environ["HTTP_HOST"] = scope.authority
    for name, value in scope.headers.items():
        if "_" in name:
            continue
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if (value := environ.pop(f"HTTP_{key}", None)) is not None:
            environ[key] = value
    return environ
