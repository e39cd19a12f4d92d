"""The one way values become bytes: RFC 8785 (JCS), held to what needs no floating point.

Values are dict, list, str and int. With those, JCS asks for keys in UTF-16 order, no spaces and
the shortest escapes, which is what the standard library's encoder writes once the keys stand in
that order; tests prove it equal to the ``rfc8785`` package.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Never

from ledger.errors import Malformed

MAX_INT = 2**53 - 1  # the largest integer JSON readers agree on (RFC 8785 appendix B)
MAX_BYTES = 2**16 - 1  # tlog-tiles gives an entry a uint16 length


def _refuse(text: str) -> Never:
    raise Malformed(f"The number {text[:40]} is not an integer.")


_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_scan = json.JSONDecoder(parse_float=_refuse, parse_constant=_refuse).scan_once  # type: ignore[attr-defined]


def encode(value: Any) -> bytes:
    """The canonical bytes of a value made of dict, list, tuple, str and int.

    Raises ``Malformed`` for anything else (float, bool, None, a key that is no string, a lone
    surrogate), for an integer beyond 2^53 - 1 and for more than 65535 bytes.
    """
    try:
        data = _write(_ordered(value)).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise Malformed("The value has a lone surrogate or is nested too deeply.") from error
    if len(data) > MAX_BYTES:
        raise Malformed(f"The value takes {len(data)} bytes; {MAX_BYTES} are allowed.")
    return data


def decode(data: bytes) -> Any:
    """The value of canonical bytes; raises ``Malformed`` if they are not exactly canonical."""
    value = parse(data)
    if encode(value) != data:
        raise Malformed("The bytes are JSON, but not in the canonical form of RFC 8785.")
    return value


def parse(data: bytes) -> Any:
    """The value of JSON bytes whose canonical form the caller still has to compare."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"The value takes {len(data)} bytes; {MAX_BYTES} are allowed.")
    try:
        text = data.decode()
        value, end = _scan(text, 0)
    except (ValueError, RecursionError, StopIteration) as error:
        raise Malformed("The bytes are not UTF-8 JSON.") from error
    if end != len(text):
        raise Malformed("The JSON ends before its bytes do.")
    return value


def commit(salt: bytes, opening: bytes) -> str:
    """The commitment to an opening: hex SHA-256(salt || opening), the salt being 32 bytes."""
    if len(salt) != 32:
        raise Malformed(f"A salt has 32 bytes, not {len(salt)}.")
    return sha256(salt + opening).hexdigest()


def _ordered(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if -MAX_INT <= value <= MAX_INT:
            return value
        raise Malformed("An integer is beyond 2^53 - 1.")
    if isinstance(value, (list, tuple)):
        return [_ordered(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise Malformed("A key is not a string.")
        return {key: _ordered(value[key]) for key in sorted(value, key=_utf16)}
    raise Malformed(f"A {type(value).__name__} has no canonical form here.")


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")
