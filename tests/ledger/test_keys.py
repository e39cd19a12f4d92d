from base64 import b64decode

import pytest

from ledger import checkpoint, note
from ledger.checkpoint import Checkpoint
from ledger.errors import Malformed, Unverified
from ledger.keys import KeyRing, Term, history, policy, rotation, verify_rotation
from ledger.merkle import EMPTY_ROOT
from ledger.note import COSIGNATURE, Signer, Verifier

NAME = "log.example/puhui"
OLD, NEW = Signer(NAME, bytes(32)), Signer(NAME, bytes(range(32)))
W1 = Signer("witness.example/w1", bytes(range(1, 33)), COSIGNATURE).verifier
W2 = Signer("witness.example/w2", bytes(range(2, 34)), COSIGNATURE).verifier
HEAD = Checkpoint(NAME, 0, EMPTY_ROOT)


def test_while_two_keys_are_valid_a_reader_of_either_can_check() -> None:
    ring = KeyRing.parse(OLD.skey, NEW.skey)
    signed = ring.sign(HEAD)
    assert ring.origin == NAME
    assert ring.verifiers == (OLD.verifier, NEW.verifier)
    for verifier in ring.verifiers:
        assert checkpoint.open(signed, [verifier], NAME) == HEAD
    assert len(note.open(signed, ring.verifiers).verified) == 2


def test_a_ring_holds_one_or_two_keys_of_one_log() -> None:
    third = Signer(NAME, b"3" * 32)
    witness = Signer(NAME, bytes(32), COSIGNATURE)
    for signers in ((), (OLD, OLD), (OLD, NEW, third), (OLD, Signer("x", b"3" * 32)), (witness,)):
        with pytest.raises(Malformed):
            KeyRing(signers)
    with pytest.raises(Malformed):
        KeyRing((OLD,)).sign(Checkpoint("other.example", 0, EMPTY_ROOT))


def test_the_old_key_hands_over_to_the_new() -> None:
    detail = rotation(OLD, NEW.verifier)
    assert (detail["old"], detail["new"]) == (OLD.verifier.vkey, NEW.verifier.vkey)
    assert verify_rotation(detail) == (OLD.verifier, NEW.verifier)


def test_a_bent_rotation_is_refused() -> None:
    good = rotation(OLD, NEW.verifier)
    other = Signer(NAME, b"3" * 32)
    backwards = rotation(NEW, OLD.verifier)
    for bad in (
        good | {"new": other.verifier.vkey},
        good | {"old": other.verifier.vkey},
        good | {"signature": backwards["signature"]},
    ):
        with pytest.raises(Unverified):
            verify_rotation(bad)
    for malformed in (
        good | {"signature": good["signature"] + "\n"},
        good | {"signature": 7},
        good | {"note": "x"},
        {key: good[key] for key in ("old", "new")},
        {},
    ):
        with pytest.raises(Malformed):
            verify_rotation(malformed)
    for new in (OLD.verifier, Signer("other.example", b"3" * 32).verifier, W1):
        with pytest.raises(Malformed):
            rotation(OLD, new)


def test_the_handovers_say_which_keys_signed_when() -> None:
    third = Signer(NAME, b"3" * 32)
    first, second = (4, rotation(OLD, NEW.verifier)), (9, rotation(NEW, third.verifier))
    assert history(OLD.verifier, []) == (Term(OLD.verifier, 0, None),)
    assert history(third.verifier, [second, first]) == (
        Term(third.verifier, 10, None),
        Term(NEW.verifier, 5, 10),
        Term(OLD.verifier, 0, 5),
    )
    for newest, broken in (
        (third, [first]),
        (third, [first, second]),
        (OLD, [second, first]),
        (third, [second, second]),
    ):
        with pytest.raises(Malformed):
            history(newest.verifier, broken)
    with pytest.raises(Unverified):
        history(third.verifier, [(9, second[1] | {"signature": first[1]["signature"]})])


def test_what_a_rotation_signs_can_be_no_checkpoint() -> None:
    detail = rotation(OLD, NEW.verifier)
    signed = f"puhui key rotation v1\n{detail['old']}\n{detail['new']}\n"
    OLD.verifier.verify(signed, b64decode(detail["signature"]))
    with pytest.raises(Malformed):
        Checkpoint.parse(signed)


def test_a_policy_has_the_lines_of_the_specification() -> None:
    assert policy([OLD.verifier]) == f"log {OLD.verifier.vkey}\nquorum none\n"
    assert policy([OLD.verifier, NEW.verifier], [W1, W2], 1) == (
        f"log {OLD.verifier.vkey}\n"
        f"log {NEW.verifier.vkey}\n"
        f"witness witness.example/w1 {W1.vkey}\n"
        f"witness witness.example/w2 {W2.vkey}\n"
        "group quorum-of-witnesses 1 witness.example/w1 witness.example/w2\n"
        "quorum quorum-of-witnesses\n"
    )


@pytest.mark.parametrize(
    ("logs", "witnesses", "quorum"),
    [
        ([], [], 0),
        ([OLD.verifier, OLD.verifier], [], 0),
        ([W1], [], 0),
        ([OLD.verifier], [NEW.verifier], 0),
        ([OLD.verifier], [W1], 2),
        ([OLD.verifier], [W1], -1),
        ([OLD.verifier], [W1, Verifier(W1.name, W2.public, COSIGNATURE)], 1),
        ([OLD.verifier], [Verifier("none", W1.public, COSIGNATURE)], 1),
    ],
)
def test_a_policy_that_means_nothing_is_not_written(
    logs: list[Verifier], witnesses: list[Verifier], quorum: int
) -> None:
    with pytest.raises(Malformed):
        policy(logs, witnesses, quorum)
