"""Checkpoints: the signed head of the log (c2sp.org/tlog-checkpoint)."""

from collections.abc import Iterable
from dataclasses import dataclass

from ledger import note
from ledger.errors import Malformed, Unverified
from ledger.merkle import HASH_BYTES
from ledger.note import ED25519, Verifier
from ledger.text import MAX_DECIMAL, base64, decimal, unbase64


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log's name, its number of leaves, the 32 byte root over them, and extension lines."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines = (self.origin, *self.extensions)
        if not all(lines) or any("\n" in line for line in lines):
            raise Malformed("A checkpoint's origin and extensions are lines that are not empty.")
        if not 0 <= self.size <= MAX_DECIMAL:
            raise Malformed(f"A tree size is 0 to 2**63 - 1, not {self.size}.")
        if len(self.root) != HASH_BYTES:
            raise Malformed(f"A checkpoint's root is {HASH_BYTES} bytes, not {len(self.root)}.")

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Read a note's text; Malformed unless ``text()`` would write the same."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1]:
            raise Malformed("A checkpoint is at least three lines.")
        origin, size, root, *extensions = lines[:-1]
        return cls(origin, decimal(size), unbase64(root, HASH_BYTES), tuple(extensions))

    def text(self) -> str:
        """Return the note text that is signed."""
        lines = (self.origin, str(self.size), base64(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


def open(  # noqa: A001  (read as checkpoint.open)
    signed: bytes | str, verifiers: Iterable[Verifier], origin: str | None = None
) -> Checkpoint:
    """Return the checkpoint if the log itself signed it, and it is the log ``origin`` if given.

    The log's key carries the log's name (c2sp.org/tlog-policy), so a witness's signature, or
    another log's, is never enough. Raises Malformed or Unverified.
    """
    keys = tuple(verifiers)
    opened = note.open(signed, keys)
    checkpoint = Checkpoint.parse(opened.text)
    if origin is not None and checkpoint.origin != origin:
        raise Unverified(f"The checkpoint is of {checkpoint.origin}, not of {origin}.")
    signed_by = {(signature.name, signature.key_id) for signature in opened.verified}
    logs = {(v.name, v.key_id) for v in keys if v.kind == ED25519 and v.name == checkpoint.origin}
    if not signed_by & logs:
        raise Unverified(f"No key of {checkpoint.origin} signed its checkpoint.")
    return checkpoint
