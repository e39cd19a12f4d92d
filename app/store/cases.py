"""Cases: what looks like fraud, what a merchant's books say otherwise, what was used twice offline.

A case's facts hold no personal data; whose it is stands beside them and is forgotten with them.
"""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, TextClause, text

from app.store.db import text_array

KINDS: Final = ("fraud", "difference", "offline")
STATES: Final = ("open", "upheld", "dismissed")


class Case(NamedTuple):
    """One case. `times` is how often it came up; `merchant` is a merchant's code."""

    id: str
    kind: str
    rule: str
    shadow: bool
    merchant: str | None
    facts: dict[str, Any]
    times: int
    state: str
    opened_at: datetime
    last_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    reason: str


class Finding(NamedTuple):
    """What is found amiss; `key` names it among its rule's. `merchant` and `resident` are ids (32
    hex digits); `facts` is JSON that names no person; `shadow`: by a rule that only watches."""

    kind: str
    rule: str
    key: str
    merchant: str | None
    facts: dict[str, Any]
    resident: str | None = None
    shadow: bool = False


class Wanted(NamedTuple):
    """Which cases a list is of; None: whatever. `merchant` is a merchant's code."""

    state: str | None = None
    kinds: tuple[str, ...] | None = None
    rule: str | None = None
    merchant: str | None = None


_OPEN = """
INSERT INTO cases (id, kind, rule, shadow, merchant, resident, facts, state, opened_at, last_at)
VALUES (:id, :kind, :rule, :shadow, :merchant, :resident, CAST(:facts AS jsonb), 'open', :now, :now)
ON CONFLICT (id) DO UPDATE SET shadow = cases.shadow AND excluded.shadow,
"""
_AGAIN = text(_OPEN + "times = cases.times + 1, last_at = :now")
_SAME = text(
    _OPEN + "facts = excluded.facts, last_at = :now"
    " WHERE cases.state = 'open' AND cases.facts <> excluded.facts"
)


def open_case(tx: Connection, finding: Finding, now: datetime) -> str:
    """Open the case of a finding, or count once more that it came up; the case's id."""
    return _put(tx, _AGAIN, finding, now)


def note_case(tx: Connection, finding: Finding, now: datetime) -> str:
    """As `open_case`, for one who looks at the same thing again and again: nothing is counted, and
    an open case has the facts as they now are."""
    return _put(tx, _SAME, finding, now)


def _put(tx: Connection, statement: TextClause, finding: Finding, now: datetime) -> str:
    named = f"{finding.kind}\0{finding.rule}\0{finding.key}"
    digest = blake2b(named.encode(), digest_size=16).digest()
    given = finding._asdict() | {
        "id": digest,
        "merchant": finding.merchant and bytes.fromhex(finding.merchant),
        "resident": finding.resident and bytes.fromhex(finding.resident),
        "facts": orjson.dumps(finding.facts).decode(),
        "now": now,
    }
    tx.execute(statement, given)
    return digest.hex()


_COLUMNS = (
    "c.id, c.kind, c.rule, c.shadow, m.code, c.facts, c.times, c.state, c.opened_at, c.last_at,"
    " c.closed_at, c.closed_by, c.reason"
)
_FROM = f"SELECT {_COLUMNS} FROM cases c LEFT JOIN merchants m ON m.id = c.merchant"  # noqa: S608 (our own names)


def find(tx: Connection, id: str) -> Case | None:
    """A case by its id (32 hex digits)."""
    row = tx.execute(text(f"{_FROM} WHERE c.id = :id"), {"id": bytes.fromhex(id)}).first()
    return _read(row) if row else None


def newest(
    tx: Connection, wanted: Wanted, before: tuple[datetime, str] | None, limit: int
) -> list[Case]:
    """A page of cases, newest first, after the place (opened_at, id) of an earlier one."""
    at, last = before or (None, "")
    rows = tx.execute(
        text(
            f"{_FROM} WHERE (CAST(:state AS text) IS NULL OR c.state = :state)"
            " AND (CAST(:kinds AS text[]) IS NULL OR c.kind = ANY(CAST(:kinds AS text[])))"
            " AND (CAST(:rule AS text) IS NULL OR c.rule = :rule)"
            " AND (CAST(:merchant AS text) IS NULL OR m.code = :merchant)"
            " AND (CAST(:at AS timestamptz) IS NULL OR (c.opened_at, c.id) < (:at, :last))"
            " ORDER BY c.opened_at DESC, c.id DESC LIMIT :limit"
        ),
        {
            **wanted._asdict(),
            "kinds": wanted.kinds and text_array(wanted.kinds),
            "at": at,
            "last": bytes.fromhex(last),
            "limit": limit,
        },
    )
    return [_read(row) for row in rows]


def waiting(tx: Connection) -> int:
    """How many cases wait for a reviewer, without those of rules that are only tried out."""
    statement = "SELECT count(*) FROM cases WHERE state = 'open' AND NOT shadow"
    return int(tx.execute(text(statement)).scalar_one())


def close(tx: Connection, id: str, state: str, who: str, reason: str, now: datetime) -> bool:
    """Close an open case; False if it is closed already or there is none."""
    statement = (
        "UPDATE cases SET state = :state, closed_by = :who, reason = :reason, closed_at = :now"
        " WHERE id = :id AND state = 'open'"
    )
    given = {"id": bytes.fromhex(id), "state": state, "who": who, "reason": reason, "now": now}
    return tx.execute(text(statement), given).rowcount == 1


def _read(row: Any) -> Case:
    return Case(*row)._replace(id=row[0].hex())
