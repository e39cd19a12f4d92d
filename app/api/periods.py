"""For residents: a month or a year of entries, summed up by area."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import marshmallow as ma
from flask import Response, g

from app.api.wire import Blueprint, answer
from app.auth import resident
from app.config import CITY_ZONE
from app.errors import PROBLEMS, Problem
from app.flows.summary import Month, Sum, months
from app.store import statements
from app.store.db import one_statement
from app.store.statements import Wanted
from app.wiring import wired
from ledger.entries import Kind, instant
from scenarios import AREAS

blp = Blueprint(
    "periods",
    __name__,
    url_prefix="/api/v1/me",
    description="居民：月度小结与年度报告。A month or a year of entries, summed up by area.",
)


class SumSchema(ma.Schema):
    """What acts came to, less what was taken back."""

    acts = ma.fields.Integer(required=True)
    reduction_mg = ma.fields.String(required=True)
    points = ma.fields.String(required=True)
    withheld_points = ma.fields.String(required=True, metadata={"description": "above a cap"})
    waiting_points = ma.fields.String(
        required=True, metadata={"description": "still waiting for a budget"}
    )


class AreaSumSchema(SumSchema):
    """One of the seven areas."""

    area = ma.fields.String(required=True)


class MovedSchema(ma.Schema):
    """Points that moved by no act."""

    kind = ma.fields.String(required=True, validate=ma.validate.OneOf([str(one) for one in Kind]))
    points = ma.fields.String(required=True)


class RefusedSchema(ma.Schema):
    """Activities that did not count, by code."""

    code = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    acts = ma.fields.Integer(required=True)


class MonthSchema(ma.Schema):
    """One month; areas of which nothing was recorded are left out."""

    month = ma.fields.String(required=True, metadata={"example": "2026-11"})
    total = ma.fields.Nested(SumSchema, required=True)
    areas = ma.fields.List(ma.fields.Nested(AreaSumSchema), required=True)
    moved = ma.fields.List(ma.fields.Nested(MovedSchema), required=True)


class MonthReportSchema(MonthSchema):
    """One month, and what did not count in it."""

    rejected = ma.fields.List(ma.fields.Nested(RefusedSchema), required=True)


class YearReportSchema(ma.Schema):
    """One year; months in which nothing was recorded are left out."""

    year = ma.fields.String(required=True)
    total = ma.fields.Nested(SumSchema, required=True)
    areas = ma.fields.List(ma.fields.Nested(AreaSumSchema), required=True)
    months = ma.fields.List(ma.fields.Nested(MonthSchema), required=True)
    best_month = ma.fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "in which most carbon was avoided, the first of equal ones"},
    )
    rejected = ma.fields.List(ma.fields.Nested(RefusedSchema), required=True)


@blp.serve("GET", "/months/<month>", gives=MonthReportSchema, guard=resident)
def get_month(month: str) -> Response:
    """月度小结 · A month (YYYY-MM) by area, what else moved, and what did not count."""
    found = re.fullmatch(r"(2[0-9]{3})-(0[1-9]|1[0-2])", month)
    if not found:
        raise Problem("NOT_FOUND", "a month is written YYYY-MM")
    year, number = int(found[1]), int(found[2])
    sums, rejected = _read(_start(year, number), _start(year, number + 1))
    return answer(
        {
            **_month(year * 100 + number, sums.get(year * 100 + number, Month())),
            "rejected": rejected,
        }
    )


@blp.serve("GET", "/years/<year>", gives=YearReportSchema, guard=resident)
def get_year(year: str) -> Response:
    """年度报告 · A year (YYYY) by month and area, and its best month."""
    if not re.fullmatch(r"2[0-9]{3}", year):
        raise Problem("NOT_FOUND", "a year is written YYYY")
    sums, rejected = _read(_start(int(year), 1), _start(int(year), 13))
    whole = Month()
    for one in sums.values():
        for area, part in one.areas.items():
            whole.areas[area].add(part)
    best = max(sums, key=lambda name: (sums[name].total.reduction_mg, -name), default=None)
    return answer(
        {
            "year": year,
            "total": _sum(whole.total),
            "areas": _areas(whole),
            "months": [_month(name, sums[name]) for name in sorted(sums)],
            "best_month": _name(best)
            if best is not None and sums[best].total.reduction_mg > 0
            else None,
            "rejected": rejected,
        }
    )


def _start(year: int, month: int) -> datetime:
    """The first moment of a month; the thirteenth is the next year's first."""
    later, month = divmod(month - 1, 12)
    return datetime(year + later, month + 1, 1, tzinfo=CITY_ZONE)


def _read(first: datetime, end: datetime) -> tuple[dict[int, Month], list[dict[str, Any]]]:
    """The sums of each month from a moment to another, and what was refused."""
    here = wired()
    now = here.clock()
    with one_statement(here.engine) as tx:
        wanted = Wanted(
            since=here.days.since(tx, first, now),
            before=here.days.until(tx, end, now),
            first=instant(first),
            end=instant(end),
        )
        lines = statements.lines(tx, g.resident, None, wanted)
        sums = months(tx, lines, statements.waits(tx, g.resident))
        refused = statements.refused(tx, g.resident, first, end)
    rejected = [
        {"code": code, "title_zh": PROBLEMS.get(code, (0, code))[1], "acts": acts}
        for code, acts in refused.items()
    ]
    return sums, rejected


def _month(number: int, month: Month) -> dict[str, Any]:
    moved = sorted(month.moved.items())
    return {
        "month": _name(number),
        "total": _sum(month.total),
        "areas": _areas(month),
        "moved": [{"kind": kind, "points": str(points)} for kind, points in moved],
    }


def _areas(month: Month) -> list[dict[str, Any]]:
    return [{"area": area, **_sum(month.areas[area])} for area in AREAS if area in month.areas]


def _sum(one: Sum) -> dict[str, Any]:
    return {
        "acts": one.acts,
        "reduction_mg": str(one.reduction_mg),
        "points": str(one.points),
        "withheld_points": str(one.withheld_points),
        "waiting_points": str(one.waiting_points),
    }


def _name(month: int) -> str:
    """202611 as 2026-11."""
    return f"{month // 100:04d}-{month % 100:02d}"
