"""Who pays for points: budgets by scope, and the line of those who wait for one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import copy_in
from ledger.accounts import AccountKind, Asset

ANY_SCOPE = "*"


class Waiting(NamedTuple):
    """Points that an entry earned and no budget could pay yet."""

    arrival: int
    entry_id: str
    resident: str
    points: int


def create(tx: Connection, token: str, name: str, scope: str, now: datetime) -> bool:
    """Add an unfunded budget for a scenario id, an area or '*'; False if the scope has one."""
    return (
        tx.execute(
            text(
                "INSERT INTO budgets (token, name, scope, created_at)"
                " VALUES (:token, :name, :scope, :now) ON CONFLICT (scope) DO NOTHING"
            ),
            {"token": bytes.fromhex(token), "name": name, "scope": scope, "now": now},
        ).rowcount
        == 1
    )


def scopes(tx: Connection) -> dict[str, str]:
    """Budget token of each scope."""
    rows = tx.execute(text("SELECT scope, token FROM budgets"))
    return {row.scope: row.token.hex() for row in rows}


def payer(scopes: Mapping[str, str], scenario: str) -> str | None:
    """The budget that pays for a scenario: its own, else its area's, else the general one."""
    area = scenario.partition(".")[0]
    return scopes.get(scenario) or scopes.get(area) or scopes.get(ANY_SCOPE)


def lock(tx: Connection, tokens: Iterable[str]) -> dict[str, int]:
    """Lock these budgets, in order, and return what each has left for new points.

    A budget that somebody already waits for has nothing for those who come later.
    """
    rows = tx.execute(
        text(
            "SELECT account, amount FROM balances WHERE account = ANY(:tokens)"
            " AND account_kind = :kind ORDER BY account FOR NO KEY UPDATE"
        ),
        {
            "tokens": sorted(bytes.fromhex(token) for token in tokens),
            "kind": AccountKind.BUDGET.code,
        },
    ).all()
    queued = tx.execute(
        text(
            "SELECT b.token FROM budgets b WHERE b.token = ANY(:tokens)"
            " AND EXISTS (SELECT FROM waiting w WHERE w.budget = b.token)"
        ),
        {"tokens": [row.account for row in rows]},
    ).scalars()
    left = {row.account.hex(): row.amount for row in rows}
    return left | {token.hex(): 0 for token in queued}


def park(tx: Connection, rows: Iterable[tuple[int, str, str, str, int]]) -> None:
    """Put (arrival, entry id, resident, budget, points) at the end of the budget's line."""
    copy_in(
        tx,
        "waiting",
        {
            "arrival": "int8",
            "entry_id": "bytea",
            "resident": "bytea",
            "budget": "bytea",
            "points": "int8",
        },
        (
            (
                arrival,
                bytes.fromhex(entry),
                bytes.fromhex(resident),
                bytes.fromhex(budget),
                points,
            )
            for arrival, entry, resident, budget, points in rows
        ),
    )


def next_waiting(tx: Connection, budget: str, limit: int) -> list[Waiting]:
    """The first of the line, in the order they arrived."""
    rows = tx.execute(
        text(
            "SELECT arrival, entry_id, resident, points FROM waiting WHERE budget = :budget"
            " ORDER BY arrival LIMIT :limit"
        ),
        {"budget": bytes.fromhex(budget), "limit": limit},
    )
    return [Waiting(row[0], row[1].hex(), row[2].hex(), row[3]) for row in rows]


def leave_line(tx: Connection, arrivals: Sequence[int]) -> int:
    """Take these out of the line; returns how many stood in it."""
    return tx.execute(
        text("DELETE FROM waiting WHERE arrival = ANY(:arrivals)"), {"arrivals": list(arrivals)}
    ).rowcount


_BALANCE = (
    "SELECT amount FROM balances WHERE account = :token AND account_kind = :kind"
    " AND asset = :asset AND bucket = 0"
)


def peek(tx: Connection, token: str) -> int:
    """What a budget holds just now; it may change at once."""
    return _balance(tx, token, _BALANCE)


def balance(tx: Connection, token: str) -> int:
    """Lock one budget and return what it holds."""
    return _balance(tx, token, f"{_BALANCE} FOR NO KEY UPDATE")


def _balance(tx: Connection, token: str, statement: str) -> int:
    parameters = {
        "token": bytes.fromhex(token),
        "kind": AccountKind.BUDGET.code,
        "asset": Asset.POINT.code,
    }
    return tx.execute(text(statement), parameters).scalar() or 0
