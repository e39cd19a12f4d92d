"""For those who run or integrate the service: health, metrics, codes."""

from __future__ import annotations

from datetime import datetime

import marshmallow as ma
import structlog
from flask import Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.api.frame import REGISTRY
from app.api.wire import Blueprint, answer, instant
from app.errors import PROBLEMS, Problem
from app.flows.bill.close import days_behind
from app.store import appeals, cases, deliveries, gauges, merchants, settlement
from app.store.db import schema_is_current
from app.wiring import wired
from ledger.entries import Entry

blp = Blueprint(
    "ops",
    __name__,
    description="运行：健康检查、指标、错误代码。Health, metrics and what a problem's type means.",
)


class StatusSchema(ma.Schema):
    """Whether the service works; log figures are there when the database answers."""

    status = ma.fields.String(required=True)
    database = ma.fields.String()
    time = ma.fields.String()
    log_size = ma.fields.String()
    unsealed_entries = ma.fields.String()
    oldest_unsealed_s = ma.fields.String()


class TimeSchema(ma.Schema):
    """This city's time: as an instant, and in the seconds since 1970 that signatures bear."""

    now = ma.fields.String(required=True)
    timestamp = ma.fields.String(required=True)


class CodeSchema(ma.Schema):
    """A refusal's code: its HTTP status and its title for people."""

    code = ma.fields.String(required=True)
    status = ma.fields.Integer(required=True)
    title = ma.fields.String(required=True)


class CodesSchema(ma.Schema):
    """All codes."""

    items = ma.fields.List(ma.fields.Nested(CodeSchema), required=True)


@blp.serve("GET", "/problems", gives=CodesSchema)
def problems() -> Response:
    """错误代码表 · Every code that a refusal may carry."""
    return answer(
        {
            "items": [
                {"code": code, "status": status, "title": title}
                for code, (status, title) in PROBLEMS.items()
            ]
        }
    )


@blp.serve("GET", "/problems/<code>", gives=CodeSchema)
def problem(code: str) -> Response:
    """错误代码 · What a problem's `type` address means."""
    if code not in PROBLEMS:
        raise Problem("NOT_FOUND", "there is no problem of this code")
    status, title = PROBLEMS[code]
    return answer({"code": code, "status": status, "title": title})


@blp.serve("GET", "/api/v1/time", gives=TimeSchema)
def get_time() -> Response:
    """服务器时间 · What time it is here: for tills whose clock is off, and where a sandbox's time
    was moved."""
    now = wired().clock()
    return answer({"now": instant(now), "timestamp": str(int(now.timestamp()))})


@blp.serve("GET", "/health/live", gives=StatusSchema)
def live() -> Response:
    """存活检查 · The process answers."""
    return answer({"status": "ok"})


@blp.serve("GET", "/health/ready", gives=StatusSchema)
def ready() -> Response:
    """就绪检查 · Whether requests can be served: 503 without the database or its newest schema.

    A sealer that is behind is told and does not make it unready: intake and reads go on without.
    """
    here = wired()
    try:
        with here.engine.connect() as tx:
            current = schema_is_current(tx)
            lag = _lag(tx, here.clock()) if current else {}
    except SQLAlchemyError:
        structlog.get_logger().error("database unavailable")
        return answer({"status": "unavailable", "database": "unreachable"}, 503)
    if not current:
        return answer({"status": "unavailable", "database": "not at the newest migration"}, 503)
    return answer({"status": "ok", "database": "ok", "time": instant(here.clock()), **lag})


@blp.serve("GET", "/metrics", gives={"type": "string"}, media="text/plain")
def metrics() -> Response:
    """监控指标 · This process's counters and the city's gauges, as Prometheus text."""
    here = wired()
    moment = CollectorRegistry()
    with here.engine.connect() as tx:
        for name, value in _lag(tx, here.clock()).items():
            _gauge(moment, name).set(int(value))
        figures = gauges.budgets(tx)
        _gauge(moment, "appeals_overdue").set(appeals.overdue(tx, here.clock()))
        _gauge(moment, "cases_open").set(cases.waiting(tx))
        _gauge(moment, "merchants_low").set(merchants.count_low(tx))
        books = settlement.position(tx)
        _gauge(moment, "bills_difference_points").set(books.difference_points)
        _gauge(moment, "bills_days_behind").set(days_behind(books.closed, here.clock()))
        unsent = deliveries.backlog(tx)
        age = (here.clock() - unsent.oldest).total_seconds() if unsent.oldest else 0
        _gauge(moment, "webhook_waiting").set(unsent.waiting)
        _gauge(moment, "webhook_dead").set(unsent.dead)
        _gauge(moment, "webhook_oldest_s").set(max(0, int(age)))
    left = _gauge(moment, "budget_left_points", "scope")
    waiting = _gauge(moment, "budget_waiting_points", "scope")
    for budget in figures:
        left.labels(budget.scope).set(budget.left_points)
        waiting.labels(budget.scope).set(budget.waiting_points)
    body = generate_latest(current_app.extensions[REGISTRY]) + generate_latest(moment)
    return Response(body, content_type=CONTENT_TYPE_LATEST)


def _gauge(registry: CollectorRegistry, name: str, *labels: str) -> Gauge:
    return Gauge(f"puhui_{name}", name.replace("_", " "), labels, registry=registry)


def _lag(tx: Connection, now: datetime) -> dict[str, str]:
    """The log's size, entries not sealed yet, and the age in seconds of the oldest of them."""
    size, pending, oldest = gauges.backlog(tx)
    age = 0
    if oldest is not None:
        age = max(0, int((now - datetime.fromisoformat(Entry.parse(oldest).at)).total_seconds()))
    return {
        "log_size": str(size),
        "unsealed_entries": str(pending),
        "oldest_unsealed_s": str(age),
    }
