"""What a resident reads of the ledger: balances, the statement, refusals, what is waiting."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection, text

from app.store.db import bytea_array, fetch
from app.store.detached import whole
from ledger.accounts import AccountKind, Asset
from ledger.encoding import MAX_INT
from ledger.entries import Kind

PAGE: Final = 20  # more than most people have in a month

_AT: Final = slice(7, 31)  # the time in an entry's canonical bytes, which begin {"at":"

Fact = dict[str, Any]
"""An entry as its payload has it, {"at", "detail", "id", "kind", "postings", "v"}: its form was
checked when it was written, and the audit checks that it never changed."""


class Balance(NamedTuple):
    """One row of a resident's accounts, by the codes of ledger.accounts."""

    kind: int
    asset: int
    bucket: int
    amount: int


class Line(NamedTuple):
    """One entry of a statement."""

    arrival: int
    fact: Fact
    sealed: bool


class Standing(NamedTuple):
    """What a resident holds at a moment, points waiting for a budget, messages not read."""

    balances: list[Balance]
    waiting: int
    unread: int


class Full(NamedTuple):
    """One entry and what belongs to it: the sealed opening and its person's wrapped key (None if
    there is none, or they were erased), points still waiting, and which of two later entries
    there are."""

    line: Line
    sealed: bytes | None
    wrapped_key: bytes | None
    waiting: int
    later: frozenset[str]


class Wanted(NamedTuple):
    """Which entries: arrivals from `since` and below `before`, times (as entries write them) from
    `first` and below `end`; of a kind, of a scenario, of an area. Empty means any."""

    since: int = 0
    before: int = MAX_INT
    first: str = ""
    end: str = ""
    kind: Kind | None = None
    scenario: str = ""
    area: str = ""


class Refusal(NamedTuple):
    """One activity that was refused, and why."""

    recorded_at: datetime
    provider: str
    batch_id: str
    position: int
    activity_id: str
    scenario: str | None  # None: there is none of this name, or it was not kept yet
    code: str
    detail: str


# The hottest reads are in the driver's own SQL: compiling text() costs as much as running this.
_BALANCES = """
SELECT account_kind, asset, bucket, amount FROM balances
WHERE account = %s AND account_kind <= 3 AND amount > 0 ORDER BY bucket"""
_WAITING, _UNREAD = -1, -2  # beside the codes of accounts
_STANDING = f"""
SELECT account_kind, asset, bucket, amount FROM balances
WHERE account = %s AND account_kind <= 3 AND amount > 0
UNION ALL
SELECT {_WAITING}::smallint, 0::smallint, 0, coalesce(sum(points), 0)::bigint
FROM waiting WHERE resident = %s
UNION ALL
SELECT {_UNREAD}::smallint, 0::smallint, 0, count(*)
FROM messages WHERE resident = %s AND read_at IS NULL
ORDER BY 3"""  # noqa: S608 (our own two numbers)
# Seen by the outbox, which is short, and not by the leaf of each; mostly with one look for a page.
_IS_SEALED = """(e.arrival < (SELECT min(arrival) FROM outbox)) IS NOT FALSE OR NOT EXISTS (
  SELECT FROM outbox WHERE arrival <= e.arrival AND e.arrival < arrival + count)"""
