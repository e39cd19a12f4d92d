"""The audit's two halves of a replay: checking ranges of bundles apart, taking them in order.

A range needs nothing of its neighbours, so worker processes check its hashes and the form of its
entries; what must be in order, the ``Book`` and the tree above the leaves, follows in one
process. Ranges travel as ``marshal`` bytes, which cost a quarter of pickled entries.
"""

import marshal
from collections import Counter
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from ledger.accounts import ASSETS, Account
from ledger.book import Book
from ledger.checkpoint import Checkpoint
from ledger.entries import KINDS, Entry, Kind, Posting
from ledger.errors import LedgerError
from ledger.export import Export, Fault, JsonEntry, Leaves, bundle_path, tile_hash
from ledger.tiles import WIDTH, Edge, Tile

RECENT = 65536  # entries other than issues kept whole, for those that soon answer them
_INDEX_BYTES = 6
_ID_BYTES = 16
_ROW = _ID_BYTES + _INDEX_BYTES

_posting = tuple.__new__  # the hot path: a named tuple is a tuple


def check_range(directory: Path, size: int, first: int, last: int) -> bytes:
    """Check bundles ``first`` to ``last`` - 1 by themselves; the result is ``Replay.take``'s."""
    export = Export(directory)
    entries: list[JsonEntry] = []
    roots, edge = b"", b""
    fault = None
    for index in range(first, last):
        width = min(WIDTH, size - index * WIDTH)
        row = export.row(index, width)
        entries += row.entries
        if row.fault:
            fault = row.fault.args
            break
        if width == WIDTH:
            roots += tile_hash(row.hashes)
        else:
            edge = row.hashes
    return marshal.dumps((entries, roots, edge, fault))


class Seen(MutableMapping[str, Entry]):
    """The entries of an export by id, in little memory: the id and leaf index of each.

    Entries that are no issues are kept whole for a while; all others are read again.
    """

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._rows = [bytearray() for _ in range(1 << 16)]
        self._recent: dict[str, Entry] = {}
        self._count = 0

    def leaf(self, id: str) -> int | None:
        """The leaf index of an id."""
        row = self._rows[int(id[:4], 16)]
        key = bytes.fromhex(id)
        at = row.find(key)
        while at % _ROW and at > 0:  # found across two rows
            at = row.find(key, at + 1)
        return None if at < 0 else int.from_bytes(row[at + _ID_BYTES : at + _ROW])

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.leaf(id) is not None

    def __getitem__(self, id: str) -> Entry:
        if id in self._recent:
            return self._recent[id]
        leaf = self.leaf(id)
        if leaf is None:
            raise KeyError(id)
        return self._leaves.entry(leaf)

    def __setitem__(self, id: str, entry: Entry) -> None:
        row = self._rows[int(id[:4], 16)]
        row += bytes.fromhex(id) + self._count.to_bytes(_INDEX_BYTES)
        self._count += 1
        if entry.kind is not Kind.ISSUE:
            if len(self._recent) == RECENT:
                del self._recent[next(iter(self._recent))]
            self._recent[id] = entry

    def __delitem__(self, id: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._count


class Replay:
    """Ranges taken in order: the book, and the tree above the leaves."""

    def __init__(self, export: Export, size: int) -> None:
        self._export = export
        self._size = size
        self._seen = Seen(Leaves(export, size))
        self._upper = Edge()  # the tree above level 0: its leaves are the full tiles' hashes
        self._edge = b""
        self._accounts: dict[str, Account] = {}  # one object an account, however often it is named
        self.book = Book(self._seen)
        self.kinds: Counter[str] = Counter()
        self.issues = 0  # entries that cite a rule, so have an opening
        self.reversals: dict[int, int] = {}  # leaf of the entry reversed -> leaf of the reversal

    def take(self, packed: bytes) -> None:
        """Take a range that ``check_range`` checked; raises ``Fault``."""
        entries, roots, edge, fault = marshal.loads(packed)  # noqa: S302  (from our own worker)
        for value in entries:
            leaf = self.book.size
            entry = self._entry(*value)
            try:
                self.book.apply(entry)
            except LedgerError as error:
                where = bundle_path(leaf, self._size)
                raise Fault(leaf, where, f"{entry.kind} {entry.id}: {error}") from error
            self._count(leaf, entry)
        if fault:
            raise Fault(*fault)
        full, self._upper = self._upper.grow(roots)
        self._check_tiles(full)
        self._edge = edge

    def _entry(
        self, id: str, kind: str, at: str, lines: list[list[Any]], detail: dict[str, Any]
    ) -> Entry:
        postings = []
        for name, asset, bucket, amount in lines:
            account = self._accounts.get(name)
            if account is None:
                account = self._accounts[name] = Account.parse(name)
            postings.append(_posting(Posting, (account, ASSETS[asset], bucket, amount)))
        return Entry.trusted(id, KINDS[kind], at, tuple(postings), detail)

    def _count(self, leaf: int, entry: Entry) -> None:
        self.kinds[entry.kind] += 1
        if entry.kind is Kind.ISSUE:
            self.issues += "rule" in entry.detail
        elif entry.kind is Kind.REVERSE:
            original = self._seen.leaf(entry.detail["reverses"])
            if original is not None:
                self.reversals[original] = leaf

    def check_tree(self, head: Checkpoint) -> None:
        """Check the partial tiles above the leaves and the root, once all ranges are taken."""
        self._check_tiles(self._upper.tiles())
        levels = (self._edge, *self._upper.levels)
        edge = Edge(levels if any(levels) else ())
        if edge.root() != head.root:
            raise Fault(None, "checkpoint", "The root is not that of the entries.")

    def _check_tiles(self, tiles: list[tuple[Tile, bytes]]) -> None:
        for below, data in tiles:
            tile = Tile(below.level + 1, below.index, below.width)
            if self._export.tile(tile) != data:
                first = tile.index << 8 * (tile.level + 1)
                raise Fault(first, tile.path, "The tile does not follow from those below it.")
