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
from functools import lru_cache
from io import StringIO
from itertools import chain, islice
from math import ceil
from typing import Final

from app.flows.workbook import Cells, Sheet, workbook
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
_WIDTHS: Final = (20, 9, 34, 34, 14, 14, 34, 12, 16)
SUMMARY_WIDTHS: Final = (22,) * 9


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


@lru_cache(10_000)
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


def workbook_of(
    summary: Iterable[Cells], rows: Iterable[Row], lines: int, milli_fen_per_point: int
) -> Iterator[bytes]:
    """An XLSX file, in pieces: a sheet of the day by store and kind, with the stores' names as they
    are now, and one of its documents, which are so many `lines`, with their sum; or more than one
    if it is full."""
    tally = Tally()
    documents = ((*row, price(row.points * milli_fen_per_point)) for row in tally.count(rows))
    sheets = [Sheet("汇总 summary", summary, SUMMARY_WIDTHS)]
    for number in range(1, max(1, ceil(lines / _SHEET_ROWS)) + 1):
        name = f"明细 documents {number}" if number > 1 else "明细 documents"
        part: Iterable[Cells] = chain((HEAD,), islice(documents, _SHEET_ROWS))
        sheets.append(Sheet(name, part, _WIDTHS, headed=True))
    last = sheets.pop()
    sheets.append(last._replace(rows=chain(last.rows, _sum(tally, milli_fen_per_point))))
    return workbook(sheets)


def _sum(tally: Tally, milli_fen_per_point: int) -> Iterator[Cells]:
    """The last row, made when all others have gone by."""
    amount = price(tally.points * milli_fen_per_point)
    yield (TOTAL, str(tally.lines), *[""] * 5, tally.points, amount)


@lru_cache(10_000)
def price(milli_fen: int) -> Decimal:
    """The same amount as a number."""
    return Decimal(yuan(milli_fen))
