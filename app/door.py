"""The front door: what a request waits for before a thread takes it, under granian's RSGI.

A WSGI server reads the body in the thread that answers, so four clients that send a byte a second
hold four threads. Here the event loop reads bodies, each in its time and all in a bounded space; a
thread takes whole requests only. There are two lines to stand in: provider batches, whose threads
only hand them on to processes of lower priority (`app.intake`), and everything else. Both are
bounded, and who finds a line full is told when to come again.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from math import ceil
from queue import SimpleQueue
from tempfile import TemporaryFile
from threading import Thread
from typing import IO, Final, NamedTuple

import structlog
from flask import Flask, Response
from granian._granian import RSGIHTTPProtocol as HTTPProtocol
from granian._granian import RSGIProtocolClosed as ProtocolClosed
from granian.rsgi import Scope
from prometheus_client import CollectorRegistry, Counter, Gauge

from app.api.frame import METERS, Meters
from app.errors import refusal
from app.gateway import Headers, answering, environ_of
from app.intake import EndedError, Intake
from app.turns import Turns

BODY_S: Final = 30  # for the whole body; a phone on a slow line sends a picture in less
BODIES_BYTES: Final = 64 * 1024 * 1024  # of all bodies that are being read
WAITING: Final = 512  # requests that wait for a thread
BATCHES_WAITING: Final = 8  # for a process that works on batches
LONG_BYTES: Final = 1024 * 1024  # an answer above this goes by way of a file
PIECE_BYTES: Final = 64 * 1024
MOST_WAIT_S: Final = 30  # that anybody is told to stay away

_API = "/api/"
_BATCHES_PATH = "/api/v1/batches"
_SWITCH_S = 0.0005  # a thread that computes lets the others in; the default is ten times as long
_FIRST_GUESS_S = 0.5  # a batch takes, until one was timed
_BODILESS = frozenset({"GET", "HEAD"})


class Short(NamedTuple):
    """An answer that is sent at once."""

    status: int
    headers: Headers
    body: bytes


class Long(NamedTuple):
    """An answer that is sent from a file, at the reader's speed, with no thread held."""

    status: int
    headers: Headers
    file: IO[bytes]


class Asked(NamedTuple):
    """A whole request, and where its answer goes. What `answered` brings is left to be sent."""

    scope: Scope
    proto: HTTPProtocol
    body: bytes
    answered: asyncio.Future[Long | None]


Answerer = Callable[[Asked], Long | None]


