"""Who logged in by WeChat, their refresh tokens, their phones, and whose tokens have ended."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine, text

from app.store.db import one_statement

_POLL_S: Final = 1.0  # so that an ended token is dead in every process within two seconds


class Login(NamedTuple):
    """An identity that is a resident's: account, wrapped key, and what is sealed under it."""

    resident: str
    wrapped_key: bytes
    openid: bytes
    session_key: bytes


class Refresh(NamedTuple):
    """A refresh token as it is stored."""

    family: bytes
    resident: str
    expires_at: datetime
    used_at: datetime | None
    successor: bytes | None
    revoked_at: datetime | None


class Spent(NamedTuple):
    """A code that was sent to us: when, and the sealed answer, empty while it is worked on."""

    answer: bytes
    used_at: datetime


_LOGIN = (
    "SELECT r.id, r.wrapped_key, l.openid, l.session_key FROM logins l"
    " JOIN residents r ON r.id = l.resident AND r.erased_at IS NULL"
)


def claim(tx: Connection, code: bytes, now: datetime, abandoned: datetime) -> bool:
    """Whether this code is the caller's to work on: it is new, or whoever claimed it before
    `abandoned` never answered."""
    return _run(
        tx,
        "INSERT INTO login_codes (code, answer, used_at) VALUES (:code, '', :now)"
        " ON CONFLICT (code) DO UPDATE SET used_at = :now"
        " WHERE login_codes.answer = '' AND login_codes.used_at < :abandoned",
        code=code,
        now=now,
        abandoned=abandoned,
    )


def spent(tx: Connection, code: bytes) -> Spent | None:
    """What became of a code."""
    row = tx.execute(
        text("SELECT answer, used_at FROM login_codes WHERE code = :code"), {"code": code}
    ).first()
    return Spent(*row) if row else None


def settle(tx: Connection, code: bytes, answer: bytes) -> None:
    """Keep the sealed answer to a code that was claimed."""
    _run(tx, "UPDATE login_codes SET answer = :answer WHERE code = :code", code=code, answer=answer)


def release(tx: Connection, code: bytes) -> None:
    """Forget a code."""
    _run(tx, "DELETE FROM login_codes WHERE code = :code", code=code)


def resident_of(tx: Connection, identity: bytes) -> Login | None:
    """Whose identity this is; nobody else can change that until `tx` ends."""
    return _login(
        tx.execute(
            text(f"{_LOGIN} WHERE l.identity = :identity FOR UPDATE OF l"), {"identity": identity}
        ).first()
    )


def newest(tx: Connection, resident: str) -> Login | None:
    """A resident's newest login."""
    return _login(
        tx.execute(
            text(f"{_LOGIN} WHERE l.resident = :resident ORDER BY l.session_at DESC LIMIT 1"),
            {"resident": bytes.fromhex(resident)},
        ).first()
    )


def keep(tx: Connection, identity: bytes, login: Login, now: datetime) -> None:
    """Store a login; the one before it of the same identity is gone."""
    _run(
        tx,
        "INSERT INTO logins (identity, resident, openid, session_key, session_at)"
        " VALUES (:identity, :resident, :openid, :key, :now) ON CONFLICT (identity) DO UPDATE SET"
        " resident = :resident, openid = :openid, session_key = :key, session_at = :now",
        identity=identity,
        resident=bytes.fromhex(login.resident),
        openid=login.openid,
        key=login.session_key,
        now=now,
    )


def add_refresh(
    tx: Connection, token: bytes, family: bytes, resident: str, now: datetime, until: datetime
) -> None:
    """Store the hash of a refresh token."""
    _run(
        tx,
        "INSERT INTO refresh_tokens (token, family, resident, issued_at, expires_at)"
        " VALUES (:token, :family, :resident, :now, :until)",
        token=token,
        family=family,
        resident=bytes.fromhex(resident),
        now=now,
        until=until,
    )


def lock_refresh(tx: Connection, token: bytes) -> Refresh | None:
    """A living resident's refresh token by its hash, locked until `tx` ends."""
    row = tx.execute(
        text(
            "SELECT t.family, t.resident, t.expires_at, t.used_at, t.successor, t.revoked_at"
            " FROM refresh_tokens t JOIN residents r ON r.id = t.resident AND r.erased_at IS NULL"
            " WHERE t.token = :token FOR UPDATE OF t"
        ),
        {"token": token},
    ).first()
    return Refresh(row[0], row[1].hex(), *row[2:]) if row else None


