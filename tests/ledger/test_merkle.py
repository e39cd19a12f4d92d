import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LedgerError, Malformed, Unverified
from ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    NodeReader,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

VECTORS = Path(__file__).parents[1] / "vectors"
REFERENCE = json.loads((VECTORS / "merkle-reference/rfc6962-reference.json").read_text())
LEAVES = [leaf_hash(bytes([number])) for number in range(130)]
SMALL = 33
# The one good vector whose roots are no hashes: upstream never looks at them, we always do.
ROOTS_OF_12_BYTES = "sizes-are-equal-one-and-proof-is-empty"


def vectors(kind: str) -> list[Path]:
    return sorted((VECTORS / "merkle" / kind).rglob("*.json"))


def nodes(leaves: list[bytes]) -> NodeReader:
    """Answer for perfect subtrees of these leaves, and for nothing else."""

    def node(level: int, index: int) -> bytes:
        hashes = leaves[index << level : (index + 1) << level]
        assert len(hashes) == 1 << level
        return root(hashes)

    return node


def mth(hashes: list[bytes]) -> bytes:
    """The recursive definition of RFC 6962 section 2.1, word for word."""
    if len(hashes) == 1:
        return hashes[0]
    k = max(2**power for power in range(10) if 2**power < len(hashes))
    return node_hash(mth(hashes[:k]), mth(hashes[k:]))


def test_there_are_98_vectors_of_each_kind() -> None:
    assert [len(vectors("inclusion")), len(vectors("consistency"))] == [98, 98]


