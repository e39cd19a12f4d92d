"""Receipts: one file that proves one entry, offline (c2sp.org/tlog-proof@v1).

In Puhui ``extra`` is the entry's own payload, so the file alone is enough. The format does not
authenticate ``extra``; ``verify`` does, by requiring it to be the payload that was proved.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ledger import checkpoint
from ledger.checkpoint import Checkpoint
from ledger.errors import Malformed, Unverified
from ledger.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from ledger.note import Verifier
from ledger.text import MAX_DECIMAL, base64, decimal, unbase64, utf8

HEADER = "c2sp.org/tlog-proof@v1"
MAX_HASHES = 63  # the height of the tallest tree whose size fits 63 bits


@dataclass(frozen=True, slots=True)
class Receipt:
    """A leaf's index, its inclusion path (leaf side first), a signed checkpoint and extra data."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_DECIMAL:
            raise Malformed(f"A leaf index is 0 to 2**63 - 1, not {self.index}.")
        if len(self.hashes) > MAX_HASHES or any(len(h) != HASH_BYTES for h in self.hashes):
            raise Malformed(f"A proof is at most {MAX_HASHES} hashes of {HASH_BYTES} bytes.")
        if not self.checkpoint.endswith("\n"):
            raise Malformed("A receipt ends with a checkpoint.")

    @classmethod
    def parse(cls, data: bytes | str) -> "Receipt":
        """Read a receipt; Malformed unless ``text()`` would write the same.

        The checkpoint is not looked into: only ``verify`` makes it worth reading.
        """
        head, _, signed = utf8(data).partition("\n\n")
        header, *lines = head.split("\n")
        if header != HEADER:
            raise Malformed(f"A receipt begins with {HEADER}.")
        extra = None
        if lines and lines[0].startswith("extra "):
            extra = unbase64(lines.pop(0).removeprefix("extra "))
        if not lines or not lines[0].startswith("index "):
            raise Malformed("A receipt names the index of its leaf.")
        index = decimal(lines.pop(0).removeprefix("index "))
        return cls(index, tuple(unbase64(line, HASH_BYTES) for line in lines), signed, extra)

    def text(self) -> str:
        """Return the file's text."""
        extra = [] if self.extra is None else [f"extra {base64(self.extra)}"]
        lines = [HEADER, *extra, f"index {self.index}", *map(base64, self.hashes)]
        return "\n".join(lines) + "\n\n" + self.checkpoint


def verify(
    receipt: Receipt, payload: bytes, verifiers: Iterable[Verifier], origin: str | None = None
) -> Checkpoint:
    """Check that the log signed a tree that holds ``payload`` at the receipt's index.

    Returns the checkpoint it verified: size and root come from there and nowhere else.
    Raises Malformed or Unverified.
    """
    head = checkpoint.open(receipt.checkpoint, verifiers, origin)
    if receipt.extra is not None and receipt.extra != payload:
        raise Unverified("The receipt carries another payload than the one to be proved.")
    verify_inclusion(receipt.index, head.size, leaf_hash(payload), receipt.hashes, head.root)
    return head
