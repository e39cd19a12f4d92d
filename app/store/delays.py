"""How late activities arrive: counts by provider, business day of receipt, and bin of delay."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from app.store.db import int_array

_ADD = text("""
INSERT INTO arrival_delays AS d (provider, day, bin, acts)
SELECT :provider, :day, b.bin, b.acts
FROM unnest(CAST(:bins AS smallint[]), CAST(:acts AS bigint[])) AS b (bin, acts)
ON CONFLICT (provider, day, bin) DO UPDATE SET acts = d.acts + excluded.acts""")
_COUNTS = text("""
SELECT provider, bin, sum(acts) FROM arrival_delays WHERE day >= :day GROUP BY provider, bin""")
_BACKLOG = text("""
SELECT p.code, p.name, (SELECT count(*) FROM unclaimed u WHERE u.provider = p.code)
FROM providers p ORDER BY p.code""")


def add(tx: Connection, provider: str, day: int, counts: Mapping[int, int]) -> None:
    """Add acts a bin to a day of receipt YYYYMMDD, in the order of bins: nobody waits in a ring."""
    rows = sorted(counts.items())
    # A statistic need not wait for the disk: a crash may lose the last second of it.
    tx.execute(text("SET LOCAL synchronous_commit = off"))
    tx.execute(
        _ADD,
        {
            "provider": provider,
            "day": day,
            "bins": int_array(number for number, _ in rows),
            "acts": int_array(acts for _, acts in rows),
        },
    )


def counts(tx: Connection, day: int) -> dict[str, dict[int, int]]:
    """Each provider's acts a bin, received on that day or later."""
    found: dict[str, dict[int, int]] = {}
    for provider, number, acts in tx.execute(_COUNTS, {"day": day}):
        found.setdefault(provider, {})[number] = int(acts)
    return found


def backlog(tx: Connection) -> list[tuple[str, str, int]]:
    """(code, name, acts nobody has claimed) of every provider."""
    return [tuple(row) for row in tx.execute(_BACKLOG)]
