"""For residents: a receipt as a QR code, to be kept on paper and checked on any device."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import segno
from flask import Response, g
from segno.encoder import DataOverflowError

from app.api.wire import Blueprint
from app.auth import resident
from app.flows import prove
from app.store.db import snapshot
from app.wiring import wired
from ledger.proof import Receipt

_QUIET = 4  # modules of white around the code: ISO/IEC 18004 asks for four
_PNG_SCALE = 4
_BINARY = {"type": "string", "format": "binary"}

blp = Blueprint(
    "receipts",
    __name__,
    url_prefix="/api/v1/me",
    description="凭证二维码。Receipts as QR codes; checked at /verify, also without a network.",
)


def qr_code(receipt: Receipt) -> segno.QRCode:
    """The receipt's text as bytes, at error correction L, at most version 40 (ISO/IEC 18004).

    An entry too long for that (a purchase out of very many buckets) is left out, and the code
    holds the proof alone: whoever checks it then also needs the entry's own bytes.
    """
    try:
        return _code(receipt)
    except DataOverflowError:
        return _code(replace(receipt, extra=None))


def _code(receipt: Receipt) -> segno.QRCode:
    data = receipt.text().encode()
    return segno.make_qr(data, error="L", mode="byte", boost_error=False)


@blp.serve(
    "GET", "/entries/<entry_id>/receipt.svg", gives=_BINARY, media="image/svg+xml", guard=resident
)
def get_svg(entry_id: str) -> Response:
    """凭证二维码 · The receipt as a QR code, to be scanned into /verify."""
    return _drawn(entry_id, "svg", "image/svg+xml")


@blp.serve(
    "GET", "/entries/<entry_id>/receipt.png", gives=_BINARY, media="image/png", guard=resident
)
def get_png(entry_id: str) -> Response:
    """凭证二维码（图片） · The same as a PNG picture, which a mini-program can save."""
    return _drawn(entry_id, "png", "image/png")


def _drawn(entry_id: str, kind: str, media: str) -> Response:
    with snapshot(wired().engine) as tx:
        proof = prove.receipt(tx, entry_id, g.resident)
    drawn = BytesIO()
    scale = _PNG_SCALE if kind == "png" else 1
    qr_code(proof).save(drawn, kind=kind, border=_QUIET, scale=scale, light="white")
    made = Response(drawn.getvalue(), mimetype=media)
    made.headers["Cache-Control"] = "no-store"
    return made
