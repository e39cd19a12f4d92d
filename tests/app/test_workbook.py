"""Workbooks: what goes in comes out, whatever it is; the same bytes for the same; long ones too."""

from __future__ import annotations

import io
from decimal import Decimal
from itertools import chain, repeat
from xml.etree import ElementTree
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flows import workbook
from app.flows.workbook import Sheet, xlsx

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
TEXTS = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    ["=1+1", "_x0041_", "a_x005F_b_x000D_", " a ", "\r\n", "\ufffe", "<t>&amp;", "007", "\x00"]
)


def opened(*sheets):
    """The sheets by name: their cells by place, as a reader of XLSX has them."""
    with ZipFile(io.BytesIO(b"".join(xlsx(sheets)))) as book:
        assert book.testzip() is None
        names = ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{MAIN}sheet")
        return {
            one.get("name"): {
                cell.get("r"): value_of(cell)
                for cell in ElementTree.fromstring(
                    book.read(f"xl/worksheets/sheet{number}.xml")
                ).iter(f"{MAIN}c")
            }
            for number, one in enumerate(names, 1)
        }


def value_of(cell):
    if cell.get("t") == "inlineStr":
        text = cell.find(f"{MAIN}is/{MAIN}t")
        return workbook_text(text.text)
    value = cell.find(f"{MAIN}v").text
    return value == "1" if cell.get("t") == "b" else Decimal(value)


def workbook_text(text):
    """An inline string with its escapes undone, from the left (ECMA-376 part 1, 22.9.2.19)."""
    made, rest = "", text
    while (at := rest.find("_x")) >= 0:
        code = rest[at + 2 : at + 6]
        escape = rest[at + 6 : at + 7] == "_" and all(one in HEX for one in code)
        made += rest[:at] + (chr(int(code, 16)) if escape else "_x")
        rest = rest[at + (7 if escape else 2) :]
    return made + rest


HEX = "0123456789abcdefABCDEF"


@given(TEXTS)
def test_a_text_comes_back_as_it_was(text):
    assert opened(Sheet("a", [[text]]))["a"] == ({"A1": text} if text else {})


def test_numbers_are_exact_and_what_a_float_cannot_hold_is_a_text():
    row = [0, -7, Decimal("12.3400"), True, None, "", 2**53, "12"]
    cells = opened(Sheet("a", [row]))["a"]
    assert cells == {
        "A1": 0, "B1": -7, "C1": Decimal("12.34"), "D1": True, "G1": str(2**53), "H1": "12",
    }  # fmt: skip


def test_a_sheet_that_is_full_goes_on_in_another_under_the_same_head(monkeypatch):
    monkeypatch.setattr(workbook, "MAX_ROWS", 2)
    rows = [[str(number)] for number in range(5)]
    long, empty = Sheet("长", rows, head=["n"]), Sheet("空", [], head=["n"])
    found = opened(long, empty, Sheet("短", rows[:2]))
    assert {name: list(cells.values()) for name, cells in found.items()} == {
        "长": ["n", "0", "1"], "长 2": ["n", "2", "3"], "长 3": ["n", "4"],
        "空": ["n"], "短": ["0", "1"],
    }  # fmt: skip


def test_the_same_rows_make_the_same_bytes_in_pieces_that_stay_small():
    rows = list(repeat(["2026-11-22 12:34:56", "charge", "sale-1", 12], 20_000))
    pieces = list(xlsx([Sheet("a", rows, (20, 9), ["at", "kind"])]))
    assert b"".join(pieces) == b"".join(xlsx([Sheet("a", iter(rows), (20, 9), ["at", "kind"])]))
    assert max(map(len, pieces)) < 64 * 1024


def test_rows_that_cannot_be_read_to_their_end_are_no_file():
    def rows():
        yield ["a"]
        raise LookupError

    with pytest.raises(LookupError):
        list(chain(xlsx([Sheet("a", rows())])))
