"""Accept a provider's batch: claim its id, credit its activities, keep the answer. One commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows import delays
from app.flows.credit import credit
from app.flows.document import Document, DocumentError, read_document, rejection
from app.flows.item import Credited
from app.store import batches
from app.store.catalogue import Registry
from app.store.db import by_index, transact
from app.vault import Vault


class BatchIdReusedError(Exception):
    """The batch id was used for other bytes before. Nothing was written."""

    code = "BATCH_ID_REUSED"


@dataclass(frozen=True, slots=True)
class Batch:
    """A provider's batch: `body` is the request's raw bytes, `activities` what it lists."""

    provider: str
    batch_id: str
    body: bytes
    activities: Sequence[Any]


def accept(engine: Engine, vault: Vault, registry: Registry, batch: Batch, now: datetime) -> bytes:
    """Return the batch's receipt as JSON bytes; the same batch again gets the same bytes.

    Raises BatchIdReusedError. Two batches that carry the same new activity at the same moment
    collide on the entry's id; the one that lost starts over and finds a duplicate.
    """
    digest = sha256(batch.body).digest()

    def work(tx: Connection) -> tuple[bytes, Counter[int]]:
        known = batches.claim(tx, batch.provider, batch.batch_id)
        if known is None:
            return _answer(tx, vault, registry, batch, digest, now)
        if known.body_digest != digest:
            raise BatchIdReusedError(
                f"batch {batch.batch_id} was answered before with other content;"
                " give the new content a new batch_id"
            )
        return known.receipt, Counter()

    receipt, late = transact(engine, work)
    delays.record(engine, batch.provider, late, now)
    return receipt


def _answer(
    tx: Connection, vault: Vault, registry: Registry, batch: Batch, digest: bytes, now: datetime
) -> tuple[bytes, Counter[int]]:
    """The receipt, and how late what came for the first time came."""
    documents = _read(vault, batch)
    by_index(tx)
    credited = credit(tx, vault, registry.current(tx), batch.provider, documents, now)
    batches.put_rejections(tx, batch.provider, batch.batch_id, credited.rejected, now)
    receipt = orjson.dumps(
        {
            "batch_id": batch.batch_id,
            "received_at": now.astimezone(CITY_ZONE).isoformat(timespec="milliseconds"),
            "counts": _counts(credited),
            "outcomes": credited.outcomes,
        }
    )
    batches.store(tx, batch.provider, batch.batch_id, digest, receipt, now)
    return receipt, delays.count(credited.moments, now)


def _read(vault: Vault, batch: Batch) -> list[Document | dict[str, Any]]:
    """Each activity as a document, or as the outcome of one that has not the form asked for."""
    documents: list[Document | dict[str, Any]] = []
    for raw in batch.activities:
        try:
            documents.append(read_document(vault, batch.provider, raw))
        except DocumentError as error:
            identifier = raw.get("id") if isinstance(raw, dict) else None
            documents.append(rejection(identifier, error.code, str(error)))
    return documents


def _counts(credited: Credited) -> dict[str, int]:
    counts = {"accepted": 0, "duplicate": 0, "unclaimed": 0, "rejected": 0}
    return counts | Counter([item["outcome"] for item in credited.outcomes])
