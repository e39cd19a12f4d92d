"""For residents: what I hold, how it came about, and why to believe it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api import answers, statement
from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    bad_cursor,
    calendar_day,
    cursor_of,
    page,
    place_of,
    plain_text,
    stamp,
)
from app.auth import resident
from app.config import CITY_ZONE
from app.errors import PROBLEMS, Problem
from app.flows import prove
from app.store import entries, log, people, statements
from app.store.db import one_statement, snapshot
from app.vault import Vault, open_opening
from app.wiring import wired
from ledger.accounts import AccountKind, Asset
from ledger.buckets import day_number
from ledger.encoding import MAX_INT
from ledger.entries import Kind
from scenarios import AREAS

_RECENT = 5
_ENTRY_ID = re.compile(r"[0-9a-f]{32}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC), "", "", 0)

blp = Blueprint(
    "residents",
    __name__,
    url_prefix="/api/v1/me",
    description="居民：余额、明细、计算过程与凭证。Residents read; the token says who.",
)


class StatementArgs(PageArgs):
    """Which lines of the statement."""

    kind = ma.fields.String(validate=ma.validate.OneOf([str(kind) for kind in Kind]))
    area = ma.fields.String(validate=ma.validate.OneOf(AREAS))


@blp.serve("GET", "/balances", gives=answers.BalancesSchema, guard=resident)
def get_balances() -> Response:
    """余额 · Points by expiry, carbon by year."""
    here = wired()
    with one_statement(here.engine) as tx:
        rows = statements.balances(tx, g.resident)
    return answer(_balances(rows, here.clock()))


@blp.serve("GET", "/home", gives=answers.HomeSchema, guard=resident)
def get_home() -> Response:
    """首页 · Balances, what waits for a budget, and the newest entries, in one call."""
    here = wired()
    with here.engine.connect() as tx:
        rows = statements.balances(tx, g.resident)
        waiting = statements.waiting(tx, g.resident)
        recent = statements.lines(tx, g.resident, MAX_INT, _RECENT)
        catalogue = here.registry.current(tx)
    return answer(
        {
            "resident": g.resident,
            "balances": _balances(rows, here.clock()),
            "waiting_points": str(waiting),
            "recent": [statement.line(item, catalogue) for item in recent],
        }
    )


@blp.serve("GET", "/statement", gives=answers.StatementSchema, guard=resident, query=StatementArgs)
def get_statement(args: dict[str, Any]) -> Response:
    """明细 · Entries, newest first; `area` keeps those credited in one of the seven areas."""
    here, limit = wired(), args["limit"]
    kind = Kind(args["kind"]) if "kind" in args else None
    before = _arrival(place_of(args.get("cursor")))
    with here.engine.connect() as tx:
        rows = statements.lines(tx, g.resident, before, limit + 1, kind, args.get("area"))
        catalogue = here.registry.current(tx)
    more = cursor_of(str(rows[limit - 1].arrival)) if len(rows) > limit else None
    return answer(page([statement.line(item, catalogue) for item in rows[:limit]], more))


@blp.serve("GET", "/entries/<entry_id>", gives=answers.EntrySchema, guard=resident)
def get_entry(entry_id: str) -> Response:
    """一笔明细的计算过程 · One entry: what I did, by which rule, with whose number, to what result.

    `calculation` is null for entries that reckon no activity, such as a redemption.
    """
    here = wired()
    with here.engine.connect() as tx:
        item = _own(tx, entry_id)
        catalogue = here.registry.current(tx)
        opened = _open(tx, here.vault, item)
    version = statement.rule_of(item.entry, catalogue)
    return answer(
        {
            **statement.line(item, catalogue),
            "postings": statement.postings(item.entry),
            "calculation": statement.calculation(version, opened[1])
            if version and opened
            else None,
        }
    )


@blp.serve(
    "GET",
    "/entries/<entry_id>/receipt",
    gives={"type": "string"},
    media="text/plain",
    guard=resident,
)
def get_receipt(entry_id: str) -> Response:
    """凭证 · A file that proves the entry offline (c2sp.org/tlog-proof), its bytes included.

    409 NOT_SEALED_YET until the next checkpoint, about a second after the entry was written.
    """
    with snapshot(wired().engine) as tx:
        _own(tx, entry_id)
        proof = prove.receipt(tx, entry_id)
    return plain_text(proof.text())


@blp.serve("GET", "/entries/<entry_id>/opening", gives=answers.OpeningSchema, guard=resident)
def get_opening(entry_id: str) -> Response:
    """承诺的原文 · What the entry's commitment hides: SHA-256(salt followed by opening)."""
    here = wired()
    with here.engine.connect() as tx:
        item = _own(tx, entry_id)
        opened = _open(tx, here.vault, item)
    if opened is None:
        raise Problem("NOT_FOUND", "this entry commits to nothing that could be opened")
    salt, opening = opened
    return answer(
        {
            "entry_id": entry_id,
            "commitment": item.entry.detail["commitment"],
            "salt": salt.hex(),
            "opening": opening.decode(),
        }
    )


