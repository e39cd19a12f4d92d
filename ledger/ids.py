"""Which leaf an entry's id has, for any number of entries: memory is flat, the rest is on disk.

A record is an id and its leaf index, 22 bytes, and stands in the bucket of the id's first 12
bits. Records are gathered in memory and written out a *run* at a time, bucket after bucket, to
a temporary file; a run of an earlier audit lies in that audit's state. Whether an id occurs
twice is asked once, for all of them: a look at every run for every entry would take longer than
all else.
"""

from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate
from os import pread
from tempfile import TemporaryFile
from typing import IO, NamedTuple

BUCKETS = 1 << 12  # few enough to stay in a processor's cache while ids are added
SPILL = 1 << 19  # records in memory, at most

_ID_BYTES = 16
_RECORD = _ID_BYTES + 6
_COUNT = "Q"  # of a run's buckets, as the array module names it: 8 bytes


class _Run(NamedTuple):
    """Records on file from ``base`` on; bucket n ends where ``ends[n]`` says, in bytes."""

    file: IO[bytes]
    base: int
    ends: "array[int]"

    def size(self, number: int) -> int:
        return self.ends[number] - (self.ends[number - 1] if number else 0)

    def bucket(self, number: int) -> bytes:
        size = self.size(number)
        return pread(self.file.fileno(), size, self.base + self.ends[number] - size)


class Ids:
    """The ids of leaves 0, 1, 2 …, given as 16 bytes each and never forgotten."""

    def __init__(self) -> None:
        self.count = 0
        self._rows = [bytearray() for _ in range(BUCKETS)]
        self._known: list[_Run] = []  # by an earlier audit, which found each of them once
        self._runs: list[_Run] = []

    @classmethod
    def read(cls, file: IO[bytes]) -> "Ids":
        """The ids that ``write`` wrote, at the file's place; the file is now theirs to close."""
        lengths = array(_COUNT, file.read(BUCKETS * 8))
        ids = cls()
        ids._known.append(_Run(file, file.tell(), array(_COUNT, accumulate(lengths))))
        ids.count = ids._known[0].ends[-1] // _RECORD
        return ids

    def close(self) -> None:
        """Let go of the files."""
        for run in (*self._known, *self._runs):
            run.file.close()

    def write(self) -> Iterator[bytes]:
        """All of them in parts, to be written one after the other."""
        runs = (*self._known, *self._runs)
        rows = enumerate(self._rows)
        lengths = [len(row) + sum(run.size(number) for run in runs) for number, row in rows]
        yield array(_COUNT, lengths).tobytes()
        for number, row in enumerate(self._rows):
            yield b"".join((*(run.bucket(number) for run in runs), row))

    def add(self, key: bytes) -> None:
        """Keep the id of the next leaf."""
        row = self._rows[key[0] << 4 | key[1] >> 4]
        row += key + self.count.to_bytes(6)
        self.count += 1
        if not self.count % SPILL:
            self._spill()

    def leaf(self, key: bytes) -> int | None:
        """The first leaf of an id."""
        number = key[0] << 4 | key[1] >> 4
        for run in (*self._known, *self._runs):
            leaf = _find(run.bucket(number), key)
            if leaf is not None:
                return leaf
        return _find(self._rows[number], key)

    def twice(self) -> int | None:
        """The first leaf whose id another leaf had before; None if there is none."""
        found = []
        for number, row in enumerate(self._rows):
            new = b"".join((*(run.bucket(number) for run in self._runs), row))
            keys = [new[at : at + _ID_BYTES] for at in range(0, len(new), _RECORD)]
            if not keys:
                continue
            old = b"".join(run.bucket(number) for run in self._known)
            known = {key for key in keys if old and _find(old, key) is not None}
            if known or len(set(keys)) < len(keys):
                at = _repeated(keys, known) * _RECORD + _ID_BYTES
                found.append(int.from_bytes(new[at : at + 6]))
        return min(found, default=None)

    def _spill(self) -> None:
        file = TemporaryFile()  # noqa: SIM115  (it lives as long as the run)
        file.writelines(self._rows)
        file.flush()
        self._runs.append(_Run(file, 0, array(_COUNT, accumulate(map(len, self._rows)))))
        for row in self._rows:
            row.clear()


def _repeated(keys: list[bytes], known: Iterable[bytes]) -> int:
    seen = set(known)
    for place, key in enumerate(keys):
        if key in seen:
            return place
        seen.add(key)
    raise AssertionError("no key is there twice")


def _find(records: bytes | bytearray, key: bytes) -> int | None:
    at = records.find(key)
    while at % _RECORD and at > 0:  # found across two records
        at = records.find(key, at + 1)
    return None if at < 0 else int.from_bytes(records[at + _ID_BYTES : at + _RECORD])
