"""Merchants: who they are, what was agreed with them, how they sign, and what each till may ask."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import fetch
from app.store.providers import SPENT
from ledger.accounts import AccountKind, Asset

STATES = ("applied", "approved", "suspended", "closed")
ROLES = ("owner", "manager", "cashier")
KEYS_IN_FORCE = 2
"""So many at once, of the merchant itself and of each till: one in use, one that follows it."""


class Merchant(NamedTuple):
    """A merchant. `id` (32 hex digits) is its account in the ledger too; `contact` is sealed;
    `low_at` is since when its allowance is below the contract's alert level (None: it is not)."""

    id: str
    code: str
    name: str
    licence: str
    contact: bytes
    state: str
    reason: str
    revision: int
    sandbox: bool
    applied_at: datetime
    decided_at: datetime | None
    low_at: datetime | None


class Partner(NamedTuple):
    """A merchant whose request was verified: what each request needs of it. `till` (an id) is set
    if the key that signed is a till's own."""

    id: str
    code: str
    state: str
    till: bytes | None


class Key(NamedTuple):
    """A key that a merchant's requests are verified with; `public_key` is its
    SubjectPublicKeyInfo in DER. A sandbox merchant's is everybody's."""

    partner: Partner
    algorithm: str
    public_key: bytes
    revoked_at: datetime | None
    sandbox: bool = False


class Signed(NamedTuple):
    """A request that a key has signed which was in force when last seen. Whether it still is, and
    whether the nonce is new, is to be asked by who acts on it."""

    key_id: str
    nonce: str
    key: Key


class KeyFace(NamedTuple):
    """A key as its merchant sees it; `till` is a till's code, or None."""

    key_id: str
    till: str | None
    algorithm: str
    created_at: datetime
    revoked_at: datetime | None


class Contract(NamedTuple):
    """Terms: `payer` is city or merchant, `mode` prepaid or postpaid, the rest in points and fen.
    The one with the highest number is in force."""

    number: int
    payer: str
    mode: str
    fen_per_100_points: int
    limit_points: int
    alert_points: int
    reference: str
    made_at: datetime


class Crossing(NamedTuple):
    """An allowance that crossed its alert level: `low` if it fell below."""

    merchant: str
    left: int
    alert: int
    low: bool


class Till(NamedTuple):
    """A till that is open, in a store that is open."""

    id: bytes
    store: bytes
    code: str


_COLUMNS = (
    "encode(id, 'hex'), code, name, licence, contact, state, reason, revision, sandbox,"
    " applied_at, decided_at, low_at"
)
_ALLOWANCE = (
    "SELECT amount FROM balances WHERE account = :id AND account_kind = :kind"
    " AND asset = :asset AND bucket = 0"
)
_CONTRACT = (
    "number, payer, mode, fen_per_100_points, limit_points, alert_points, reference, made_at"
)
# On every charge's way: the driver's own SQL.
_KEY = """
  encode(m.id, 'hex'), m.code, m.state, k.till, k.algorithm, k.public_key, k.revoked_at, m.sandbox
FROM merchant_keys k JOIN merchants m ON m.id = k.merchant WHERE k.key_id = %(key_id)s"""
_TILL = """
SELECT t.id, t.store, t.code FROM tills t JOIN stores s ON s.id = t.store
WHERE t.merchant = %s AND t.code = %s AND t.open AND s.open"""


def add(tx: Connection, one: Merchant) -> bool:
    """Add a merchant; False if the code is taken."""
    statement = text(
        "INSERT INTO merchants (id, code, name, licence, contact, state, reason, revision, sandbox,"
        " applied_at) VALUES (:id, :code, :name, :licence, :contact, :state, :reason, :revision,"
        " :sandbox, :applied_at) ON CONFLICT (code) DO NOTHING"
    )
    return tx.execute(statement, one._asdict() | {"id": bytes.fromhex(one.id)}).rowcount == 1


def find(tx: Connection, code: str) -> Merchant | None:
    """The merchant of this code."""
    return _one(tx, "code = :value", code)


def by_id(tx: Connection, id: str) -> Merchant | None:
    """The merchant of this id (32 hex digits)."""
    return _one(tx, "id = :value", bytes.fromhex(id))


