"""What waits at the front door, and what is refused there."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import orjson
import pytest
from flask import Flask, request
from prometheus_client import CollectorRegistry

from app import door
from app.api.frame import METERS, Meters
from app.door import Door, Line
from app.turns import Turns


class Headers(dict):
    """Header lines by lower-case name, as granian hands them over."""


class Scope:
    """What granian says of a request."""

    http_version, server, client, scheme = "1.1", "[::1]:8000", "[::1]:4711", "http"
    query_string, authority = "q=%20", None

    def __init__(self, method="POST", path="/", **headers):
        self.method, self.path = method, path
        self.headers = Headers({name.replace("_", "-"): text for name, text in headers.items()})


class Client:
    """A client that sends its body in pieces, a pause before each, and keeps the answer."""

    def __init__(self, *pieces, pause_s=0.0):
        self.pieces, self.pause_s, self.answer, self.status = pieces, pause_s, b"", 0

    async def __aiter__(self):
        for piece in self.pieces:
            await asyncio.sleep(self.pause_s)
            yield piece

    async def __call__(self):
        return b"".join([piece async for piece in self])

    def response_bytes(self, status, headers, body):
        self.status, self.headers, self.answer = status, dict(headers), body

    def response_stream(self, status, headers):
        self.status, self.headers = status, dict(headers)
        return self

    async def send_bytes(self, piece):
        self.answer += piece


@pytest.fixture
def echo(tmp_path):
    """An application that says what it was asked, behind a door."""
    app, registry = Flask(__name__), CollectorRegistry()
    app.extensions[METERS] = Meters(registry)
    app.config["MAX_CONTENT_LENGTH"] = 1000

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/<path:path>", methods=["GET", "POST"])
    def echo(path):
        if path == "long":
            return "x" * (3 * door.LONG_BYTES)
        return {
            "path": path,
            "query": request.args.get("q"),
            "from": request.remote_addr,
            "body": request.get_data().decode(),
            "forwarded": request.headers.get("X-Forwarded-For"),
        }

    return Door(app, registry, Turns(tmp_path), threads=2, intake=1)


def ask(made, scope, client):
    async def run():
        made.__rsgi_init__(asyncio.get_running_loop())
        await made.__rsgi__(scope, client)

    asyncio.run(run())
    return client


def test_the_application_sees_the_request_as_it_was_sent(echo):
    scope = Scope(path="/低/碳", content_length="3", x_forwarded_for="10.0.0.1")
    scope.headers["x_forwarded_for"] = "10.9.9.9"
    got = orjson.loads(ask(echo, scope, Client(b"ab", b"c")).answer)
    assert got == {
        "path": "低/碳", "query": " ", "from": "::1", "body": "abc", "forwarded": "10.0.0.1"
    }  # fmt: skip


def test_a_body_in_chunks_is_whole_or_too_large(echo):
    assert orjson.loads(ask(echo, Scope(), Client(b"ab", b"c")).answer)["body"] == "abc"
    cut = ask(echo, Scope(), Client(*[b"x" * 100] * 50))
    assert len(orjson.loads(cut.answer)["body"]) == 1000  # auth.received refuses it at this length


def test_a_body_that_dribbles_is_refused_in_time(echo, monkeypatch):
    monkeypatch.setattr(door, "BODY_S", 0.05)
    slow = ask(echo, Scope(content_length="100"), Client(*[b"x"] * 100, pause_s=0.01))
    assert (slow.status, orjson.loads(slow.answer)["code"]) == (408, "BODY_TOO_SLOW")


def test_bodies_on_their_way_have_a_bounded_space(echo, monkeypatch):
    monkeypatch.setattr(door, "BODIES_BYTES", 150)
    first, second = Client(b"x" * 100, pause_s=0.1), Client(b"x" * 100)

    async def run():
        echo.__rsgi_init__(asyncio.get_running_loop())
        scope = Scope(content_length="100")
        await asyncio.gather(echo.__rsgi__(scope, first), echo.__rsgi__(scope, second))
        assert (first.status, second.status) == (200, 503)
        assert int(second.headers["Retry-After"]) > 0
        await echo.__rsgi__(scope, second)
        assert second.status == 200

    asyncio.run(run())


def test_a_long_answer_comes_whole(echo):
    got = ask(echo, Scope("GET", "/long"), Client())
    assert (got.status, len(got.answer)) == (200, 3 * door.LONG_BYTES)


def test_who_is_sent_away_is_told_ever_later_moments_up_to_a_limit():
    line = Line([pytest.fail] * 2, most_waiting=8)
    line.inside = 10
    assert not line.has_room()
    told = [line.come_again_s() for _ in range(200)]
    assert told[0] == 1
    assert all(a <= b for a, b in pairwise(told))
    assert told[-1] == door.MOST_WAIT_S
