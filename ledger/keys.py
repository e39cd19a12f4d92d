"""The log's own keys: which sign today, how one hands over to the next, whom a reader trusts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ledger import note
from ledger.checkpoint import Checkpoint
from ledger.errors import Malformed
from ledger.note import COSIGNATURE, ED25519, Signer, Verifier
from ledger.text import base64, unbase64

MAX_KEYS = 2


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The one key that signs checkpoints, or two while readers move from the old to the new.

    All keys carry the log's name; every checkpoint is signed by each of them, so a reader who
    holds only one of the two can check it.
    """

    signers: tuple[Signer, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.signers)) == len(self.signers) <= MAX_KEYS:
            raise Malformed(f"A key ring holds 1 to {MAX_KEYS} different keys.")
        if len({signer.name for signer in self.signers}) > 1:
            raise Malformed("The keys of one log carry one name.")
        if any(signer.kind != ED25519 for signer in self.signers):
            raise Malformed("A log signs its checkpoints with Ed25519 keys.")

    @classmethod
    def parse(cls, *skeys: str) -> "KeyRing":
        """Read private keys in the signed-note form, the oldest first."""
        return cls(tuple(Signer.parse(skey) for skey in skeys))

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.signers[0].name

    @property
    def verifiers(self) -> tuple[Verifier, ...]:
        """The public halves."""
        return tuple(signer.verifier for signer in self.signers)

    def sign(self, checkpoint: Checkpoint) -> str:
        """Return the signed checkpoint; another log's is refused."""
        if checkpoint.origin != self.origin:
            raise Malformed(f"The keys of {self.origin} do not sign for {checkpoint.origin}.")
        return note.sign(checkpoint.text(), self.signers)


def rotation(old: Signer, new: Verifier) -> dict[str, str]:
    """Return the detail of a ``key.rotated`` entry: old vkey, new vkey, the old key's signature."""
    statement = _statement(old.verifier, new)
    signature = base64(old.sign(statement))
    return {"old": old.verifier.vkey, "new": new.vkey, "signature": signature}


def verify_rotation(detail: Mapping[str, object]) -> tuple[Verifier, Verifier]:
    """Return the old and the new key of a rotation the old key signed; Malformed or Unverified.

    The caller still has to know the old key: anyone can rotate a key of their own.
    """
    match detail:
        case {"old": str(old_vkey), "new": str(new_vkey), "signature": str(signature), **rest} if (
            not rest
        ):
            old, new = Verifier.parse(old_vkey), Verifier.parse(new_vkey)
            old.verify(_statement(old, new), unbase64(signature))
            return old, new
    raise Malformed("A rotation has an old key, a new key and a signature, and nothing else.")


class Term(NamedTuple):
    """A key's time: the log's size when it was handed over to, 0 for the first key, and the size
    when it handed over itself, None for the newest. It may sign on beside the next for a while."""

    key: Verifier
    since: int
    until: int | None


def history(
    newest: Verifier, rotations: Iterable[tuple[int, Mapping[str, object]]]
) -> tuple[Term, ...]:
    """All keys that ever signed the log, the newest first.

    ``rotations`` are leaf and detail of the ``key.rotated`` entries that led to ``newest``, the
    latest first. Raises ``Malformed`` or ``Unverified`` if they are no chain of handovers.
    """
    terms = []
    key, until = newest, None
    for leaf, detail in rotations:
        old, new = verify_rotation(detail)
        if new != key:
            raise Malformed("A rotation handed over to another key than the one that followed.")
        terms.append(Term(key, leaf + 1, until))
        key, until = old, leaf + 1
    return (*terms, Term(key, 0, until))


def policy(logs: Sequence[Verifier], witnesses: Sequence[Verifier] = (), quorum: int = 0) -> str:
    """Return a trust policy (c2sp.org/tlog-policy): any of these log keys, ``quorum`` witnesses."""
    publics = [verifier.public for verifier in (*logs, *witnesses)]
    names = {"none", "quorum-of-witnesses", *(witness.name for witness in witnesses)}
    if not logs or len(set(publics)) < len(publics) or len(names) < len(witnesses) + 2:
        raise Malformed("A policy has at least one log key, and no key or witness name twice.")
    if any(v.kind != ED25519 for v in logs) or any(v.kind != COSIGNATURE for v in witnesses):
        raise Malformed("A policy's logs sign with Ed25519, its witnesses with cosignatures.")
    if not 0 <= quorum <= len(witnesses):
        raise Malformed(f"A quorum of {quorum} does not exist among {len(witnesses)} witnesses.")
    lines = [f"log {log.vkey}" for log in logs]
    lines += [f"witness {witness.name} {witness.vkey}" for witness in witnesses]
    if quorum:
        members = " ".join(witness.name for witness in witnesses)
        lines.append(f"group quorum-of-witnesses {quorum} {members}")
    lines.append(f"quorum {'quorum-of-witnesses' if quorum else 'none'}")
    return "".join(f"{line}\n" for line in lines)


def _statement(old: Verifier, new: Verifier) -> str:
    # The first line keeps this signature from being read as one over a checkpoint: there the
    # second line is a decimal, and here it is a key.
    if old.name != new.name or old == new or {old.kind, new.kind} != {ED25519}:
        raise Malformed("A rotation is between two different log keys of one name.")
    return f"puhui key rotation v1\n{old.vkey}\n{new.vkey}\n"
