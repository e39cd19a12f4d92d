import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import note
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.note import COSIGNATURE, Signer, Verifier

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors/signed-note/golang-note.json").read_text()
)
TEXT = VECTORS["text"]
KEYS = {name: Verifier.parse(VECTORS[name]) for name in ("vkey", "vkey2")}
SIGNED = VECTORS["signed_by_skey_must_equal"]
LOG = Signer("log.example/puhui", bytes(range(32)))
WITNESS = Signer("witness.example/w1", bytes(range(1, 33)), COSIGNATURE)


def test_the_published_key_signs_the_published_bytes() -> None:
    signer = Signer.parse(VECTORS["skey"])
    assert note.sign(TEXT, [signer]) == SIGNED
    assert signer.skey == VECTORS["skey"]
    assert signer.verifier.vkey == VECTORS["vkey"]
    assert signer.verifier == KEYS["vkey"]


def test_the_published_notes_open_with_the_published_signers() -> None:
    ran = 0
    for case in VECTORS["open_ok"]:
        opened = note.open(case["msg"], [KEYS[key] for key in case["keys"]])
        assert opened.text == TEXT
        assert [signature.name for signature in opened.verified] == case["verified"]
        unverified = case.get("unverified", case.get("unverified_distinct"))
        assert len(opened.unverified) == len(unverified)
        ran += 1
    example = VECTORS["c2sp_example"]
    opened = note.open(example["note"].encode(), [Verifier.parse(example["vkey"])])
    assert opened.text == "This is an example message.\n"
    assert ran == 3


def test_the_published_bad_notes_are_refused() -> None:
    keys = list(KEYS.values())
    for case in VECTORS["open_unverified"]:
        with pytest.raises(Unverified):
            note.open(case["msg"], [KEYS[key] for key in case["keys"]])
    for bad in VECTORS["open_bad_signature_known_key"]:
        with pytest.raises(Unverified):
            note.open(bad, keys)
    malformed = VECTORS["open_malformed"] + [
        bytes.fromhex(h) for h in VECTORS["open_malformed_hex"]
    ]
    for bad in malformed:
        with pytest.raises(Malformed):
            note.open(bad, keys)
    many = VECTORS["open_too_many_signatures"]
    with pytest.raises(Malformed):
        note.open(TEXT + "\n" + many["line"] * many["repeat"], keys)
    note.open(TEXT + "\n" + many["line"] * (many["repeat"] - 1), keys)
    assert len(malformed) == 7


def test_the_published_bad_keys_are_refused() -> None:
    vkey = VECTORS["vkey"]
    bad = list(VECTORS["bad_vkeys"])
    bad += [
        vkey[a:b] for a in range(len(vkey)) for b in range(a, len(vkey) + 1) if b - a < len(vkey)
    ]
    bad += [vkey[:at] + chr(ord(vkey[at]) + 1) + vkey[at + 1 :] for at in range(len(vkey))]
    for key in bad:
        with pytest.raises(Malformed):
            Verifier.parse(key)
    assert len(bad) == 2 + 2276 + 66


@pytest.mark.parametrize(
    "key",
    [
        "PRIVATE+KEY+log.example+00000000+",
        VECTORS["skey"] + "=",
        VECTORS["skey"].replace("PRIVATE", "PUBLIC"),
        VECTORS["skey"].replace("c74f20a3", "C74F20A3"),
        VECTORS["skey"].replace("c74f20a3", "c74f20a4"),
        VECTORS["skey"].replace("Neumann", "Newmann"),
        VECTORS["vkey"],
        "",
    ],
)
def test_a_bad_private_key_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(Malformed) as refused:
        Signer.parse(key)
    assert "AYEKFALV" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_private_key_does_not_show_in_its_repr() -> None:
    signer = Signer.generate("log.example/puhui")
    secret = signer.skey.split("+", 4)[4]
    assert secret not in repr(signer)
    assert repr(signer.seed) not in repr(signer)
    assert Signer.parse(signer.skey) == signer
    assert Signer.generate("log.example/puhui") != signer


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x00", "\ud800"]
)
def test_a_name_that_cannot_stand_in_a_note_is_refused(name: str) -> None:
    with pytest.raises(Malformed):
        Signer(name, bytes(32))
    with pytest.raises(Malformed):
        note.open(f"{TEXT}\n— {name} {b64encode(bytes(68)).decode()}\n", [LOG.verifier])


