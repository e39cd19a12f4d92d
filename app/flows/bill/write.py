"""Write: a day's lines as CSV and as a workbook, streamed.

The CSV of a day that is cut is the same bytes forever, and the bill holds its SHA-256: so it shows
codes, which never change, and no names, which may. As in WeChat Pay's bills every text begins with
a backtick: no spreadsheet then takes a number of twenty digits for a quantity, or what somebody
else has named for a formula. Points and amounts are bare, to be summed. A reader takes one
backtick off.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import Final

from app.flows.workbook import Cells, Sheet, xlsx
from app.store.bills import Row

HEAD: Final = (
    "时间 time",
    "类型 kind",
    "单号 number",
    "原单号 origin",
    "门店 store",
    "收银机 till",
    "记录号 entry",
    "积分 points",
    "金额(元) amount (CNY)",
)
TOTAL: Final = "合计 total"
_BOM: Final = "\ufeff"  # else Excel takes UTF-8 for the encoding of its own country
_CHUNK_ROWS: Final = 1000
_WIDTHS: Final = (20, 9, 34, 34, 14, 14, 34, 12, 16)
NARROW: Final = (22,) * 9
"""The widths of a sheet of sums."""


@dataclass
class Tally:
    """How many lines went by, and their points; complete once the last one has."""

    lines: int = 0
    points: int = 0

    def count(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The same rows, counted."""
        for row in rows:
            self.lines += 1
            self.points += row.points
            yield row


def yuan(milli_fen: int) -> str:
    """An amount in yuan, exact: points are paid for by the hundredth of a fen, so with four
    digits."""
    whole, rest = divmod(abs(milli_fen) // 10, 10_000)
    return f"{'-' if milli_fen < 0 else ''}{whole}.{rest:04d}"


def csv_of(rows: Iterable[Row], milli_fen_per_point: int, tally: Tally) -> Iterator[bytes]:
    """The file of a day's lines, in pieces: UTF-8 with a byte order mark, CRLF, a head, a row a
    document and the sum. It is the same for the same lines and terms."""
    page = StringIO()
    page.write(_BOM)
    writer = csv.writer(page, lineterminator="\r\n")
    writer.writerow(HEAD)
    for row in tally.count(rows):
        texts = [f"`{text}" if text else "" for text in row[:7]]
        writer.writerow((*texts, row.points, yuan(row.points * milli_fen_per_point)))
        if tally.lines % _CHUNK_ROWS == 0:
            yield _taken(page)
    total = yuan(tally.points * milli_fen_per_point)
    writer.writerow((f"`{TOTAL}", f"`{tally.lines}", *[""] * 5, tally.points, total))
    yield _taken(page)


def _taken(page: StringIO) -> bytes:
    text = page.getvalue()
    page.seek(0)
    page.truncate()
    return text.encode()


def workbook(
    facts: Iterable[Cells],
    table: Iterable[Cells],
    rows: Iterable[Row],
    milli_fen_per_point: int,
) -> Iterator[bytes]:
    """An XLSX file, in pieces: a sheet of facts and of the day by store and kind, with the stores'
    names as they are now, and one (or more, if it is full) of the documents with their sum."""
    summary = Sheet("汇总 summary", (*facts, (), *table), NARROW)
    documents = _documents(rows, milli_fen_per_point)
    return xlsx((summary, Sheet("明细 documents", documents, _WIDTHS, HEAD)))


def _documents(rows: Iterable[Row], milli_fen_per_point: int) -> Iterator[Cells]:
    tally = Tally()
    for row in tally.count(rows):
        yield (*row, Decimal(yuan(row.points * milli_fen_per_point)))
    price = Decimal(yuan(tally.points * milli_fen_per_point))
    yield (TOTAL, str(tally.lines), *[""] * 5, tally.points, price)
