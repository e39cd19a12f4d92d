"""What providers sent: batches with their receipts, rejections, and acts nobody claimed yet."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array, copy_in, text_array


class Known(NamedTuple):
    """A batch already answered: the digest of its body, and the answer's bytes."""

    body_digest: bytes
    receipt: bytes


class Refused(NamedTuple):
    """An activity that was refused, by its place in the batch; `scenario` is None if there is none
    of this name."""

    resident: bytes
    position: int
    activity_id: str
    scenario: str | None
    code: str
    detail: str


def claim(tx: Connection, provider: str, batch_id: str) -> Known | None:
    """Wait for anybody who handles this batch now; return the answer if it was given already."""
    name = f"{provider}\n{batch_id}"
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    return find(tx, provider, batch_id)


def find(tx: Connection, provider: str, batch_id: str) -> Known | None:
    """The stored receipt of a batch."""
    row = tx.execute(
        text(
            "SELECT body_digest, receipt FROM batches"
            " WHERE provider = :provider AND batch_id = :batch_id"
        ),
        {"provider": provider, "batch_id": batch_id},
    ).first()
    return Known(row.body_digest, zlib.decompress(row.receipt)) if row else None


def store(
    tx: Connection, provider: str, batch_id: str, digest: bytes, receipt: bytes, now: datetime
) -> None:
    """Keep the answer to a batch. It is never changed."""
    tx.execute(
        text(
            "INSERT INTO batches (provider, batch_id, body_digest, received_at, receipt)"
            " VALUES (:provider, :batch_id, :digest, :now, :receipt)"
        ),
        {
            "provider": provider,
            "batch_id": batch_id,
            "digest": digest,
            "now": now,
            "receipt": zlib.compress(receipt, 1),
        },
    )


def put_rejections(
    tx: Connection,
    provider: str,
    batch: str,
    rejected: Iterable[Refused],
    now: datetime,
) -> None:
    """Keep these of a batch for 'why not'."""
    copy_in(
        tx,
        "rejections",
        {
            "resident": "bytea",
            "provider": "text",
            "batch_id": "text",
            "position": "int4",
            "activity_id": "text",
            "scenario": "text",
            "code": "text",
            "detail": "text",
            "recorded_at": "timestamptz",
        },
        ((who, provider, batch, *rest, now) for who, *rest in rejected),
    )


def put_shadow_refusals(
    tx: Connection, rows: Iterable[tuple[datetime, str, str, int, str, int, int]]
) -> None:
    """Keep (now, provider, scenario, number, rule, acts, mg): what a shadow rule would refuse."""
    copy_in(
        tx,
        "shadow_refusals",
        {
            "recorded_at": "timestamptz",
            "provider": "text",
            "scenario": "text",
            "number": "int4",
            "rule": "text",
            "acts": "int4",
            "reduction_mg": "int8",
        },
        rows,
    )


class Unclaimed(NamedTuple):
    """An act whose resident is not bound yet; its content is sealed under the vault's key."""

    activity_id: str
    sealed: bytes
    received_at: datetime


def put_unclaimed(
    tx: Connection, provider: str, rows: Sequence[tuple[str, bytes, bytes]], now: datetime
) -> dict[str, tuple[bytes, bytes]]:
    """Keep (activity id, subject hash, sealed document) until the resident binds.

    An id keeps what first came under it: returns (subject, sealed document) of each id that was
    there before, or is given more than once.
    """
    new = tx.execute(
        text(
            "INSERT INTO unclaimed (provider, activity_id, subject, sealed, received_at)"
            " SELECT :provider, u.*, :now FROM unnest(CAST(:ids AS text[]),"
            " CAST(:subjects AS bytea[]), CAST(:sealed AS bytea[])) AS u"
            " ON CONFLICT DO NOTHING RETURNING activity_id"
        ),
        {
            "provider": provider,
            "now": now,
            "ids": text_array(row[0] for row in rows),
            "subjects": bytea_array(row[1] for row in rows),
            "sealed": bytea_array(row[2] for row in rows),
        },
    ).scalars()
    again = Counter(row[0] for row in rows)
    again.subtract(new)
    ids = [name for name, more in again.items() if more]
    if not ids:
        return {}
    found = tx.execute(
        text(
            "SELECT activity_id, subject, sealed FROM unclaimed"
            " WHERE provider = :provider AND activity_id = ANY(CAST(:ids AS text[]))"
        ),
        {"provider": provider, "ids": text_array(ids)},
    )
    return {row[0]: (row[1], row[2]) for row in found}


def drop_unclaimed(tx: Connection, provider: str, activity_id: str) -> bool:
    """Forget one act that nobody claimed; False if it is not there."""
    statement = text("DELETE FROM unclaimed WHERE provider = :provider AND activity_id = :id")
    return tx.execute(statement, {"provider": provider, "id": activity_id}).rowcount == 1


def claimable(tx: Connection, limit: int) -> list[tuple[str, bytes]]:
    """(provider, subject) of acts that are kept although somebody is bound to their subject, and
    for all we know without opening them consents to their scenario."""
    rows = tx.execute(
        text(
            "SELECT DISTINCT u.provider, u.subject FROM unclaimed u"
            " JOIN bindings b ON b.subject = u.subject"
            " JOIN consent_sets c ON c.id = b.consent_set"
            " JOIN residents r ON r.id = b.resident AND r.restricted_at IS NULL"
            " WHERE u.scenario IS NULL OR u.scenario = ANY(c.scenarios) LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [(row.provider, row.subject) for row in rows]


def unclaimed(tx: Connection, provider: str, subject: bytes) -> list[Unclaimed]:
    """What waits for this identifier, locked."""
    rows = tx.execute(
        text(
            "SELECT activity_id, sealed, received_at FROM unclaimed"
            " WHERE provider = :provider AND subject = :subject ORDER BY activity_id FOR UPDATE"
        ),
        {"provider": provider, "subject": subject},
    )
    return [Unclaimed(*row) for row in rows]


def take_unclaimed(tx: Connection, provider: str, ids: Sequence[str]) -> None:
    """Remove acts that are credited now."""
    tx.execute(
        text(
            "DELETE FROM unclaimed"
            " WHERE provider = :provider AND activity_id = ANY(CAST(:ids AS text[]))"
        ),
        {"provider": provider, "ids": text_array(ids)},
    )


def await_consent(tx: Connection, provider: str, acts: Sequence[tuple[str, str]]) -> None:
    """Note of each (activity id, scenario) that it waits for the consent of somebody bound."""
    tx.execute(
        text(
            "UPDATE unclaimed u SET scenario = a.scenario"
            " FROM unnest(CAST(:ids AS text[]), CAST(:scenarios AS text[])) AS a (id, scenario)"
            " WHERE u.provider = :provider AND u.activity_id = a.id"
            " AND u.scenario IS DISTINCT FROM a.scenario"
        ),
        {
            "provider": provider,
            "ids": text_array(name for name, _ in acts),
            "scenarios": text_array(scenario for _, scenario in acts),
        },
    )


def unclaimed_page(
    tx: Connection, provider: str, after: str, limit: int
) -> list[tuple[str, datetime]]:
    """A page of a provider's unclaimed activity ids, in their own order."""
    rows = tx.execute(
        text(
            "SELECT activity_id, received_at FROM unclaimed"
            " WHERE provider = :provider AND activity_id > :after"
            " ORDER BY activity_id LIMIT :limit"
        ),
        {"provider": provider, "after": after, "limit": limit},
    )
    return [(row.activity_id, row.received_at) for row in rows]
