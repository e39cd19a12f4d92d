"""Openings: each held against the entry that commits to it, then put aside with its account's.

``openings.jsonl`` has a line of RFC 8785 JSON for each opening there is, in leaf order:
``{"account": "resident:…", "index": leaf, "opening": text, "salt": hex}``. A range of leaves finds
its own lines, so ranges are checked apart; what the rules make of a claim depends on the claims
its account made before. So claims go to *heaps* on disk, all of an account's to the same one,
and a heap at a time is small enough to be replayed in memory (``ledger.recompute``).
"""

import marshal
import os
import re
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from ledger.accounts import Asset
from ledger.details import is_digest
from ledger.encoding import MAX_BYTES, commit, decode
from ledger.entries import Kind
from ledger.errors import LedgerError, Malformed
from ledger.export import Export, Fault, JsonEntry, Read, entry_of
from ledger.plain import Grant
from ledger.spends import Spend
from ledger.transfers import granted

FILE = "openings.jsonl"
HEAP = 50_000  # claims at most, about: some 60 MB while they are replayed
HEAPS = 16  # at least, so that no process waits long for the others' last

_head = re.compile(
    rb'\{"account":"resident:([0-9a-f]{32})","index":(0|[1-9][0-9]{0,14}),"opening":"'
).match
_tail = re.compile(rb'","salt":"([0-9a-f]{64})"\}\n').fullmatch
_TAIL = len(',"salt":""}\n"') + 64
# A string's bytes, all but those that stand for themselves there, quotes being escaped.
_ESCAPES = bytes({*range(256)} - {*range(0x20, 0x7F)} | {ord("\\")})
_LENGTH = 8  # bytes before each part of a heap, which say how long it is


class Claim(NamedTuple):
    """What an issue cites and credits, with its opening; ``points`` are all that are due, paid at
    once or later. Of one that was not opened there is only leaf and resident."""

    leaf: int
    resident: str
    opening: bytes
    scenario: str
    version: int
    reduction_mg: int
    points: int
    withheld: int


ClaimRow = tuple[int, str, bytes, str, int, int, int, int]
"""A claim on its way to its heap."""

_claimed = partial(tuple.__new__, Claim)  # the hot path: a named tuple is a tuple


class Part(NamedTuple):
    """The bytes of the file that a range looked at, and the first thing there that does not hold:
    the arguments of a ``Fault``."""

    begin: int
    end: int
    fault: tuple[int | None, str, str] | None


