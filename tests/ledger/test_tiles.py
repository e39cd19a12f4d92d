import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import Malformed
from ledger.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root,
    verify_consistency,
    verify_inclusion,
)
from ledger.tiles import (
    ENTRIES,
    WIDTH,
    Edge,
    Tile,
    TileNodes,
    completed,
    decode_bundle,
    encode_bundle,
    pack,
    partial,
    tiles,
    unpack,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors/tlog-tiles/tile_paths.json").read_text()
)
LEAVES = [leaf_hash(number.to_bytes(4)) for number in range(2 * WIDTH**2 + 3 * WIDTH + 7)]


def entries_path(case: dict[str, Any]) -> str:
    index, offset = divmod(case["seq"], WIDTH)
    assert offset < WIDTH
    return Tile(ENTRIES, index, min(WIDTH, case["logSize"] - index * WIDTH)).path


WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "TestEntriesPathForLogIndex": entries_path,
    "TestEntriesPath": lambda c: Tile(ENTRIES, c["N"], c.get("p") or WIDTH).path,
    "TestTilePath": lambda c: Tile(c["level"], c["index"], c.get("p") or WIDTH).path,
    "TestNWithSuffix": lambda c: Tile(c["level"], c["index"], c.get("p") or WIDTH).path.split(
        "/", 2
    )[2],
}


def test_every_path_vector_is_written_and_read_back() -> None:
    ran = 0
    for name, write in WRITERS.items():
        for case in VECTORS[name]:
            assert write(case) == case["wantPath"]
            path = case["wantPath"]
            full = path if path.startswith("tile/") else f"tile/{case['level']}/{path}"
            assert Tile.parse(full).path == full
            ran += 1
    assert ran == 20


def test_every_path_vector_is_read_or_refused() -> None:
    ran = [0, 0]
    for case in VECTORS["TestParseTileLevelIndexPartial"]:
        path = f"tile/{case['pathLevel']}/{case['pathIndex']}"
        if case.get("wantErr"):
            with pytest.raises(Malformed):
                Tile.parse(path)
        else:
            wanted = Tile(case["wantLevel"], case["wantIndex"], case["wantP"] or WIDTH)
            assert Tile.parse(path) == wanted
        ran["wantErr" in case] += 1
    assert ran == [4, 15]


def test_the_example_of_the_specification_has_its_tiles() -> None:
    example = VECTORS["spec_example"]
    assert Tile(0, example["index"]).path == f"tile/0/{example['path']}"
    counted = example["tree_size_70000"]
    full = [tile.level for tile in completed(0, 70_000)]
    assert (full.count(0), full.count(1)) == (counted["level0_full"], counted["level1_full"])
    widths = {tile.level: tile.width for tile in partial(70_000)}
    assert widths == {level: counted[f"level{level}_partial_width"] for level in range(3)}


@given(st.integers(ENTRIES, 63), st.integers(0, 2**63 - 1), st.integers(1, WIDTH))
def test_a_path_names_one_tile(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/00/001", "tile/0/x000/001", "tile/0/001.p/0", "tile/0/001.p/01", "tile/0/001.p/256",
        "tile/data/001", "tile/entries/001\n", "/tile/0/001", "tile/0/../001", "tile/0/٠٠١", "",
        "tile/0/" + "x999/" * 2000 + "999",
    ],
)  # fmt: skip
def test_a_path_of_no_tile_is_refused(path: str) -> None:
    with pytest.raises(Malformed):
        Tile.parse(path)


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_the_tiles_of_a_tree_are_those_it_completed_and_its_partial_ones(a: int, b: int) -> None:
    old, new = sorted((a, b))
    before, grown = set(completed(0, old)), list(completed(old, new))
    assert not before & set(grown)
    assert before | set(grown) == set(completed(0, new))
    assert set(tiles(new)) == set(completed(0, new)) | set(partial(new))
    assert sum(tile.width for tile in tiles(new) if tile.level == 0) == new


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=6))
def test_growth_in_any_steps_gives_the_naive_root_and_the_listed_tiles(steps: list[int]) -> None:
    edge, stored = Edge(), dict[Tile, bytes]()
    for step in steps:
        size = min(edge.size + step, len(LEAVES))
        full, grown = edge.grow(b"".join(LEAVES[edge.size : size]))
        assert [tile for tile, _ in full] == list(completed(edge.size, size))
        stored.update(full)
        stored.update(grown.tiles())
        edge = grown
        assert edge.size == size
        assert Edge.read(size, stored.__getitem__) == edge
    assert edge.root() == root(LEAVES[: edge.size])
    assert set(tiles(edge.size)) <= set(stored)
    for tile, hashes in stored.items():
        span = WIDTH**tile.level
        first = tile.index * WIDTH * span
        assert hashes[:32] == root(LEAVES[first : first + span])
        assert len(hashes) == 32 * tile.width


