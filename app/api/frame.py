"""What surrounds every request: its id, its log line, its metrics, its security and rate fields."""

from __future__ import annotations

import logging
import re
import sys
import time
from functools import lru_cache
from uuid import uuid4

import orjson
import structlog
from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # own scripts and styles only: nothing is ever fetched from another host
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


REGISTRY = "puhui.metrics"  # app.extensions: this application's CollectorRegistry
_KEPT = 4096  # counters of routes, more than there are
METERS = "puhui.meters"  # app.extensions: this application's Meters


class Meters:
    """How many requests were answered, and in what time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["method", "route", "status"]
        requests = Counter("puhui_requests", "Requests answered", labels, registry=registry)
        seconds = Histogram("puhui_request_seconds", "Time to answer", ["route"], registry=registry)
        # found by their labels once
        self._requests = lru_cache(maxsize=_KEPT)(requests.labels)
        self._seconds = lru_cache(maxsize=_KEPT)(seconds.labels)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one that was answered."""
        self._requests(method, route, status).inc()
        self._seconds(route).observe(seconds)


def install(app: Flask, registry: CollectorRegistry) -> None:
    """Put the frame around every request of the application."""
    meters = app.extensions[METERS] = Meters(registry)
    log = structlog.get_logger().bind()  # bound once: doing so costs as much as writing a line

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        size = request.content_length or 0
        if response.status_code >= 400 and 0 < size <= (request.max_content_length or 0):
            request.get_data()  # what is left unread costs the sender the connection
        headers = response.headers
        headers["X-Request-Id"] = g.request_id
        headers.extend(_HEADERS)
        if spent := g.get("spent"):
            policy = spent.policy
            headers["RateLimit-Policy"] = f'"{policy.name}";q={policy.amount};w=60'
            headers["RateLimit"] = f'"{policy.name}";r={spent.remaining}'
        took = time.perf_counter() - g.began
        route = request.url_rule.rule if request.url_rule else "-"
        meters.count(request.method, route, response.status_code, took)
        # the route and not the path: a path may hold an id, a query string anything
        log.info(
            "request",
            method=request.method,
            route=route,
            status=response.status_code,
            ms=round(took * 1000, 1),
            request_id=g.request_id,
        )
        return response


def configure_logs() -> None:
    """One JSON object a line on standard error, from INFO up."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=_Lines,
    )


class _Lines:
    """Writes each line to what standard error is at that moment, in one piece."""

    def __init__(self, *_: object) -> None:
        pass

    def info(self, line: str) -> None:
        sys.stderr.write(line + "\n")

    warning = error = info


def _dump(value: object, **_: object) -> str:
    return orjson.dumps(value, default=str).decode()
