"""Whatever bytes come as a picture: a small clean JPEG, or a refusal that says what is wrong."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from app.flows.picture import MAX_BYTES, MAX_PIXELS, PictureError, read_picture
from app.vault import create_keys, open_vault

SECRET = b"35.123456N 113.654321E"


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vault") / "keys"
    create_keys(folder, "log.test.example/pictures")
    return open_vault(folder)


@pytest.fixture(scope="module")
def read(vault):
    return lambda raw: read_picture(vault, raw)


def plate(width=64, height=48, mode="RGB", seed=1) -> Image.Image:
    """A picture with something on it."""
    noise = Image.frombytes("L", (width, height), random.Random(seed).randbytes(width * height))
    return noise.convert(mode)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    into = io.BytesIO()
    image.save(into, kind, **options)
    return into.getvalue()


def exif(orientation=1) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    made[0x010F] = "camera " + SECRET.decode()
    made.get_ifd(0x8825).update({1: "N", 2: (35.0, 7.0, 24.0), 3: "E", 29: SECRET.decode()})
    return made.tobytes()


def code_of(read, raw: bytes) -> str:
    with pytest.raises(PictureError) as refusal:
        read(raw)
    return refusal.value.code


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, packed: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_phones_make_becomes_a_jpeg_with_the_same_picture(read, kind):
    made = read(saved(plate(200, 100), kind))
    with Image.open(io.BytesIO(made.jpeg)) as kept:
        assert (kept.format, kept.mode, kept.size) == ("JPEG", "RGB", (200, 100))
    assert len(made.digest) == len(made.pixels) == 32


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_every_kind_of_pixel_is_taken(read, mode):
    image = plate(mode="RGB").convert("L") if mode == "I;16" else plate(mode="RGB")
    kind = "JPEG" if mode == "CMYK" else "PNG"
    with Image.open(io.BytesIO(read(saved(image.convert(mode), kind)).jpeg)) as kept:
        assert kept.mode == "RGB"


def test_where_and_with_what_it_was_taken_is_gone(read):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noted = PngImagePlugin.PngInfo()
    noted.add_text("Location", SECRET.decode())
    noted.add_itxt("XML:com.adobe.xmp", SECRET.decode(), zip=True)
    shown = plate()
    for raw in (
        saved(shown, "JPEG", exif=exif(), icc_profile=profile, comment=SECRET, xmp=SECRET),
        saved(shown, "PNG", exif=exif(), icc_profile=profile, pnginfo=noted),
        saved(shown, "WEBP", exif=exif(), icc_profile=profile, xmp=SECRET, lossless=True),
    ):
        jpeg = read(raw).jpeg
        for trace in (SECRET, b"Exif", b"GPS", b"ICC_PROFILE", b"camera", b"xmp", b"http"):
            assert trace not in jpeg
        with Image.open(io.BytesIO(jpeg)) as kept:
            assert not kept.getexif()
            assert set(kept.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_a_picture_taken_sideways_is_turned_upright(read):
    with Image.open(io.BytesIO(read(saved(plate(200, 100), "JPEG", exif=exif(6))).jpeg)) as kept:
        assert kept.size == (100, 200)


def test_a_large_picture_is_made_smaller(read):
    with Image.open(io.BytesIO(read(saved(plate(3000, 1000), "JPEG")).jpeg)) as kept:
        assert kept.size == (1600, 533)


def test_the_same_pixels_are_known_in_any_wrapping(read):
    jpeg = saved(plate(300, 200), "JPEG", exif=exif(6))
    with Image.open(io.BytesIO(jpeg)) as decoded:
        bare = Image.frombytes("RGB", decoded.size, decoded.tobytes())
    first = read(jpeg)
    others = [jpeg + b"more", saved(bare, "PNG"), saved(bare, "WEBP", lossless=True)]
    for raw in others:
        again = read(raw)
        assert again.pixels == first.pixels
        assert again.digest != first.digest
    assert read(jpeg) == first
    assert read(saved(plate(300, 200, seed=2), "PNG")).pixels != first.pixels


def test_the_hashes_are_keyed(read, tmp_path):
    create_keys(tmp_path / "keys", "log.test.example/others")
    raw = saved(plate(), "PNG")
    mine, theirs = read(raw), read_picture(open_vault(tmp_path / "keys"), raw)
    assert mine.jpeg == theirs.jpeg
    assert mine.digest != theirs.digest
    assert mine.pixels != theirs.pixels


def zipped() -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(50_000_000))
    return into.getvalue()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP", b"GIF89a",
        zipped(), b"\xff\xd8\xff" + zipped(), b"<svg onload='alert(1)'/>", b"%PDF-1.7", b"BM" * 99,
        saved(plate(), "GIF"), saved(plate(), "BMP"), saved(plate(), "TIFF"),
        saved(plate(), "JPEG")[:-400], saved(plate(), "PNG")[:-400], saved(plate(), "WEBP")[:-400],
        png(64, 48, zlib.compress(bytes(10))), png(0, 48, b""), png(64, 48, b"no zlib"),
    ],
    ids=lambda raw: raw[:8].hex(),
)  # fmt: skip
def test_what_is_no_whole_picture_is_refused(read, raw):
    assert code_of(read, raw) == "PICTURE_UNREADABLE"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_moves_is_refused(read, kind):
    frames = [plate(seed=seed) for seed in (1, 2, 3)]
    moving = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    assert code_of(read, moving) == "PICTURE_UNREADABLE"


def test_a_bomb_is_refused_before_it_is_unpacked(read):
    packed = zlib.compress(bytes(30_000_000), 9)  # 30 KB
    for width, height in ((30_000, 30_000), (2**31 - 1, 1), (5001, 5000)):
        assert code_of(read, png(width, height, packed)) == "PICTURE_TOO_LARGE"
    assert MAX_PIXELS == 5000 * 5000
    noted = PngImagePlugin.PngInfo()
    noted.add_itxt("note", "0" * 80_000_000, zip=True)
    assert code_of(read, saved(plate(), "PNG", pnginfo=noted)) == "PICTURE_UNREADABLE"
    webp = bytearray(saved(plate(mode="RGBA"), "WEBP", exif=exif()))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = b"\xff\x3f\x00" * 2  # a canvas of 16384 x 16384
    assert code_of(read, bytes(webp)) in {"PICTURE_TOO_LARGE", "PICTURE_UNREADABLE"}


def test_too_many_bytes_are_refused_unread(read):
    assert code_of(read, saved(plate(), "JPEG") + bytes(MAX_BYTES)) == "PICTURE_TOO_LARGE"


def test_another_file_hidden_in_a_picture_does_not_come_through(read):
    script = b"<script>alert(document.cookie)</script>"
    hidden = saved(plate(), "JPEG", comment=script) + zipped()
    jpeg = read(hidden).jpeg
    assert script not in jpeg
    assert not zipfile.is_zipfile(io.BytesIO(jpeg))


WHOLE = [saved(plate(), kind, exif=exif()) for kind in ("JPEG", "PNG", "WEBP")]


@given(st.data())
def test_any_damage_is_a_picture_or_a_refusal(read, data):
    raw = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        jpeg = read(bytes(raw[: cut or None])).jpeg
    except PictureError:
        return
    with Image.open(io.BytesIO(jpeg)) as kept:
        kept.load()
        assert SECRET not in jpeg