@pytest.mark.parametrize(
    "path", vectors("inclusion"), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_inclusion_vector(path: Path) -> None:
    case = json.loads(path.read_text())
    leaf, top, *proof = map(b64decode, [case["leafHash"], case["root"], *(case["proof"] or [])])
    args = (case["leafIdx"], case["treeSize"], leaf, proof, top)
    if case["wantErr"]:
        with pytest.raises(LedgerError):
            verify_inclusion(*args)
    else:
        verify_inclusion(*args)


@pytest.mark.parametrize(
    "path", vectors("consistency"), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_consistency_vector(path: Path) -> None:
    case = json.loads(path.read_text())
    old, new, *proof = map(b64decode, [case["root1"], case["root2"], *(case["proof"] or [])])
    args = (case["size1"], case["size2"], proof, old, new)
    if case["wantErr"]:
        with pytest.raises(LedgerError):
            verify_consistency(*args)
    elif path.stem == ROOTS_OF_12_BYTES:
        with pytest.raises(Malformed):
            verify_consistency(*args)
        verify_consistency(case["size1"], case["size2"], proof, LEAVES[0], LEAVES[0])
    else:
        verify_consistency(*args)


def test_the_reference_tree_has_the_reference_hashes() -> None:
    hasher = REFERENCE["hasher"]
    assert EMPTY_ROOT.hex() == hasher["empty_root"]
    assert leaf_hash(b"").hex() == hasher["leaf_of_empty"]
    assert leaf_hash(b"L123456").hex() == hasher["leaf_of_ascii_L123456"]
    assert node_hash(b"N123", b"N456").hex() == hasher["node_of_ascii_N123_N456"]
    leaves = [leaf_hash(bytes.fromhex(data)) for data in REFERENCE["leaf_inputs_hex"]]
    for level, row in enumerate(REFERENCE["node_hashes_hex"]):
        assert [nodes(leaves)(level, index).hex() for index in range(len(row))] == row
    roots = [root(leaves[:size]).hex() for size in range(9)]
    assert roots == REFERENCE["root_hashes_hex_by_size"]


def subtrees() -> list[tuple[int, int]]:
    """Every [start, end) of the 130 leaves that starts on a multiple of the power above its size.

    The empty ones count too, everywhere.
    """
    return [
        (start, end)
        for end in range(131)
        for start in range(end + 1)
        if start == end or start % (1 << (end - start - 1).bit_length()) == 0
    ]


def test_every_subtree_of_130_leaves_has_the_published_hash_and_proofs() -> None:
    published: dict[str, Any] = REFERENCE["accumulated_subtree_vectors"]
    hashes, proofs = sha256(), sha256()
    for start, end in subtrees():
        part = LEAVES[start:end]
        hashes.update(f"[{start}, {end}) {root(part).hex()}\n".encode())
        for index in range(end - start):
            path = [sibling.hex() for sibling in inclusion_proof(index, end - start, nodes(part))]
            proofs.update(" ".join([f"{start + index} [{start}, {end})", *path]).encode() + b"\n")
    assert hashes.hexdigest() == published["subtree_hash"]
    assert proofs.hexdigest() == published["subtree_inclusion"]


@pytest.mark.parametrize("size", range(1, 131))
def test_root_and_frontier_agree_with_the_recursive_definition(size: int) -> None:
    frontier = Frontier()
    assert frontier.root() == root([]) == EMPTY_ROOT
    for leaf in LEAVES[:size]:
        frontier = frontier.append(leaf)
    assert frontier.size == size
    assert frontier.root() == root(LEAVES[:size]) == mth(LEAVES[:size])


@pytest.mark.parametrize("size", range(1, SMALL))
def test_every_leaf_proves_at_its_index_and_at_no_other(size: int) -> None:
    top, node = root(LEAVES[:size]), nodes(LEAVES[:size])
    for index in range(size):
        proof = inclusion_proof(index, size, node)
        verify_inclusion(index, size, LEAVES[index], proof, top)
        for wrong in {*range(size + 1), -1} - {index}:
            with pytest.raises(Unverified):
                verify_inclusion(wrong, size, LEAVES[index], proof, top)
        for longer in ([*proof, top], [top, *proof], proof[1:], proof[:-1]):
            if longer != proof:
                with pytest.raises(Unverified):
                    verify_inclusion(index, size, LEAVES[index], longer, top)


@pytest.mark.parametrize("new", range(1, SMALL))
def test_every_prefix_is_consistent_and_a_forked_one_is_not(new: int) -> None:
    new_root = root(LEAVES[:new])
    for old in range(1, new + 1):
        proof = consistency_proof(old, new, nodes(LEAVES[:new]))
        old_root, forked = root(LEAVES[:old]), root(LEAVES[1:old] + LEAVES[99:100])
        verify_consistency(old, new, proof, old_root, new_root)
        bad = [
            (old, new, proof, forked, new_root),
            (old, new, proof, old_root, forked),
            (old, new, [*proof, new_root], old_root, new_root),
            (old, new, [new_root, *proof], old_root, new_root),
            (0, new, proof, EMPTY_ROOT, new_root),
            (new + 1, new, proof, old_root, new_root),
        ]
        if proof:
            bad += [(old, new, part, old_root, new_root) for part in (proof[1:], proof[:-1], [])]
        for case in bad:
            with pytest.raises(Unverified):
                verify_consistency(*case)


@given(st.data())
def test_a_flipped_bit_anywhere_in_a_proof_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 130))
    index = data.draw(st.integers(0, size - 1))
    top = root(LEAVES[:size])
    proof = inclusion_proof(index, size, nodes(LEAVES[:size]))
    at = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    proof[at] = (int.from_bytes(proof[at]) ^ 1 << bit).to_bytes(32)
    with pytest.raises(Unverified):
        verify_inclusion(index, size, LEAVES[index], proof, top)


def test_a_proof_that_cannot_exist_is_not_made() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        with pytest.raises(Malformed):
            inclusion_proof(index, size, nodes(LEAVES))
    for old, new in ((0, 5), (6, 5), (-1, 5)):
        with pytest.raises(Malformed):
            consistency_proof(old, new, nodes(LEAVES))


def test_a_hash_that_is_not_32_bytes_is_malformed() -> None:
    for leaf, proof, top in ((b"x", [], b"x"), (LEAVES[0], [b""], LEAVES[0])):
        with pytest.raises(Malformed):
            verify_inclusion(0, 2, leaf, proof, top)
        with pytest.raises(Malformed):
            verify_consistency(1, 2, proof, leaf, top)
    with pytest.raises(Malformed):
        Frontier(3, (LEAVES[0],))
    with pytest.raises(Malformed):
        Frontier().append(b"short")
