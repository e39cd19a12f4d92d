"""Residents sign in: a code of WeChat's, then an access token and a refresh token that rotates.

A code is asked of WeChat once, whoever taps twice: the first request claims it, the second waits
for the first one's answer and gets the same. No transaction is open while WeChat is asked.

A refresh token works once and is stored as its SHA-256; it belongs to a family, the sign-in. The
token used again within a minute, while its successor is unused, is an answer that got lost: the
same successor comes again. Any other use of a used token means that two people have it, so the
whole family ends. (RFC 9700 section 4.14.2)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, Engine

from app.flows import tokens
from app.store import logins
from app.store.db import transact
from app.store.logins import Login
from app.vault import Vault, seal, unseal
from app.wechat import WeChat, WeChatCodeError

REPEAT: Final = timedelta(seconds=60)  # how long a code's answer is given again
GRACE: Final = timedelta(seconds=60)  # and a refresh token's
REFRESH_LIFE: Final = timedelta(days=30)  # since it was last used
CODES_KEPT: Final = timedelta(seconds=2 * tokens.JOIN_S)
ENDED_KEPT: Final = timedelta(seconds=2 * tokens.ACCESS_S)

_ABANDONED = timedelta(seconds=20)  # longer than WeChat is ever waited for
_WAIT_S = 3.0  # then the sender is told to ask again, and a thread is free
_LOOK_S = 0.05
_SECOND = timedelta(seconds=1)
_TOKEN_BYTES = 32


class SignInEndedError(Exception):
    """The refresh token opens nothing, or no longer; `code` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class CodeRunningError(Exception):
    """Another request asks WeChat about the same code and has not heard yet."""

    code = "REQUEST_RUNNING"


class Guest(NamedTuple):
    """Somebody whom WeChat vouched for and who is not a resident yet: the keyed hash of who, and
    the mark of the code that told it."""

    identity: bytes
    code: bytes


class Tokens(NamedTuple):
    """What a resident's sign-in is used with."""

    access_token: str
    refresh_token: str


def log_in(
    engine: Engine, vault: Vault, wechat: WeChat, code: str, clock: Callable[[], datetime]
) -> dict[str, Any]:
    """What a wx.login code opens: `Tokens` by name for a resident, a `join_token` for who is none.
    Raises WeChatError, CodeRunningError."""

    def ask() -> Callable[[Connection, bytes], dict[str, Any]]:
        session = wechat.session(code)
        identity = vault.subject("wechat openid", f"{wechat.app_id} {session.openid}")

        def settle(tx: Connection, mark: bytes) -> dict[str, Any]:
            now, known = clock(), logins.resident_of(tx, identity)
            if known is None:
                made = tokens.make(
                    vault.token, "join", identity.hex(), int(now.timestamp()), mark.hex()
                )
                return {"join_token": made, "wechat": session._asdict()}
            _keep(tx, vault, identity, known.resident, known.wrapped_key, session._asdict(), now)
            return begin(tx, vault, known.resident, now)._asdict()

        return settle

    found = once_per_code(engine, vault, f"login {code}", clock, ask)
    return {name: value for name, value in found.items() if name != "wechat"}


def once_per_code(
    engine: Engine,
    vault: Vault,
    what: str,
    clock: Callable[[], datetime],
    ask: Callable[[], Callable[[Connection, bytes], dict[str, Any]]],
) -> dict[str, Any]:
    """Do something with a code that works once: `ask` asks WeChat, what it returns settles the
    answer in a transaction. The same code within a minute gets the same answer.

    Raises WeChatCodeError for a code that was settled earlier, CodeRunningError, and what `ask`
    raises; then the code may be sent again.
    """
    mark = vault.mark(f"wechat code {what}", 32)
    deadline = time.monotonic() + _WAIT_S
    while True:
        now = clock()
        with engine.begin() as tx:
            mine = logins.claim(tx, mark, now, now - _ABANDONED)
            spent = None if mine else logins.spent(tx, mark)
        if mine:
            break
        if spent is not None and spent.answer:
            if now - spent.used_at > REPEAT:
                raise WeChatCodeError("this code was used before; get a new one")
            answer: dict[str, Any] = orjson.loads(vault.open_for(_purpose(mark), spent.answer))
            return answer
        if time.monotonic() > deadline:
            raise CodeRunningError("WeChat is being asked about this code; send it again soon")
        time.sleep(_LOOK_S)
    try:
        settle = ask()
    except BaseException:
        with engine.begin() as tx:
            logins.release(tx, mark)
        raise

    def keep(tx: Connection) -> dict[str, Any]:
        made = settle(tx, mark)
        logins.settle(tx, mark, vault.seal_for(_purpose(mark), orjson.dumps(made)))
        return made

    return transact(engine, keep)


def resident_of(tx: Connection, guest: Guest) -> str | None:
    """The resident a guest has become meanwhile."""
    known = logins.resident_of(tx, guest.identity)
    return known.resident if known else None


