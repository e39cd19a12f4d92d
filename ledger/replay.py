"""The audit's two halves of a replay: checking ranges of bundles apart, taking them in order.

A range needs nothing of its neighbours, so worker processes check its hashes and the form of its
entries; what must be in order, the ``Book`` and the tree above the leaves, follows in one
process. Ranges travel as ``marshal`` bytes: a plain issue as the few numbers the book needs of
it, any other entry whole.
"""

import marshal
from collections import Counter
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from ledger import keys
from ledger.accounts import ASSETS, account_of
from ledger.book import Book
from ledger.checkpoint import Checkpoint
from ledger.entries import KINDS, Entry, Kind, Posting
from ledger.errors import LedgerError
from ledger.export import Export, Fault, JsonEntry, Leaves, bundle_path, tile_hash
from ledger.note import Verifier
from ledger.plain import Terms
from ledger.tiles import WIDTH, Edge, Tile

RECENT = 65536  # entries other than issues kept whole, for those that soon answer them
_INDEX_BYTES = 6
_ID_BYTES = 16
_ROW = _ID_BYTES + _INDEX_BYTES

# A plain issue on its way: id, resident, place of its terms in the range's list, mg, points.
_PlainRow = tuple[bytes, str, int, int, int]

_posting = tuple.__new__  # the hot path: a named tuple is a tuple


def check_range(directory: Path, size: int, first: int, last: int) -> bytes:
    """Check bundles ``first`` to ``last`` - 1 by themselves; the result is ``Replay.take``'s."""
    export = Export(directory)
    rows: list[_PlainRow | JsonEntry] = []
    terms: dict[Terms, int] = {}
    roots, edge = b"", b""
    fault = None
    for index in range(first, last):
        width = min(WIDTH, size - index * WIDTH)
        row = export.row(index, width)
        for entry in row.entries:
            if isinstance(entry, dict):
                rows.append(entry)
            else:
                key, resident, shared, reduction_mg, points, *_ = entry
                at = terms.setdefault(shared, len(terms))
                rows.append((bytes.fromhex(key), resident, at, reduction_mg, points))
        if row.fault:
            fault = row.fault.args
            break
        if width == WIDTH:
            roots += tile_hash(row.hashes)
        else:
            edge = row.hashes
    return marshal.dumps((rows, [tuple(shared) for shared in terms], roots, edge, fault))


class Seen(MutableMapping[str, Entry]):
    """The entries of an export by id, in little memory: the id and leaf index of each.

    Entries that are no issues are kept whole for a while; all others are read again.
    """

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._rows = [bytearray() for _ in range(1 << 16)]
        self._recent: dict[str, Entry] = {}
        self._count = 0

    def leaf(self, key: bytes) -> int | None:
        """The leaf index of an id, given as its 16 bytes."""
        row = self._rows[key[0] << 8 | key[1]]
        at = row.find(key)
        while at % _ROW and at > 0:  # found across two rows
            at = row.find(key, at + 1)
        return None if at < 0 else int.from_bytes(row[at + _ID_BYTES : at + _ROW])

    def add(self, key: bytes) -> None:
        """Keep the id of the next leaf, given as its 16 bytes."""
        row = self._rows[key[0] << 8 | key[1]]
        row += key + self._count.to_bytes(_INDEX_BYTES)
        self._count += 1

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self.leaf(bytes.fromhex(id)) is not None

    def __getitem__(self, id: str) -> Entry:
        if id in self._recent:
            return self._recent[id]
        leaf = self.leaf(bytes.fromhex(id))
        if leaf is None:
            raise KeyError(id)
        return self._leaves.entry(leaf)

    def __setitem__(self, id: str, entry: Entry) -> None:
        self.add(bytes.fromhex(id))
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
        self._leaves = Leaves(export, size)
        self._seen = Seen(self._leaves)
        self._upper = Edge()  # the tree above level 0: its leaves are the full tiles' hashes
        self._edge = b""
        self.book = Book(self._seen)
        self.kinds: Counter[str] = Counter()
        self.claims: dict[str, int] = {}  # by resident, entries that cite a rule: with an opening
        self.reversals: dict[int, int] = {}  # leaf of the entry reversed -> leaf of the reversal
        self.acts: list[int] = []  # leaves of administrators' acts
        self.rotations: list[tuple[Verifier, Verifier]] = []  # old and new keys of the log

    def take(self, packed: bytes) -> None:
        """Take a range that ``check_range`` checked; raises ``Fault``."""
        rows, terms, roots, edge, fault = marshal.loads(packed)  # noqa: S302  (our own worker's)
        self._take_rows(rows, [Terms(*shared) for shared in terms])
        if fault:
            raise Fault(*fault)
        full, self._upper = self._upper.grow(roots)
        self._check_tiles(full)
        self._edge = edge

    def _take_rows(self, rows: list[_PlainRow | JsonEntry], terms: list[Terms]) -> None:
        credit, leaf_of, add, claims = (
            self.book.credit,
            self._seen.leaf,
            self._seen.add,
            self.claims,
        )
        plain = 0
        for row in rows:
            if isinstance(row, dict):
                self._apply(_entry(row))
                continue
            key, resident, at, reduction_mg, points = row
            if leaf_of(key) is None and credit(resident, terms[at], reduction_mg, points):
                add(key)
                claims[resident] = claims.get(resident, 0) + 1
                plain += 1
            else:
                self._apply(self._leaves.entry(self.book.size))
        self.kinds[Kind.ISSUE] += plain

    def _apply(self, entry: Entry) -> None:
        leaf = self.book.size
        try:
            self.book.apply(entry)
        except LedgerError as error:
            where = bundle_path(leaf, self._size)
            raise Fault(leaf, where, f"{entry.kind} {entry.id}: {error}") from error
        self.kinds[entry.kind] += 1
        if "rule" in entry.detail:
            self.claims[entry.resident] = self.claims.get(entry.resident, 0) + 1
        elif entry.kind is Kind.REVERSE:
            original = self._seen.leaf(bytes.fromhex(entry.detail["reverses"]))
            if original is not None:
                self.reversals[original] = leaf
        elif entry.kind is Kind.ADMIN_ACTED:
            self.acts.append(leaf)
        elif entry.kind is Kind.KEY_ROTATED:
            self.rotations.append(keys.verify_rotation(entry.detail))

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


def _entry(value: dict[str, Any]) -> Entry:
    postings = [
        _posting(Posting, (account_of(name), ASSETS[asset], bucket, amount))
        for name, asset, bucket, amount in value["postings"]
    ]
    kind = KINDS[value["kind"]]
    return Entry.trusted(value["id"], kind, value["at"], tuple(postings), value["detail"])
