"""Archives: what a city holds about one person, as files, with one manifest that the log signs.

The manifest is a signed note (c2sp.org/signed-note). Its text begins with a header, the account
and the time; then comes a line a file, as ``sha256sum`` writes it, in the order of the names. The
second line has a colon, so that no reader takes it for the size in a checkpoint, which the same
key signs.
"""

import re
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from ledger import note, proof
from ledger.details import is_digest
from ledger.entries import Entry, is_instant
from ledger.errors import Malformed, Unverified
from ledger.note import Signer, Verifier

MANIFEST = "manifest.txt"
RECEIPTS = "receipts/"
RECEIPT = ".tlog-proof"

_HEADER = "puhui archive v1"
_ACCOUNT = re.compile(r"resident:([0-9a-f]{32})").fullmatch
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._/-]*").fullmatch


class Manifest(NamedTuple):
    """Whose archive it is, when it was made, and each file's SHA-256 in hex."""

    resident: str
    at: str
    digests: Mapping[str, str]

    def text(self) -> str:
        """The note's text."""
        head = [_HEADER, f"resident:{self.resident}", self.at]
        lines = [f"{digest}  {name}" for name, digest in sorted(self.digests.items())]
        return "\n".join([*head, *lines]) + "\n"

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        """Read a note's text; Malformed unless ``text()`` would write the same."""
        head, lines = text.split("\n")[:3], text.split("\n")[3:-1]
        whose = _ACCOUNT(head[1]) if len(head) == 3 else None
        if whose is None or head[0] != _HEADER or not is_instant(head[2]):
            raise Malformed(f"A manifest begins with {_HEADER}, an account and an instant.")
        digests = {}
        for line in lines:
            digest, _, name = line.partition("  ")
            if not is_digest(digest) or not _NAME(name):
                raise Malformed("A manifest's line is a SHA-256 in hex, two spaces and a name.")
            digests[name] = digest
        made = cls(whose[1], head[2], digests)
        if made.text() != text:
            raise Malformed("A manifest has a line a file, by name, and nothing else.")
        return made


def sign(resident: str, at: str, digests: Mapping[str, str], signers: Iterable[Signer]) -> str:
    """Return the signed manifest of files with these digests (SHA-256, hex)."""
    return note.sign(Manifest(resident, at, digests).text(), tuple(signers))


def verify(files: Mapping[str, bytes], verifiers: Iterable[Verifier]) -> tuple[Manifest, int]:
    """Check an archive's files, the manifest among them: that one of the keys signed for just
    these, and that every receipt proves an entry of this account.

    Returns the manifest and how many receipts there are. Raises Malformed or Unverified.
    """
    keys = tuple(verifiers)
    if MANIFEST not in files:
        raise Malformed(f"There is no {MANIFEST}.")
    manifest = Manifest.parse(note.open(files[MANIFEST], keys).text)
    for name in sorted((files.keys() - {MANIFEST}) ^ manifest.digests.keys()):
        where = "is in the manifest but not there" if name in manifest.digests else "is not named"
        raise Unverified(f"The file {name[:100]!r} {where}.")
    for name, digest in manifest.digests.items():
        if sha256(files[name]).hexdigest() != digest:
            raise Unverified(f"The file {name} is not what was signed.")
    receipts = [name for name in sorted(files) if name.startswith(RECEIPTS)]
    for name in receipts:
        _check_receipt(name, files[name], manifest.resident, keys)
    return manifest, len(receipts)


def _check_receipt(name: str, data: bytes, resident: str, keys: tuple[Verifier, ...]) -> None:
    receipt = proof.Receipt.parse(data)
    if receipt.extra is None:
        raise Malformed(f"{name} does not carry its entry.")
    proof.verify(receipt, receipt.extra, keys)
    entry = Entry.parse(receipt.extra)
    if entry.resident != resident or name != f"{RECEIPTS}{entry.id}{RECEIPT}":
        raise Unverified(f"{name} is of another entry, or of another account's.")
