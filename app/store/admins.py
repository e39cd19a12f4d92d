"""Administrators, and the sessions they are in."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

ROLES: Final = ("editor", "reviewer", "operator", "auditor")
NAME: Final = "^[a-z][a-z0-9._-]{2,31}$"


class Admin(NamedTuple):
    """Who asks: the id (16 bytes), the name, and the roles held, sorted."""

    id: bytes
    name: str
    roles: tuple[str, ...]


class Attempt(NamedTuple):
    """A guess at a name's secrets that was counted: its number since the last right one."""

    id: bytes
    roles: tuple[str, ...]
    password_hash: str
    totp: bytes
    number: int


class Account(NamedTuple):
    """An administrator as the others see them."""

    id: bytes
    name: str
    roles: tuple[str, ...]
    created_at: datetime
    disabled_at: datetime | None
    locked_until: datetime | None


# The guess is counted before it is judged: guesses at once cannot be more than the limit, and no
# row is locked while a hash is reckoned.
_COUNT = text("""
UPDATE admins SET
  failures = CASE WHEN locked_until IS NULL THEN failures + 1 ELSE 1 END,
  locked_until = CASE WHEN locked_until IS NULL AND failures + 1 >= :limit
    THEN CAST(:until AS timestamptz) END
WHERE name = :name AND disabled_at IS NULL AND (locked_until IS NULL OR locked_until <= :now)
RETURNING id, roles, password_hash, totp, failures""")
_RESUME = text("""
UPDATE admin_sessions s SET used_at = greatest(s.used_at, :now) FROM admins a
WHERE s.token_hash = :token AND a.id = s.admin AND s.ended_at IS NULL AND a.disabled_at IS NULL
  AND s.used_at > :idle AND s.began_at > :oldest
RETURNING a.id, a.name, a.roles""")
_ACCOUNT = "SELECT id, name, roles, created_at, disabled_at, locked_until FROM admins"


def add(
    tx: Connection,
    admin: Admin,
    password_hash: str,
    totp: bytes,
    now: datetime,
) -> bool:
    """Add an administrator; False if the name is taken."""
    return _run(
        tx,
        "INSERT INTO admins (id, name, password_hash, totp, roles, created_at)"
        " VALUES (:id, :name, :hash, :totp, :roles, :now) ON CONFLICT (name) DO NOTHING",
        id=admin.id,
        name=admin.name,
        hash=password_hash,
        totp=totp,
        roles=list(admin.roles),
        now=now,
    )


def count_attempt(
    tx: Connection, name: str, now: datetime, limit: int, until: datetime
) -> Attempt | None:
    """Count a guess at an enabled name that is not locked, and lock the name until `until` if it
    is guess number `limit`; None for every other name."""
    given = {"name": name, "now": now, "limit": limit, "until": until}
    row = tx.execute(_COUNT, given).first()
    return Attempt(row[0], tuple(row[1]), *row[2:]) if row else None


def forgive(tx: Connection, admin: bytes) -> None:
    """Forget the guesses that were counted, and unlock."""
    _run(tx, "UPDATE admins SET failures = 0, locked_until = NULL WHERE id = :id", id=admin)


def spend_step(tx: Connection, attempt: Attempt, step: int) -> bool:
    """Use up a one-time code's time step; False if it or a later one was used before, or the
    administrator was disabled or given other secrets since the attempt."""
    return _run(
        tx,
        "UPDATE admins SET totp_step = :step WHERE id = :id AND totp_step < :step"
        " AND totp = :totp AND password_hash = :hash AND disabled_at IS NULL",
        id=attempt.id,
        step=step,
        totp=attempt.totp,
        hash=attempt.password_hash,
    )


def set_password(tx: Connection, attempt: Attempt, password_hash: str) -> bool:
    """Store another hash; False if the one of the attempt is no longer there."""
    return _run(
        tx,
        "UPDATE admins SET password_hash = :hash WHERE id = :id AND password_hash = :old",
        id=attempt.id,
        hash=password_hash,
        old=attempt.password_hash,
    )


