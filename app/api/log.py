"""For everybody, without login: the log as C2SP tlog-tiles lays it out."""

from __future__ import annotations

import marshmallow as ma
from flask import Response, request

from app import limits
from app.api.wire import FOREVER, Blueprint, answer, plain_text
from app.errors import Problem
from app.flows.rotate import key_history
from app.store import log as log_store
from app.store.db import snapshot
from app.wiring import wired
from ledger.errors import Malformed
from ledger.keys import policy
from ledger.tiles import ENTRIES, TILE_BYTES, WIDTH, Tile

_TEXT = {"type": "string"}
_HASHES = {"type": "string", "format": "binary", "maxLength": TILE_BYTES}

blp = Blueprint(
    "log",
    __name__,
    url_prefix="/log",
    description="公开日志：检查点、瓦片、公钥（C2SP tlog-tiles）。The public log, without login.",
)


class TermSchema(ma.Schema):
    """A key that signed the log. After `until_size` it may have signed beside the next key."""

    key = ma.fields.String(required=True, metadata={"description": "verifier key, signed-note"})
    since_size = ma.fields.String(
        required=True, metadata={"description": "entries when the key before handed over; 0: first"}
    )
    until_size = ma.fields.String(
        required=True, allow_none=True, metadata={"description": "entries when it handed over"}
    )
    in_force = ma.fields.Boolean(required=True, metadata={"description": "whether it signs today"})


class TermsSchema(ma.Schema):
    """All keys, the newest first."""

    items = ma.fields.List(ma.fields.Nested(TermSchema), required=True)


@blp.before_request
def count() -> None:
    """Count the request against its sender's address."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")


@blp.serve("GET", "/checkpoint", gives=_TEXT, media="text/plain")
def get_checkpoint() -> Response:
    """最新检查点 · The newest signed checkpoint (c2sp.org/tlog-checkpoint)."""
    with wired().engine.connect() as tx:
        note = log_store.latest_checkpoint(tx)
    if note is None:
        raise Problem("NOT_FOUND", "nothing was sealed yet")
    return plain_text(note)


@blp.serve("GET", "/tile/<path:place>", gives=_HASHES, media="application/octet-stream")
def get_tile(place: str) -> Response:
    """瓦片 · A tile of hashes (c2sp.org/tlog-tiles), such as `0/000.p/7`.

    Entry bundles are the auditor's, not the public's.
    """
    try:
        tile = Tile.parse(f"tile/{place}")
    except Malformed:
        raise Problem("NOT_FOUND", "this is not the path of a tile") from None
    if tile.level == ENTRIES:
        raise Problem("NOT_FOUND", "entries are not public; an export holds them")
    with snapshot(wired().engine) as tx:  # the tile may become full between two statements
        hashes = log_store.read_tile(tx, tile)
    if not hashes:
        raise Problem("NOT_FOUND", "the log has not grown so far")
    made = Response(hashes, mimetype="application/octet-stream")
    made.headers["Cache-Control"] = FOREVER if tile.width == WIDTH else "public, max-age=60"
    return made


@blp.serve("GET", "/keys", gives=_TEXT, media="text/plain")
def get_keys() -> Response:
    """验证公钥 · The log's verifier keys, one a line (c2sp.org/signed-note)."""
    return plain_text("".join(f"{key.vkey}\n" for key in wired().vault.ring.verifiers))


@blp.serve("GET", "/keys/history", gives=TermsSchema)
def get_key_history() -> Response:
    """历任公钥 · Every key that ever signed, for receipts from before a key was rotated."""
    vault = wired().vault
    with snapshot(wired().engine) as tx:
        terms = key_history(tx, vault)
    return answer(
        {
            "items": [
                {
                    "key": one.key.vkey,
                    "since_size": str(one.since),
                    "until_size": None if one.until is None else str(one.until),
                    "in_force": one.key in vault.ring.verifiers,
                }
                for one in terms
            ]
        }
    )


@blp.serve("GET", "/policy", gives=_TEXT, media="text/plain")
def get_policy() -> Response:
    """信任策略 · Whom to trust (c2sp.org/tlog-policy)."""
    return plain_text(policy(wired().vault.ring.verifiers))
