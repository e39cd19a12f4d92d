"""The Merkle tree of RFC 6962 and RFC 9162 (section 2 of both), over SHA-256.

A hash is 32 bytes. A *node* ``(level, index)`` is the root of the perfect subtree over leaves
``[index << level, (index + 1) << level)``; level 0 holds the leaf hashes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import sha256

from ledger.errors import Malformed, Unverified

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """Return ``SHA-256(0x00 || data)``."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return ``SHA-256(0x01 || left || right)``."""
    return sha256(b"\x01" + left + right).digest()


def fold(row: bytes) -> bytes:
    """Return the row above: each pair of concatenated hashes becomes their parent (hot path)."""
    pairs = range(0, len(row), 2 * HASH_BYTES)
    return b"".join([sha256(b"\x01" + row[at : at + 2 * HASH_BYTES]).digest() for at in pairs])


def root(hashes: Sequence[bytes]) -> bytes:
    """Return the root over these leaf hashes; an odd last node rises unchanged."""
    row = list(hashes)
    while len(row) > 1:
        parents = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        row = parents + row[len(parents) * 2 :]
    return row[0] if row else EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: roots of its perfect subtrees, largest (leftmost) first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.peaks) != self.size.bit_count():
            raise Malformed(f"A tree of {self.size} leaves does not have {len(self.peaks)} peaks.")
        _require_hashes(*self.peaks)

    def append(self, leaf: bytes) -> "Frontier":
        """Return the frontier with one more leaf hash."""
        peaks = [*self.peaks, leaf]
        carries = self.size
        while carries & 1:  # as a binary counter: equal subtrees at the right merge
            right = peaks.pop()
            peaks[-1] = node_hash(peaks[-1], right)
            carries >>= 1
        return Frontier(self.size + 1, tuple(peaks))

    def root(self) -> bytes:
        """Return the root of the tree."""
        if not self.peaks:
            return EMPTY_ROOT
        return reduce(lambda right, left: node_hash(left, right), reversed(self.peaks))


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """Return the path of leaf ``index`` in the tree of ``size`` leaves, leaf side first."""
    if not 0 <= index < size:
        raise Malformed(f"There is no leaf {index} in a tree of {size}.")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_span(middle, high, node))
            high = middle
        else:
            path.append(_span(low, middle, node))
            low = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: NodeReader) -> list[bytes]:
    """Return the proof that the tree of ``old`` leaves is a prefix of the tree of ``new``."""
    if not 0 < old <= new:
        raise Malformed(f"There is no consistency proof from size {old} to size {new}.")
    path: list[bytes] = []
    low, high = 0, new
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_span(middle, high, node))
            high = middle
        else:
            path.append(_span(low, middle, node))
            low = middle
    if low:  # at low 0 the verifier already holds this hash: it is the old root
        path.append(_span(low, high, node))
    return path[::-1]


def verify_inclusion(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that the leaf hash is at ``index`` under ``root`` (RFC 9162 section 2.1.3.2).

    Raises Malformed for a hash that is not 32 bytes, Unverified for everything else.
    """
    _require_hashes(leaf, root, *proof)
    if not 0 <= index < size:
        raise Unverified(f"Leaf {index} is not inside a tree of {size}.")
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise Unverified("The inclusion proof is too long.")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:  # a last node without sibling rises unchanged
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise Unverified("The inclusion proof is too short.")
    if computed != root:
        raise Unverified(f"The inclusion proof of leaf {index} does not lead to the root.")


def verify_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the new tree extends the old one (RFC 9162 section 2.1.4.2).

    Size 0 is refused: every tree extends it, so such a proof says nothing.
    Raises Malformed for a hash that is not 32 bytes, Unverified for everything else.
    """
    _require_hashes(old_root, new_root, *proof)
    if not 0 < old <= new:
        raise Unverified(f"Nothing can be proved from size {old} to size {new}.")
    if old == new:
        if proof or old_root != new_root:
            raise Unverified("Two trees of one size have different roots, or a needless proof.")
        return
    path = [old_root, *proof] if old.bit_count() == 1 else list(proof)
    if not path:
        raise Unverified("The consistency proof is too short.")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_side = new_side = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise Unverified("The consistency proof is too long.")
        if node & 1 or node == last:
            old_side, new_side = node_hash(sibling, old_side), node_hash(sibling, new_side)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new_side = node_hash(new_side, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise Unverified("The consistency proof is too short.")
    if old_side != old_root or new_side != new_root:
        raise Unverified(f"The tree of {new} does not extend the tree of {old}.")


def _split(count: int) -> int:
    """Return the largest power of two below ``count`` (count > 1)."""
    return 1 << (count - 1).bit_length() - 1


def _span(low: int, high: int, node: NodeReader) -> bytes:
    """Return the root over leaves [low, high), where low is a multiple of the left half's size."""
    peaks: list[bytes] = []
    while low < high:
        level = (high - low).bit_length() - 1
        peaks.append(node(level, low >> level))
        low += 1 << level
    return reduce(lambda right, left: node_hash(left, right), reversed(peaks))


def _require_hashes(*hashes: bytes) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise Malformed("A hash in the tree is not 32 bytes long.")