# Only whose page nothing but its place decides can be cut before entries are looked at.
_NEWEST = f"""
SELECT e.arrival, e.payload, {_IS_SEALED}
FROM newest(%(who)s, %(before)s, %(limit)s) n JOIN entries e ON e.arrival = n
ORDER BY e.arrival DESC"""  # noqa: S608 (our own text)
# payload: the time stands at one place, and an issue's rule is written in one way only. One that is
# detached is not read to see that it is not wanted: an issue's postings name its scenario too.
_WANTED = f"""
SELECT e.arrival, e.payload, {_IS_SEALED}
FROM (SELECT DISTINCT arrival FROM own_postings(%(who)s, %(since)s)
      WHERE arrival < %(before)s) p
JOIN entries e USING (arrival)
WHERE (%(kind)s::text = '' OR e.kind = %(kind)s::text) AND CASE WHEN e.payload IS NOT NULL
  THEN position(%(area_rule)s::bytea IN e.payload) > 0
    AND position(%(scenario_rule)s::bytea IN e.payload) > 0
    AND substring(e.payload FROM 8 FOR 24) >= %(first)s::bytea
    AND substring(e.payload FROM 8 FOR 24) < %(end)s::bytea
  ELSE %(area)s::text || %(scenario)s::text = '' OR EXISTS (
    SELECT FROM postings r WHERE r.arrival = e.arrival AND r.account_kind = 12 AND r.account IN (
      SELECT substr(sha256(convert_to('reduction:' || scenario, 'UTF8')), 1, 16)
      FROM scenario_versions
      WHERE scenario = %(scenario)s::text OR starts_with(scenario, %(area)s::text || '.')))
  END
ORDER BY e.arrival DESC LIMIT %(limit)s"""  # noqa: S608 (our own text)
_FULL = """
SELECT e.arrival, e.payload, l.leaf IS NOT NULL, o.sealed, r.wrapped_key, coalesce(w.points, 0),
  ARRAY(SELECT later.id FROM entries later WHERE later.id IN (%s, %s))
FROM entries e LEFT JOIN leaf_of(e.arrival) l ON true LEFT JOIN openings o USING (arrival)
LEFT JOIN waiting w USING (arrival) LEFT JOIN residents r ON r.id = %s AND r.erased_at IS NULL
WHERE e.id = %s"""
_FACTS = "SELECT id, payload, arrival FROM entries WHERE id = ANY(%s::bytea[])"
_OPENINGS = "SELECT arrival, sealed FROM openings WHERE arrival = ANY(%s)"
_WAITS = "SELECT arrival, points FROM waiting WHERE resident = %s"
_REFUSALS = text("""
SELECT recorded_at, provider, batch_id, position, activity_id, scenario, code, detail
FROM rejections
WHERE resident = :resident
  AND (recorded_at, provider, batch_id, position) < (:at, :provider, :batch_id, :position)
ORDER BY recorded_at DESC, provider DESC, batch_id DESC, position DESC LIMIT :limit""")
_REFUSED = """
SELECT code, count(*) FROM rejections
WHERE resident = %s AND recorded_at >= %s AND recorded_at < %s GROUP BY code ORDER BY code"""


def balances(tx: Connection, resident: str) -> list[Balance]:
    """Everything a resident's own accounts hold, by rising bucket."""
    return [Balance(*row) for row in fetch(tx, _BALANCES, [bytes.fromhex(resident)])]


def standing(tx: Connection, resident: str) -> Standing:
    """What a resident holds, waits for and has not read, of one moment."""
    rows = [Balance(*row) for row in fetch(tx, _STANDING, [bytes.fromhex(resident)] * 3)]
    more = {row.kind: row.amount for row in rows if row.kind < 0}
    return Standing([row for row in rows if row.kind > 0], more[_WAITING], more[_UNREAD])


def newest(tx: Connection, resident: str, since: int) -> list[Line]:
    """A resident's entries from an arrival on, newest first; older ones too up to `PAGE`."""
    found = lines(tx, resident, PAGE)
    if len(found) == PAGE and found[-1].arrival > since:
        found += lines(tx, resident, None, Wanted(since=since, before=found[-1].arrival))
    return found


def lines(
    tx: Connection, resident: str, limit: int | None = None, wanted: Wanted | None = None
) -> list[Line]:
    """A resident's entries, newest first; with `wanted` only those it speaks of."""
    asked, who = wanted or Wanted(), bytes.fromhex(resident)
    if asked == Wanted(before=asked.before):
        rows = fetch(tx, _NEWEST, {"who": who, "before": asked.before, "limit": limit})
        return [_line(row[0], whole(tx, row[1], row[0]), row[2]) for row in rows]
    rules = _rule(asked.area, b"."), _rule(asked.scenario, b'",')
    first, end = asked.first.encode(), (asked.end or ":").encode()
    given = asked._asdict() | {"who": who, "kind": asked.kind or "", "limit": limit}
    given |= {"first": first, "end": end, "area_rule": rules[0], "scenario_rule": rules[1]}
    found: list[Line] = []
    while True:
        rows = fetch(tx, _WANTED, given)
        for arrival, payload, is_sealed in rows:
            data = whole(tx, payload, arrival)
            if payload or (first <= data[_AT] < end and all(rule in data for rule in rules)):
                found.append(_line(arrival, data, is_sealed))
        if limit is None or len(rows) < limit or len(found) >= limit:
            return found[:limit]
        given["before"] = rows[-1][0]  # of detached ones some were not wanted


