import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from ledger import checkpoint, note
from ledger.checkpoint import Checkpoint
from ledger.errors import Malformed, Unverified
from ledger.merkle import EMPTY_ROOT, leaf_hash
from ledger.note import COSIGNATURE, Signer
from ledger.text import base64

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors/signed-note/checkpoint-parse.json").read_text()
)
LOG = Signer("log.example/puhui", bytes(range(32)))
HEAD = Checkpoint(LOG.name, 3, leaf_hash(b"x"))


def test_the_published_good_checkpoints_are_read_or_lack_only_a_32_byte_root() -> None:
    lengths = []
    for case in VECTORS["ok"]:
        root = b64decode(case["hash_b64"])
        text = case["m"]
        lengths.append(len(root))
        if len(root) != 32:
            with pytest.raises(Malformed):
                Checkpoint.parse(text)
            text = text.replace(case["hash_b64"], base64(EMPTY_ROOT))
            root = EMPTY_ROOT
        extensions = tuple(case.get("rest", "").split("\n")[:-1])
        read = Checkpoint.parse(text)
        assert read == Checkpoint(case["origin"], case["size"], root, extensions)
        assert read.text() == text
    assert lengths == [7, 37, 37, 32, 32]


def test_the_published_bad_checkpoints_are_refused() -> None:
    for text in VECTORS["bad"]:
        with pytest.raises(Malformed):
            Checkpoint.parse(text)
        for length in ("YmFuYW5hcw==", "dGhlIHZpZXcgZnJvbSB0aGUgdHJlZSB0b3BzIGlzIGdyZWF0IQ=="):
            with pytest.raises(Malformed):  # still bad once its root has the right length
                Checkpoint.parse(text.replace(length, base64(EMPTY_ROOT)))
    assert len(VECTORS["bad"]) == 12


@pytest.mark.parametrize(
    "change",
    [("3", "03"), ("3", "+3"), ("3", " 3"), ("3", "3 "), ("3", "3.0"), ("3", "9223372036854775808"),
     ("log.example/puhui", ""), ("=\n", "\n"), ("=\n", "=\n\n"), ("=\n", "=\r\n"), ("=\n", "=\nx")],
)  # fmt: skip
def test_a_second_spelling_is_refused(change: tuple[str, str]) -> None:
    text = HEAD.text()
    assert Checkpoint.parse(text) == HEAD
    bent = text.replace(*change)
    assert bent != text
    with pytest.raises(Malformed):
        Checkpoint.parse(bent)


def test_a_checkpoint_cannot_be_born_wrong() -> None:
    for fields in (
        ("", 0, EMPTY_ROOT),
        ("a\nb", 0, EMPTY_ROOT),
        ("a", -1, EMPTY_ROOT),
        ("a", 0, b""),
    ):
        with pytest.raises(Malformed):
            Checkpoint(*fields)
    for extension in ("", "a\nb"):
        with pytest.raises(Malformed):
            Checkpoint("a", 0, EMPTY_ROOT, (extension,))


def test_only_the_log_itself_can_sign_its_checkpoint() -> None:
    signed = note.sign(HEAD.text(), [LOG])
    assert checkpoint.open(signed, [LOG.verifier], LOG.name) == HEAD
    assert checkpoint.open(signed.encode(), [LOG.verifier]) == HEAD
    other = Signer("other.example", bytes(32))
    witness = Signer(LOG.name, bytes(32), COSIGNATURE)  # even under the log's own name
    unsigned = HEAD.text() + "\n"
    by_witness = note.cosign(unsigned + signed.removeprefix(unsigned), witness, 1)
    for bad, keys in (
        (note.sign(HEAD.text(), [other]), [other, LOG]),
        (by_witness, [witness]),
    ):
        with pytest.raises(Unverified, match="No key of"):
            checkpoint.open(bad, [key.verifier for key in keys])
    with pytest.raises(Unverified, match="not of"):
        checkpoint.open(signed, [LOG.verifier], "other.example")
