"""The audit's two halves of a replay: checking ranges of bundles apart, taking them in order.

A range needs nothing of its neighbours, so worker processes check its hashes and the form of its
entries; what must be in order, the ``Book`` and the tree above the leaves, follows in one
process. Ranges travel as ``marshal`` bytes: a plain issue as the few numbers the book needs of
it, any other entry whole.
"""

import marshal
from binascii import unhexlify
from collections import Counter
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from ledger import keys, runs
from ledger.book import Book
from ledger.checkpoint import Checkpoint
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError
from ledger.export import (
    Export,
    Fault,
    JsonEntry,
    Leaves,
    Read,
    bundle_path,
    entry_of,
    tile_hash,
)
from ledger.ids import Ids
from ledger.merkle import EMPTY_ROOT
from ledger.openings import FILE as OPENINGS
from ledger.openings import Heaps, Part, check_end, check_openings
from ledger.plain import Grant, Terms
from ledger.spends import Lines, Spend
from ledger.state import State
from ledger.tiles import WIDTH, Edge, Tile

# A plain issue on its way: id, resident, place of its terms in the range's list, mg, points.
_PlainRow = tuple[bytes, str, int, int, int]
_SpendRow = tuple[str, str, str, int, Lines, str, str]
# A range's entries on their way: runs, whose plain issues are summed by their terms (place: mg,
# points), and between them one by one what is neither plain nor a spend.
_Run = tuple[dict[int, tuple[int, int]], list[_PlainRow | _SpendRow]]


def check_range(
    directory: Path, size: int, begin: int, first: int, last: int, heaps: Heaps | None = None
) -> bytes:
    """Check bundles ``first`` to ``last`` - 1 by themselves; the result is ``Replay.take``'s.

    Leaves below ``begin`` are read for their hashes alone. With heaps, openings are looked at too.
    """
    export = Export(directory)
    entries: list[Read] = []
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
    opened = heaps and not fault and tuple(check_openings(export, first * WIDTH, entries, heaps))
    parts, terms = _told(entries[max(0, begin - first * WIDTH) :])
    return marshal.dumps((parts, terms, roots, edge, fault, opened or None))


def _told(entries: list[Read]) -> tuple[list[_Run | JsonEntry], list[tuple[Any, ...]]]:
    """Entries as they travel, and the terms of their plain issues."""
    terms: dict[Terms, int] = {}
    parts: list[_Run | JsonEntry] = []
    run: _Run = {}, []
    for entry in entries:
        if isinstance(entry, dict):
            parts += [run, entry]
            run = {}, []
            continue
        sums, rows = run
        if isinstance(entry, Grant):
            key, resident, shared, reduction_mg, points, *_ = entry
            at = terms.setdefault(shared, len(terms))
            rows.append((unhexlify(key), resident, at, reduction_mg, points))
            paid = sums.get(at, (0, 0))
            sums[at] = paid[0] + reduction_mg, paid[1] + points
        else:
            rows.append(entry[:])
    return [*parts, run], [shared[:] for shared in terms]


