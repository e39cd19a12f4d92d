"""Workbook: sheets of texts and numbers as an XLSX file (ECMA-376), written as it is read.

No more of it is ever held than some hundred rows, and nothing lies in a file; the same sheets make
the same bytes. A text stays a text, whatever it looks like: there are no formulas and no links.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple
from xml.sax.saxutils import quoteattr
from zipfile import ZIP_DEFLATED, ZipFile

Cells = Sequence[str | int | bool | Decimal | None]
"""A row. Readers hold numbers as floats: one above 2^53 is to be given as a text."""

MAX_ROWS: Final = 1_048_576  # of a sheet
MAX_CELL: Final = 32_767  # characters
_AT_ONCE: Final = 500
_LEVEL: Final = 1  # rows are so alike that more work makes a file a fifth smaller in twice the time


class Sheet(NamedTuple):
    """A sheet: its name (at most 31 characters), rows, and the widths of its first columns in
    characters; if it is `headed`, its first row stays in sight."""

    name: str
    rows: Iterable[Cells]
    widths: Sequence[int] = ()
    headed: bool = False


class _Sink(bytearray):
    """What a ZIP file is written to, in one direction."""

    def write(self, piece: bytes) -> int:
        self += piece
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def taken(self) -> Iterator[bytes]:
        """What was written since the last time, if anything was."""
        if self:
            yield bytes(self)
            self.clear()


def workbook(sheets: Sequence[Sheet]) -> Iterator[bytes]:
    """The file of these sheets, in pieces; rows are read one sheet after the other."""
    sink = _Sink()
    with ZipFile(sink, "w", ZIP_DEFLATED, compresslevel=_LEVEL) as book:  # type: ignore[call-overload]
        for path, text in _frame([sheet.name for sheet in sheets]):
            with book.open(path, "w") as part:
                part.write(text.encode())
        for number, sheet in enumerate(sheets, 1):
            with book.open(_path(number), "w") as part:
                part.write(_head(sheet).encode())
                lines = (_line(at, cells) for at, cells in enumerate(sheet.rows, 1))
                while piece := "".join(islice(lines, _AT_ONCE)):
                    part.write(piece.encode())
                    yield from sink.taken()
                part.write(b"</sheetData></worksheet>")
    yield from sink.taken()


def _line(at: int, cells: Cells) -> str:
    if _SPECIAL.search("".join([cell for cell in cells if type(cell) is str])):
        cells = [_escaped(cell) if type(cell) is str else cell for cell in cells]
    return _form(tuple(map(type, cells)))(at, *cells)


_CELLS: Final[dict[type, str]] = {
    str: '<c r="%s{0}" t="inlineStr"><is><t xml:space="preserve">{%d}</t></is></c>',
    bool: '<c r="%s{0}" t="b"><v>{%d:d}</v></c>',
    int: '<c r="%s{0}"><v>{%d}</v></c>',
    Decimal: '<c r="%s{0}"><v>{%d:f}</v></c>',
}


@lru_cache(1000)
def _form(kinds: tuple[type, ...]) -> Callable[..., str]:
    """What writes a row of such cells from its number and them."""
    cells = [
        _CELLS[kind] % (_column(at), at + 1)
        for at, kind in enumerate(kinds)
        if kind is not type(None)
    ]
    return f'<row r="{{0}}">{"".join(cells)}</row>'.format


def _column(at: int) -> str:
    """0 as A, 25 as Z, 26 as AA."""
    before, last = divmod(at, 26)
    return (_column(before - 1) if before else "") + chr(ord("A") + last)


# What XML has a meaning for, or cannot hold. Of the latter _x0007_ is how a workbook writes U+0007
# (ECMA-376 part 1, 22.9.2.19), so a text that has such a thing in it is to be written otherwise.
_SPECIAL: Final = re.compile("[&<>\x00-\x1f\ud800-\udfff\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "\t", "\n": "\n"}


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda it: _ENTITIES.get(it[0]) or f"_x{ord(it[0]):04X}_", text)


_XML: Final = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN: Final = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_KIND: Final = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE: Final = "http://schemas.openxmlformats.org/package/2006"
_MEDIA: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def _path(sheet: int) -> str:
    return f"xl/worksheets/sheet{sheet}.xml"


def _frame(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each part but the sheets: what kinds of parts there are, which is the workbook, and which
    sheets it has."""
    numbers = range(1, len(names) + 1)
    parts = "".join(
        f'<Override PartName="/{path}" ContentType="{_MEDIA}.{kind}+xml"/>'
        for path, kind in (
            ("xl/workbook.xml", "sheet.main"),
            *((_path(number), "worksheet") for number in numbers),
        )
    )
    yield (
        "[Content_Types].xml",
        f'{_XML}<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels"'
        ' ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Default Extension="xml" ContentType="application/xml"/>{parts}</Types>',
    )
    yield "_rels/.rels", _relations([("officeDocument", "xl/workbook.xml")])
    sheets = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{number}" r:id="rId{number}"/>'
        for number, name in zip(numbers, names, strict=True)
    )
    yield (
        "xl/workbook.xml",
        f'{_XML}<workbook xmlns="{_MAIN}" xmlns:r="{_KIND}"><bookViews><workbookView/></bookViews>'
        f"<sheets>{sheets}</sheets></workbook>",
    )
    related = [("worksheet", _path(number).removeprefix("xl/")) for number in numbers]
    yield "xl/_rels/workbook.xml.rels", _relations(related)


def _relations(targets: Iterable[tuple[str, str]]) -> str:
    inner = "".join(
        f'<Relationship Id="rId{number}" Type="{_KIND}/{kind}" Target="{target}"/>'
        for number, (kind, target) in enumerate(targets, 1)
    )
    return f'{_XML}<Relationships xmlns="{_PACKAGE}/relationships">{inner}</Relationships>'


def _head(sheet: Sheet) -> str:
    pane = '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
    columns = "".join(
        f'<col min="{at}" max="{at}" width="{width}" customWidth="1"/>'
        for at, width in enumerate(sheet.widths, 1)
    )
    return (
        f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
        f"{pane if sheet.headed else ''}</sheetView></sheetViews>"
        f"{f'<cols>{columns}</cols>' if columns else ''}<sheetData>"
    )
