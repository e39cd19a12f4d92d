"""For everybody, without login: the log as C2SP tlog-tiles, its proofs, scenarios and budgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import marshmallow as ma
from flask import Blueprint as FlaskBlueprint
from flask import Response, request

from app import limits
from app.api.wire import Blueprint, answer, plain_text
from app.errors import Problem
from app.flows import prove
from app.store import gauges
from app.store import log as log_store
from app.store.db import snapshot
from app.wiring import wired
from ledger.errors import Malformed
from ledger.keys import policy
from ledger.text import base64
from ledger.tiles import ENTRIES, WIDTH, Tile

_FOREVER = "public, max-age=31536000, immutable"
_ENTRY_ID = ma.validate.Regexp(r"[0-9a-f]{32}\Z", error="must be 32 lower-case hex digits")

log = FlaskBlueprint("log", __name__, url_prefix="/log")
blp = Blueprint(
    "public",
    __name__,
    url_prefix="/api/v1",
    description="公开：账本证明、方法学登记簿、预算。Proofs, scenarios and budgets, without login.",
)


@log.before_request
@blp.before_request
def count() -> None:
    """Count the request against its sender's address."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")


@log.get("/checkpoint")
def get_checkpoint() -> Response:
    """The newest signed checkpoint (c2sp.org/tlog-checkpoint)."""
    with wired().engine.connect() as tx:
        note = log_store.latest_checkpoint(tx)
    if note is None:
        raise Problem("NOT_FOUND", "nothing was sealed yet")
    return plain_text(note)


@log.get("/tile/<path:place>")
def get_tile(place: str) -> Response:
    """A tile of hashes (c2sp.org/tlog-tiles). Entry bundles are the auditor's, not the public's."""
    try:
        tile = Tile.parse(f"tile/{place}")
    except Malformed:
        raise Problem("NOT_FOUND", "this is not the path of a tile") from None
    if tile.level == ENTRIES:
        raise Problem("NOT_FOUND", "entries are not public; an export holds them")
    with wired().engine.connect() as tx:
        hashes = log_store.read_tile(tx, tile)
    if not hashes:
        raise Problem("NOT_FOUND", "the log has not grown so far")
    made = Response(hashes, mimetype="application/octet-stream")
    made.headers["Cache-Control"] = _FOREVER if tile.width == WIDTH else "public, max-age=60"
    return made


@log.get("/keys")
def get_keys() -> Response:
    """The log's verifier keys, one a line (c2sp.org/signed-note)."""
    return plain_text("".join(f"{key.vkey}\n" for key in wired().vault.ring.verifiers))


@log.get("/policy")
def get_policy() -> Response:
    """Whom to trust (c2sp.org/tlog-policy)."""
    return plain_text(policy(wired().vault.ring.verifiers))


class EntryArgs(ma.Schema):
    """Which entry."""

    entry = ma.fields.String(required=True, validate=_ENTRY_ID)


class SizesArgs(ma.Schema):
    """Two tree sizes, both sealed."""

    old = ma.fields.Integer(required=True, validate=ma.validate.Range(1, 2**63 - 1))
    new = ma.fields.Integer(required=True, validate=ma.validate.Range(1, 2**63 - 1))


class ConsistencySchema(ma.Schema):
    """RFC 9162 section 2.1.4: hashes in standard base64."""

    old = ma.fields.String(required=True)
    new = ma.fields.String(required=True)
    hashes = ma.fields.List(ma.fields.String(), required=True)


class VersionSchema(ma.Schema):
    """One published edition of a scenario."""

    number = ma.fields.Integer(required=True)
    effective_from = ma.fields.String(required=True, metadata={"format": "date"})
    digest = ma.fields.String(required=True, metadata={"description": "SHA-256 of its bytes"})


class ScenarioSchema(ma.Schema):
    """A scenario with all its editions, oldest first."""

    id = ma.fields.String(required=True)
    code = ma.fields.String(required=True)
    area = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    title_en = ma.fields.String(required=True)
    enabled = ma.fields.Boolean(required=True)
    versions = ma.fields.List(ma.fields.Nested(VersionSchema), required=True)


class ScenariosSchema(ma.Schema):
    """The registry."""

    items = ma.fields.List(ma.fields.Nested(ScenarioSchema), required=True)


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


@blp.serve("GET", "/scenarios", gives=ScenariosSchema)
def get_scenarios() -> Response:
    """方法学登记簿 · Every scenario with its published editions."""
    here = wired()
    with here.engine.connect() as tx:
        catalogue = here.registry.current(tx)
    items = []
    for name in catalogue.scenarios:
        editions = catalogue.versions(name)
        last = editions[-1]
        items.append(
            {
                "id": name,
                "code": last.code,
                "area": last.area,
                "title_zh": last.title.zh,
                "title_en": last.title.en,
                "enabled": last.enabled,
                "versions": [
                    {
                        "number": one.number,
                        "effective_from": one.effective_from,
                        "digest": one.digest,
                    }
                    for one in editions
                ],
            }
        )
    return answer({"items": items})


@blp.serve("GET", "/scenarios/<scenario>/versions/<int:number>", gives={"type": "object"})
def get_version(scenario: str, number: int) -> Response:
    """方法学版本 · An edition's published bytes; their SHA-256 is the digest that entries name."""
    here = wired()
    with here.engine.connect() as tx:
        catalogue = here.registry.current(tx)
    editions = catalogue.versions(scenario) if scenario in catalogue.scenarios else ()
    if not 1 <= number <= len(editions):
        raise Problem("NOT_FOUND", "there is no such edition")
    made = Response(editions[number - 1].canonical(), mimetype="application/json")
    made.headers["Cache-Control"] = _FOREVER
    return made


@blp.serve("GET", "/budgets", gives=BudgetsSchema)
def get_budgets() -> Response:
    """积分预算 · What was funded, what was issued, what is left, what waits."""
    with wired().engine.connect() as tx:
        figures = gauges.budgets(tx)
    return answer(
        {
            "items": [
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
        }
    )
