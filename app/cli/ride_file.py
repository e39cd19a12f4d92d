"""An operator's ride file: CSV in UTF-8 with a header, read as a stream."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.cli.mapping import Columns

_CHUNK = 1 << 20


class RideFileError(Exception):
    """A file cannot be read as rides; the sentence says what is wrong with it."""

    code = "RIDE_FILE"


@dataclass(frozen=True, slots=True)
class RideFile:
    """A file whose header was checked; `digest` is its SHA-256 in hex, `lines` about its length."""

    path: Path
    columns: Columns
    digest: str
    lines: int

    def rows(self) -> Iterator[dict[str, str]]:
        """Each row's cells by column name; none at all for a row that does not fit the header."""
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            reader = csv.reader(text, strict=True)
            header = next(reader)
            while True:
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error:  # bad quoting; the reader goes on with the next line
                    yield {}
                    continue
                if cells:
                    yield dict(zip(header, cells, strict=True)) if len(cells) == len(header) else {}

    def riders(self) -> Iterator[str]:
        """Every rider once, in the order of their first rides. Holds them all in memory."""
        seen = set()
        for row in self.rows():
            rider = row.get(self.columns.rider, "")
            if rider.strip() and rider not in seen:
                seen.add(rider)
                yield rider


def open_rides(path: Path, columns: Columns) -> RideFile:
    """Check a file's header and take its digest. Raises RideFileError."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            header = next(csv.reader(text, strict=True), None)
        digest, lines = hashlib.sha256(), 0
        with path.open("rb") as data:
            while chunk := data.read(_CHUNK):
                digest.update(chunk)
                lines += chunk.count(b"\n")
    except (OSError, csv.Error) as error:
        raise RideFileError(f"{path} cannot be read: {error}") from None
    if not header:
        raise RideFileError(f"{path} is empty; its first line must name the columns")
    for name in columns.needed():
        if header.count(name) != 1:
            how = "no column" if name not in header else "more than one column"
            raise RideFileError(f"{path} has {how} {name!r}; a --mapping can name another")
    return RideFile(path, columns, digest.hexdigest(), lines)
