"""What each resident has claimed per scenario and period: the counters behind caps and groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from sqlalchemy import Connection, text

from app.store import packed
from app.store.db import Array, bytea_array, fetch, int_array, text_array
from app.store.packed import copy_packed
from scenarios import Key, Usage

Counters = dict[str, dict[Key, Usage]]  # resident -> (scenario, YYYYMMDD or YYYYMM) -> usage

_COLUMNS = ("resident", "scenario", "period", "count", "reduction_mg", "points")
_READ = """
SELECT u.resident, u.scenario, u.period, u.count, u.reduction_mg, u.points
FROM unnest(%(residents)s::bytea[], %(scenarios)s::text[], %(periods)s::integer[])
  AS k (resident, scenario, period)
JOIN usage u ON (u.resident, u.period, u.scenario) = (k.resident, k.period, k.scenario)"""
_UPDATE = """
UPDATE usage u SET count = k.count, reduction_mg = k.reduction_mg, points = k.points
FROM unnest(%(residents)s::bytea[], %(scenarios)s::text[], %(periods)s::integer[],
  %(counts)s::integer[], %(reductions)s::bigint[], %(points)s::bigint[])
  AS k (resident, scenario, period, count, reduction_mg, points)
WHERE (u.resident, u.period, u.scenario) = (k.resident, k.period, k.scenario)"""


def lock(tx: Connection, limits: Iterable[str]) -> None:
    """Keep others from counting towards these limits, in order, until the transaction ends."""
    for name in sorted(set(limits)):
        tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 1))"), {"name": name})


def read(tx: Connection, wanted: Mapping[str, Iterable[Key]]) -> Counters:
    """Each resident's counters of these keys, of those that were ever counted."""
    keys = [(resident, key) for resident, own in wanted.items() for key in own]
    found: Counters = {}
    if keys:
        rows = fetch(tx, _READ, _arrays(keys))
        for resident, scenario, period, count, reduction_mg, points in rows:
            own = found.setdefault(resident.hex(), {})
            own[scenario, period] = Usage(count, reduction_mg, points)
    return found


def store(
    tx: Connection,
    counters: Mapping[str, Mapping[Key, Usage]],
    changed: Mapping[str, Iterable[Key]],
    known: Mapping[str, Set[Key]],
) -> None:
    """Keep the changed counters as they now stand; `known` are those that `read` found under the
    lock.

    What was never counted is COPYed: a day's counters are mostly new, and conflicts cost.
    """
    old: list[tuple[str, Key]] = []
    new: list[tuple[str, Key]] = []
    for resident, keys in changed.items():
        had = known.get(resident, frozenset())
        for key in keys:
            (old if key in had else new).append((resident, key))
    if new:
        copy_packed(
            tx, "usage", _COLUMNS, [packed.usage(who, key, counters[who][key]) for who, key in new]
        )
    if old:
        old.sort()
        values = [counters[who][key] for who, key in old]
        fetch(
            tx,
            _UPDATE,
            {
                **_arrays(old),
                "counts": int_array(value.count for value in values),
                "reductions": int_array(value.reduction_mg for value in values),
                "points": int_array(value.points for value in values),
            },
        )


def _arrays(keys: Sequence[tuple[str, Key]]) -> dict[str, Array]:
    return {
        "residents": bytea_array(bytes.fromhex(resident) for resident, _ in keys),
        "scenarios": text_array(key[0] for _, key in keys),
        "periods": int_array(key[1] for _, key in keys),
    }