@pytest.fixture(scope="module")
def stored() -> dict[Tile, bytes]:
    full, edge = Edge().grow(b"".join(LEAVES))
    return dict(full + edge.tiles())


SIZES = [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000, len(LEAVES)]


@pytest.mark.parametrize("size", SIZES)
def test_proofs_made_from_tiles_hold(stored: dict[Tile, bytes], size: int) -> None:
    def read(tile: Tile) -> bytes:  # a log may have grown since: then a full tile has the hashes
        wider = min(
            (t for t in stored if (t.level, t.index) == (tile.level, tile.index)), default=None
        )
        assert wider is not None
        return stored[wider][: 32 * tile.width]

    nodes = TileNodes(size, read)
    top = root(LEAVES[:size])
    for index in {0, size // 3, size // 2, size - 1}:
        proof = inclusion_proof(index, size, nodes.node)
        verify_inclusion(index, size, LEAVES[index], proof, top)
    for old in {other for other in SIZES if other <= size}:
        proof = consistency_proof(old, size, nodes.node)
        verify_consistency(old, size, proof, root(LEAVES[:old]), top)


def test_a_node_or_a_tile_that_is_not_there_is_refused(stored: dict[Tile, bytes]) -> None:
    nodes = TileNodes(300, lambda tile: b"short")
    for level, index in ((0, 300), (8, 1), (2, 75), (0, -1), (3, 37)):
        with pytest.raises(Malformed, match="has no node"):
            nodes.node(level, index)
    with pytest.raises(Malformed, match="bytes, not"):
        nodes.node(0, 299)
    with pytest.raises(Malformed):
        Edge.read(300, lambda tile: b"")
    for levels in ((b"x",), (b"",), (LEAVES[0] * WIDTH,)):
        with pytest.raises(Malformed):
            Edge(levels)
    with pytest.raises(Malformed):
        Edge().grow(b"half a hash")
    for place in ((64, 0, 1), (-2, 0, 1), (0, -1, 1), (0, 2**63, 1), (0, 0, 0), (0, 0, 257)):
        with pytest.raises(Malformed):
            Tile(*place)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=WIDTH))
def test_a_bundle_comes_back_as_it_went(entries: list[bytes]) -> None:
    bundle = encode_bundle(entries)
    assert decode_bundle(bundle, len(entries)) == entries
    for wrong in (bundle[:-1], bundle + b"\x00", bundle + b"\x00\x00"):
        with pytest.raises(Malformed):
            decode_bundle(wrong, len(entries))


def test_a_bundle_has_the_layout_and_limits_of_the_specification() -> None:
    assert encode_bundle([b"", b"ab"]) == b"\x00\x00\x00\x02ab"
    longest = bytes(2**16 - 1)
    assert decode_bundle(encode_bundle([longest] * 2), 2) == [longest] * 2
    for entries in ([], [b""] * 257, [bytes(2**16)]):
        with pytest.raises(Malformed):
            encode_bundle(entries)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=WIDTH), st.data())
def test_a_packed_bundle_comes_back_and_a_damaged_one_is_refused(
    entries: list[bytes], data: st.DataObject
) -> None:
    bundle = encode_bundle(entries)
    packed = pack(bundle)
    assert unpack(packed) == bundle
    assert gzip.decompress(packed) == bundle  # other people's tools read it
    cut = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:cut], packed + b"\0", packed + packed, bundle):
        with pytest.raises(Malformed):
            unpack(wrong)


def test_what_unpacks_to_more_than_a_bundle_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(Malformed, match="goes on after its end"):
        unpack(pack(bytes(WIDTH * (2**16 + 1) + 1)))
