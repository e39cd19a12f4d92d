"""Administrators log in: a password, a one-time code (RFC 6238), and then a session.

Whatever is wrong, the answer is one and the same and takes as long: name, password, code, a name
that is locked or disabled. Each guess is counted before it is judged, so guesses sent at once
cannot be more than those sent one after the other; the fifth wrong one locks the name.
"""

from __future__ import annotations

import os
from base64 import b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Final, NamedTuple

import pyotp
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Engine

from app.flows.trail import act
from app.store import admins
from app.store.admins import Admin
from app.vault import Vault

IDLE_MINUTES: Final = 30
IDLE: Final = timedelta(minutes=IDLE_MINUTES)
LIFE: Final = timedelta(hours=12)
MAX_FAILURES: Final = 5
LOCKED: Final = timedelta(minutes=15)
MIN_PASSWORD: Final = 12
MAX_PASSWORD: Final = 128

_STEP_S = 30
_DISTINCT = 5
_MINUTE = timedelta(minutes=1)
_hasher = PasswordHasher()  # argon2id, RFC 9106's second recommendation
# What a guess at nobody's password is held against, for as long: a hash of nothing that is known.
# It is written, not reckoned: that takes 64 MB and a tenth of a second, in each process.
_NOBODY = "$argon2id$v=19$m={},t={},p={}${}${}".format(
    _hasher.memory_cost,
    _hasher.time_cost,
    _hasher.parallelism,
    *(b64encode(os.urandom(n)).decode().rstrip("=") for n in (_hasher.salt_len, _hasher.hash_len)),
)


class LoginFailedError(Exception):
    """The one answer to every login that fails."""

    code = "LOGIN_FAILED"


class SessionEndedError(Exception):
    """The token opens no session, or no longer."""

    code = "SESSION_ENDED"


class PasswordWrongError(Exception):
    """The current password is not this."""

    code = "PASSWORD_WRONG"


class PasswordWeakError(Exception):
    """A new password that is too short, too long, or as good as public."""

    code = "PASSWORD_WEAK"


class Session(NamedTuple):
    """An open session: its token, shown once; whose; when it ends even if it is used."""

    token: str
    admin: Admin
    expires_at: datetime


def log_in(
    engine: Engine, vault: Vault, name: str, password: str, code: str, now: datetime
) -> Session:
    """Open a session. Raises LoginFailedError."""
    attempt, right = _attempt(engine, name, password, now)
    step = _step(vault, attempt, code, now) if attempt else None
    if attempt is None or step is None or not right:
        raise _failed(engine, name, attempt, now)
    admin = Admin(attempt.id, name, attempt.roles)
    token = token_urlsafe(32)
    with engine.begin() as tx:
        fresh = admins.spend_step(tx, attempt, step)
        if fresh:
            admins.forgive(tx, admin.id)
            if _hasher.check_needs_rehash(attempt.password_hash):
                admins.set_password(tx, attempt, hash_password(password))
            admins.begin_session(tx, hash_token(token), admin.id, now)
            act(tx, name, "session.began", name, {}, now)
    if not fresh:
        raise _failed(engine, name, attempt, now)
    return Session(token, admin, now + LIFE)


def resume(engine: Engine, token: str, now: datetime) -> Admin:
    """Whose session a token opens. Raises SessionEndedError."""
    with engine.begin() as tx:
        admin = admins.use_session(tx, hash_token(token), now, now - IDLE, now - LIFE)
    if admin is None:
        raise SessionEndedError("the session is unknown or has ended; log in again")
    return admin


def log_out(engine: Engine, token: str, admin: Admin, now: datetime) -> None:
    """End the session of a token."""
    with engine.begin() as tx:
        admins.end_session(tx, hash_token(token), now)
        act(tx, admin.name, "session.ended", admin.name, {}, now)


def change_password(
    engine: Engine, token: str, admin: Admin, current: str, new: str, now: datetime
) -> None:
    """Change one's own password and end one's other sessions. A wrong `current` counts as a failed
    login. Raises PasswordWeakError, PasswordWrongError."""
    check_password(admin.name, new)
    attempt, right = _attempt(engine, admin.name, current, now)
    if attempt is None or not right:
        _note_lock(engine, admin.name, attempt, now)
        raise PasswordWrongError(
            "the current password is not this, or was guessed too often; nothing was changed"
        )
    with engine.begin() as tx:
        if not admins.set_password(tx, attempt, hash_password(new)):
            raise PasswordWrongError("the password was changed meanwhile")
        admins.forgive(tx, admin.id)
        admins.end_sessions(tx, admin.id, now, but=hash_token(token))
        act(tx, admin.name, "password.changed", admin.name, {}, now)


def check_password(name: str, password: str) -> None:
    """Hold a password somebody chose for a name against the rules. Raises PasswordWeakError."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise PasswordWeakError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if name in password.lower() or len(set(password)) < _DISTINCT:
        raise PasswordWeakError(
            f"a password has at least {_DISTINCT} different characters, and not the name in it"
        )


def hash_password(password: str) -> str:
    """Argon2id of a password, with its salt and parameters."""
    return _hasher.hash(password)


def hash_token(token: str) -> bytes:
    """The 32 bytes by which a session's token is known."""
    return sha256(token.encode()).digest()


def totp_purpose(admin: bytes) -> str:
    """What a one-time code's secret is sealed for."""
    return f"totp {admin.hex()}"


def _attempt(
    engine: Engine, name: str, password: str, now: datetime
) -> tuple[admins.Attempt | None, bool]:
    """Count a guess, if it may be made at all, and judge its password."""
    with engine.begin() as tx:
        counted = admins.count_attempt(tx, name, now, MAX_FAILURES, now + LOCKED)
    try:
        _hasher.verify(counted.password_hash if counted else _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return counted, False
    return counted, True


def _step(vault: Vault, attempt: admins.Attempt, code: str, now: datetime) -> int | None:
    """The time step whose code this is: the one now, or the one before or after it."""
    secret = vault.open_for(totp_purpose(attempt.id), attempt.totp).decode()
    totp, here = pyotp.TOTP(secret, interval=_STEP_S), int(now.timestamp()) // _STEP_S
    steps = [
        step
        for step in (here - 1, here, here + 1)
        if compare_digest(totp.generate_otp(step).encode(), code.encode())
    ]
    return max(steps, default=None)


def _note_lock(engine: Engine, name: str, attempt: admins.Attempt | None, now: datetime) -> None:
    """Put into the trail that this wrong guess locked the name."""
    if attempt and attempt.number == MAX_FAILURES:
        with engine.begin() as tx:
            act(tx, name, "login.locked", name, {"minutes": LOCKED // _MINUTE}, now)


def _failed(
    engine: Engine, name: str, attempt: admins.Attempt | None, now: datetime
) -> LoginFailedError:
    _note_lock(engine, name, attempt, now)
    return LoginFailedError(
        "name, password and one-time code do not belong together, or the code was used before,"
        f" or the name is locked for {LOCKED // _MINUTE} minutes after {MAX_FAILURES} failures"
    )
