"""For residents: what proves an entry, as a file and as a QR code to be kept on paper."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO

import segno
from flask import Response, g
from segno.encoder import DataOverflowError

from app.api.wire import Blueprint, plain_text
from app.auth import resident
from app.errors import Problem
from app.flows import prove
from app.store.db import one_statement
from app.wiring import wired
from ledger.proof import Receipt

_ENTRY_ID = re.compile(r"[0-9a-f]{32}")
_QUIET = 4  # modules of white around the code: ISO/IEC 18004 asks for four
_PNG_SCALE = 4
_BINARY = {"type": "string", "format": "binary"}

blp = Blueprint(
    "receipts",
    __name__,
    url_prefix="/api/v1/me",
    description="凭证与二维码。Receipts and their QR codes; checked at /verify, also offline.",
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
    return plain_text(_own(entry_id).text())


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


def _own(entry_id: str) -> Receipt:
    """The receipt of one of the caller's own entries."""
    unknown = Problem("NOT_FOUND", "you have no entry of this id")
    if not _ENTRY_ID.fullmatch(entry_id):
        raise unknown
    with one_statement(wired().engine) as tx:
        try:
            return prove.receipt(tx, entry_id, g.resident)
        except prove.UnknownEntryError:
            raise unknown from None


def _drawn(entry_id: str, kind: str, media: str) -> Response:
    proof = _own(entry_id)
    drawn = BytesIO()
    scale = _PNG_SCALE if kind == "png" else 1
    qr_code(proof).save(drawn, kind=kind, border=_QUIET, scale=scale, light="white")
    made = Response(drawn.getvalue(), mimetype=media)
    made.headers["Cache-Control"] = "no-store"
    return made
