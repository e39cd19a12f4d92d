"""Rotate the log key: a new one beside the old, and the old one's word for it in the log."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from app.store import entries
from app.vault import Vault, add_log_key
from ledger.entries import Entry, instant
from ledger.errors import Refused
from ledger.keys import MAX_KEYS, rotation
from ledger.note import Verifier
from ledger.transfers import rotate_key


def rotate_log_key(engine: Engine, vault: Vault, folder: Path, now: datetime) -> Entry:
    """Write the new key's file and append the rotation. Raises Refused while two keys sign."""
    if len(vault.ring.signers) >= MAX_KEYS:
        raise Refused("Two log keys sign already; remove the older one's file first.")
    old = vault.ring.signers[-1]
    vkey = add_log_key(folder, vault.ring.origin)
    detail = rotation(old, Verifier.parse(vkey))
    entry = rotate_key(id=vault.entry_id("rotate", vkey), at=instant(now), detail=detail)
    with engine.begin() as tx:
        entries.append(tx, [entry])
    return entry
