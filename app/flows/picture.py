"""A stranger's picture, made safe: it is decoded within bounds and encoded anew.

What is kept is the picture and nothing else. Where and by which camera it was taken, a thumbnail of
what was cut off, or another file hidden in this one are no pixels, and so do not come through.
"""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from threading import BoundedSemaphore
from typing import Final, NamedTuple

from PIL import Image, ImageOps

from app.vault import Vault

MAX_BYTES: Final = 5 * 1024 * 1024
MAX_PIXELS: Final = 25_000_000
"""rec: a camera of 24 megapixels; decoded it takes at most 100 MB."""

_MAX_SIDE: Final = 1600
"""rec: enough to see a plate or read a ticket by; what is kept is some hundred kilobytes."""

_QUALITY: Final = 85
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"WEBP", 8, "WEBP"),
)

_turn = BoundedSemaphore(2)  # so many are decoded at once in a process, whatever comes in

# Pillow only warns of what is a little above its bound; `read_picture` refuses at its own
Image.MAX_IMAGE_PIXELS = None


class PictureError(Exception):
    """The bytes are not a picture we take; the code says in which way."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Picture(NamedTuple):
    """A safe JPEG, and keyed hashes of 32 bytes of what was sent and of its pixels."""

    jpeg: bytes
    digest: bytes
    pixels: bytes


def read_picture(vault: Vault, raw: bytes) -> Picture:
    """A JPEG, PNG or WebP picture of at most 5 MiB and 25 million pixels.

    Raises PictureError PICTURE_TOO_LARGE or PICTURE_UNREADABLE, whatever the bytes are.
    """
    if len(raw) > MAX_BYTES:
        raise PictureError("PICTURE_TOO_LARGE", f"a picture has at most {MAX_BYTES} bytes")
    kind = next((kind for sign, at, kind in _SIGNATURES if raw.startswith(sign, at)), None)
    if kind is None:
        raise PictureError("PICTURE_UNREADABLE", "the file is not a JPEG, PNG or WebP picture")
    try:
        with _turn:
            jpeg, pixels = _encode_anew(raw, kind)
    except PictureError:
        raise
    except Exception as error:  # a decoder given a stranger's bytes may raise anything
        detail = "the picture is damaged or cut off; take or choose it again"
        raise PictureError("PICTURE_UNREADABLE", detail) from error
    return Picture(jpeg, _known_by(vault, "picture", raw), _known_by(vault, "pixels", pixels))


def _encode_anew(raw: bytes, kind: str) -> tuple[bytes, bytes]:
    """The JPEG to keep, and the bytes by which its pixels are known: the decoded picture, made
    small, before it is turned upright. So the same pixels are known in any wrapping."""
    with Image.open(BytesIO(raw), formats=[kind]) as opened:
        width, height = opened.size  # from the header; nothing is decoded yet
        if width * height > MAX_PIXELS:
            detail = f"a picture has at most {MAX_PIXELS} pixels; this one has {width} x {height}"
            raise PictureError("PICTURE_TOO_LARGE", detail)
        if kind != "JPEG" and getattr(opened, "is_animated", False):
            raise PictureError("PICTURE_UNREADABLE", "the picture moves; send a still one")
        orientation = opened.getexif().get(0x0112, 1)
        whole = opened.convert("RGBA") if opened.has_transparency_data else opened
        small = whole.convert("RGB")
    small.thumbnail((_MAX_SIDE, _MAX_SIDE))
    pixels = f"{small.width} {small.height} ".encode() + small.tobytes()
    if orientation != 1:
        small.getexif()[0x0112] = orientation
        small = ImageOps.exif_transpose(small)
    small.info.clear()  # comments, colour profiles and the like, which an encoder would copy
    kept = BytesIO()
    small.save(kept, "JPEG", quality=_QUALITY)
    return kept.getvalue(), pixels


def _known_by(vault: Vault, what: str, content: bytes) -> bytes:
    return vault.mark(f"{what} {sha256(content).hexdigest()}", 32)
