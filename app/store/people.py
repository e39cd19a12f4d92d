"""Residents, what binds them to providers' identifiers, their openings and counters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import starmap
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store import consents, packed
from app.store.db import bytea_array, fetch, int_array, text_array
from app.store.packed import copy_packed
from ledger.accounts import AccountKind, Asset
from ledger.entries import Entry


class Member(NamedTuple):
    """A resident as intake needs one: account token and its bytes, wrapped key, the scenarios that
    this source may report (of those asked about), and whether the resident has restricted all
    processing."""

    resident: str
    account: bytes
    wrapped_key: bytes
    consented: frozenset[str]
    restricted: bool


_tuple = tuple.__new__  # the hot path: a named tuple is a tuple
_ASSETS = {asset.code: asset for asset in Asset}


def join(tx: Connection, resident: str, wrapped_key: bytes, district: str, now: datetime) -> None:
    """Add a resident under a random account token."""
    tx.execute(
        text(
            "INSERT INTO residents (id, wrapped_key, district, joined_at)"
            " VALUES (:id, :key, :district, :now)"
        ),
        {"id": bytes.fromhex(resident), "key": wrapped_key, "district": district, "now": now},
    )


_BIND = text("""
INSERT INTO bindings (subject, resident, provider, bound_at)
SELECT b.*, :provider, :now
FROM unnest(CAST(:subjects AS bytea[]), CAST(:residents AS bytea[])) AS b
ON CONFLICT DO NOTHING RETURNING subject""")


def bind(tx: Connection, provider: str, bonds: Mapping[bytes, str], now: datetime) -> set[bytes]:
    """Tie a provider's hashed identifiers to residents; return those that were bound to nobody.

    The consents that a resident has given this provider hold for the new identifier too.
    """
    residents = [bytes.fromhex(resident) for resident in bonds.values()]
    parameters = {
        "subjects": bytea_array(bonds),
        "residents": bytea_array(residents),
        "provider": provider,
        "now": now,
    }
    bound = set(tx.execute(_BIND, parameters).scalars())
    consents.put_in_force(tx, provider, residents)
    return bound


def bound_to(tx: Connection, subjects: Sequence[bytes]) -> dict[bytes, str]:
    """Which of these hashed identifiers are bound, and to whom."""
    rows = tx.execute(
        text(
            "SELECT subject, resident FROM bindings WHERE subject = ANY(CAST(:subjects AS bytea[]))"
        ),
        {"subjects": bytea_array(subjects)},
    )
    return {row.subject: row.resident.hex() for row in rows}


# After waiting for a lock both rows are read anew: a consent withdrawn meanwhile is gone. By = ANY
# an index is walked once, in its own order; joined with unnest it is searched anew for each.
_RESOLVE = """
SELECT b.subject, r.id, r.wrapped_key, b.consent_set, r.restricted_at IS NOT NULL
FROM bindings b JOIN residents r ON r.id = b.resident AND r.erased_at IS NULL
WHERE b.subject = ANY(%s::bytea[])
ORDER BY r.id FOR KEY SHARE OF r FOR SHARE OF b"""
_CONSENTED = text("""
SELECT c.id, array_agg(s.scenario)
FROM consent_sets c JOIN unnest(CAST(:scenarios AS text[])) AS s (scenario)
  ON s.scenario = ANY(c.scenarios)
WHERE c.id = ANY(CAST(:sets AS integer[])) GROUP BY c.id""")


def resolve_and_lock(
    tx: Connection, subjects: Sequence[bytes], scenarios: Collection[str]
) -> dict[bytes, Member]:
    """Whom these identifiers mean; those residents cannot be erased, unbind, withdraw a consent or
    come to owe something meanwhile. They can spend until `end_spending`.

    The lock is shared: batches of several providers credit the same people side by side, and meet
    only where they count towards the same limit (`lock_counters`) or add to the same balance.
    """
    rows = fetch(tx, _RESOLVE, [bytea_array(subjects)])
    sets = {
        "sets": int_array({row[3] for row in rows}),
        "scenarios": text_array(scenarios),
    }
    consented = {row[0]: frozenset(row[1]) for row in tx.execute(_CONSENTED, sets)} if rows else {}
    none: frozenset[str] = frozenset()
    return {
        subject: _tuple(Member, (who.hex(), who, key, consented.get(own, none), restricted))
        for subject, who, key, own, restricted in rows
    }


_END_SPENDING = """
WITH held AS MATERIALIZED (
  SELECT FROM residents WHERE id = ANY(%s::bytea[]) ORDER BY id FOR SHARE)
