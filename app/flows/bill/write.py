"""Write: a day's lines as CSV and as a workbook, streamed.

The CSV of a day that is cut is the same bytes forever, and the bill holds its SHA-256: so it shows
codes, which never change, and no names, which may. As in WeChat Pay's bills every text begins with
a backtick: no spreadsheet then takes a number of twenty digits for a quantity, or what somebody
else has named for a formula. Points and amounts are bare, to be summed. A reader takes one
backtick off.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from io import StringIO
from typing import IO, Any, Final

import xlsxwriter

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
_SHEET_ROWS: Final = 1_000_000  # a sheet of a workbook has 1,048,576
WORKBOOK: Final = {
    "constant_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
}
_WIDTHS: Final = (20, 9, 34, 34, 14, 14, 34, 12, 16)

Cells = Sequence[str | int | Decimal]
"""A row of a workbook."""


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
    file: IO[bytes],
    facts: Iterable[Cells],
    table: Iterable[Cells],
    rows: Iterable[Row],
    milli_fen_per_point: int,
) -> None:
    """Write an XLSX file: a sheet of facts and of the day by store and kind, with the stores' names
    as they are now, and one (or more, if it is full) of the documents with their sum."""
    book = xlsxwriter.Workbook(file, WORKBOOK)
    put_lines(book.add_worksheet("汇总 summary"), (*facts, (), *table))
    tally, sheet, at = Tally(), None, 0
    for row in tally.count(rows):
        if at == _SHEET_ROWS or sheet is None:
            sheet, at = _documents(book, (tally.lines - 1) // _SHEET_ROWS), 0
        at += 1
        _put(sheet, at, (*row, _price(row.points * milli_fen_per_point)))
    price = _price(tally.points * milli_fen_per_point)
    total: Cells = (TOTAL, str(tally.lines), *[""] * 5, tally.points, price)
    _put(sheet or _documents(book, 0), at + 1, total)
    book.close()


def put_lines(sheet: Any, lines: Iterable[Cells]) -> None:
    """Fill a sheet of a workbook with texts and numbers; a text stays a text, whatever it is."""
    sheet.set_column(0, 8, 22)
    for at, cells in enumerate(lines):
        _put(sheet, at, cells)


def _documents(book: Any, full: int) -> Any:
    sheet = book.add_worksheet(f"明细 documents {full + 1}" if full else "明细 documents")
    for column, width in enumerate(_WIDTHS):
        sheet.set_column(column, column, width)
    sheet.freeze_panes(1, 0)
    _put(sheet, 0, HEAD)
    return sheet


def _put(sheet: Any, at: int, cells: Cells) -> None:
    for column, value in enumerate(cells):
        if isinstance(value, str):
            sheet.write_string(at, column, value)
        else:
            sheet.write_number(at, column, value)


def _price(milli_fen: int) -> Decimal:
    return Decimal(yuan(milli_fen))