def lock(tx: Connection, code: str) -> Merchant | None:
    """The same by its code, and nobody else changes it until this transaction ends; who charges
    there is not kept waiting."""
    return _one(tx, "code = :value FOR NO KEY UPDATE", code)


def _one(tx: Connection, which: str, value: object) -> Merchant | None:
    found = tx.execute(text(f"SELECT {_COLUMNS} FROM merchants WHERE {which}"), {"value": value})  # noqa: S608 (our own text)
    row = found.first()
    return Merchant(*row) if row else None


def page(
    tx: Connection, state: str | None, part: str | None, after: str, limit: int
) -> list[Merchant]:
    """Merchants in a state whose code, name or licence has this part, by code, after a code."""
    rows = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM merchants WHERE code > :after"  # noqa: S608
            " AND (CAST(:state AS text) IS NULL OR state = :state)"
            " AND (CAST(:part AS text) IS NULL"
            "  OR position(lower(:part) IN lower(code || ' ' || name || ' ' || licence)) > 0)"
            " ORDER BY code LIMIT :limit"
        ),
        {"state": state, "part": part, "after": after, "limit": limit},
    )
    return [Merchant(*row) for row in rows]


def decide(tx: Connection, id: str, state: str, reason: str, now: datetime) -> None:
    """Bring a merchant to another state; that is a revision too."""
    tx.execute(
        text(
            "UPDATE merchants SET state = :state, reason = :reason, revision = revision + 1,"
            " decided_at = :now WHERE id = :id"
        ),
        {"id": bytes.fromhex(id), "state": state, "reason": reason, "now": now},
    )


def allowance(tx: Connection, id: str) -> int:
    """The points a merchant may still redeem, just now."""
    return _allowance(tx, id, _ALLOWANCE)


def lock_allowance(tx: Connection, id: str) -> int:
    """The same, and nobody redeems there until this transaction ends."""
    return _allowance(tx, id, f"{_ALLOWANCE} FOR NO KEY UPDATE")


def _allowance(tx: Connection, id: str, statement: str) -> int:
    given = {
        "id": bytes.fromhex(id),
        "kind": AccountKind.MERCHANT.code,
        "asset": Asset.POINT.code,
    }
    return tx.execute(text(statement), given).scalar() or 0


def add_contract(tx: Connection, id: str, one: Contract) -> None:
    """Add the next terms, which are a revision of the merchant."""
    given = one._asdict() | {"merchant": bytes.fromhex(id)}
    names = ", ".join(f":{name}" for name in Contract._fields)
    tx.execute(
        text(f"INSERT INTO contracts (merchant, {_CONTRACT}) VALUES (:merchant, {names})"),  # noqa: S608
        given,
    )
    tx.execute(text("UPDATE merchants SET revision = revision + 1 WHERE id = :merchant"), given)


def contracts(tx: Connection, id: str) -> list[Contract]:
    """All terms ever agreed with a merchant, the ones in force first."""
    rows = tx.execute(
        text(
            f"SELECT {_CONTRACT} FROM contracts WHERE merchant = :id ORDER BY number DESC"  # noqa: S608
        ),
        {"id": bytes.fromhex(id)},
    )
    return [Contract(*row) for row in rows]


def contract(tx: Connection, id: str) -> Contract | None:
    """The terms in force."""
    return next(iter(contracts(tx, id)), None)


# 4 is AccountKind.MERCHANT and 2 Asset.POINT.
_NOTE_LOW = text("""
UPDATE merchants m SET low_at = CASE WHEN f.low THEN CAST(:now AS timestamptz) END
FROM (
  SELECT m.id, coalesce(b.amount, 0) AS left_points, c.alert_points,
    m.state IN ('approved', 'suspended') AND coalesce(b.amount, 0) < c.alert_points AS low
  FROM merchants m
  CROSS JOIN LATERAL (SELECT alert_points FROM contracts c WHERE c.merchant = m.id
    ORDER BY number DESC LIMIT 1) c
  LEFT JOIN balances b
    ON b.account = m.id AND b.account_kind = 4 AND b.asset = 2 AND b.bucket = 0
) f
WHERE f.id = m.id AND f.low <> (m.low_at IS NOT NULL)
RETURNING encode(m.id, 'hex'), f.left_points, f.alert_points, f.low""")