SELECT count(*) FROM held"""


def end_spending(tx: Connection, accounts: Collection[bytes]) -> None:
    """Wait for whoever of these is spending, and let none of them spend until the commit; to be
    called before entries that credit them are numbered. Who spends takes what expires first, and an
    audit holds each spending against all that came before it: no points may come in between that
    the spender did not see."""
    fetch(tx, _END_SPENDING, [bytea_array(accounts)])


def lock(tx: Connection, resident: str) -> bytes | None:
    """Lock one resident; return the wrapped key, or None if there is no such living account."""
    return tx.execute(
        text("SELECT wrapped_key FROM residents WHERE id = :id AND erased_at IS NULL FOR UPDATE"),
        {"id": bytes.fromhex(resident)},
    ).scalar()


def lock_spending(tx: Connection, resident: str) -> bool:
    """Lock one resident as `lock` does, but against a batch only while that writes its entries;
    whether there is such a living account."""
    query = "SELECT FROM residents WHERE id = :id AND erased_at IS NULL FOR NO KEY UPDATE"
    return tx.execute(text(query), {"id": bytes.fromhex(resident)}).first() is not None


# 3 is AccountKind.DEBT, spelled out so that the planner sees the partial index's own condition.
_DEBTS = """
SELECT account, asset, amount FROM balances
WHERE account = ANY(%s::bytea[]) AND account_kind = 3 AND amount > 0
ORDER BY account, asset FOR NO KEY UPDATE"""


def debts(tx: Connection, accounts: Collection[bytes]) -> dict[str, dict[Asset, int]]:
    """What each resident owes, of those who owe anything; what is owed is locked."""
    owed: dict[str, dict[Asset, int]] = {}
    rows = fetch(tx, _DEBTS, [bytea_array(accounts)])
    for account, asset, amount in rows:
        owed.setdefault(account.hex(), {})[_ASSETS[asset]] = amount
    return owed


def repay(owed: dict[str, dict[Asset, int]], entry: Entry) -> None:
    """Keep what is owed in step with an entry that repays some of it."""
    for account, asset, _, amount in entry.postings:
        if account.kind is AccountKind.DEBT:
            owed[account.token][asset] += amount


def wallet(tx: Connection, resident: str) -> dict[tuple[Asset, int], int]:
    """The resident's own balances: (asset, bucket) -> amount, without empty buckets."""
    rows = tx.execute(
        text(
            "SELECT asset, bucket, amount FROM balances"
            " WHERE account = :id AND account_kind = :kind AND amount > 0"
        ),
        {"id": bytes.fromhex(resident), "kind": AccountKind.RESIDENT.code},
    )
    return {(_ASSETS[row.asset], row.bucket): row.amount for row in rows}


def points_by_bucket(resident: str) -> str:
    """The query of `buckets` and `amounts` of the points that the resident holds whom this
    expression names: two arrays, or NULLs."""
    return (
        "SELECT array_agg(bucket ORDER BY bucket) AS buckets,"  # noqa: S608 (our own names)
        " array_agg(amount ORDER BY bucket) AS amounts"
        f" FROM balances b WHERE b.account = {resident} AND b.amount > 0"
        f" AND b.account_kind = {AccountKind.RESIDENT.code} AND b.asset = {Asset.POINT.code}"
    )


def put_openings(tx: Connection, openings: Iterable[tuple[int, bytes, bytes]]) -> None:
    """Store (arrival, resident, sealed opening)."""
    columns = ("arrival", "resident", "sealed")
    copy_packed(tx, "openings", columns, starmap(packed.opening, openings))


def opening(tx: Connection, arrival: int) -> bytes | None:
    """One entry's sealed opening; None if it has none or its person was erased."""
    return tx.execute(
        text("SELECT sealed FROM openings WHERE arrival = :arrival"), {"arrival": arrival}
    ).scalar()


def held(tx: Connection, resident: str) -> int:
    """Points on hold."""
    total = tx.execute(
        text("SELECT sum(amount) FROM balances WHERE account = :id AND account_kind = :kind"),
        {"id": bytes.fromhex(resident), "kind": AccountKind.HELD.code},
    ).scalar()
    return int(total or 0)


