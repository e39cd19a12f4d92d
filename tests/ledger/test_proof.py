import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger import note, proof
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.merkle import inclusion_proof, leaf_hash, root
from ledger.note import Signer
from ledger.proof import Receipt
from ledger.tiles import Edge, Tile, TileNodes

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors/tlog-proof/tlog-proof-parse.json").read_text()
)
LOG = Signer("log.example/puhui", bytes(range(32)))
PAYLOADS = [f'{{"kind":"issue","n":{number}}}'.encode() for number in range(300)]
LEAVES = [leaf_hash(payload) for payload in PAYLOADS]
HEAD = Checkpoint(LOG.name, len(LEAVES), root(LEAVES))
FULL, EDGE = Edge().grow(b"".join(LEAVES))
STORED: dict[Tile, bytes] = dict(FULL + EDGE.tiles())


def receipt(index: int, head: Checkpoint = HEAD) -> Receipt:
    path = inclusion_proof(index, head.size, TileNodes(head.size, STORED.__getitem__).node)
    return Receipt(index, tuple(path), note.sign(head.text(), [LOG]), PAYLOADS[index])


def test_the_published_receipts_are_read_and_written() -> None:
    for case in VECTORS["ok"]:
        read = Receipt.parse(case["text"])
        extra = case["extra_b64"] and b64decode(case["extra_b64"])
        hashes = tuple(b64decode(h) for h in case["hashes"])
        assert read == Receipt(case["index"], hashes, case["checkpoint"], extra)
        assert read.text() == case["text"]
        assert Receipt.parse(case["text"].encode()) == read
    assert len(VECTORS["ok"]) == 3


def test_the_published_bad_receipts_are_refused() -> None:
    for case in VECTORS["bad"]:
        with pytest.raises(Malformed):
            Receipt.parse(case["text"])
    assert len(VECTORS["bad"]) == 8


@pytest.mark.parametrize("index", [0, 1, 127, 255, 256, 298, 299])
def test_one_file_is_enough_to_check_an_entry_offline(index: int) -> None:
    read = Receipt.parse(receipt(index).text().encode())
    assert read.extra == PAYLOADS[index]
    assert proof.verify(read, read.extra, [LOG.verifier], LOG.name) == HEAD
    bare = Receipt(read.index, read.hashes, read.checkpoint)
    assert proof.verify(bare, PAYLOADS[index], [LOG.verifier]) == HEAD


def check(file: bytes) -> Checkpoint:
    read = Receipt.parse(file)
    return proof.verify(read, read.extra or b"", [LOG.verifier], LOG.name)


GOOD = receipt(299).text().encode()


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@example(GOOD.index(b"\n\n") + 1, 0x0A ^ 0x0D)
def test_one_changed_byte_anywhere_is_refused(at: int, change: int) -> None:
    bent = bytearray(GOOD)
    bent[at] ^= change
    with pytest.raises(LedgerError):
        check(bytes(bent))


def test_every_byte_of_a_receipt_counts() -> None:
    for at in range(len(GOOD)):
        for bent in (
            GOOD[:at] + bytes((GOOD[at] ^ 1,)) + GOOD[at + 1 :],
            GOOD[:at] + GOOD[at + 1 :],
            GOOD[:at] + b"\n" + GOOD[at:],
        ):
            if bent != GOOD:
                with pytest.raises(LedgerError):
                    check(bent)


def test_a_receipt_proves_its_own_payload_at_its_own_index_only() -> None:
    good = receipt(7)
    with pytest.raises(Unverified, match="another payload"):
        proof.verify(good, PAYLOADS[8], [LOG.verifier])
    bare = Receipt(7, good.hashes, good.checkpoint)
    moved = Receipt(8, good.hashes, good.checkpoint)
    outside = Receipt(300, good.hashes, good.checkpoint)
    for bad, payload in ((bare, PAYLOADS[8]), (moved, PAYLOADS[7]), (outside, PAYLOADS[7])):
        with pytest.raises(Unverified):
            proof.verify(bad, payload, [LOG.verifier])
    with pytest.raises(Unverified, match="not of"):
        proof.verify(good, PAYLOADS[7], [LOG.verifier], "other.example")
    with pytest.raises(Unverified, match="No key"):
        proof.verify(good, PAYLOADS[7], [Signer(LOG.name, bytes(32)).verifier])


def test_size_and_root_come_from_the_signed_checkpoint() -> None:
    good = receipt(7)
    smaller = note.sign(Checkpoint(LOG.name, 299, root(LEAVES[:299])).text(), [LOG])
    with pytest.raises(Unverified):
        proof.verify(Receipt(7, good.hashes, smaller), PAYLOADS[7], [LOG.verifier])


def test_a_receipt_cannot_be_born_wrong() -> None:
    for fields in (
        (-1, (), "x\n"),
        (0, (b"short",), "x\n"),
        (0, (LEAVES[0],) * 64, "x\n"),
        (0, (), ""),
    ):
        with pytest.raises(Malformed):
            Receipt(*fields)