def test_a_key_is_chosen_by_name_and_id_and_no_other_is_tried() -> None:
    signed = note.sign("a\n\nb\n", [LOG])
    renamed = Verifier("log.example/other", LOG.verifier.public)
    assert note.open(signed, [renamed, LOG.verifier, LOG.verifier]).text == "a\n\nb\n"
    with pytest.raises(Unverified, match="No key we hold"):
        note.open(signed, [renamed])
    with pytest.raises(Unverified, match="No key we hold"):
        note.open(signed.replace("— log.example/puhui", "— log.example/other"), [LOG.verifier])


def test_one_bad_signature_by_a_known_key_refuses_a_note_that_another_signed_well() -> None:
    other = Signer("other.example", bytes(32))
    signed = note.sign("text\n", [LOG, other])
    forged = signed.replace("text\n", "text\n", 1).split("\n")
    forged[-2] = forged[-2].split(" ")[0] + " other.example " + b64encode(
        other.verifier.key_id + bytes(64)
    ).decode()  # fmt: skip
    assert note.open("\n".join(forged), [LOG.verifier]).text == "text\n"
    with pytest.raises(Unverified, match=r"other\.example"):
        note.open("\n".join(forged), [LOG.verifier, other.verifier])
    again = signed + forged[-2] + "\n"
    with pytest.raises(Unverified, match=r"other\.example"):
        note.open(again, [other.verifier])


@given(st.data())
def test_a_changed_byte_in_a_signed_note_is_refused(data: st.DataObject) -> None:
    signed = bytearray(note.sign("碳普惠\n42\n", [LOG]).encode())
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LedgerError):
        note.open(bytes(signed), [LOG.verifier])


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "\r\n", "\ud800\n"])
def test_a_text_that_is_no_note_is_not_signed(text: str) -> None:
    with pytest.raises(Malformed):
        note.sign(text, [LOG])
    with pytest.raises(Malformed):
        note.sign("text\n", [])


def test_a_witness_cosigns_with_a_time_that_is_signed_too() -> None:
    signed = note.cosign(note.sign("log\n1\nroot\n", [LOG]), WITNESS, 1_679_315_147)
    opened = note.open(signed, [LOG.verifier, WITNESS.verifier])
    assert [signature.name for signature in opened.verified] == [LOG.name, WITNESS.name]
    value = opened.verified[1].value
    assert int.from_bytes(value[:8]) == 1_679_315_147
    later = (1_679_315_148).to_bytes(8) + value[8:]
    message = b"cosignature/v1\ntime 1679315147\nlog\n1\nroot\n"
    Verifier(WITNESS.name, WITNESS.verifier.public).verify(message.decode(), value[8:])
    for bad in (later, value[:-1], value[8:], b"", b"\xff" * 72):
        with pytest.raises(LedgerError):
            WITNESS.verifier.verify(opened.text, bad)


def test_a_log_key_and_a_witness_key_do_not_stand_in_for_each_other() -> None:
    assert Verifier.parse(WITNESS.verifier.vkey) == WITNESS.verifier
    assert Signer.parse(WITNESS.skey) == WITNESS
    same_bytes = Signer(WITNESS.name, WITNESS.seed)
    assert same_bytes.verifier.key_id != WITNESS.verifier.key_id
    with pytest.raises(Malformed):
        WITNESS.sign("text\n")
    with pytest.raises(Malformed):
        LOG.cosign("text\n", 1)
    for time in (-1, 2**63):
        with pytest.raises(Malformed):
            WITNESS.cosign("text\n", time)


def test_two_keys_of_one_name_and_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Verifier, "key_id", property(lambda self: b"same"))
    twin = Verifier(LOG.name, bytes(32))
    with pytest.raises(Malformed, match="share the name"):
        note.open(SIGNED, [LOG.verifier, twin])


def test_a_key_of_another_type_or_length_is_refused() -> None:
    for kind, size in ((0x02, 32), (0x06, 32), (0x01, 31), (0x01, 33), (0x04, 0)):
        with pytest.raises(Malformed):
            Verifier("name", bytes(size), kind)
    assert len(b64decode(LOG.verifier.vkey.split("+", 2)[2])) == 33