class Seen(MutableMapping[str, Entry]):
    """The entries of an export by id, in little memory: only their ids are kept, in ``Ids``.

    An entry that is asked for is read again, and one of an earlier audit proved again. An id used
    twice is found by ``Replay.check_ids``, not here.
    """

    def __init__(self, export: Export, head: Checkpoint, ids: Ids) -> None:
        self._export = export
        self._head = head
        self._leaves = Leaves(export, head.size)
        self._ids = ids
        self._before = ids.count  # leaves checked by an earlier audit, perhaps in other files

    def __contains__(self, id: object) -> bool:
        return False

    def __getitem__(self, id: str) -> Entry:
        leaf = self._ids.leaf(unhexlify(id))
        if leaf is None:
            raise KeyError(id)
        entry = self._leaves.entry(leaf)
        if leaf < self._before:
            self._export.check_leaf(leaf, entry.payload(), self._head)
        return entry

    def __setitem__(self, id: str, entry: Entry) -> None:
        self._ids.add(unhexlify(id))

    def __delitem__(self, id: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        return self._ids.count


class Replay:
    """Ranges taken in order: the book, and the tree above the leaves."""

    def __init__(self, export: Export, head: Checkpoint, state: State | None = None) -> None:
        self._export = export
        self.head = head
        self._leaves = Leaves(export, head.size)
        self._edge = b""
        if state is None:
            empty = Checkpoint(head.origin, 0, EMPTY_ROOT)
            state = State(empty, Book(), Ids(), Edge(), Counter(), [])
        _, self.book, self._ids, self._upper, self.kinds, self.rotations = state
        self.book.entries = Seen(export, head, self._ids)
        # What the state has of the first bundle is read again, for its hashes alone.
        self.begin = self.book.size
        self.issues = 0  # that cite a rule: with an opening
        # by resident: leaf of an entry that was reversed -> leaf of the reversal
        self.reversals: dict[str, dict[int, int]] = {}
        self._opened = 0  # bytes of openings
        self._opening_fault: tuple[int | None, str, str] | None = None
        self.acts: list[int] = []  # leaves of administrators' acts

    def take(self, packed: bytes) -> None:
        """Take a range that ``check_range`` checked; raises ``Fault``."""
        parts, terms, roots, edge, fault, opened = marshal.loads(packed)  # noqa: S302  (our worker's)
        shared = [Terms(*values) for values in terms]
        for part in parts:
            if isinstance(part, dict):
                self._apply(entry_of(part))
            else:
                self._take_run(part, shared)
        if fault:
            raise Fault(*fault)
        full, self._upper = self._upper.grow(roots)
        self._check_tiles(full)
        self._edge = edge
        if opened:
            self._take_openings(Part(*opened))

    def _take_openings(self, part: Part) -> None:
        if part.begin != self._opened and self._opening_fault is None:
            part = part._replace(fault=(None, OPENINGS, "The openings are not in leaf order."))
        self._opened = part.end
        self._opening_fault = self._opening_fault or part.fault

    def check_openings(self) -> None:
        """Check that each opening is what its entry committed to, once all ranges are taken."""
        if self._opening_fault:
            raise Fault(*self._opening_fault)
        check_end(self._export, self._opened)

    def _take_run(self, run: _Run, terms: list[Terms]) -> None:
        sums, rows = run
        book, add, plain = self.book, self._ids.add, 0
        wanted = [(terms[at], reduction_mg, points) for at, (reduction_mg, points) in sums.items()]
        paid = runs.pay(book, wanted, [row[1] for row in rows if len(row) == 5])
        credit = runs.grant if paid else runs.credit
        for row in rows:
            if len(row) == 5:
                key, resident, at, reduction_mg, points = row
                if credit(book, resident, terms[at], reduction_mg, points):
                    add(key)
                    plain += 1
                else:
                    self._apply(self._leaves.entry(book.size))
            elif runs.spend(book, Spend(*row)):
                add(unhexlify(row[0]))
                self.kinds[row[2]] += 1
            else:
                self._apply(self._leaves.entry(book.size))
        self.issues += plain
        self.kinds[Kind.ISSUE] += plain

    def _apply(self, entry: Entry) -> None:
        leaf = self.book.size
        try:
            self.book.apply(entry)
        except LedgerError as error:
            where = bundle_path(leaf, self.head.size)
            raise Fault(leaf, where, f"{entry.kind} {entry.id}: {error}") from error
        self.kinds[entry.kind] += 1
        if "rule" in entry.detail:
            self.issues += 1
        elif entry.kind is Kind.REVERSE:
            original = self._ids.leaf(unhexlify(entry.detail["reverses"]))
            if original is not None:
                self.reversals.setdefault(entry.resident, {})[original] = leaf
        elif entry.kind is Kind.ADMIN_ACTED:
            self.acts.append(leaf)
        elif entry.kind is Kind.KEY_ROTATED:
            self.rotations.append(keys.verify_rotation(entry.detail))

    def check_ids(self) -> None:
        """Check that no leaf taken has an id which another had before."""
        leaf = self._ids.twice()
        if leaf is not None:
            entry, where = self._leaves.entry(leaf), bundle_path(leaf, self.head.size)
            what = f"{entry.kind} {entry.id}: The id was used before."
            raise Fault(leaf, where, what)

    def check_tree(self) -> None:
        """Check the partial tiles above the leaves and the root, once all ranges are taken."""
        self._check_tiles(self._upper.tiles())
        levels = (self._edge, *self._upper.levels)
        edge = Edge(levels if any(levels) else ())
        if edge.root() != self.head.root:
            raise Fault(None, "checkpoint", "The root is not that of the entries.")

    def close(self) -> None:
        """Let go of the files that ids went to."""
        self._ids.close()

    def state(self) -> State:
        """What a later audit needs, once everything was taken and held."""
        return State(self.head, self.book, self._ids, self._upper, self.kinds, self.rotations)

    def _check_tiles(self, tiles: list[tuple[Tile, bytes]]) -> None:
        for below, data in tiles:
            tile = Tile(below.level + 1, below.index, below.width)
            if self._export.tile(tile) != data:
                first = tile.index << 8 * (tile.level + 1)
                raise Fault(first, tile.path, "The tile does not follow from those below it.")