def admit(
    tx: Connection, vault: Vault, guest: Guest, resident: str, wrapped_key: bytes, now: datetime
) -> Tokens:
    """Tie a guest's identity to the resident just made for it, and begin a sign-in. Raises
    WeChatCodeError if the login lies too far back; then they log in again."""
    spent = logins.spent(tx, guest.code)
    if spent is None or not spent.answer:
        raise WeChatCodeError("this login was used before or lies too far back; log in again")
    session = orjson.loads(vault.open_for(_purpose(guest.code), spent.answer))["wechat"]
    _keep(tx, vault, guest.identity, resident, wrapped_key, session, now)
    logins.release(tx, guest.code)
    return begin(tx, vault, resident, now)


def begin(tx: Connection, vault: Vault, resident: str, now: datetime) -> Tokens:
    """Begin a sign-in of a resident."""
    return _issue(tx, vault, resident, os.urandom(16), now)


def refresh(engine: Engine, vault: Vault, token: str, now: datetime) -> Tokens:
    """The next pair of tokens of a sign-in. Raises SignInEndedError."""

    def turn(tx: Connection) -> Tokens | SignInEndedError:
        digest = _digest(token)
        found = logins.lock_refresh(tx, digest)
        if found is None:
            return SignInEndedError("TOKEN_INVALID", "the refresh token is not one of ours")
        if found.revoked_at is not None:
            return SignInEndedError("TOKEN_REVOKED", "this sign-in has ended; log in again")
        if found.used_at is not None:
            return _again(tx, vault, digest, found, now)
        if found.expires_at <= now:
            return SignInEndedError("TOKEN_EXPIRED", "the refresh token is past its 30 days")
        made = _issue(tx, vault, found.resident, found.family, now)
        sealed = vault.seal_for(f"refresh {digest.hex()}", made.refresh_token.encode())
        logins.use_refresh(tx, digest, sealed, now)
        return made

    made = transact(engine, turn)
    if isinstance(made, SignInEndedError):
        raise made  # only now: the end of a family is committed
    return made


def _again(
    tx: Connection, vault: Vault, digest: bytes, found: logins.Refresh, now: datetime
) -> Tokens | SignInEndedError:
    """A used token comes once more: the answer to its first use was lost, or it was stolen."""
    if found.used_at and found.successor and now - found.used_at <= GRACE:
        successor = vault.open_for(f"refresh {digest.hex()}", found.successor).decode()
        next_one = logins.lock_refresh(tx, _digest(successor))
        if next_one and next_one.used_at is None:
            return Tokens(_access(tx, vault, found.resident, found.family, now), successor)
    logins.end_family(tx, found.family, now, _next_second(now))
    return SignInEndedError("TOKEN_REUSED", "this refresh token was used before; log in again")


def sign_out(engine: Engine, sign_in: str, now: datetime) -> None:
    """End one sign-in, named by 32 hex digits; one of the sandbox, which has no name, goes on."""
    if sign_in:
        with engine.begin() as tx:
            logins.end_family(tx, bytes.fromhex(sign_in), now, _next_second(now))


def sign_out_everywhere(tx: Connection, resident: str, now: datetime) -> None:
    """End all of a resident's sign-ins."""
    logins.end_all(tx, resident, now, _next_second(now))


def session_key(tx: Connection, vault: Vault, resident: str) -> str | None:
    """The key under which WeChat seals data for a resident's newest login."""
    found = logins.newest(tx, resident)
    return _open(vault, found, found.session_key) if found else None


def openid(tx: Connection, vault: Vault, resident: str) -> str | None:
    """By what name WeChat knows a resident in our app."""
    found = logins.newest(tx, resident)
    return _open(vault, found, found.openid) if found else None


def _keep(
    tx: Connection,
    vault: Vault,
    identity: bytes,
    resident: str,
    wrapped_key: bytes,
    session: dict[str, str],
    now: datetime,
) -> None:
    key = vault.subject_key(resident, wrapped_key)
    openid, session_key = (
        seal(key, session[name].encode(), _context(resident)) for name in ("openid", "session_key")
    )
    logins.keep(tx, identity, Login(resident, wrapped_key, openid, session_key), now)


def _open(vault: Vault, login: Login, sealed: bytes) -> str:
    key = vault.subject_key(login.resident, login.wrapped_key)
    return unseal(key, sealed, _context(login.resident)).decode()


def _issue(tx: Connection, vault: Vault, resident: str, family: bytes, now: datetime) -> Tokens:
    token = token_urlsafe(_TOKEN_BYTES)
    logins.add_refresh(tx, _digest(token), family, resident, now, now + REFRESH_LIFE)
    return Tokens(_access(tx, vault, resident, family, now), token)


def _access(tx: Connection, vault: Vault, resident: str, family: bytes, now: datetime) -> str:
    """An access token; in the second of a sign-out it is dated to the next, since it came after."""
    at, ended = int(now.timestamp()), logins.ended_at(tx, resident)
    if ended is not None:
        at = max(at, int(ended.timestamp()))
    return tokens.make(vault.token, "access", resident, at, family.hex())


def _next_second(now: datetime) -> datetime:
    return now.replace(microsecond=0) + _SECOND


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _purpose(mark: bytes) -> str:
    return f"wechat code {mark.hex()}"


def _context(resident: str) -> bytes:
    return f"login {resident}".encode()
