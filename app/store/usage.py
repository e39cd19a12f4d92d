"""What each resident has claimed per scenario and period: the counters behind caps and groups."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Connection, text

from app.store import packed
from app.store.db import Array, bytea_array, fetch, int_array, text_array
from app.store.packed import copy_packed
from scenarios import Key, Usage

Counters = dict[bytes, dict[Key, Usage]]  # account -> (scenario, YYYYMMDD or YYYYMM) -> usage
Counter = tuple[bytes, Key]

_tuple = tuple.__new__  # the hot path: a named tuple is a tuple
_COLUMNS = ("resident", "scenario", "period", "count", "reduction_mg", "points")
_READ = """
SELECT u.resident, u.scenario, u.period, u.count, u.reduction_mg, u.points
FROM unnest(%(residents)s::bytea[], %(scenarios)s::text[], %(periods)s::integer[])
  AS k (resident, scenario, period)
JOIN usage u ON (u.resident, u.period, u.scenario) = (k.resident, k.period, k.scenario)"""
_READ_ALIKE = """
SELECT resident, count, reduction_mg, points FROM usage
WHERE resident = ANY(%s::bytea[]) AND period = %s::integer AND scenario = %s"""
_ALIKE = 32  # of so many residents, a counter is read by one walk through the index
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


def read(tx: Connection, wanted: Mapping[Key, Collection[bytes]]) -> Counters:
    """The counters under these keys of these accounts, of those that were ever counted."""
    found: Counters = {}
    rest: list[Counter] = []
    for key, accounts in wanted.items():
        if len(accounts) < _ALIKE:
            rest += [(account, key) for account in accounts]
            continue
        scenario, period = key
        rows = fetch(tx, _READ_ALIKE, [bytea_array(accounts), period, scenario])
        for account, count, mg, points in rows:
            found.setdefault(account, {})[key] = _tuple(Usage, (count, mg, points))
    if rest:
        for account, scenario, period, *used in fetch(tx, _READ, _arrays(rest)):
            found.setdefault(account, {})[scenario, period] = Usage(*used)
    return found


def store(
    tx: Connection,
    counters: Mapping[bytes, Mapping[Key, Usage]],
    changed: Mapping[Counter, bool],
) -> None:
    """Keep the changed counters as they now stand; of each, whether `read` found it under the lock.

    What was never counted is COPYed: a day's counters are mostly new, and conflicts cost.
    """
    new = [counter for counter, is_known in changed.items() if not is_known]
    old = sorted([counter for counter, is_known in changed.items() if is_known])
    if new:
        copy_packed(
            tx, "usage", _COLUMNS, [packed.usage(who, key, counters[who][key]) for who, key in new]
        )
    if old:
        values = [counters[who][key] for who, key in old]
        fetch(
            tx,
            _UPDATE,
            {
                **_arrays(old),
                "counts": int_array([count for count, _, _ in values]),
                "reductions": int_array([mg for _, mg, _ in values]),
                "points": int_array([points for _, _, points in values]),
            },
        )


def _arrays(counters: Collection[Counter]) -> dict[str, Array]:
    return {
        "residents": bytea_array([resident for resident, _ in counters]),
        "scenarios": text_array([scenario for _, (scenario, _) in counters]),
        "periods": int_array([period for _, (_, period) in counters]),
    }
