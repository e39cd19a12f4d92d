"""The audit trail: what an administrator does is an entry of the ledger, in the same transaction.

The entry commits to the record (SHA-256 of a salt and the record's canonical bytes) and shows the
public log no more than which kind of act it was; the record is for auditors.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, Engine

from app.store import entries, trail
from app.store.db import snapshot
from app.vault import SALT_BYTES
from ledger.encoding import commit, encode
from ledger.entries import instant
from ledger.errors import Malformed
from ledger.trail import MAX_RECORD
from ledger.transfers import record_action


def act(
    tx: Connection, actor: str, action: str, target: str, detail: dict[str, Any], now: datetime
) -> str:
    """Record that `actor` did `action` (such as "draft.approved") to `target`; the entry's id.

    `detail` is made of str, int, lists and objects; it names no resident and holds no secret.
    What is long (a draft's body) goes in as a digest. To be called last in its transaction, like
    everything that appends. Raises Malformed for what has no canonical form or is too long.
    """
    at, salt = instant(now), os.urandom(SALT_BYTES)
    record = encode(
        {"action": action, "actor": actor, "at": at, "detail": detail, "target": target}
    )
    if len(record) > MAX_RECORD:
        raise Malformed(f"A record takes at most {MAX_RECORD} bytes, not {len(record)}.")
    entry = record_action(id=token_hex(16), at=at, action=action, commitment=commit(salt, record))
    (arrival,) = entries.append(tx, [entry])
    trail.add(tx, arrival, datetime.fromisoformat(at), (actor, action, target), record, salt)
    return entry.id


def export_trail(engine: Engine, wanted: trail.Wanted) -> Iterator[bytes]:
    """The sealed acts as JSON lines {"index", "record", "salt"}, which an export's audit reads as
    its `trail.jsonl`: salt and record are the opening of the log's entry of that index."""
    with snapshot(engine) as tx:
        yield from lines(tx, wanted)


def lines(tx: Connection, wanted: trail.Wanted) -> Iterator[bytes]:
    """What `export_trail` yields, within a snapshot of the caller's."""
    for one in trail.sealed(tx, wanted):
        line = {"index": one.leaf, "record": one.record.decode(), "salt": one.salt.hex()}
        yield encode(line) + b"\n"