def set_secrets(tx: Connection, admin: bytes, password_hash: str, totp: bytes) -> None:
    """Begin anew with other secrets: enabled, unlocked, no code used yet."""
    _run(
        tx,
        "UPDATE admins SET password_hash = :hash, totp = :totp, totp_step = 0, failures = 0,"
        " locked_until = NULL, disabled_at = NULL WHERE id = :id",
        id=admin,
        hash=password_hash,
        totp=totp,
    )


def set_roles(tx: Connection, admin: bytes, roles: tuple[str, ...]) -> None:
    """Give an administrator these roles instead of those held."""
    _run(tx, "UPDATE admins SET roles = :roles WHERE id = :id", id=admin, roles=list(roles))


def disable(tx: Connection, admin: bytes, now: datetime) -> None:
    """Refuse an administrator from now on."""
    _run(
        tx,
        "UPDATE admins SET disabled_at = coalesce(disabled_at, :now) WHERE id = :id",
        id=admin,
        now=now,
    )


def begin_session(tx: Connection, token_hash: bytes, admin: bytes, now: datetime) -> None:
    """Open a session; its token is known by its SHA-256 only."""
    _run(
        tx,
        "INSERT INTO admin_sessions (token_hash, admin, began_at, used_at)"
        " VALUES (:token, :id, :now, :now)",
        token=token_hash,
        id=admin,
        now=now,
    )


def use_session(
    tx: Connection, token_hash: bytes, now: datetime, idle: datetime, oldest: datetime
) -> Admin | None:
    """Whose session this is, used now; None unless it is open, was used after `idle` and began
    after `oldest`, and its administrator is enabled."""
    given = {"token": token_hash, "now": now, "idle": idle, "oldest": oldest}
    row = tx.execute(_RESUME, given).first()
    return Admin(row[0], row[1], tuple(row[2])) if row else None


def end_session(tx: Connection, token_hash: bytes, now: datetime) -> None:
    """Close a session."""
    _run(
        tx,
        "UPDATE admin_sessions SET ended_at = :now WHERE token_hash = :token",
        token=token_hash,
        now=now,
    )


def end_sessions(tx: Connection, admin: bytes, now: datetime, but: bytes = b"") -> None:
    """Close an administrator's open sessions, all `but` the one with this token hash."""
    _run(
        tx,
        "UPDATE admin_sessions SET ended_at = :now"
        " WHERE admin = :id AND ended_at IS NULL AND token_hash <> :but",
        id=admin,
        now=now,
        but=but,
    )


def forget_sessions(tx: Connection, before: datetime) -> None:
    """Drop sessions that began before that moment."""
    _run(tx, "DELETE FROM admin_sessions WHERE began_at < :before", before=before)


def find(tx: Connection, name: str) -> Account | None:
    """The administrator of this name."""
    row = tx.execute(text(f"{_ACCOUNT} WHERE name = :name"), {"name": name}).first()
    return _account(row) if row else None


def lock(tx: Connection, name: str) -> Account | None:
    """The administrator of this name, whom nobody else can change until `tx` ends."""
    row = tx.execute(text(f"{_ACCOUNT} WHERE name = :name FOR UPDATE"), {"name": name}).first()
    return _account(row) if row else None


def everyone(tx: Connection) -> list[Account]:
    """All administrators by name, the disabled ones too."""
    return [_account(row) for row in tx.execute(text(f"{_ACCOUNT} ORDER BY name"))]


def lock_operators(tx: Connection) -> set[bytes]:
    """The enabled operators, none of whom anybody else can change until `tx` ends."""
    rows = tx.execute(
        text(
            "SELECT id FROM admins WHERE 'operator' = ANY(roles) AND disabled_at IS NULL"
            " ORDER BY id FOR UPDATE"
        )
    )
    return set(rows.scalars())


def _account(row: Any) -> Account:
    return Account(row[0], row[1], tuple(row[2]), *row[3:])


def _run(tx: Connection, statement: str, **values: Any) -> bool:
    """Whether the statement changed a row."""
    return tx.execute(text(statement), values).rowcount > 0
