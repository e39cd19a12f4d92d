"""Detach: bytes of old entries leave the database for files, from which all still read them.

Stretch by stretch, each a transaction or two, by number:

1. lock the mark: one at a time;
2. write every full bundle that is not there yet, deflated, at its place in an export; sync it;
3. read every bundle back and grow the tree by it; the tree must be the beginning of that of the
   checkpoint which is kept outside the database;
4. move the mark. Only below it, and only the payload, does the database let go;
5. drop the payloads, first a few on every page, then the rest: what the first held makes room on
   their own pages, so that no index is touched and the table stays as it lies.

Killed at any point, nothing is lost, and running it again goes on. Ids, kinds, postings, openings
and tiles stay: what may happen only once still does, and an erasure still reaches what it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from app.store import detached, log
from app.vault import Vault
from ledger import checkpoint
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError
from ledger.export import Export
from ledger.merkle import consistency_proof, leaf_hash, verify_consistency
from ledger.tiles import (
    ENTRIES,
    PACKED,
    WIDTH,
    Edge,
    Tile,
    TileNodes,
    decode_bundle,
    encode_bundle,
    pack,
)

STRETCH: Final = 64 * WIDTH
"""Entries between two commits."""

Progress = Callable[[int, int], None]


class DetachError(Exception):
    """What was to leave the database does not hold, and has not left it."""

    code = "DETACH_REFUSED"


class _Place(NamedTuple):
    """Where bundles go, and the checkpoint that they are held against."""

    folder: Path
    trusted: Checkpoint
    head_file: Path


def detach(
    owner: Engine,
    vault: Vault,
    head_file: Path,
    folder: Path,
    before: datetime,
    progress: Progress = lambda done, size: None,
) -> int:
    """Move the payloads of all full bundles that were sealed before a moment into a folder; how
    many entries lie there now. `owner` is the schema's owner, `head_file` the checkpoint outside.

    Another folder than the last time must hold a copy of all that was detached before; it is
    checked anew and taken in its place. Raises DetachError, DetachedUnreadableError, LedgerError.
    """
    trusted = checkpoint.open(head_file.read_bytes(), vault.ring.verifiers, vault.ring.origin)
    place = _Place(folder.absolute(), trusted, head_file)
    with owner.connect() as tx:
        mark = detached.mark(tx)
        sealed = min(log.sealed_before(tx, before), trusted.size)
        start = mark.dropped if mark.folder == str(place.folder) else 0
        edge = Edge.read(start, lambda tile: log.read_tile(tx, tile))
    limit = max(sealed // WIDTH * WIDTH, mark.dropped)
    for first in range(start, limit, STRETCH):
        end = min(first + STRETCH, limit)
        with owner.begin() as tx:
            edge = _put(tx, place, edge, end)
        if end > mark.dropped:
            for some in (detached.thin, detached.drop):  # step 5
                with owner.begin() as tx:
                    some(tx, first, end)
        progress(end, limit)
    detached.vacuum(owner)
    return limit


def _put(tx: Connection, place: _Place, edge: Edge, end: int) -> Edge:
    """Steps 1 to 4, for the leaves that follow the edge's; the edge after them."""
    try:
        mark = detached.lock(tx)  # step 1
    except OperationalError as error:
        raise DetachError("somebody else detaches at this moment; wait for their end") from error
    bundles = [Tile(ENTRIES, index) for index in range(edge.size // WIDTH, end // WIDTH)]
    written = [_write(tx, place, one) for one in bundles if one.index * WIDTH >= mark.dropped]
    parents = {parent for path in written for parent in path.parents}
    _sync(parent for parent in parents if parent.is_relative_to(place.folder))
    grown = edge.grow(b"".join(_hashes(tx, place, one) for one in bundles))[1]  # step 3
    nodes = TileNodes(  # a tile may become full between two looks
        place.trusted.size, lambda tile: log.read_tile(tx, tile) or log.read_tile(tx, tile)
    )
    try:
        proof = consistency_proof(end, place.trusted.size, nodes.node)
        verify_consistency(end, place.trusted.size, proof, grown.root(), place.trusted.root)
    except LedgerError as error:
        raise DetachError(
            f"the first {end} entries are not those of the checkpoint in {place.head_file}:"
            f" {error} Nothing of them was removed; run `puhui check`"
        ) from error
    if end >= mark.dropped:
        detached.move(tx, end, str(place.folder))  # step 4
    return grown


def _write(tx: Connection, place: _Place, bundle: Tile) -> Path:
    """Step 2: the file of a bundle."""
    path = place.folder / (bundle.path + PACKED)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        payloads = log.payloads(tx, bundle.index * WIDTH, WIDTH)
        with part.open("wb") as file:
            file.write(pack(encode_bundle(payloads)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        (place.folder / bundle.path).unlink(missing_ok=True)  # of an export into this folder
    return path


def _sync(folders: Iterable[Path]) -> None:
    """Names, too, must be on the disk before what they stand for is dropped."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hashes(tx: Connection, place: _Place, bundle: Tile) -> bytes:
    """The leaf hashes of a bundle as its file has it. Raises DetachError."""
    try:
        payloads = decode_bundle(Export(place.folder).read(bundle.path))
        why = "It does not hold what was sealed."
    except LedgerError as error:
        payloads, why = [], str(error)
    hashes = b"".join(map(leaf_hash, payloads))
    if hashes != log.read_tile(tx, Tile(0, bundle.index)):
        raise DetachError(
            f"{place.folder / bundle.path}{PACKED}: {why} If its entries are in the database still,"
            " remove the file, else put there one from a backup; then run this again. If that does"
            " not help, `puhui check` says what was changed"
        )
    return hashes
