"""A person's archive as a workbook: the statement in words, then a sheet a table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final

import orjson

from app.config import CITY_ZONE
from app.flows.workbook import MAX_CELL, MAX_ROWS, Sheet
from app.flows.workbook import workbook as pieces_of
from scenarios import Catalogue

_EXACT: Final = 2**53  # a workbook's numbers are floats; a larger integer is written as text
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
    entries: Iterable[dict[str, Any]],
    sections: Iterable[tuple[str, list[dict[str, Any]]]],
    catalogue: Catalogue,
) -> bytes:
    """An XLSX file of these entries and tables; empty tables are left out."""
    sheets = [_sheet("statement", _HEAD, (_line(one, catalogue) for one in entries))]
    for table, rows in sections:
        if rows:
            names = list(dict.fromkeys(name for row in rows for name in row))
            sheets.append(_sheet(table, names, [[row.get(name) for name in names] for row in rows]))
    return b"".join(pieces_of(sheets))


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


def _sheet(name: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> Sheet:
    lines = ([_cell(value) for value in row] for row in chain((head,), rows))
    return Sheet(name, islice(lines, MAX_ROWS), headed=True)  # data.json has those beyond it


def _cell(value: Any) -> str | int | None:
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < _EXACT):
        return value
    return (value if isinstance(value, str) else orjson.dumps(value).decode())[:MAX_CELL]
