import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger import transfers
from ledger.__main__ import UNTRUSTED, main
from ledger.checkpoint import Checkpoint
from ledger.encoding import encode
from ledger.keys import KeyRing
from ledger.merkle import inclusion_proof, leaf_hash
from ledger.note import Signer
from ledger.proof import Receipt
from ledger.tiles import TileNodes

A = f"{1:032x}"


@pytest.fixture
def export(make_town: Callable[..., Any], write_export: Callable[..., Path]) -> Path:
    town = make_town(1)
    town.take(town.issue(A, 3))
    return write_export([entry.payload() for entry in town.entries], [town.openings[2]])


def test_an_audit_says_what_it_checked_and_that_its_key_proves_nothing(
    export: Path, rules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(export), "--rules", rules]) == 0
    said = capsys.readouterr().out
    assert "entries              3" in said
    assert "claims recomputed    1" in said
    assert "no opening         0 (no erasure in this log says why)" in said
    assert said.endswith(f"{UNTRUSTED}\n")


def test_a_key_from_elsewhere_is_enough(
    export: Path, rules: str, log_key: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    since = str(export / "checkpoint")
    for key in (log_key.verifier.vkey, str(export / "log.vkey")):
        assert main([str(export), "--rules", rules, "--vkey", key, "--since", since]) == 0
        said = capsys.readouterr().out
        assert UNTRUSTED not in said
        assert "extends the log of   3 entries" in said


def test_an_audit_says_what_became_of_versions_and_of_administrators_acts(
    make_town: Callable[..., Any],
    write_export: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    town = make_town()
    town.take(transfers.withdraw_scenario(**town.stamp(), **town.amend()))
    town.take(town.act("draft.withdrawn"))
    payloads = [entry.payload() for entry in town.entries]
    assert main([str(write_export(payloads, versions=town.versions, trail=town.trail))]) == 0
    said = capsys.readouterr().out
    assert "scenario versions    2\n  withdrawn          1 (they never took effect)\n" in said
    assert "administrators' acts 1, each as its record says\n" in said


def test_an_audit_says_what_each_merchant_redeemed_and_may_redeem_still(
    make_town: Callable[..., Any],
    write_export: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    town = make_town()
    town.take(town.issue(A, 9))
    for merchant, allowed, points in (("c" * 32, 20, 6), ("d" * 32, 2, 2)):
        town.take(town.allow(allowed, merchant))
        sold = town.take(town.charge(A, points, merchant))
    town.take(town.refund(sold, 1))
    town.take(town.allow(5, "e" * 32))
    assert main([str(write_export([entry.payload() for entry in town.entries]))]) == 0
    assert (
        "redeemed             7 points, with merchants:\n"
        f"  {'c' * 32} 6 points, 14 more allowed\n"
        f"  {'d' * 32} 1 points, 1 more allowed\n"
        f"  {'e' * 32} 0 points, 5 more allowed\n"
    ) in capsys.readouterr().out


def test_a_fault_is_one_line_and_exit_code_1(
    export: Path, rules: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = export / "tile/entries/000.p/3"
    bundle.write_bytes(bundle.read_bytes().replace(b"issue", b"issuf"))
    assert main([str(export), "--rules", rules]) == 1
    said = capsys.readouterr().out
    assert (
        said
        == "AUDIT_FAULT leaf 2: tile/0/000.p/3: The tile does not hold the hash of the entry.\n"
    )


@pytest.mark.parametrize("arguments", [[], [".", "--vkey", "nonsense"], ["receipt", "x"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


@pytest.mark.parametrize("command", [["."], ["rollup", "."]])
@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_no_process_is_too_few(
    command: list[str], jobs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--jobs", jobs])
    assert caught.value.code == 2
    assert f"at least 1, not {jobs}" in capsys.readouterr().err


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ledger", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.startswith("AUDIT_FAULT log.vkey")


@pytest.fixture
def receipt(export: Path) -> Path:
    nodes = TileNodes(3, lambda tile: (export / tile.path).read_bytes())
    bundle = (export / "tile/entries/000.p/3").read_bytes()
    payload = bundle[bundle.rindex(b'{"at"') :]
    path = tuple(inclusion_proof(2, 3, nodes.node))
    file = export / "receipt"
    file.write_text(Receipt(2, path, (export / "checkpoint").read_text(), payload).text())
    return file


def test_a_receipt_says_in_plain_words_what_it_proves(
    receipt: Path, log_key: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["receipt", str(receipt), "--vkey", log_key.verifier.vkey]) == 0
    said = capsys.readouterr().out
    assert "leaf 2: issue at 2026-01-01T01:02:03.004Z" in said
    assert f"resident:{A} +750000 mg of CO2e" in said
    assert f"resident:{A} +3 points" in said
    assert "Signed by log.test.example/puhui in its log of 3 entries." in said


def test_a_receipt_of_a_redemption_says_whose_allowance_it_used(
    make_town: Callable[..., Any],
    log_key: Signer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    town = make_town()
    town.take(town.issue(A, 9))
    town.take(town.allow(20))
    payload = town.charge(A, 6).payload()
    ring = KeyRing((log_key,))
    signed = ring.sign(Checkpoint(ring.origin, 1, leaf_hash(payload)))
    file = tmp_path / "receipt"
    file.write_text(Receipt(0, (), signed, payload).text())
    assert main(["receipt", str(file), "--vkey", log_key.verifier.vkey]) == 0
    said = capsys.readouterr().out
    assert "leaf 0: redeem at 2026-01-01T01:02:03.004Z" in said
    assert f"  resident:{A} -6 points" in said
    assert f"  merchant:{'c' * 32} -6 points\n" in said
    assert "what it may still redeem" in said


def test_a_receipt_of_another_log_or_without_its_file_is_refused(
    receipt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = Signer.generate("log.test.example/puhui").verifier.vkey
    assert main(["receipt", str(receipt), "--vkey", stranger]) == 1
    assert capsys.readouterr().out.startswith("UNVERIFIED ")
    assert main(["receipt", str(receipt) + "x", "--vkey", stranger]) == 1
    assert capsys.readouterr().out.startswith("UNREADABLE ")


def test_a_receipts_opening_is_checked(
    receipt: Path,
    make_town: Callable[..., Any],
    log_key: Signer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    town = make_town(1)
    town.issue(A, 3)
    kept = {name: town.openings[2][name] for name in ("opening", "salt")}
    file = receipt.with_name("opening")
    command = ["receipt", str(receipt), "--vkey", log_key.verifier.vkey, "--opening", str(file)]
    for sound in (encode(kept), json.dumps({"entry_id": "as the API answers"} | kept).encode()):
        file.write_bytes(sound)
        assert main(command) == 0
        said = capsys.readouterr().out
        assert "The opening is what the entry committed to." in said
        assert kept["opening"] in said
    file.write_text(json.dumps({"entry_id": "as the service says", **kept}, indent=1))
    assert main(command) == 0
    assert "committed to" in capsys.readouterr().out
    for wrong in (kept | {"salt": "0" * 64}, kept | {"salt": "x"}, {"salt": kept["salt"]}, [1]):
        file.write_bytes(encode(wrong))
        assert main(command) == 1
        assert "The log" not in capsys.readouterr().out
