"""For everybody, without login: the city's figures, proofs and budgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import marshmallow as ma
from flask import Response, request

from app import limits
from app.api.wire import Blueprint, Digits, Pattern, answer, plain_text, stamp
from app.flows import delays, prove
from app.store import gauges
from app.store.db import snapshot
from app.wiring import wired
from ledger.accounts import Account, AccountKind
from ledger.text import base64
from scenarios import AREAS

_ENTRY_ID = Pattern("^[0-9a-f]{32}$", error="must be 32 lower-case hex digits")

_UNSEALED = {"sealed_at": None, "sealed_date": None}

blp = Blueprint(
    "public",
    __name__,
    url_prefix="/api/v1",
    description="公开：账本证明、全市数字、预算。Proofs, figures and budgets, without login.",
)


@blp.before_request
def count() -> None:
    """Count the request against its sender's address."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")


class EntryArgs(ma.Schema):
    """Which entry."""

    entry = ma.fields.String(required=True, validate=_ENTRY_ID)


class SizesArgs(ma.Schema):
    """Two tree sizes, both sealed."""

    old = Digits(required=True, validate=ma.validate.Range(1, 2**63 - 1))
    new = Digits(required=True, validate=ma.validate.Range(1, 2**63 - 1))


class ConsistencySchema(ma.Schema):
    """RFC 9162 section 2.1.4: hashes in standard base64."""

    old = ma.fields.String(required=True)
    new = ma.fields.String(required=True)
    hashes = ma.fields.List(ma.fields.String(), required=True)


class AreaSchema(ma.Schema):
    """Carbon avoided in one of the seven areas."""

    area = ma.fields.String(required=True)
    reduction_mg = ma.fields.String(required=True)


class FiguresSchema(ma.Schema):
    """The sealed log in figures; what was written since its last checkpoint is not in them."""

    log_size = ma.fields.String(required=True, metadata={"description": "entries"})
    sealed_at = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "when the last checkpoint was"}
    )
    sealed_date = ma.fields.String(required=True, allow_none=True)
    reduction_mg = ma.fields.String(required=True, metadata={"description": "CO2e, all years"})
    areas = ma.fields.List(ma.fields.Nested(AreaSchema), required=True)


class BudgetSchema(ma.Schema):
    """One budget, in points. issued = funded - left, net of what reversals gave back."""

    name = ma.fields.String(required=True)
    scope = ma.fields.String(
        required=True, metadata={"description": "a scenario id, an area, or * for the rest"}
    )
    funded_points = ma.fields.String(required=True)
    issued_points = ma.fields.String(required=True)
    left_points = ma.fields.String(required=True)
    waiting_points = ma.fields.String(required=True)


class BudgetsSchema(ma.Schema):
    """All budgets."""

    items = ma.fields.List(ma.fields.Nested(BudgetSchema), required=True)


class ProviderSchema(ma.Schema):
    """How soon a provider reports what happened, over the last 30 days of receipt."""

    code = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    acts = ma.fields.String(required=True, metadata={"description": "received in these days"})
    median_s = ma.fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "half of them came within so many seconds of the act"},
    )
    p95_s = ma.fields.Integer(
        required=True, allow_none=True, metadata={"description": "19 of 20 came within these"}
    )
    unclaimed_acts = ma.fields.String(
        required=True, metadata={"description": "kept until somebody binds the identifier"}
    )


class ProvidersSchema(ma.Schema):
    """All providers."""

    days = ma.fields.Integer(required=True)
    items = ma.fields.List(ma.fields.Nested(ProviderSchema), required=True)


@blp.serve("GET", "/log/proof", gives={"type": "string"}, media="text/plain", query=EntryArgs)
def get_proof(args: dict[str, Any]) -> Response:
    """存在证明 · That an entry is in the log: hashes and checkpoint only (c2sp.org/tlog-proof)."""
    with snapshot(wired().engine) as tx:
        proof = prove.receipt(tx, args["entry"])
    return plain_text(replace(proof, extra=None).text())  # whose entry it is stays with its owner


@blp.serve("GET", "/log/consistency", gives=ConsistencySchema, query=SizesArgs)
def get_consistency(args: dict[str, Any]) -> Response:
    """一致性证明 · That the log of `old` entries is the beginning of the log of `new`."""
    old, new = args["old"], args["new"]
    with snapshot(wired().engine) as tx:
        hashes = prove.consistency(tx, old, new)
    return answer({"old": str(old), "new": str(new), "hashes": [base64(one) for one in hashes]})


@blp.serve("GET", "/figures", gives=FiguresSchema)
def get_figures() -> Response:
    """全市数字 · How much carbon the sealed log accounts for, by area."""
    here = wired()
    with snapshot(here.engine) as tx:
        size, sealed_at = gauges.sealed(tx)
        sums = gauges.reductions(tx)
        names = here.registry.current(tx).scenarios
    areas = dict.fromkeys(AREAS, 0)
    for name in names:
        areas[name.partition(".")[0]] += sums.get(Account(AccountKind.REDUCTION, name).key, 0)
    return answer(
        {
            "log_size": str(size),
            **(stamp("sealed", sealed_at) if sealed_at else _UNSEALED),
            "reduction_mg": str(sum(areas.values())),
            "areas": [{"area": area, "reduction_mg": str(mg)} for area, mg in areas.items()],
        }
    )


@blp.serve("GET", "/budgets", gives=BudgetsSchema)
def get_budgets() -> Response:
    """积分预算 · What was funded, what was issued, what is left, what waits."""
    return answer({"items": budgets_shown()})


def budgets_shown() -> list[dict[str, str]]:
    """Every budget as everybody may see it."""
    with wired().engine.connect() as tx:
        figures = gauges.budgets(tx)
    return [
        {
            "name": one.name,
            "scope": one.scope,
            "funded_points": str(one.funded_points),
            "issued_points": str(one.funded_points - one.left_points),
            "left_points": str(one.left_points),
            "waiting_points": str(one.waiting_points),
        }
        for one in figures
    ]


@blp.serve("GET", "/providers", gives=ProvidersSchema)
def get_providers() -> Response:
    """到账时钟 · How soon each provider reports, and how much waits for its person.

    Delays are counted in bins: a figure is at most a quarter too long, and never too short.
    """
    here = wired()
    with here.engine.connect() as tx:
        found = delays.clock(tx, here.clock())
    items = [
        {
            "code": one.code,
            "name": one.name,
            "acts": str(one.acts),
            "median_s": one.median_s,
            "p95_s": one.p95_s,
            "unclaimed_acts": str(one.unclaimed),
        }
        for one in found
    ]
    return answer({"days": delays.DAYS, "items": items})
