"""What each resident has claimed per scenario and period: the counters behind caps and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from sqlalchemy import Connection, text

from app.store.db import bytea_array, copy_in, int_array, text_array
from scenarios import Usage

Key = tuple[str, str, int]  # resident, scenario, period (YYYYMMDD or YYYYMM)

_COLUMNS = {
    "resident": "bytea",
    "scenario": "text",
    "period": "int4",
    "count": "int4",
    "reduction_mg": "int8",
    "points": "int8",
}
_READ = text("""
SELECT u.resident, u.scenario, u.period, u.count, u.reduction_mg, u.points
FROM unnest(CAST(:residents AS bytea[]), CAST(:scenarios AS text[]), CAST(:periods AS integer[]))
  AS k (resident, scenario, period)
JOIN usage u ON (u.resident, u.period, u.scenario) = (k.resident, k.period, k.scenario)""")
_UPDATE = text("""
UPDATE usage u SET count = k.count, reduction_mg = k.reduction_mg, points = k.points
FROM unnest(CAST(:residents AS bytea[]), CAST(:scenarios AS text[]), CAST(:periods AS integer[]),
  CAST(:counts AS integer[]), CAST(:reductions AS bigint[]), CAST(:points AS bigint[]))
  AS k (resident, scenario, period, count, reduction_mg, points)
WHERE (u.resident, u.period, u.scenario) = (k.resident, k.period, k.scenario)""")


def lock(tx: Connection, limits: Iterable[str]) -> None:
    """Keep others from counting towards these limits, in order, until the transaction ends."""
    for name in sorted(set(limits)):
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 1))"), {"name": name})


def read(tx: Connection, keys: Iterable[Key]) -> dict[Key, Usage]:
    """The counters of these keys, of those that were ever counted."""
    wanted = list(keys)
    if not wanted:
        return {}
    rows = tx.execute(_READ, _arrays(wanted)).all()
    return {(row[0].hex(), row[1], row[2]): Usage(row[3], row[4], row[5]) for row in rows}


def store(tx: Connection, counters: Mapping[Key, Usage], known: Set[Key]) -> None:
    """Keep counters as they now stand; `known` are those that `read` found under the lock.

    What was never counted is COPYed: a day's counters are mostly new, and conflicts cost.
    """
    copy_in(
        tx,
        "usage",
        _COLUMNS,
        (
            (bytes.fromhex(key[0]), *key[1:], value.count, value.reduction_mg, value.points)
            for key, value in counters.items()
            if key not in known
        ),
    )
    changed = [(key, counters[key]) for key in sorted(known & counters.keys())]
    if changed:
        values = [value for _, value in changed]
        tx.execute(
            _UPDATE,
            {
                **_arrays([key for key, _ in changed]),
                "counts": int_array(value.count for value in values),
                "reductions": int_array(value.reduction_mg for value in values),
                "points": int_array(value.points for value in values),
            },
        )


def _arrays(keys: Sequence[Key]) -> dict[str, str]:
    return {
        "residents": bytea_array(bytes.fromhex(key[0]) for key in keys),
        "scenarios": text_array(key[1] for key in keys),
        "periods": int_array(key[2] for key in keys),
    }
