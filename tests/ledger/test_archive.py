"""An archive is of one person, whole, and what the log's key signed for; or it is refused."""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from ledger import archive, note
from ledger.__main__ import main
from ledger.archive import Manifest
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.merkle import inclusion_proof, leaf_hash, root
from ledger.note import Signer
from ledger.proof import Receipt
from ledger.tiles import Edge, TileNodes

A, B = f"{1:032x}", f"{2:032x}"
AT = "2026-11-22T04:00:00.000Z"
LOG = Signer("log.example/puhui", bytes(range(32)))
OTHER = Signer("log.example/puhui", bytes(32))


@pytest.fixture
def files(make_town: Callable[..., Any]) -> dict[str, bytes]:
    """An archive of A: some data and the receipt of an entry."""
    town = make_town(1)
    town.take(town.issue(A, 3))
    town.take(town.issue(B, 3))
    payloads = [entry.payload() for entry in town.entries]
    leaves = [leaf_hash(payload) for payload in payloads]
    head = note.sign(Checkpoint(LOG.name, len(leaves), root(leaves)).text(), [LOG])
    tiles = dict(Edge().grow(b"".join(leaves))[1].tiles())
    made: dict[str, bytes] = {"data.json": b"{}", "note-zh.txt": "普惠".encode()}
    for index, entry in enumerate(town.entries):
        if entry.resident == A:
            path = inclusion_proof(index, len(leaves), TileNodes(len(leaves), tiles.get).node)
            receipt = Receipt(index, tuple(path), head, entry.payload())
            made[f"receipts/{entry.id}.tlog-proof"] = receipt.text().encode()
    return signed(made)


def signed(files: dict[str, bytes], resident: str = A, by: Signer = LOG) -> dict[str, bytes]:
    given = {name: data for name, data in files.items() if name != archive.MANIFEST}
    digests = {name: sha256(data).hexdigest() for name, data in given.items()}
    return given | {archive.MANIFEST: archive.sign(resident, AT, digests, [by]).encode()}


def test_a_whole_archive_holds(files: dict[str, bytes]) -> None:
    manifest, receipts = archive.verify(files, [LOG.verifier])
    assert (manifest.resident, manifest.at, receipts) == (A, AT, 1)
    assert manifest.digests.keys() == files.keys() - {archive.MANIFEST}
    assert Manifest.parse(manifest.text()) == manifest


def test_any_change_of_any_file_is_noticed(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        for changed in (data[:-1], data + b"\n", data.replace(data[:2], b"?!", 1)):
            with pytest.raises(LedgerError):
                archive.verify(files | {name: changed}, [LOG.verifier])


def test_a_file_that_is_missing_or_was_added_is_named(files: dict[str, bytes]) -> None:
    for name in files.keys() - {archive.MANIFEST}:
        rest = {one: data for one, data in files.items() if one != name}
        with pytest.raises(Unverified, match=f"{name}.*not there"):
            archive.verify(rest, [LOG.verifier])
    with pytest.raises(Unverified, match=r"more\.txt.*not named"):
        archive.verify(files | {"more.txt": b""}, [LOG.verifier])
    with pytest.raises(Malformed, match="manifest"):
        archive.verify({}, [LOG.verifier])


def test_only_the_logs_key_signs_for_it(files: dict[str, bytes]) -> None:
    with pytest.raises(Unverified):
        archive.verify(signed(files, by=OTHER), [LOG.verifier])


def test_a_receipt_of_somebody_elses_is_no_part_of_it(files: dict[str, bytes]) -> None:
    with pytest.raises(Unverified, match="another account"):
        archive.verify(signed(files, resident=B), [LOG.verifier])
    (name,) = (name for name in files if name.startswith("receipts/"))
    moved = files | {name.replace(name[9:13], "0000"): files[name]}
    with pytest.raises(Unverified, match="another entry"):
        archive.verify(signed(moved), [LOG.verifier])


def test_no_manifest_can_be_taken_for_a_checkpoint(files: dict[str, bytes]) -> None:
    text = note.open(files[archive.MANIFEST], [LOG.verifier]).text
    with pytest.raises(LedgerError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        "puhui archive v1\n",
        f"puhui archive v2\nresident:{A}\n{AT}\n",
        f"puhui archive v1\nmerchant:{A}\n{AT}\n",
        f"puhui archive v1\nresident:{A}\nyesterday\n",
        f"puhui archive v1\nresident:{A}\n{AT}\n\n",
        f"puhui archive v1\nresident:{A}\n{AT}\n{'0' * 64} data.json\n",
        f"puhui archive v1\nresident:{A}\n{AT}\n{'0' * 64}  ../data.json\n",
        f"puhui archive v1\nresident:{A}\n{AT}\n{'0' * 64}  b\n{'0' * 64}  a\n",
        f"puhui archive v1\nresident:{A}\n{AT}\n{'0' * 64}  a\n{'0' * 64}  a\n",
        f"puhui archive v1\nresident:{A}\n{AT}\n{'0' * 64}  a",
    ],
)
def test_a_manifest_has_one_form(text: str) -> None:
    with pytest.raises(Malformed):
        Manifest.parse(text)


def test_the_command_says_what_it_checked_and_what_does_not_hold(
    files: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(given: dict[str, bytes], *, key: Signer = LOG) -> tuple[int, str]:
        with ZipFile(tmp_path / "all.zip", "w") as packed:
            for name, data in given.items():
                packed.writestr(name, data)
        code = main(["archive", str(tmp_path / "all.zip"), "--vkey", key.verifier.vkey])
        return code, capsys.readouterr().out

    code, said = check(files)
    assert code == 0
    assert said == (
        f"Archive of resident:{A}, made at {AT}.\n"
        "3 files are as log.example/puhui signed them, 1 receipts among them hold.\n"
    )
    code, said = check(files | {"data.json": b"[]"})
    assert (code, said) == (1, "UNVERIFIED The file data.json is not what was signed.\n")
    assert check(files, key=OTHER)[0] == 1
    (tmp_path / "all.zip").write_bytes(b"no archive")
    assert main(["archive", str(tmp_path / "all.zip"), "--vkey", LOG.verifier.vkey]) == 1
    assert re.match("UNREADABLE ", capsys.readouterr().out)
