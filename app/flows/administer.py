"""Operators administer the administrators: add, give roles, disable, let in anew.

Nobody changes an account of their own this way, so no operator alone can become what another has
to be; and there is always an operator who can log in. Each verb runs in its caller's transaction
and leaves its record in the trail. `actor` is the name of who does it, or CLI.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from hashlib import sha256
from secrets import token_bytes, token_urlsafe
from typing import Final, NamedTuple

import pyotp
from sqlalchemy import Connection

from app.flows.login import check_password, hash_password, totp_purpose
from app.flows.once import must_match
from app.flows.trail import act
from app.store import admins
from app.store.admins import ROLES, Account, Admin
from app.vault import Vault

CLI: Final = "cli"

_ISSUER = "Puhui"


class AdminRefusedError(Exception):
    """An administrator cannot be made or changed like this; `code` says which rule says no."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Setup(NamedTuple):
    """What a new administrator logs in with; shown once. `otpauth` is the address (Key Uri Format)
    that an authenticator takes the one-time codes' secret from."""

    name: str
    roles: tuple[str, ...]
    password: str
    otpauth: str


def create(
    tx: Connection,
    vault: Vault,
    actor: str,
    name: str,
    roles: Iterable[str],
    now: datetime,
    password: str | None = None,
) -> Setup:
    """Add an administrator, with a generated password if none is given.

    Raises AdminRefusedError ADMIN_EXISTS, PasswordWeakError.
    """
    admin = Admin(token_bytes(16), name, _sorted(roles))
    setup, hashed, totp = _secrets(vault, admin, password)
    if name == CLI or not admins.add(tx, admin, hashed, totp, now):
        raise AdminRefusedError("ADMIN_EXISTS", f"there is an administrator {name} already")
    act(tx, actor, "admin.added", name, {"roles": list(admin.roles)}, now)
    return setup


def reset(
    tx: Connection, vault: Vault, actor: str, name: str, now: datetime, password: str | None = None
) -> Setup:
    """Let an administrator in anew, locked or disabled as they may be: with another password and
    another secret for codes. Their sessions end. Raises AdminRefusedError."""
    found = _other(tx, actor, name)
    setup, hashed, totp = _secrets(vault, Admin(*found[:3]), password)
    admins.set_secrets(tx, found.id, hashed, totp)
    admins.end_sessions(tx, found.id, now)
    act(tx, actor, "admin.reset", name, {}, now)
    return setup


def assign(
    tx: Connection, actor: str, name: str, roles: Iterable[str], revision: str, now: datetime
) -> Account:
    """Give an administrator other roles, if those they have are still of this revision.

    Raises AdminRefusedError, StaleError.
    """
    operators = admins.lock_operators(tx)
    found, wanted = _other(tx, actor, name), _sorted(roles)
    must_match(revision, roles_revision(found.roles))
    if "operator" not in wanted:
        _leave_one(operators, found)
    admins.set_roles(tx, found.id, wanted)
    detail = {"roles": list(wanted), "before": list(found.roles)}
    act(tx, actor, "admin.roles_assigned", name, detail, now)
    return found._replace(roles=wanted)


def disable(tx: Connection, actor: str, name: str, now: datetime) -> Account:
    """Let an administrator in no more; their sessions end. Raises AdminRefusedError."""
    operators = admins.lock_operators(tx)
    found = _other(tx, actor, name)
    _leave_one(operators, found)
    admins.disable(tx, found.id, now)
    admins.end_sessions(tx, found.id, now)
    act(tx, actor, "admin.disabled", name, {}, now)
    return found._replace(disabled_at=found.disabled_at or now)


def roles_revision(roles: Iterable[str]) -> str:
    """The revision that an ETag of these roles names."""
    return sha256(" ".join(_sorted(roles)).encode()).hexdigest()[:16]


def _secrets(vault: Vault, admin: Admin, password: str | None) -> tuple[Setup, str, bytes]:
    """Fresh secrets: as shown once, and as stored."""
    if password is not None:
        check_password(admin.name, password)
    chosen, secret = password or token_urlsafe(15), pyotp.random_base32()
    totp = vault.seal_for(totp_purpose(admin.id), secret.encode())
    otpauth = pyotp.TOTP(secret).provisioning_uri(name=admin.name, issuer_name=_ISSUER)
    return Setup(admin.name, admin.roles, chosen, otpauth), hash_password(chosen), totp


def _other(tx: Connection, actor: str, name: str) -> Account:
    if name == actor:
        raise AdminRefusedError("OWN_ACCOUNT", "another operator has to do this for you")
    found = admins.lock(tx, name)
    if found is None:
        raise AdminRefusedError("ADMIN_UNKNOWN", "there is no administrator of this name")
    return found


def _leave_one(operators: set[bytes], found: Account) -> None:
    if operators == {found.id}:
        raise AdminRefusedError(
            "LAST_OPERATOR", f"{found.name} is the last operator; make another one first"
        )


def _sorted(roles: Iterable[str]) -> tuple[str, ...]:
    return tuple(role for role in sorted(ROLES) if role in set(roles))
