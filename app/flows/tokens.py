"""What a resident bears: JSON Web Tokens (RFC 7519), HS256 and nothing else.

`access` speaks for a resident for half an hour; `join` for somebody whom WeChat vouched for and who
is to become one, for a quarter of an hour. `sid` names the sign-in that an access token comes from.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import jwt

ACCESS_S: Final = 1800
JOIN_S: Final = 900

_ISSUER = "puhui"
_AUDIENCE = "puhui-residents"
_LIVES = {"access": ACCESS_S, "join": JOIN_S}
_SUBJECTS = {"access": re.compile(r"[0-9a-f]{32}"), "join": re.compile(r"[0-9a-f]{64}")}
_SIDS = {"access": re.compile(r"([0-9a-f]{32})?"), "join": re.compile(r"[0-9a-f]{64}")}


class Claims(NamedTuple):
    """What a token of ours says: for whom, of which sign-in, and from when to when (Unix s)."""

    subject: str
    sid: str
    issued: int
    expires: int


def make(secret: bytes, kind: str, subject: str, at: int, sid: str = "") -> str:
    """A token of a kind: `access` for a resident (32 hex digits) and sign-in (32, or none), `join`
    for an identity (64) and the login it was told by (64)."""
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": subject,
        "typ": kind,
        "iat": at,
        "exp": at + _LIVES[kind],
    }
    return jwt.encode(claims | ({"sid": sid} if sid else {}), secret, algorithm="HS256")


def issue_access_token(secret: bytes, resident: str, now: datetime) -> str:
    """An access token that comes from no sign-in, for the sandbox."""
    return make(secret, "access", resident, int(now.timestamp()))


@lru_cache(maxsize=4096)
def read(secret: bytes, kind: str, token: str) -> Claims | None:
    """What a token of this kind says that we signed with this key; None for any other text.

    A resident sends the same token for half an hour; whether it is ours never changes, so that is
    found out once. Whether it is still good is the caller's to ask, by the clock the rest uses.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience=_AUDIENCE,
            issuer=_ISSUER,
            options={
                "require": ["iss", "aud", "exp", "iat", "sub", "typ"],
                "verify_exp": False,
                "verify_iat": False,
            },
        )
    except (jwt.PyJWTError, ValueError):
        return None
    issued, expires, sid = claims["iat"], claims["exp"], claims.get("sid", "")
    if (
        claims["typ"] != kind
        or type(issued) is not int
        or type(expires) is not int
        or not 0 < expires - issued <= _LIVES[kind]
        or not _SUBJECTS[kind].fullmatch(claims["sub"])
        or not isinstance(sid, str)
        or not _SIDS[kind].fullmatch(sid)
    ):
        return None
    return Claims(claims["sub"], sid, issued, expires)