_FORGET = (
    "DELETE FROM openings o USING own_postings(:id, 0) p WHERE o.arrival = p.arrival",
    "DELETE FROM unclaimed u USING bindings b WHERE b.resident = :id AND u.subject = b.subject",
    "DELETE FROM binding_codes c USING bindings b"
    " WHERE b.resident = :id AND c.provider = b.provider AND c.subject = b.subject",
    "DELETE FROM binding_disputes WHERE :id IN (claimant, holder)",
    "DELETE FROM bindings WHERE resident = :id",
    "DELETE FROM consents WHERE resident = :id",
    "DELETE FROM usage WHERE resident = :id AND period IN (SELECT used_periods())",
    "DELETE FROM rejections WHERE resident = :id",
    "DELETE FROM waiting WHERE resident = :id",
    "DELETE FROM messages WHERE resident = :id",
    "DELETE FROM subscriptions WHERE resident = :id",
    "DELETE FROM appeals WHERE resident = :id",
    "DELETE FROM logins WHERE resident = :id",
    "DELETE FROM refresh_tokens WHERE resident = :id",
    # the account's access tokens from up to this second end; the worker drops the row in an hour
    "INSERT INTO sign_outs (bearer, at) VALUES (:id, CAST(:now AS timestamptz) + interval '1 s')"
    " ON CONFLICT (bearer) DO UPDATE SET at = greatest(sign_outs.at, excluded.at)",
    "DELETE FROM phones WHERE resident = :id",
    "DELETE FROM privacy_acceptances WHERE resident = :id",
    "DELETE FROM guardian_codes WHERE resident = :id",
    "DELETE FROM step_days WHERE resident = :id",
    # what was shown once stays known by its keyed hash, but no longer who showed it
    "UPDATE evidence SET report = NULL, resident = NULL, sealed = NULL WHERE resident = :id",
    "DELETE FROM reports WHERE resident = :id",
    "DELETE FROM challenge_members WHERE resident = :id",
    "DELETE FROM rankings WHERE resident = :id",
    "DELETE FROM friend_codes WHERE resident = :id",
    "DELETE FROM friends WHERE :id IN (resident, friend)",
    "DELETE FROM archives WHERE resident = :id",
    "DELETE FROM farewells WHERE resident = :id",
    # what was paid for stays three years, no longer tied to anybody
    "UPDATE charges SET resident = NULL, device = NULL WHERE resident = :id",
    "DELETE FROM pay_codes WHERE resident = :id",
    "UPDATE orders SET resident = NULL WHERE resident = :id",
    "UPDATE vouchers SET resident = NULL, sealed = NULL WHERE resident = :id",
    "UPDATE staff SET resident = NULL WHERE resident = :id",
    "UPDATE cases SET resident = NULL WHERE resident = :id",
    "DELETE FROM answers WHERE scope = 'resident ' || encode(:id, 'hex')",
    "UPDATE residents SET guardian = NULL WHERE guardian = :id",
    "UPDATE residents SET wrapped_key = NULL, district = NULL, minor_until = NULL,"
    " guardian = NULL, restricted_at = NULL, joined_at = coalesce(erased_at, :now),"
    " erased_at = coalesce(erased_at, :now) WHERE id = :id",
)


# One statement: all its parts see the rows as they were, so that their order does not matter.
_FORGET_ALL = text(
    "WITH " + ", ".join(f"f{n} AS ({part})" for n, part in enumerate(_FORGET)) + " SELECT"
)


def forget(tx: Connection, resident: str, now: datetime) -> None:
    """Remove all that ties the account to a person; the account's balances stay, unreachable."""
    tx.execute(_FORGET_ALL, {"id": bytes.fromhex(resident), "now": now})


_OPENINGS = text("""
SELECT l.leaf, e.id, r.id, r.wrapped_key, o.sealed
FROM leaves_between(:first, :last) l
JOIN openings o USING (arrival)
JOIN entries e USING (arrival)
JOIN residents r ON r.id = o.resident
ORDER BY l.leaf""")
_OPENINGS_PAGE = 10_000


def openings(tx: Connection, size: int) -> Iterator[tuple[int, str, str, bytes, bytes]]:
    """Every opening below a leaf: (leaf, entry id, resident, wrapped key, sealed opening)."""
    for first in range(0, size, _OPENINGS_PAGE):
        last = min(first + _OPENINGS_PAGE, size)
        for row in tx.execute(_OPENINGS, {"first": first, "last": last}):
            yield row[0], row[1].hex(), row[2].hex(), row[3], row[4]
