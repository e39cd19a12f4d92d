"""What residents did, as the ledger has it: issues and what reversed them, with their openings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import orjson
from sqlalchemy import Connection, text

from app.store.db import bytea_array, fetch
from app.store.detached import whole
from ledger.accounts import AccountKind


class Line(NamedTuple):
    """An issue of somebody's, or a reverse: its id, milligrams credited, what was done, sealed, if
    that is kept, and of a reverse the id of the issue that it reverses."""

    resident: bytes
    id: str
    reduction_mg: int
    sealed: bytes | None
    reverses: str | None


# Asset 1 is CO2E. OFFSET 0: their lines first and then the entry of each, whatever the planner
# thinks of how many there are.
_LINES = """
SELECT p.account, e.id, coalesce(p.mg, 0), o.sealed, e.kind = 'reverse',
  CASE WHEN e.kind = 'reverse' THEN e.payload END, p.arrival
FROM (SELECT account, arrival, sum(amount) FILTER (WHERE asset = 1 AND amount > 0)::bigint AS mg
  FROM unnest(%s::bytea[]) who CROSS JOIN LATERAL own_postings(who, %s)
  GROUP BY account, arrival) p
CROSS JOIN LATERAL (
  SELECT id, kind, payload FROM entries
  WHERE arrival = p.arrival AND kind IN ('issue', 'reverse') OFFSET 0) e
LEFT JOIN LATERAL (SELECT sealed FROM openings WHERE arrival = p.arrival OFFSET 0) o ON true{}
ORDER BY p.account, p.arrival"""
_ALL: Final = _LINES.format("")
_SEALED: Final = _LINES.format(
    """
WHERE p.arrival <= %s
  AND EXISTS (SELECT FROM leaf_of(p.arrival) l WHERE l.leaf >= %s AND l.leaf < %s)"""
)
# By runs, so that openings are read in the order they lie in. OFFSET 0: whatever the planner thinks
# of how many that are.
_TOUCHED = text("""
SELECT DISTINCT o.resident FROM runs_between(:first, :last) r CROSS JOIN LATERAL (
  SELECT resident FROM openings
  WHERE arrival >= r.arrival AND arrival < r.arrival + r.count OFFSET 0) o
WHERE EXISTS (SELECT FROM rankings a WHERE a.resident = o.resident)""")
_ARRIVALS = """
SELECT min(arrival), max(arrival + count) - 1 FROM runs_between(%s, %s)"""
# A reversal has no opening that would name its resident; its payload does.
_REVERSALS = text("""
SELECT e.payload, e.arrival FROM runs_between(:first, :last) r CROSS JOIN LATERAL (
  SELECT payload, arrival FROM entries
  WHERE arrival >= r.arrival AND arrival < r.arrival + r.count AND kind = 'reverse' OFFSET 0) e""")
_PERSONAL = tuple(f"{kind}:" for kind in AccountKind if kind.code <= AccountKind.DEBT.code)


def lines(
    tx: Connection, residents: Iterable[str], first: int, leaves: range | None = None
) -> list[Line]:
    """What was credited to these people, and reversed, from an arrival on; by person, in order.

    Given leaves, only what is sealed as one of them.
    """
    wanted = bytea_array({bytes.fromhex(one) for one in residents})  # each once: lines are summed
    if leaves is None:
        rows = fetch(tx, _ALL, (wanted, first))
    else:
        low, high = fetch(tx, _ARRIVALS, (leaves.start, leaves.stop))[0]
        if low is None:
            return []
        rows = fetch(tx, _SEALED, (wanted, max(first, low), high, leaves.start, leaves.stop))
    found = []
    for account, name, mg, sealed, is_reverse, payload, arrival in rows:
        reverses = None
        if is_reverse:
            reverses = orjson.loads(whole(tx, payload, arrival))["detail"]["reverses"]
        found.append(Line(account, name.hex(), mg, sealed, reverses))
    return found


def touched(tx: Connection, leaves: range) -> set[str]:
    """Who of those in rankings did something that these leaves credit."""
    return {resident.hex() for resident in tx.execute(_TOUCHED, _between(leaves)).scalars()}


def reversed_for(tx: Connection, leaves: range) -> set[str]:
    """Whoever had something reversed by one of these leaves."""
    return {
        _owner(orjson.loads(whole(tx, payload, arrival))["postings"])
        for payload, arrival in tx.execute(_REVERSALS, _between(leaves)).all()
    }


def keys(tx: Connection, residents: Sequence[str]) -> dict[str, bytes]:
    """The wrapped keys of those of these people who are still there."""
    rows = tx.execute(
        text(
            "SELECT id, wrapped_key FROM residents"
            " WHERE id = ANY(CAST(:ids AS bytea[])) AND erased_at IS NULL"
        ),
        {"ids": bytea_array(map(bytes.fromhex, residents))},
    )
    return {row.id.hex(): row.wrapped_key for row in rows}


def _between(leaves: range) -> dict[str, int]:
    return {"first": leaves.start, "last": leaves.stop}


def _owner(postings: list[tuple[str, str, int, int]]) -> str:
    """The resident of an entry that touches exactly one, as every reversal does."""
    names = (line[0] for line in postings)
    return next(name for name in names if name.startswith(_PERSONAL)).partition(":")[2]
