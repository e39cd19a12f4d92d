"""Workbooks: what is put in is what a reader finds, and nothing else."""

from __future__ import annotations

import io
import re
from decimal import Decimal
from xml.etree import ElementTree
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flows.workbook import Sheet, workbook

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read(body):
    """The cells of each sheet, by its name, as {reference: value}; texts as a reader shows them."""
    with ZipFile(io.BytesIO(body)) as book:
        assert book.testzip() is None
        kinds, main, *relations = (
            ElementTree.fromstring(book.read(name))
            for name in ("[Content_Types].xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels")
        )
        targets = {one.get("Id"): one.get("Target") for one in relations[0]}
        listed = {one.get("PartName", "") for one in kinds}
        found = {}
        for sheet in main.iter(f"{SHEET}sheet"):
            (link,) = (value for name, value in sheet.items() if name.endswith("}id"))
            assert f"/xl/{targets[link]}" in listed
            rows = ElementTree.fromstring(book.read(f"xl/{targets[link]}")).iter(f"{SHEET}c")
            found[sheet.get("name")] = {cell.get("r"): value_of(cell) for cell in rows}
        return found


def value_of(cell):
    if cell.get("t") == "inlineStr":
        text = cell.find(f"{SHEET}is/{SHEET}t").text or ""
        return re.sub("_x([0-9A-F]{4})_", lambda it: chr(int(it[1], 16)), text)
    value = cell.find(f"{SHEET}v").text
    return value == "1" if cell.get("t") == "b" else Decimal(value)


def whole(*sheets):
    return b"".join(workbook(sheets))


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_text_is_read_as_it_was_written(texts):
    found = read(whole(Sheet("one", [texts])))["one"]
    assert list(found.values()) == texts


@pytest.mark.parametrize(
    "text",
    ["=1+1", "_x0041_", "_X0041_", "a_x000d_b", "a\r\nb\tc", " both ", "</t>&amp;", "\ufffe", ""],
)
def test_what_means_something_to_a_reader_stays_a_text(text):
    body = whole(Sheet("one", [[text, 1]]))
    assert read(body)["one"] == {"A1": text, "B1": 1}
    with ZipFile(io.BytesIO(body)) as book:
        assert b"<f>" not in book.read("xl/worksheets/sheet1.xml")


def test_each_kind_of_value_stands_in_its_column():
    row = ["a", None, True, False, -7, 2**53, Decimal("0.1000"), Decimal("1E+3")]
    assert read(whole(Sheet("one", [[], row])))["one"] == {
        "A2": "a", "C2": True, "D2": False, "E2": -7, "F2": 2**53, "G2": Decimal("0.1"), "H2": 1000
    }  # fmt: skip
    wide = read(whole(Sheet("one", [range(703)])))["one"]
    assert [wide["Z1"], wide["AA1"], wide["ZZ1"], wide["AAA1"]] == [25, 26, 701, 702]


def test_the_same_sheets_make_the_same_file_with_each_sheet_by_its_name():
    sheets = (Sheet("汇总 <a> & b", [["x"]], (20, 9), headed=True), Sheet("empty", []))
    assert whole(*sheets) == whole(*sheets)
    assert read(whole(*sheets)) == {"汇总 <a> & b": {"A1": "x"}, "empty": {}}
