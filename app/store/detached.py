"""Detached payloads: bytes of old entries that left the database for files, and how they are read.

Full bundles lie in one folder as in an export, deflated. What a file says is believed only as far
as it hashes to the tree's own leaves, which stay here. `flows/detach` moves payloads out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text

from app.store.db import fetch
from ledger.errors import LedgerError
from ledger.export import Export
from ledger.merkle import leaf_hash
from ledger.tiles import ENTRIES, WIDTH, Tile, decode_bundle

_THIN: Final = 6  # of so many entries the first one goes first; a page holds about twice as many
_KEPT: Final = 32  # bundles, of some 150 KB each
_open: WeakKeyDictionary[Engine, dict[int, list[bytes]]] = WeakKeyDictionary()


class DetachedUnreadableError(Exception):
    """The file that holds an entry is missing or is not what was sealed."""

    code = "DETACHED_UNREADABLE"


class Detached(NamedTuple):
    """Leaves below `size` lie in files of `folder`; those below `dropped` lie only there."""

    size: int
    dropped: int
    folder: str


def whole(tx: Connection, payload: bytes | None, arrival: int) -> bytes:
    """An entry's bytes: those in its row, or else in its file. Raises DetachedUnreadableError."""
    if payload is not None:
        return payload
    rows = fetch(tx, "SELECT leaf FROM leaf_of(%s)", [arrival])
    if not rows:
        raise DetachedUnreadableError(f"the entry of arrival {arrival} has neither bytes nor leaf")
    return at_leaf(tx, rows[0][0])


def at_leaf(tx: Connection, leaf: int) -> bytes:
    """The bytes of a detached entry. Raises DetachedUnreadableError."""
    index, at = divmod(leaf, WIDTH)
    known = _open.setdefault(tx.engine, {})
    bundle = known.get(index)
    if bundle is None:
        if len(known) >= _KEPT:
            known.clear()
        bundle = known[index] = _read(tx, index)
    return bundle[at]


_TILE = """
SELECT folder, (SELECT hashes FROM tiles WHERE level = 0 AND n = %s) FROM detached
WHERE size > %s"""


def _read(tx: Connection, index: int) -> list[bytes]:
    path = Tile(ENTRIES, index).path
    rows = fetch(tx, _TILE, [index, index * WIDTH])
    if not rows:
        raise DetachedUnreadableError(f"{path} was never written, yet its entries have no bytes")
    folder, hashes = rows[0]
    try:
        bundle = decode_bundle(Export(Path(folder)).read(path))
    except LedgerError as error:
        raise _unreadable(path, str(error)) from error
    if b"".join(map(leaf_hash, bundle)) != hashes:
        raise _unreadable(path, "it does not hold the entries that the log signed.")
    return bundle


def _unreadable(path: str, why: str) -> DetachedUnreadableError:
    return DetachedUnreadableError(
        f"detached entries cannot be read from {path}.gz: {why} Put it back from a backup of the"
        f" folder of `puhui detach`, or put there {path} of an export of this log"
    )


def look_again(engine: Engine) -> None:
    """Read every file anew, also one that this process has read before."""
    _open.pop(engine, None)


def mark(tx: Connection) -> Detached:
    """How far payloads are detached."""
    return Detached(*fetch(tx, "SELECT size, dropped, folder FROM detached", [])[0])


def lock(tx: Connection) -> Detached:
    """The same, and nobody else detaches until `tx` ends. Raises OperationalError if they do."""
    query = "SELECT size, dropped, folder FROM detached FOR UPDATE NOWAIT"
    return Detached(*fetch(tx, query, [])[0])


def move(tx: Connection, size: int, folder: str) -> None:
    """Say that the leaves below `size` lie in files of this folder."""
    query = text("UPDATE detached SET size = greatest(size, :size), folder = :folder")
    tx.execute(query, {"size": size, "folder": folder})


_DROP = """
UPDATE entries SET payload = NULL
WHERE arrival IN (SELECT arrival FROM leaves_between(:first, :end) WHERE {which})
  AND payload IS NOT NULL"""
_DROP_SOME = text(_DROP.format(which=f"leaf % {_THIN} = 0"))
_DROP_REST = text(_DROP.format(which="true"))


def thin(tx: Connection, first: int, end: int) -> None:
    """Drop the payloads of a few leaves from `first` to below `end`, spread over all pages. What
    they held is then room in their own pages for new versions of the other rows, so that dropping
    those touches no index."""
    tx.execute(_DROP_SOME, {"first": first, "end": end})


def drop(tx: Connection, first: int, end: int) -> None:
    """Drop the payloads of leaves from `first` to below `end` that are still there."""
    tx.execute(_DROP_REST, {"first": first, "end": end})
    tx.execute(text("UPDATE detached SET dropped = :end"), {"end": end})


def vacuum(engine: Engine) -> None:
    """Give what payloads held to new entries."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
        tx.exec_driver_sql("VACUUM entries")
