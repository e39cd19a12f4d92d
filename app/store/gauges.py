"""Figures about the whole city for health, metrics and the open budget page."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.detached import whole
from ledger.accounts import AccountKind, Asset


class Backlog(NamedTuple):
    """The log's size, and what waits to be sealed: how many entries, and the oldest one's bytes."""

    size: int
    pending: int
    oldest: bytes | None


class BudgetFigures(NamedTuple):
    """One budget in points: funded so far, left for new acts, waiting for more money."""

    name: str
    scope: str
    funded_points: int
    left_points: int
    waiting_points: int


def backlog(tx: Connection) -> Backlog:
    """How far the sealer is behind."""
    row = tx.execute(
        text(
            "SELECT (SELECT size FROM log_head), (SELECT coalesce(sum(count), 0) FROM outbox),"
            " (SELECT payload FROM entries WHERE arrival = (SELECT min(arrival) FROM outbox))"
        )
    ).one()
    return Backlog(*row)


_UNSEALED = text("""
SELECT coalesce((SELECT arrival + count FROM outbox ORDER BY arrival DESC LIMIT 1)
  - (SELECT min(arrival) FROM outbox), 0)""")


def unsealed(tx: Connection) -> int:
    """About how many entries wait to be sealed: from where the first run begins to where the last
    one ends."""
    return int(tx.execute(_UNSEALED).scalar_one())


def newest(tx: Connection) -> bytes | None:
    """The newest entry's bytes; None if there is none."""
    statement = "SELECT payload, arrival FROM entries ORDER BY arrival DESC LIMIT 1"
    row = tx.execute(text(statement)).first()
    return whole(tx, *row) if row else None


def sealed(tx: Connection) -> tuple[int, datetime | None]:
    """The log's size, and when its last checkpoint was signed (None before the first)."""
    row = tx.execute(
        text("SELECT size, (SELECT max(sealed_at) FROM checkpoints) AS at FROM log_head")
    ).one()
    return row.size, row.at


def reductions(tx: Connection) -> dict[bytes, int]:
    """Milligrams of CO2e by the key of each scenario's reduction account, as far as sealed."""
    rows = tx.execute(
        text("SELECT account, -amount AS mg FROM open_balances WHERE account_kind = :kind"),
        {"kind": AccountKind.REDUCTION.code},
    )
    return {row.account: int(row.mg) for row in rows}


# 5 is AccountKind.BUDGET, spelled out so that the planner sees the partial index's own condition.
_BUDGETS = text("""
SELECT b.name, b.scope,
  coalesce((SELECT sum(p.amount) FROM postings p JOIN entries e USING (arrival)
    WHERE p.account = b.token AND p.account_kind = 5 AND p.amount > 0
      AND e.kind = 'budget.funded'), 0)::bigint,
  coalesce((SELECT sum(l.amount) FROM balances l
    WHERE (l.account, l.account_kind, l.asset) = (b.token, :budget, :point)), 0)::bigint,
  coalesce((SELECT sum(w.points) FROM waiting w WHERE w.budget = b.token), 0)::bigint
FROM budgets b ORDER BY b.scope""")


def budgets(tx: Connection) -> list[BudgetFigures]:
    """Every budget as it stands."""
    codes = {"budget": AccountKind.BUDGET.code, "point": Asset.POINT.code}
    return [BudgetFigures(*row) for row in tx.execute(_BUDGETS, codes)]
