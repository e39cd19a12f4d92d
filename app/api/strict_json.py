"""Bodies read strictly: RFC 8259 with unique member names (RFC 7493), as they were signed."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
from flask import Request

from app.errors import Problem

_INT_DIGITS = 20  # int64 has 19 and a sign


def read_json(raw: bytes) -> Any:
    """Strict RFC 8259 with unique member names (RFC 7493). Raises Problem JSON_MALFORMED.

    What is JSON to many senders but no number to us (NaN, thirty digits) comes through as a float,
    which no field accepts: one bad activity then is one rejection and not the end of its batch.
    """
    try:
        fast = orjson.loads(raw)
        if orjson.dumps(fast) == raw:  # nothing was lost: no name stood twice, no digit too many
            return fast
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        pass  # not strict JSON, or nested deeply: what is wrong, or good enough, is said below
    try:
        value: Any = _DECODER.decode(raw.decode())
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeError:
        detail = "the body is not UTF-8, or holds half of a surrogate pair"
    except json.JSONDecodeError as exc:
        detail = f"the body is not JSON: {exc.msg} at character {exc.pos}"
    except RecursionError:
        detail = "the body is nested too deeply"
    except _DuplicateNameError as exc:
        detail = f"the body names a member twice in one object: {str(exc)[:64]!r}"
    raise Problem("JSON_MALFORMED", detail)


class _DuplicateNameError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise _DuplicateNameError(next(name for name in names if names.count(name) > 1))
    return made


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INT_DIGITS else float("inf")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def read_body(req: Request) -> Any:
    """The JSON of a request's body. Raises Problem CONTENT_TYPE, JSON_MALFORMED."""
    if req.mimetype != "application/json":
        raise Problem("CONTENT_TYPE", "send the body as application/json")
    if req.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(
            "CONTENT_TYPE",
            "send the body as it is signed, without a Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    return read_json(req.get_data())
