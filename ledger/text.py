"""The strict text forms that every C2SP file shares: one value, one spelling.

A second spelling of the same value would let two different files carry one signature or one proof,
so each reader here refuses anything its writer would not have written.
"""

from base64 import b64decode, b64encode

from ledger.errors import Malformed

MAX_DECIMAL = 2**63 - 1  # int64, so that a size or an index also fits the database


def decimal(digits: str) -> int:
    """Read a canonical ASCII decimal: 0 to 2**63 - 1, no sign, no leading zero."""
    if digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_DECIMAL)):
        value = int(digits)
        if value <= MAX_DECIMAL and str(value) == digits:
            return value
    raise Malformed(f"{digits[:40]!r} is not a canonical decimal below 2**63.")


def base64(data: bytes) -> str:
    """Write standard padded base64 (RFC 4648 section 4)."""
    return b64encode(data).decode("ascii")


def unbase64(text: str, length: int | None = None) -> bytes:
    """Read canonical base64, of ``length`` bytes if given; stray bits and padding are refused."""
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        data = None
    if data is None or base64(data) != text:
        raise Malformed(f"{text[:40]!r} is not canonical base64.")
    if length is not None and len(data) != length:
        raise Malformed(f"{text[:40]!r} holds {len(data)} bytes, not {length}.")
    return data


def utf8(data: bytes | str) -> str:
    """Return text as ``str``; bytes that are not UTF-8, and lone surrogates, are refused."""
    try:
        return data.decode("utf-8") if isinstance(data, bytes) else data.encode().decode()
    except UnicodeError:
        raise Malformed("The text is not UTF-8.") from None
