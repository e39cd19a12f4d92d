"""What rules in shadow mode would have refused."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Shadow(NamedTuple):
    """One rule of one edition: how many acts it would have refused, and their reduction in mg."""

    scenario: str
    number: int
    rule: str
    acts: int
    reduction_mg: int


def report(tx: Connection, since: datetime, until: datetime) -> list[Shadow]:
    """Every rule that would have refused something since a moment and before another."""
    rows = tx.execute(
        text(
            "SELECT scenario, number, rule, CAST(sum(acts) AS bigint),"
            " CAST(sum(reduction_mg) AS bigint) FROM shadow_refusals"
            " WHERE recorded_at >= :since AND recorded_at < :until"
            " GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ),
        {"since": since, "until": until},
    )
    return [Shadow(*row) for row in rows]