class Heaps(NamedTuple):
    """A folder for the heaps, and how many there are."""

    folder: Path
    heaps: int

    @classmethod
    def of(cls, folder: Path, size: int) -> "Heaps":
        """As many as the claims of so large a log need."""
        return cls(folder, max(HEAPS, size // HEAP + 1))

    def number(self, resident: str) -> int:
        """Which heap a resident's claims go to."""
        return int(resident[:8], 16) % self.heaps

    def add(self, claims: Iterable[ClaimRow]) -> None:
        """Put claims aside; no two processes write to one file."""
        apart: dict[int, list[ClaimRow]] = {}
        for claim in claims:
            apart.setdefault(self.number(claim[1]), []).append(claim)
        for number, some in apart.items():
            with (self.folder / f"{number}.{os.getpid()}").open("ab") as file:
                data = marshal.dumps(some)
                file.write(len(data).to_bytes(_LENGTH) + data)

    def take(self, number: int) -> dict[str, list[Claim]]:
        """All claims of a heap by resident, each one's in leaf order; the heap is gone then."""
        accounts: dict[str, list[Claim]] = {}
        for path in self.folder.glob(f"{number}.*"):
            with path.open("rb") as file:
                while length := file.read(_LENGTH):
                    some = marshal.loads(file.read(int.from_bytes(length)))  # noqa: S302  (ours)
                    for claim in some:
                        accounts.setdefault(claim[1], []).append(_claimed(claim))
            path.unlink()
        for claims in accounts.values():
            claims.sort()
        return accounts


def check_openings(export: Export, first: int, entries: Sequence[Read], heaps: Heaps) -> Part:
    """Check the openings of these entries, which begin at leaf ``first``, and put them aside."""
    claims: list[ClaimRow] = []
    with (export.directory / FILE).open("rb") as file:
        begin = end = _find(file, first)
        leaf, before, size = None, first - 1, len(entries)
        try:
            for line in file:
                leaf = None
                index, resident, opening, salt = _read(line)
                if index >= first + size:
                    break
                leaf = index
                if index <= before:
                    raise Malformed("The openings are not in the order of the leaves.")
                if index > before + 1:
                    claims += _unopened(first, entries, range(before + 1, index))
                made = commit(salt, opening)
                claims.append(_claim(index, resident, opening, made, entries[index - first]))
                before = index
                end += len(line)
        except LedgerError as error:
            return Part(begin, end, (leaf, _where(file, end), str(error)))
    claims += _unopened(first, entries, range(before + 1, first + size))
    heaps.add(claims)
    return Part(begin, end, None)


def check_end(export: Export, end: int) -> None:
    """Check that the file has nothing after the last part of it that was looked at."""
    with (export.directory / FILE).open("rb") as file:
        if file.seek(0, os.SEEK_END) != end:
            what = "The openings are not in the order of the leaves, or of no leaf."
            raise Fault(None, _where(file, end), what)


def _find(file: IO[bytes], leaf: int) -> int:
    """Go to the first line of this leaf or a later one; where that is.

    A line that cannot be read is taken for a later one's: whoever comes to it says so.
    """
    low, high = 0, file.seek(0, os.SEEK_END)
    while low < high:
        middle = (low + high) // 2
        file.seek(max(0, middle - 1))
        if middle:
            file.readline()  # to the first that begins at the middle or after it
        start = file.tell()
        line = file.readline() if start < high else b""
        head = _head(line)
        if head and int(head[2]) < leaf:
            low = start + len(line)
        else:
            high = middle
    file.seek(low)
    return low


def _read(line: bytes) -> tuple[int, str, bytes, bytes]:
    """The leaf, the resident, the opening and the salt of a line."""
    head = _head(line)
    tail = _tail(line, max(0, len(line) - _TAIL))
    if head and tail and len(line) <= MAX_BYTES:
        text = line[head.end() : tail.start()]
        opening = text.translate(None, _ESCAPES)
        # As many escapes as escaped quotes, and no other quotes: then nothing else is escaped.
        if len(text) - len(opening) == text.count(b'\\"') == opening.count(b'"'):
            return int(head[2]), head[1].decode(), opening, unhexlify(tail[1])
    return _decode(line)


def _decode(line: bytes) -> tuple[int, str, bytes, bytes]:
    if line[-1:] != b"\n":
        raise Malformed("The line does not end.")
    match decode(line[:-1]):
        case {
            "account": str(account),
            "index": int(index),
            "opening": str(opening),
            "salt": str(salt),
            **more,
        } if not more and account.startswith("resident:") and index >= 0 and is_digest(salt):
            return index, account.removeprefix("resident:"), opening.encode(), unhexlify(salt)
    raise Malformed("An opening has the account, the index, its text and a salt in hex.")


def _unopened(first: int, entries: Sequence[Read], leaves: range) -> Iterator[ClaimRow]:
    for leaf in leaves:
        entry = entries[leaf - first]
        owner = entry.resident if isinstance(entry, Grant) else _credited(entry)[0]
        if owner:
            yield leaf, owner, b"", "", 0, 0, 0, 0


def _claim(leaf: int, resident: str, opening: bytes, commitment: str, entry: Read) -> ClaimRow:
    if isinstance(entry, Grant):
        _, owner, terms, mg, points, committed, awaiting, withheld = entry
        scenario, version, points = terms[0], terms[1], points + awaiting
    else:
        owner, committed, scenario, version, mg, points, withheld = _credited(entry)
    if owner != resident:
        raise Malformed("The leaf is not an issue to this account.")
    if committed != commitment:
        raise Malformed("The opening is not what the entry committed to.")
    return leaf, resident, opening, scenario, version, mg, points, withheld


def _credited(value: Spend | JsonEntry) -> tuple[str, str, str, int, int, int, int]:
    """Whose an issue is, its commitment, and what it cites and credits; of no issue, nobody's."""
    entry = entry_of(value) if isinstance(value, dict) else None
    if entry is None or entry.kind is not Kind.ISSUE or "rule" not in entry.detail:
        return "", "", "", 0, 0, 0, 0
    detail = entry.detail
    scenario, version, _ = detail["rule"]
    points = granted(entry, Asset.POINT) + detail.get("awaiting", 0)
    amounts = granted(entry, Asset.CO2E), points, detail.get("withheld", 0)
    return entry.resident, detail["commitment"], scenario, version, *amounts


def _where(file: IO[bytes], at: int) -> str:
    file.seek(0)
    lines, left = 1, at
    while left and (part := file.read(min(left, 1 << 20))):
        lines, left = lines + part.count(b"\n"), left - len(part)
    return f"{FILE} line {lines}"
