"""Tiles: how the tree and its entries lie in files (c2sp.org/tlog-tiles).

A tile at level L is up to 256 consecutive hashes of tree level 8 * L. Only full tiles are hashed
into the level above, so the widths of the partial tiles are the base-256 digits of the tree size.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from ledger.errors import Malformed
from ledger.merkle import HASH_BYTES, Frontier, fold
from ledger.text import MAX_DECIMAL, decimal

WIDTH = 256
TILE_BYTES = WIDTH * HASH_BYTES
MAX_ENTRY_BYTES = 2**16 - 1
ENTRIES = -1  # the level of an entry bundle: its hashes are the tile at level 0
MAX_LEVEL = 63
PACKED = ".gz"  # ends the name of a bundle's file that is kept deflated

_MAX_BUNDLE_BYTES = WIDTH * (2 + MAX_ENTRY_BYTES)
_GZIP = 16 + zlib.MAX_WBITS

_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The place of one tile or (at level ``ENTRIES``) entry bundle; ``width`` counts its hashes."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not ENTRIES <= self.level <= MAX_LEVEL:
            raise Malformed(f"A tile level is 0 to {MAX_LEVEL}, not {self.level}.")
        if not 0 <= self.index <= MAX_DECIMAL:
            raise Malformed(f"A tile index is 0 to 2**63 - 1, not {self.index}.")
        if not 1 <= self.width <= WIDTH:
            raise Malformed(f"A tile is 1 to {WIDTH} wide, not {self.width}.")

    @property
    def path(self) -> str:
        """``tile/<L>/<N>[.p/<W>]`` or ``tile/entries/<N>[.p/<W>]``."""
        *upper, last = re.findall(r"...", f"{self.index:0{-(-len(str(self.index)) // 3) * 3}}")
        number = "".join(f"x{part}/" for part in upper) + last
        level = "entries" if self.level == ENTRIES else self.level
        return f"tile/{level}/{number}" + (f".p/{self.width}" if self.width < WIDTH else "")

    @classmethod
    def parse(cls, path: str) -> "Tile":
        """Read a path; whatever ``path`` would not have written is Malformed."""
        if match := _PATH.fullmatch(path):
            level, number, width = match.groups()
            tile = cls(
                ENTRIES if level == "entries" else decimal(level),
                int(re.sub("[x/]", "", number)),
                decimal(width) if width else WIDTH,
            )
            if tile.path == path:
                return tile
        raise Malformed(f"{path[:80]!r} is not the path of a tile.")


def tiles(size: int) -> Iterator[Tile]:
    """Yield every hash tile of a tree of ``size`` leaves, level by level, a partial one last."""
    yield from completed(0, size)
    yield from partial(size)


def completed(old: int, new: int) -> Iterator[Tile]:
    """Yield the hash tiles that become full when the tree grows from ``old`` to ``new`` leaves."""
    for level in range(MAX_LEVEL + 1):
        shift = 8 * (level + 1)
        if not new >> shift:
            return
        for index in range(old >> shift, new >> shift):
            yield Tile(level, index)


def partial(size: int) -> Iterator[Tile]:
    """Yield the partial hash tiles of a tree of ``size`` leaves, from level 0 up."""
    for level in range(MAX_LEVEL + 1):
        hashes = size >> 8 * level
        if hashes % WIDTH:
            yield Tile(level, hashes // WIDTH, hashes % WIDTH)


@dataclass(frozen=True, slots=True)
class Edge:
    """The partial tiles of a tree, level 0 first: all a sealer needs to make the tree grow."""

    levels: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) % HASH_BYTES or len(row) >= TILE_BYTES for row in self.levels):
            raise Malformed("A partial tile is not 0 to 255 hashes of 32 bytes.")
        if self.levels and not self.levels[-1]:
            raise Malformed("The highest partial tile is empty.")

    @classmethod
    def read(cls, size: int, read_tile: Callable[[Tile], bytes]) -> "Edge":
        """Return the edge of the tree of ``size`` leaves from its stored partial tiles."""
        rows = {tile.level: _read(tile, read_tile) for tile in partial(size)}
        return cls(tuple(rows.get(level, b"") for level in range(max(rows, default=-1) + 1)))

    @property
    def size(self) -> int:
        """The number of leaves in the tree."""
        return sum(len(row) // HASH_BYTES << 8 * level for level, row in enumerate(self.levels))

    def grow(self, leaves: bytes) -> tuple[list[tuple[Tile, bytes]], "Edge"]:
        """Append concatenated leaf hashes: the full tiles this completes, and the new edge."""
        if len(leaves) % HASH_BYTES:
            raise Malformed("Leaf hashes are not a multiple of 32 bytes.")
        full: list[tuple[Tile, bytes]] = []
        levels, size = list(self.levels), self.size
        for level in count():
            if not leaves:
                break
            if level == len(levels):
                levels.append(b"")
            row = levels[level] + leaves
            rest = len(row) - len(row) % TILE_BYTES
            first = size >> 8 * (level + 1)
            for number, at in enumerate(range(0, rest, TILE_BYTES)):
                full.append((Tile(level, first + number), row[at : at + TILE_BYTES]))
            levels[level], leaves = row[rest:], row[:rest]
            for _ in range(8):  # no pair straddles two tiles, so all of them fold at once
                leaves = fold(leaves)
        return full, Edge(tuple(levels))

    def tiles(self) -> list[tuple[Tile, bytes]]:
        """Return the partial tiles with their places."""
        return [(tile, self.levels[tile.level]) for tile in partial(self.size)]

    def frontier(self) -> Frontier:
        """Return the perfect subtrees of the whole tree, read off the partial tiles."""
        peaks: list[bytes] = []
        for row in reversed(self.levels):
            at = 0
            for height in reversed(range(8)):
                if len(row) // HASH_BYTES >> height & 1:
                    peaks.append(_subtree(row, at, height))
                    at += HASH_BYTES << height
        return Frontier(self.size, tuple(peaks))

    def root(self) -> bytes:
        """Return the root of the whole tree."""
        return self.frontier().root()


@dataclass(frozen=True, slots=True)
class TileNodes:
    """Nodes of the tree of ``size`` leaves, read from tiles: pass ``node`` to make a proof.

    It believes its tiles: what it yields is only worth what a verifier makes of the proof.
    """

    size: int
    read_tile: Callable[[Tile], bytes]
    _seen: dict[Tile, bytes] = field(default_factory=dict, repr=False, compare=False)

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of the node; Malformed if the tree or the stored tile lacks it."""
        tile_level, height = divmod(level, 8)
        hashes = self.size >> 8 * tile_level
        number, first = divmod(index << height, WIDTH)
        width = min(WIDTH, hashes - number * WIDTH)
        if index < 0 or first + (1 << height) > width:
            raise Malformed(f"A tree of {self.size} leaves has no node {index} at level {level}.")
        tile = Tile(tile_level, number, width)
        if tile not in self._seen:
            self._seen[tile] = _read(tile, self.read_tile)
        return _subtree(self._seen[tile], first * HASH_BYTES, height)


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Return an entry bundle: 1 to 256 entries, each after its length as a big-endian uint16."""
    if not 1 <= len(entries) <= WIDTH:
        raise Malformed(f"A bundle holds 1 to {WIDTH} entries, not {len(entries)}.")
    if any(len(entry) > MAX_ENTRY_BYTES for entry in entries):
        raise Malformed(f"An entry is longer than {MAX_ENTRY_BYTES} bytes.")
    return b"".join(part for entry in entries for part in (len(entry).to_bytes(2), entry))


def decode_bundle(bundle: bytes, width: int = WIDTH) -> list[bytes]:
    """Return the entries of a bundle that must hold exactly ``width`` of them."""
    entries: list[bytes] = []
    at = 0
    while at < len(bundle) and len(entries) <= width:
        end = at + 2 + int.from_bytes(bundle[at : at + 2])
        if at + 2 > len(bundle) or end > len(bundle):
            raise Malformed(f"The bundle breaks off in entry {len(entries)}.")
        entries.append(bundle[at + 2 : end])
        at = end
    if len(entries) != width:
        raise Malformed(f"The bundle does not hold exactly {width} entries.")
    return entries


def pack(bundle: bytes) -> bytes:
    """Return a bundle as gzip (RFC 1952), with no time in it."""
    return gzip.compress(bundle, mtime=0, compresslevel=6)


def unpack(data: bytes) -> bytes:
    """Return the bundle; Malformed if it is not one member of gzip, or holds more than a bundle."""
    one = zlib.decompressobj(_GZIP)
    try:
        bundle = one.decompress(data, _MAX_BUNDLE_BYTES)
    except zlib.error as error:
        raise Malformed("The deflated bundle is damaged.") from error
    if not one.eof or one.unused_data:
        raise Malformed("The deflated bundle breaks off, or goes on after its end.")
    return bundle


def _subtree(row: bytes, at: int, height: int) -> bytes:
    node = row[at : at + (HASH_BYTES << height)]
    for _ in range(height):
        node = fold(node)
    return node


def _read(tile: Tile, read_tile: Callable[[Tile], bytes]) -> bytes:
    data = read_tile(tile)
    if len(data) != tile.width * HASH_BYTES:
        raise Malformed(f"{tile.path} is {len(data)} bytes, not {tile.width * HASH_BYTES}.")
    return data
