"""Prove: the receipt that lets anyone check one entry offline, and consistency between heads."""

from __future__ import annotations

from sqlalchemy import Connection

from app.store import entries, log
from ledger.checkpoint import Checkpoint
from ledger.merkle import consistency_proof, inclusion_proof
from ledger.proof import Receipt
from ledger.tiles import TileNodes


class NotSealedYetError(Exception):
    """The entry was appended but not sealed; the worker does so within about a second."""

    code = "NOT_SEALED_YET"


class UnknownEntryError(Exception):
    """There is no entry of this id."""

    code = "ENTRY_UNKNOWN"


class BadRangeError(Exception):
    """The sizes asked for are not an old and a newer one of this log."""

    code = "RANGE_INVALID"


def receipt(tx: Connection, entry_id: str) -> Receipt:
    """The tlog-proof of one entry under the newest checkpoint, with the entry itself inside.

    Raises UnknownEntryError, NotSealedYetError.
    """
    found = entries.find(tx, entry_id)
    if found is None:
        raise UnknownEntryError(f"there is no entry {entry_id}")
    arrival, entry = found
    note = log.latest_checkpoint(tx)
    leaf = log.leaf_of(tx, arrival)
    size = checkpoint_size(note) if note else 0
    if note is None or leaf is None or leaf >= size:
        raise NotSealedYetError(f"entry {entry_id} will be in the log in about a second")
    nodes = TileNodes(size, lambda tile: log.read_tile(tx, tile))
    proof = inclusion_proof(leaf, size, nodes.node)
    return Receipt(leaf, tuple(proof), note, entry.payload())


def consistency(tx: Connection, old: int, new: int) -> list[bytes]:
    """The hashes that prove the tree of `old` leaves is the beginning of that of `new`.

    Raises BadRangeError.
    """
    size = log.head(tx).size
    if not 0 < old <= new <= size:
        raise BadRangeError(f"old and new must satisfy 1 <= old <= new <= {size}")
    nodes = TileNodes(new, lambda tile: log.read_tile(tx, tile))
    return consistency_proof(old, new, nodes.node)


def checkpoint_size(note: str) -> int:
    """The size a checkpoint of our own speaks for."""
    return Checkpoint.parse(note.partition("\n\n")[0] + "\n").size
