"""Workbook: an XLSX file (ECMA-376, transitional) of texts and numbers, in pieces as rows come.

A text stays a text, whatever it is: never a formula, a link or a number. The same rows make the
same bytes, and how many there are costs no memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import chain, islice, product
from string import ascii_uppercase
from typing import Final, NamedTuple
from xml.sax.saxutils import quoteattr
from zipfile import ZIP_DEFLATED, ZipFile

Cells = Sequence[str | int | Decimal | None]
"""A row: texts, numbers, and nothing."""

MAX_ROWS: Final = 1_000_000  # of a sheet, which has 1,048,576 at most; the rest goes on another
_MAX_CHARS: Final = 32_767  # of a cell
_EXACT: Final = 2**53  # numbers are floats; a larger integer is written as text
_LEVEL: Final = 1  # the usual 6 takes a third more time in all, for a sixth less
_CHUNK_ROWS: Final = 500
_COLUMNS: Final = [*ascii_uppercase, *map("".join, product(ascii_uppercase, repeat=2))]

# What XML cannot hold as it is, what Excel takes for an escape, and a space that it would cut off.
_ODD = re.compile("[&<>\x00-\x08\x0b-\x1f\ufffe\uffff]|_x[0-9A-Fa-f]{4}_|^\\s|\\s\\Z")
_NAMED: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "\t", "\n": "\n"}

_XML: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_MEDIA: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_FROZEN: Final = (
    '<sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2"'
    ' activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>'
)


class Sheet(NamedTuple):
    """A sheet: its name (31 characters at most), its rows, the widths of its columns in characters,
    and the row that stays in view above them, if any."""

    name: str
    rows: Iterable[Cells]
    widths: Sequence[int] = ()
    head: Cells = ()


class _Sink:
    """Takes what is written, until it is taken away. (It cannot be sought: ZipFile notices.)"""

    def __init__(self) -> None:
        self._made = bytearray()

    def write(self, piece: bytes) -> int:
        self._made += piece
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        made = bytes(self._made)
        self._made.clear()
        return made


def xlsx(sheets: Iterable[Sheet]) -> Iterator[bytes]:
    """The file, in pieces. Each sheet's rows are read once, after those of the sheet before."""
    sink, names = _Sink(), list[str]()
    # what it was given it never closes, though its types ask for that
    with ZipFile(sink, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as book:  # type: ignore[call-overload]
        for sheet in chain.from_iterable(map(_cut, sheets)):
            names.append(sheet.name)
            with book.open(f"xl/worksheets/sheet{len(names)}.xml", "w") as part:
                for piece in _sheet(sheet):
                    part.write(piece.encode())
                    yield sink.take()
        for name, text in _frame(names):
            with book.open(name, "w") as part:
                part.write(f"{_XML}{text}".encode())
    yield sink.take()


def _cut(sheet: Sheet) -> Iterator[Sheet]:
    """The same in sheets that are not too long; the last must be read before the next one."""
    rows, number = iter(sheet.rows), 0
    first = list(islice(rows, 1))
    while first or not number:
        number += 1
        name = f"{sheet.name} {number}" if number > 1 else sheet.name
        yield sheet._replace(name=name, rows=chain(first, islice(rows, MAX_ROWS - 1)))
        first = list(islice(rows, 1))


def _sheet(sheet: Sheet) -> Iterator[str]:
    columns = "".join(
        f'<col min="{at}" max="{at}" width="{width}" customWidth="1"/>'
        for at, width in enumerate(sheet.widths, 1)
    )
    yield (
        f'{_XML}<worksheet xmlns="{_MAIN}">{_FROZEN if sheet.head else ""}'
        f"{f'<cols>{columns}</cols>' if columns else ''}<sheetData>"
    )
    rows = chain([sheet.head] if sheet.head else [], sheet.rows)
    numbered = (_row(str(number), cells) for number, cells in enumerate(rows, 1))
    while some := "".join(islice(numbered, _CHUNK_ROWS)):
        yield some
    yield "</sheetData></worksheet>"


def _row(number: str, cells: Cells) -> str:
    made = []
    for column, value in zip(_COLUMNS, cells, strict=False):
        if isinstance(value, bool):
            made.append(f'<c r="{column}{number}" t="b"><v>{value:d}</v></c>')
        elif isinstance(value, int | Decimal) and -_EXACT < value < _EXACT:
            made.append(f'<c r="{column}{number}"><v>{value}</v></c>')
        elif value is not None and value != "":
            made.append(f'<c r="{column}{number}" t="inlineStr"><is>{_text(str(value))}</is></c>')
    return f'<row r="{number}">{"".join(made)}</row>'


def _text(text: str) -> str:
    if not _ODD.search(text):
        return f"<t>{text[:_MAX_CHARS]}</t>"
    return f'<t xml:space="preserve">{_ODD.sub(_escaped, text[:_MAX_CHARS])}</t>'


def _escaped(found: re.Match[str]) -> str:
    odd = found[0]
    if len(odd) > 1:  # what reads like an escape: of the bar that it begins with
        return f"_x005F{odd}"
    return _NAMED.get(odd) or (f"_x{ord(odd):04X}_" if odd < " " or odd > "\ufffd" else odd)


def _frame(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The parts that say what the sheets are, by their path."""
    sheets, targets, kinds = "", "", ""
    for at, name in enumerate(names, 1):
        sheets += f'<sheet name={quoteattr(name)} sheetId="{at}" r:id="rId{at}"/>'
        targets += _relation(at, "worksheet", f"worksheets/sheet{at}.xml")
        kinds += _kind(f"worksheets/sheet{at}.xml", "worksheet")
    yield (
        "xl/workbook.xml",
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><bookViews><workbookView/></bookViews>'
        f"<sheets>{sheets}</sheets></workbook>",
    )
    yield "xl/_rels/workbook.xml.rels", _relations(targets)
    yield "_rels/.rels", _relations(_relation(1, "officeDocument", "xl/workbook.xml"))
    yield (
        "[Content_Types].xml",
        f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f"{_kind('workbook.xml', 'sheet.main')}{kinds}</Types>",
    )


def _kind(part: str, kind: str) -> str:
    return f'<Override PartName="/xl/{part}" ContentType="{_MEDIA}.{kind}+xml"/>'


def _relation(number: int, kind: str, target: str) -> str:
    return f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'


def _relations(all_of_them: str) -> str:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{all_of_them}</Relationships>'
