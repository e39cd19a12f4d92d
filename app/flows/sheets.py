"""A person's archive as a workbook: the statement in words, then a sheet a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, Final

import orjson
import xlsxwriter

from app.config import CITY_ZONE
from scenarios import Catalogue

_EXACT: Final = 2**53  # a workbook's numbers are floats; a larger integer is written as text
_MAX_CELL: Final = 32_767
_MAX_ROWS: Final = 1_048_575  # and one for the head
_OPTIONS: Final = {
    "in_memory": True,  # nothing of a person's lies in a temporary file
    "strings_to_formulas": False,  # nor does what they wrote become one
    "strings_to_urls": False,
    "strings_to_numbers": False,
}
_HEAD: Final = (
    "时间 at",
    "类型 kind",
    "行为 act",
    "场景 scenario",
    "版本 version",
    "减排 reduction (mg CO2e)",
    "积分 points",
    "记录号 entry",
    "日志序号 leaf",
    "原文 opening",
)


def workbook(
    entries: Sequence[dict[str, Any]],
    sections: Iterable[tuple[str, list[dict[str, Any]]]],
    catalogue: Catalogue,
    now: datetime,
) -> bytes:
    """An XLSX file of these entries and tables; empty tables are left out."""
    made = BytesIO()
    book = xlsxwriter.Workbook(made, _OPTIONS)
    book.set_properties({"created": now.astimezone(CITY_ZONE).replace(tzinfo=None)})
    _sheet(book, "statement", _HEAD, (_line(one, catalogue) for one in entries))
    for table, rows in sections:
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row))
            _sheet(book, table, names, ([row.get(name) for name in names] for row in rows))
    book.close()
    return made.getvalue()


def _line(one: dict[str, Any], catalogue: Catalogue) -> list[Any]:
    entry = one["entry"]
    scenario, version, *_ = entry["detail"].get("rule", (None, None))
    title = catalogue.versions(scenario)[version - 1].title.zh if scenario else None
    gained = {
        asset: sum(
            amount
            for account, of, _, amount in entry["postings"]
            if of == asset and account.startswith("resident:")
        )
        for asset in ("CO2E", "POINT")
    }
    return [
        datetime.fromisoformat(entry["at"]).astimezone(CITY_ZONE).isoformat(timespec="seconds"),
        entry["kind"],
        title,
        scenario,
        version,
        gained["CO2E"],
        gained["POINT"],
        entry["id"],
        one["leaf"],
        one.get("opening", {}).get("opening"),
    ]


def _sheet(book: Any, name: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    sheet = book.add_worksheet(name)
    sheet.freeze_panes(1, 0)
    for column, title in enumerate(head):
        sheet.write_string(0, column, title)
    for number, row in enumerate(rows, 1):
        if number > _MAX_ROWS:
            break  # data.json has them all
        for column, value in enumerate(row):
            _cell(sheet, number, column, value)


def _cell(sheet: Any, row: int, column: int, value: Any) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, column, value)
    elif isinstance(value, int) and abs(value) < _EXACT:
        sheet.write_number(row, column, value)
    elif value is not None:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        sheet.write_string(row, column, text[:_MAX_CELL])