def use_refresh(tx: Connection, token: bytes, successor: bytes, now: datetime) -> None:
    """Mark a refresh token used; its sealed successor is kept for an answer that gets lost."""
    _run(
        tx,
        "UPDATE refresh_tokens SET used_at = :now, successor = :successor WHERE token = :token",
        token=token,
        successor=successor,
        now=now,
    )


def end_family(tx: Connection, family: bytes, now: datetime, until: datetime) -> None:
    """End one sign-in: its refresh tokens, and its access tokens issued before `until`."""
    _run(
        tx,
        "UPDATE refresh_tokens SET revoked_at = :now WHERE family = :family AND revoked_at IS NULL",
        family=family,
        now=now,
    )
    _end(tx, family, until)


def end_all(tx: Connection, resident: str, now: datetime, until: datetime) -> None:
    """End all of a resident's sign-ins: refresh tokens, and access tokens from before `until`."""
    who = bytes.fromhex(resident)
    _run(
        tx,
        "UPDATE refresh_tokens SET revoked_at = :now WHERE resident = :who AND revoked_at IS NULL",
        who=who,
        now=now,
    )
    _end(tx, who, until)


def ended_at(tx: Connection, resident: str) -> datetime | None:
    """Before when a resident's access tokens must have been issued to be dead, if any are."""
    at: datetime | None = tx.execute(
        text("SELECT at FROM sign_outs WHERE bearer = :who"), {"who": bytes.fromhex(resident)}
    ).scalar()
    return at


def set_phone(tx: Connection, resident: str, digest: bytes, sealed: bytes, now: datetime) -> None:
    """Keep a resident's verified number. Who held it before holds it no longer: a number that was
    given up is given out again, and WeChat has just seen it with this one."""
    who = bytes.fromhex(resident)
    _run(
        tx,
        "DELETE FROM phones WHERE digest = :digest AND resident <> :who",
        digest=digest,
        who=who,
    )
    _run(
        tx,
        "INSERT INTO phones (resident, digest, sealed, verified_at)"
        " VALUES (:who, :digest, :sealed, :now) ON CONFLICT (resident) DO UPDATE"
        " SET digest = :digest, sealed = :sealed, verified_at = :now",
        who=who,
        digest=digest,
        sealed=sealed,
        now=now,
    )


def forget_phone(tx: Connection, resident: str) -> None:
    """Drop a resident's number."""
    _run(tx, "DELETE FROM phones WHERE resident = :who", who=bytes.fromhex(resident))


def sweep(tx: Connection, codes_before: datetime, ended_before: datetime) -> None:
    """Drop codes and ended access tokens that can matter to nobody any more."""
    _run(tx, "DELETE FROM login_codes WHERE used_at < :before", before=codes_before)
    _run(tx, "DELETE FROM sign_outs WHERE at < :before", before=ended_before)


def forget_refresh(tx: Connection, now: datetime) -> None:
    """Drop refresh tokens that have run out."""
    _run(tx, "DELETE FROM refresh_tokens WHERE expires_at <= :now", now=now)


class SignOuts:
    """Whose access tokens have ended, as this process knows it: read once a second at most."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._read_at = float("-inf")
        self._ended: dict[str, float] = {}

    def ended(self, engine: Engine, subject: str, sid: str, issued: int) -> bool:
        """Whether an access token was signed out, alone or with all the others of its resident."""
        if time.monotonic() - self._read_at >= _POLL_S and self._reading.acquire(blocking=False):
            try:  # one thread reads; what the others know meanwhile is a moment older
                with one_statement(engine) as tx:
                    rows = tx.execute(text("SELECT bearer, at FROM sign_outs")).all()
                self._ended = {row[0].hex(): row[1].timestamp() for row in rows}
                self._read_at = time.monotonic()
            finally:
                self._reading.release()
        known = self._ended
        return bool(known) and (issued < known.get(subject, 0) or issued < known.get(sid, 0))

    def look_again(self) -> None:
        """Read before the next answer: this process has just ended some."""
        self._read_at = float("-inf")


def _end(tx: Connection, bearer: bytes, until: datetime) -> None:
    _run(
        tx,
        "INSERT INTO sign_outs (bearer, at) VALUES (:bearer, :until) ON CONFLICT (bearer)"
        " DO UPDATE SET at = greatest(sign_outs.at, :until)",
        bearer=bearer,
        until=until,
    )


def _login(row: Any) -> Login | None:
    return Login(row[0].hex(), *row[1:]) if row else None


def _run(tx: Connection, statement: str, **values: Any) -> bool:
    """Whether the statement changed a row."""
    return tx.execute(text(statement), values).rowcount > 0
