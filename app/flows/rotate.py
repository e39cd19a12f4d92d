"""Rotate the log key: a new one beside the old, and the old one's word for it in the log.

The entry's id follows from the new key, so from the newest key on all earlier ones are found.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine

from app.store import entries, log
from app.vault import Vault, add_log_key
from ledger.entries import Entry, instant
from ledger.errors import Refused
from ledger.keys import MAX_KEYS, Term, history, rotation
from ledger.note import Verifier
from ledger.transfers import rotate_key


def rotate_log_key(engine: Engine, vault: Vault, folder: Path, now: datetime) -> Entry:
    """Write the new key's file and append the rotation. Raises Refused while two keys sign."""
    if len(vault.ring.signers) >= MAX_KEYS:
        raise Refused("Two log keys sign already; remove the older one's file first.")
    old = vault.ring.signers[-1]
    vkey = add_log_key(folder, vault.ring.origin)
    detail = rotation(old, Verifier.parse(vkey))
    entry = rotate_key(id=_entry_id(vault, vkey), at=instant(now), detail=detail)
    with engine.begin() as tx:
        entries.append(tx, [entry])
    return entry


def key_history(tx: Connection, vault: Vault) -> tuple[Term, ...]:
    """Every key that ever signed the log, the newest first; one whose handover is not sealed yet
    has signed nothing."""
    newest = key = vault.ring.verifiers[-1]
    rotations = []
    while found := entries.find(tx, _entry_id(vault, key.vkey)):
        arrival, entry = found
        leaf = log.leaf_of(tx, arrival)
        key = Verifier.parse(entry.detail["old"])
        if leaf is None:
            newest = key
        else:
            rotations.append((leaf, entry.detail))
    return history(newest, rotations)


def _entry_id(vault: Vault, vkey: str) -> str:
    return vault.entry_id("rotate", vkey)