@blp.serve("GET", "/rejections", gives=answers.RejectionsSchema, guard=resident, query=PageArgs)
def get_rejections(args: dict[str, Any]) -> Response:
    """未计入的行为 · Activities that were reported of me and refused, and why."""
    limit = args["limit"]
    before = _refusal_place(place_of(args.get("cursor")))
    with wired().engine.connect() as tx:
        rows = statements.refusals(tx, g.resident, before, limit + 1)
    items = [
        {
            **stamp("recorded", row.recorded_at),
            "provider": row.provider,
            "activity_id": row.activity_id,
            "code": row.code,
            "title_zh": PROBLEMS.get(row.code, (0, row.code))[1],
            "detail": row.detail,
        }
        for row in rows[:limit]
    ]
    more = cursor_of(_place(rows[limit - 1])) if len(rows) > limit else None
    return answer(page(items, more))


def _balances(rows: list[statements.Balance], now: datetime) -> dict[str, Any]:
    """Points past their last day are left out, though the entry that expires them may follow."""
    today = day_number(now.astimezone(CITY_ZONE).date())
    totals = {AccountKind.HELD.code: 0, AccountKind.DEBT.code: 0}
    buckets: list[dict[str, str]] = []
    vintages: list[dict[str, str]] = []
    points = reduction = 0
    for kind, asset, bucket, amount in rows:
        if kind != AccountKind.RESIDENT.code:
            totals[kind] += amount if asset == Asset.POINT.code else 0
        elif asset == Asset.CO2E.code:
            reduction += amount
            vintages.append({"year": str(bucket), "reduction_mg": str(amount)})
        elif bucket >= today:
            points += amount
            buckets.append({"expires_on": calendar_day(bucket), "points": str(amount)})
    return {
        "points": str(points),
        "held_points": str(totals[AccountKind.HELD.code]),
        "debt_points": str(totals[AccountKind.DEBT.code]),
        "buckets": buckets,
        "next_expiry": buckets[0] if buckets else None,
        "reduction_mg": str(reduction),
        "vintages": vintages,
    }


def _own(tx: Connection, entry_id: str) -> statements.Line:
    """An entry of the resident who asks; another's is as good as none."""
    found = entries.find(tx, entry_id) if _ENTRY_ID.fullmatch(entry_id) else None
    if found is None or found[1].resident != g.resident:
        raise Problem("NOT_FOUND", "you have no entry of this id")
    return statements.Line(*found, sealed=log.leaf_of(tx, found[0]) is not None)


def _open(tx: Connection, vault: Vault, item: statements.Line) -> tuple[bytes, bytes] | None:
    """Salt and bytes behind an entry's commitment; None if it has none or they were erased."""
    sealed = people.opening(tx, item.arrival)
    wrapped = statements.wrapped_key(tx, g.resident)
    if sealed is None or wrapped is None:
        return None
    return open_opening(vault.subject_key(g.resident, wrapped), item.entry.id, sealed)


def _arrival(place: str | None) -> int:
    if place is None:
        return MAX_INT
    if not re.fullmatch(r"[0-9]{1,15}", place):
        raise bad_cursor()
    return int(place)


def _place(row: statements.Refusal) -> str:
    micros = (row.recorded_at - _EPOCH) // timedelta(microseconds=1)
    return f"{micros}|{row.provider}|{row.batch_id}|{row.position}"


def _refusal_place(place: str | None) -> tuple[datetime, str, str, int]:
    if place is None:
        return _LAST
    found = re.fullmatch(r"([0-9]{1,17})\|([a-z0-9-]+)\|([A-Za-z0-9._-]+)\|([0-9]{1,5})", place)
    if not found:
        raise bad_cursor()
    return _EPOCH + timedelta(microseconds=int(found[1])), found[2], found[3], int(found[4])
