"""Prove: the receipt that lets anyone check one entry offline, and consistency between heads."""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import Connection, Engine

from app.store import log, statements
from ledger.checkpoint import Checkpoint
from ledger.merkle import consistency_proof, inclusion_proof
from ledger.proof import Receipt
from ledger.tiles import WIDTH, Tile, TileNodes

# Nodes of each database's log, but for the lowest, of which there are most. A proof is made of
# perfect subtrees, which never change while the log lives; whoever restores a database starts the
# program anew.
_known: WeakKeyDictionary[Engine, dict[tuple[int, int], bytes]] = WeakKeyDictionary()
_KEPT_LEVEL: Final = 5
_KEPT: Final = 50_000  # some megabytes
# Full tiles above the lowest level, of which each speaks for 65,536 leaves or more.
_tiles: WeakKeyDictionary[Engine, dict[Tile, bytes]] = WeakKeyDictionary()
_KEPT_TILES: Final = 256  # two megabytes


class NotSealedYetError(Exception):
    """The entry was appended but not sealed; the worker does so within about a second."""

    code = "NOT_SEALED_YET"


class UnknownEntryError(Exception):
    """There is no entry of this id."""

    code = "ENTRY_UNKNOWN"


class BadRangeError(Exception):
    """The sizes asked for are not an old and a newer one of this log."""

    code = "RANGE_INVALID"


def receipt(tx: Connection, entry_id: str, owner: str | None = None) -> Receipt:
    """The tlog-proof of one entry under the newest checkpoint, with the entry itself inside.

    With an `owner`, only that resident's entries are known. Raises UnknownEntryError,
    NotSealedYetError.
    """
    found = log.sealed(tx, entry_id)
    if found is None or owner not in (None, statements.owner(orjson.loads(found.payload))):
        raise UnknownEntryError(f"there is no entry {entry_id}")
    size = checkpoint_size(found.note) if found.note else 0
    if found.note is None or found.leaf is None or found.leaf >= size:
        raise NotSealedYetError(f"entry {entry_id} will be in the log in about a second")
    own, edge = Tile(0, found.leaf >> 8, WIDTH), size >> 8 << 8

    known, tiles = _known.setdefault(tx.engine, {}), _tiles.setdefault(tx.engine, {})

    def read(tile: Tile) -> bytes:
        if tile == own and found.tile:
            return found.tile
        if tile in tiles:
            return tiles[tile]
        # it may have become full between two looks
        hashes = log.read_tile(tx, tile) or log.read_tile(tx, tile)
        if tile.level and tile.width == WIDTH and hashes:
            if len(tiles) >= _KEPT_TILES:
                tiles.clear()
            tiles[tile] = hashes
        return hashes

    nodes = TileNodes(size, read)

    def node(level: int, index: int) -> bytes:
        if level < _KEPT_LEVEL and index << level < edge:
            return nodes.node(level, index)
        if (level, index) not in known:
            if len(known) >= _KEPT:
                known.clear()
            known[level, index] = nodes.node(level, index)
        return known[level, index]

    proof = inclusion_proof(found.leaf, size, node)
    return Receipt(found.leaf, tuple(proof), found.note, found.payload)


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
