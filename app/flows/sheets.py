"""A person's archive as a workbook: the statement in words, then a sheet a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Final

import orjson

from app.config import CITY_ZONE
from app.flows.workbook import Cells, Sheet, xlsx
from scenarios import Catalogue

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
) -> bytes:
    """An XLSX file of these entries and tables; empty tables are left out."""
    statement = Sheet("statement", (_line(one, catalogue) for one in entries), head=_HEAD)
    tables = (_table(table, rows) for table, rows in sections if rows)
    return b"".join(xlsx(chain([statement], tables)))


def _table(table: str, rows: list[dict[str, Any]]) -> Sheet:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Sheet(table, ([_cell(row.get(name)) for name in names] for row in rows), head=names)


def _cell(value: Any) -> str | int | None:
    """A value of JSON: what is neither text nor a whole number, as JSON."""
    return value if isinstance(value, str | int | None) else orjson.dumps(value).decode()


def _line(one: dict[str, Any], catalogue: Catalogue) -> Cells:
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
