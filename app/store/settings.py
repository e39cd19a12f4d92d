"""What administrators set while the program runs: one row a name, of those that were ever set."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, text

from app.store.db import text_array


class Set(NamedTuple):
    """A value somebody has set, and the revision it has since; the first is 1."""

    value: Any
    revision: int
    changed_at: datetime


def find(tx: Connection, names: Iterable[str]) -> dict[str, Set]:
    """The values of those of these names that were ever set."""
    rows = tx.execute(
        text(
            "SELECT name, value, revision, changed_at FROM settings"
            " WHERE name = ANY(CAST(:names AS text[]))"
        ),
        {"names": text_array(names)},
    )
    return {row.name: Set(*row[1:]) for row in rows}


def put(tx: Connection, name: str, value: Any, seen: int, now: datetime) -> bool:
    """Set a value over the revision that was seen (0: never set); False if another stands now."""
    statement = (
        "UPDATE settings SET value = CAST(:value AS jsonb), revision = revision + 1,"
        " changed_at = :now WHERE name = :name AND revision = :seen"
        if seen
        else "INSERT INTO settings (name, value, revision, changed_at)"
        " VALUES (:name, CAST(:value AS jsonb), 1, :now) ON CONFLICT DO NOTHING"
    )
    given = {"name": name, "value": orjson.dumps(value).decode(), "seen": seen, "now": now}
    return tx.execute(text(statement), given).rowcount == 1