def _rule(name: str, end: bytes) -> bytes:
    """How an issue's payload names a rule that begins so; nothing, which all hold, for no name."""
    return b'"rule":["' + name.encode() + end if name else b""


def _line(arrival: int, payload: bytes, is_sealed: bool) -> Line:
    return Line(arrival, orjson.loads(payload), is_sealed)


def full(tx: Connection, resident: str, entry_id: str, later: tuple[str, str]) -> Full | None:
    """An entry of this resident's with all that belongs to it; None if there is none. `later` are
    the ids that two entries which follow from it would have."""
    ids = (*map(bytes.fromhex, later), bytes.fromhex(resident), bytes.fromhex(entry_id))
    rows = fetch(tx, _FULL, ids)
    if not rows:
        return None
    arrival, payload, is_sealed, sealed, wrapped, waiting, found = rows[0]
    line = _line(arrival, whole(tx, payload, arrival), is_sealed)
    if owner(line.fact) != resident:
        return None
    return Full(line, sealed, wrapped, waiting, frozenset(one.hex() for one in found))


def owner(fact: Fact) -> str:
    """The token of the resident whose accounts an entry touches; "" if there is none."""
    for name, _, _, _ in fact["postings"]:
        kind, _, token = name.partition(":")
        if kind in _PERSONAL:
            return str(token)
    return ""


_PERSONAL = frozenset(map(str, (AccountKind.RESIDENT, AccountKind.HELD, AccountKind.DEBT)))


def facts(tx: Connection, ids: Iterable[str]) -> dict[str, Fact]:
    """Entries by their ids, of those there are."""
    rows = fetch(tx, _FACTS, [bytea_array(map(bytes.fromhex, ids))])
    return {name.hex(): orjson.loads(whole(tx, *place)) for name, *place in rows}


def sealed_openings(tx: Connection, arrivals: list[int]) -> dict[int, bytes]:
    """The sealed openings of entries, of those that have one."""
    return dict(fetch(tx, _OPENINGS, [arrivals]))


def waits(tx: Connection, resident: str) -> dict[int, int]:
    """Points of each arrival that no budget could pay yet."""
    return dict(fetch(tx, _WAITS, [bytes.fromhex(resident)]))


def refusals(
    tx: Connection, resident: str, before: tuple[datetime, str, str, int], limit: int
) -> list[Refusal]:
    """A resident's refused activities, newest first, from a place on."""
    at, provider, batch_id, position = before
    rows = tx.execute(
        _REFUSALS,
        {
            "resident": bytes.fromhex(resident),
            "at": at,
            "provider": provider,
            "batch_id": batch_id,
            "position": position,
            "limit": limit,
        },
    )
    return [Refusal(*row) for row in rows]


def refused(tx: Connection, resident: str, first: datetime, end: datetime) -> dict[str, int]:
    """How many of a resident's activities were refused in a time, by code."""
    return dict(fetch(tx, _REFUSED, [bytes.fromhex(resident), first, end]))


def waiting(tx: Connection, resident: str) -> int:
    """Points earned that no budget could pay yet."""
    return sum(waits(tx, resident).values())


def wrapped_key(tx: Connection, resident: str) -> bytes | None:
    """The resident's wrapped key, for reading; None if there is no such living account."""
    return tx.execute(
        text("SELECT wrapped_key FROM residents WHERE id = :id AND erased_at IS NULL"),
        {"id": bytes.fromhex(resident)},
    ).scalar()


def greatest_savers(tx: Connection, limit: int) -> list[str]:
    """Residents who avoided most carbon, for those who want to try the service as somebody."""
    rows = tx.execute(
        text(
            "SELECT b.account FROM balances b"
            " JOIN residents r ON r.id = b.account AND r.erased_at IS NULL"
            " WHERE b.account_kind = :kind AND b.asset = :asset"
            " ORDER BY b.amount DESC, b.account LIMIT :limit"
        ),
        {"kind": AccountKind.RESIDENT.code, "asset": Asset.CO2E.code, "limit": limit},
    )
    return [account.hex() for account in rows.scalars()]