def note_low(tx: Connection, now: datetime) -> list[Crossing]:
    """Note whose allowance fell below the alert level since the last look, or rose above it."""
    return [Crossing(*row) for row in tx.execute(_NOTE_LOW, {"now": now})]


def count_low(tx: Connection) -> int:
    """How many merchants have an allowance below their alert level, as last noted."""
    found = tx.execute(text("SELECT count(*) FROM merchants WHERE low_at IS NOT NULL"))
    return int(found.scalar_one())


def find_key(tx: Connection, key_id: str) -> Key | None:
    """The key of this id, revoked or not."""
    rows = fetch(tx, f"SELECT {_KEY}", {"key_id": key_id})
    return _key(rows[0]) if rows else None


def spend_key(alone: Connection, key_id: str, nonce: str, now: datetime) -> tuple[bool, Key] | None:
    """The same with `providers.spend_nonce` in one statement: whether the nonce was new, and the
    key."""
    rows = fetch(alone, SPENT + _KEY, {"key_id": key_id, "nonce": nonce, "now": now})
    return (rows[0][0], _key(rows[0][1:])) if rows else None


def _key(row: Sequence[Any]) -> Key:
    return Key(Partner(*row[:4]), *row[4:])


def add_key(
    tx: Connection,
    key_id: str,
    merchant: str,
    till: bytes | None,
    algorithm: str,
    public_key: bytes,
    now: datetime,
) -> bool:
    """Give a merchant, or one till of it, a key; False if the id is in use, by a provider's too."""
    statement = text(
        "INSERT INTO merchant_keys (key_id, merchant, till, algorithm, public_key, created_at)"
        " SELECT :key_id, :merchant, :till, :algorithm, :public_key, :now"
        " WHERE NOT EXISTS (SELECT FROM provider_keys WHERE key_id = :key_id)"
        " ON CONFLICT DO NOTHING"
    )
    given = {
        "key_id": key_id,
        "merchant": bytes.fromhex(merchant),
        "till": till,
        "algorithm": algorithm,
        "public_key": public_key,
        "now": now,
    }
    return tx.execute(statement, given).rowcount == 1


def keys(tx: Connection, merchant: str) -> list[KeyFace]:
    """A merchant's keys, the newest first, revoked ones too."""
    rows = tx.execute(
        text(
            "SELECT k.key_id, t.code, k.algorithm, k.created_at, k.revoked_at FROM merchant_keys k"
            " LEFT JOIN tills t ON t.id = k.till WHERE k.merchant = :id"
            " ORDER BY k.created_at DESC, k.key_id"
        ),
        {"id": bytes.fromhex(merchant)},
    )
    return [KeyFace(*row) for row in rows]


def revoke_key(tx: Connection, merchant: str, key_id: str, at: datetime) -> bool:
    """Refuse a merchant's key from that moment on; False if it has none of this id in force."""
    statement = text(
        "UPDATE merchant_keys SET revoked_at = :at"
        " WHERE merchant = :id AND key_id = :key_id AND revoked_at IS NULL"
    )
    given = {"id": bytes.fromhex(merchant), "key_id": key_id, "at": at}
    return tx.execute(statement, given).rowcount == 1


def lock_till(tx: Connection, id: bytes) -> None:
    """Let nobody else count what a till did until `tx` ends; it goes on selling meanwhile."""
    tx.execute(text("SELECT FROM tills WHERE id = :id FOR NO KEY UPDATE"), {"id": id})


def till(tx: Connection, merchant: str, code: str) -> Till | None:
    """A merchant's till of this code, if it and its store are open."""
    rows = fetch(tx, _TILL, (bytes.fromhex(merchant), code))
    return Till(*rows[0]) if rows else None


def may_refund(tx: Connection, merchant: str, number: str | None) -> bool:
    """Whether an employee (their number) may give points back: a manager or an owner, or anybody
    of a merchant that named no staff to us."""
    ((staffed, named),) = fetch(
        tx,
        "SELECT count(*), count(*) FILTER (WHERE number = %s AND role IN ('owner', 'manager'))"
        " FROM staff WHERE merchant = %s AND active",
        (number, bytes.fromhex(merchant)),
    )
    return not staffed or bool(named)
