"""Providers, their verification keys, and the nonces of requests already taken."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import fetch

# The setting holds for the transaction, which this statement is.
_SPEND = """
INSERT INTO nonces (key_id, nonce, seen_at) SELECT %s, %s, %s
WHERE set_config('synchronous_commit', 'off', true) = 'off'
ON CONFLICT DO NOTHING RETURNING 1"""


SPENT = """
WITH spent AS (
  INSERT INTO nonces (key_id, nonce, seen_at) SELECT %(key_id)s, %(nonce)s, %(now)s
  WHERE set_config('synchronous_commit', 'off', true) = 'off'
  ON CONFLICT DO NOTHING RETURNING 1)
SELECT EXISTS (SELECT FROM spent), """
"""Before the columns of a key's query: take a nonce in the same go; first whether it was new."""

_KEY = "provider, algorithm, public_key, revoked_at FROM provider_keys WHERE key_id = %(key_id)s"


class ProviderKey(NamedTuple):
    """A key a provider's requests are verified with: `algorithm` is ed25519 or rsa-sha256,
    `public_key` its SubjectPublicKeyInfo in DER."""

    provider: str
    algorithm: str
    public_key: bytes
    revoked_at: datetime | None


def add(tx: Connection, code: str, name: str, now: datetime) -> bool:
    """Add a provider; False if the code is taken."""
    statement = text(
        "INSERT INTO providers (code, name, created_at) VALUES (:code, :name, :now)"
        " ON CONFLICT DO NOTHING"
    )
    return tx.execute(statement, {"code": code, "name": name, "now": now}).rowcount == 1


def exists(tx: Connection, code: str) -> bool:
    """Whether there is a provider of this code."""
    found = tx.execute(text("SELECT FROM providers WHERE code = :code"), {"code": code})
    return found.first() is not None


def names(tx: Connection) -> dict[str, str]:
    """The name of every provider, by its code."""
    return {row.code: row.name for row in tx.execute(text("SELECT code, name FROM providers"))}


class KeyIdTakenError(Exception):
    """A key of this id is a merchant's."""

    code = "KEY_EXISTS"


def add_key(
    tx: Connection, key_id: str, provider: str, algorithm: str, public_key: bytes, now: datetime
) -> None:
    """Give a provider one more key. Raises IntegrityError for an id in use or no such provider,
    KeyIdTakenError for an id that a merchant's key has."""
    statement = text(
        "INSERT INTO provider_keys (key_id, provider, algorithm, public_key, created_at)"
        " SELECT :key_id, :provider, :algorithm, :public_key, :now"
        " WHERE NOT EXISTS (SELECT FROM merchant_keys WHERE key_id = :key_id)"
    )
    given = {
        "key_id": key_id,
        "provider": provider,
        "algorithm": algorithm,
        "public_key": public_key,
        "now": now,
    }
    if tx.execute(statement, given).rowcount != 1:
        raise KeyIdTakenError(f"{key_id} is the id of a merchant's key; take another")


def revoke_key(tx: Connection, key_id: str, at: datetime) -> bool:
    """Refuse a key from that moment on (now, or the planned end of a rotation)."""
    statement = text(
        "UPDATE provider_keys SET revoked_at = :at"
        " WHERE key_id = :key_id AND (revoked_at IS NULL OR revoked_at > :at)"
    )
    return tx.execute(statement, {"key_id": key_id, "at": at}).rowcount == 1


def find_key(tx: Connection, key_id: str) -> ProviderKey | None:
    """The key of this id, revoked or not."""
    rows = fetch(tx, f"SELECT {_KEY}", {"key_id": key_id})
    return ProviderKey(*rows[0]) if rows else None


def spend_key(
    alone: Connection, key_id: str, nonce: str, now: datetime
) -> tuple[bool, ProviderKey] | None:
    """`find_key` and `spend_nonce` in one statement: whether the nonce was new, and the key."""
    rows = fetch(alone, SPENT + _KEY, {"key_id": key_id, "nonce": nonce, "now": now})
    return (rows[0][0], ProviderKey(*rows[0][1:])) if rows else None


def remember_nonce(tx: Connection, key_id: str, nonce: str, now: datetime) -> bool:
    """Take a nonce; False if this key used it before."""
    statement = text(
        "INSERT INTO nonces (key_id, nonce, seen_at) VALUES (:key_id, :nonce, :now)"
        " ON CONFLICT DO NOTHING"
    )
    return tx.execute(statement, {"key_id": key_id, "nonce": nonce, "now": now}).rowcount == 1


def spend_nonce(alone: Connection, key_id: str, nonce: str, now: datetime) -> bool:
    """The same on a connection of `one_statement`, without waiting for the disk: what a crash then
    forgets of nonces, a replay still meets the number of its own request."""
    return bool(fetch(alone, _SPEND, (key_id, nonce, now)))


def forget_nonces(tx: Connection, before: datetime) -> int:
    """Drop nonces taken before that moment, which no fresh timestamp can bring back."""
    return tx.execute(
        text("DELETE FROM nonces WHERE seen_at < :before"), {"before": before}
    ).rowcount


def overview(tx: Connection) -> list[tuple[str, str, str | None, str | None, datetime | None]]:
    """(code, name, key id, algorithm, revoked at) of every key, and of providers without one."""
    rows = tx.execute(
        text(
            "SELECT p.code, p.name, k.key_id, k.algorithm, k.revoked_at FROM providers p"
            " LEFT JOIN provider_keys k ON k.provider = p.code ORDER BY p.code, k.created_at"
        )
    )
    return [tuple(row) for row in rows]