class Line:
    """Requests in the order they came, and what answers them: as many at once, a thread each.

    All but `_work` is called on the event loop alone, so the numbers need no lock.
    """

    def __init__(self, answerers: Sequence[Answerer], most_waiting: int) -> None:
        self._answerers, self._most = answerers, len(answerers) + most_waiting
        self._queue: SimpleQueue[Asked] = SimpleQueue()
        self.inside = 0  # waiting or at work
        self._each_s = _FIRST_GUESS_S  # smoothed
        self._promised_until = 0.0

    def has_room(self) -> bool:
        """Whether one more may stand here."""
        return self.inside < self._most

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to answer."""
        self._loop = loop
        for answerer in self._answerers:
            Thread(target=self._work, args=(answerer,), daemon=True).start()

    async def stand(self, scope: Scope, proto: HTTPProtocol, body: bytes) -> Long | None:
        """Wait for a thread and until it has answered."""
        self.inside += 1
        began = time.monotonic()
        ahead = 1 + (self.inside - 1) // len(self._answerers)
        try:
            answered: asyncio.Future[Long | None] = self._loop.create_future()
            self._queue.put(Asked(scope, proto, body, answered))
            return await answered
        finally:
            self.inside -= 1
            self._each_s += ((time.monotonic() - began) / ahead - self._each_s) / 8

    def come_again_s(self) -> int:
        """Seconds until there is room for one more, who knows that others were told so before:
        each who is sent away is told a later moment, and so they do not all come back at once."""
        now, each = time.monotonic(), self._each_s / len(self._answerers)
        first = now + (self.inside - self._most + 1) * each
        self._promised_until = max(self._promised_until, first) + each
        self._promised_until = min(self._promised_until, now + MOST_WAIT_S)
        return max(1, ceil(self._promised_until - now))

    def _work(self, answerer: Answerer) -> None:
        while True:
            asked, left = self._queue.get(), None
            try:
                left = answerer(asked)
            except Exception as error:  # granian then answers 500
                structlog.get_logger().error("unanswered", exc_info=error)
            with suppress(RuntimeError):  # the loop has ended, and with it the process
                self._loop.call_soon_threadsafe(_finish, asked.answered, left)


def _finish(answered: asyncio.Future[Long | None], left: Long | None) -> None:
    if not answered.done():
        answered.set_result(left)


class Door:
    """The application behind its door: what granian is given as an RSGI application."""

    def __init__(
        self, app: Flask, metrics: CollectorRegistry, turns: Turns, threads: int, intake: int
    ) -> None:
        self._wsgi = app.wsgi_app
        self._most_body: int = app.config["MAX_CONTENT_LENGTH"]
        self._turns = turns
        self._meters: Meters = app.extensions[METERS]
        self._all = Line([self._answer] * threads, WAITING)
        handlers = [partial(self._hand_on, Intake()) for _ in range(intake)]
        self._batches = Line(handlers, intake * BATCHES_WAITING)
        self._reading = 0  # bytes of bodies on their way
        self._refused = Counter(
            "puhui_refused", "Requests refused at the door", ["reason"], registry=metrics
        )
        for reason in ("CITY_BUSY", "UNAVAILABLE", "BODY_TOO_SLOW"):
            self._refused.labels(reason)  # there, and nought, from the beginning
        for name, line in (("requests", self._all), ("batches", self._batches)):
            gauge = Gauge(f"puhui_{name}_inside", f"{name} waiting or at work", registry=metrics)
            gauge.set_function(partial(getattr, line, "inside"))

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        sys.setswitchinterval(_SWITCH_S)
        for line in (self._all, self._batches):
            line.open(loop)

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
        if not batch and scope.path.startswith(_API):  # nobody waits for metrics and health
            self._turns.note()
        if line.has_room():
            left = await line.stand(scope, proto, body)
            if left is not None:
                await _stream(proto, left)
        elif batch:
            detail = "the places for batches are taken; send this one again later"
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

    def _answer(self, asked: Asked) -> Long | None:
        """Run the application for one request."""
        environ = environ_of(asked.scope)
        with answering(self._wsgi, environ, asked.body) as (status, headers, pieces):
            made = _gather(status, headers, pieces)
        return _give(asked, made)

    def _hand_on(self, intake: Intake, asked: Asked) -> Long | None:
        """Have one request answered elsewhere. It is counted here, where /metrics is asked for."""
        began = time.perf_counter()
        try:
            with self._turns.taken() as cores:
                status, headers, body = intake.ask(environ_of(asked.scope), asked.body, cores)
        except EndedError as error:
            self._refuse(asked.proto, "UNAVAILABLE", f"{error}; send it again as it is")
            return None
        took = time.perf_counter() - began
        self._meters.count(asked.scope.method, asked.scope.path, status, took)
        return _give(asked, _gather(status, headers, iter((body,))))


def _gather(status: int, headers: Headers, pieces: Iterator[bytes]) -> Short | Long:
    parts, size = [], 0
    for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > LONG_BYTES:
            file = TemporaryFile()  # noqa: SIM115 (closed by who sends it)
            file.writelines(chain(parts, pieces))
            file.seek(0)
            return Long(status, headers, file)
    return Short(status, headers, b"".join(parts))


def _give(asked: Asked, made: Short | Long) -> Long | None:
    """Send what is short; what is long is left to be sent."""
    if isinstance(made, Long):
        return made
    asked.proto.response_bytes(*made)
    return None


async def _stream(proto: HTTPProtocol, answer: Long) -> None:
    with answer.file as file, suppress(ProtocolClosed, TimeoutError):
        out = proto.response_stream(answer.status, answer.headers)
        while piece := file.read(PIECE_BYTES):
            async with asyncio.timeout(BODY_S):
                await out.send_bytes(piece)


def _send(proto: HTTPProtocol, response: Response) -> None:
    proto.response_bytes(response.status_code, list(response.headers), response.get_data())
