"""Deliveries: each event on its way to an endpoint, what became of each attempt, and the log.

Whoever touches an endpoint and its deliveries takes the endpoint first. A delivery waits only for
an endpoint that is active, or that is to be proved by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array
from app.store.webhooks import Event

IN_FLIGHT = 2
"""So many requests at once to one endpoint."""


class Claim(NamedTuple):
    """A delivery that somebody makes now, as attempt number `attempt`, of which `rung` is the
    place on the ladder: 1 for the first since it was made or replayed."""

    event: str
    endpoint: str
    merchant: str
    attempt: int
    rung: int
    kind: str
    body: bytes


class Delivery(NamedTuple):
    """How an event stands with an endpoint."""

    event: str
    endpoint: str
    state: str
    attempts: int
    next_at: datetime


class Attempt(NamedTuple):
    """One request that was made: how long it took, the HTTP status or None, and what was wrong."""

    endpoint: str
    attempt: int
    at: datetime
    ms: int
    status: int | None
    error: str


class Backlog(NamedTuple):
    """Deliveries that wait and that are dead, and when the oldest event happened that waits."""

    waiting: int
    dead: int
    oldest: datetime | None


STATES = ("waiting", "delivered", "dead")
_ASKED = "(e.kinds = '{}' OR v.kind = ANY(e.kinds))"
_DUE = "state = 'waiting' AND next_at <= :now AND (claimed_until IS NULL OR claimed_until <= :now)"
_FREE = (
    "(SELECT count(*) FROM webhook_deliveries c WHERE c.endpoint = e.id"
    " AND c.claimed_until IS NOT NULL AND c.claimed_until > :now) < :in_flight"
)
# An endpoint that is disabled at this moment is waited for, and then gets nothing.
_SPREAD = text(f"""
WITH due AS (
  SELECT id, merchant, kind FROM webhook_events WHERE NOT spread ORDER BY at
  LIMIT :limit FOR UPDATE SKIP LOCKED),
told AS (
  SELECT e.id, e.merchant, e.kinds FROM webhook_endpoints e
  WHERE e.state = 'active' AND e.merchant IN (SELECT merchant FROM due) FOR SHARE),
put AS (
  INSERT INTO webhook_deliveries (event, endpoint, state, next_at)
  SELECT v.id, e.id, 'waiting', :now FROM due v JOIN told e USING (merchant) WHERE {_ASKED}
  ON CONFLICT DO NOTHING)
UPDATE webhook_events v SET spread = true FROM due WHERE v.id = due.id""")  # noqa: S608
# Two statements: the second one sees what the endpoint's holder before has committed.
_ENDPOINTS = text(f"""
SELECT e.id FROM webhook_endpoints e CROSS JOIN LATERAL (
  SELECT next_at FROM webhook_deliveries WHERE endpoint = e.id AND {_DUE}
  ORDER BY next_at LIMIT 1) first
WHERE {_FREE} ORDER BY first.next_at LIMIT :limit FOR NO KEY UPDATE OF e SKIP LOCKED""")  # noqa: S608
_CLAIM = text(f"""
WITH due AS (
  SELECT e.id AS endpoint, first.event
  FROM unnest(CAST(:endpoints AS bytea[])) e (id) CROSS JOIN LATERAL (
    SELECT event FROM webhook_deliveries WHERE endpoint = e.id AND {_DUE}
    ORDER BY next_at LIMIT 1) first
  WHERE {_FREE})
UPDATE webhook_deliveries d SET attempts = d.attempts + 1, claimed_until = :until
FROM due JOIN webhook_events v ON v.id = due.event
WHERE d.event = due.event AND d.endpoint = due.endpoint
RETURNING encode(d.event, 'hex'), encode(d.endpoint, 'hex'), encode(v.merchant, 'hex'),
  d.attempts, d.attempts - d.ladder_from, v.kind, v.body""")  # noqa: S608
_REPLAY = """
INSERT INTO webhook_deliveries AS d (event, endpoint, state, next_at)
SELECT v.id, e.id, 'waiting', :now
FROM webhook_events v JOIN webhook_endpoints e ON e.merchant = v.merchant AND e.state = 'active'
WHERE v.merchant = :merchant AND v.kind <> 'endpoint.verification' AND %s FOR SHARE OF e
ON CONFLICT (event, endpoint) DO UPDATE
SET state = 'waiting', next_at = :now, ladder_from = d.attempts
WHERE d.claimed_until IS NULL OR d.claimed_until <= :now"""
_REPLAY_ONE = text(_REPLAY % f"v.id = :event AND {_ASKED}")
_REPLAY_ONE_TO = text(_REPLAY % "v.id = :event AND e.id = :endpoint")
_REPLAY_SINCE = text(_REPLAY % f"e.id = :endpoint AND v.at >= :since AND {_ASKED}")


def spread(tx: Connection, now: datetime, limit: int) -> int:
    """Give events that are new to the active endpoints that ask for their kind; how many."""
    return tx.execute(_SPREAD, {"now": now, "limit": limit}).rowcount


def claim(tx: Connection, now: datetime, until: datetime, limit: int) -> list[Claim]:
    """Take what is due, the longest waiting first, one an endpoint: until then nobody else takes
    it, and then anybody may."""
    shared = {"now": now, "in_flight": IN_FLIGHT}
    locked = tx.execute(_ENDPOINTS, {**shared, "limit": limit}).scalars().all()
    if not locked:
        return []
    values = {**shared, "until": until, "endpoints": bytea_array(locked)}
    return [Claim(*row) for row in tx.execute(_CLAIM, values)]


def finish(tx: Connection, made: Claim, state: str, next_at: datetime, what: Attempt) -> bool:
    """Keep what became of an attempt; False if the delivery is not the claim's any more."""
    ids = {"event": bytes.fromhex(made.event), "endpoint": bytes.fromhex(made.endpoint)}
    ours = tx.execute(
        text(
            "UPDATE webhook_deliveries SET state = :state, next_at = :next_at, claimed_until = NULL"
            " WHERE event = :event AND endpoint = :endpoint AND attempts = :attempt"
            " AND state = 'waiting'"
        ),
        {**ids, "state": state, "next_at": next_at, "attempt": made.attempt},
    ).rowcount
    tx.execute(
        text(
            "INSERT INTO webhook_attempts (event, endpoint, attempt, at, ms, status, error)"
            " SELECT event, endpoint, :attempt, :at, :ms, :status, :error FROM webhook_deliveries"
            " WHERE event = :event AND endpoint = :endpoint ON CONFLICT DO NOTHING"
        ),
        what._asdict() | ids,
    )
    return ours == 1


def waits(tx: Connection, endpoint: str) -> bool:
    """Whether anything waits for an endpoint."""
    return bool(
        tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM webhook_deliveries"
                " WHERE endpoint = :endpoint AND state = 'waiting')"
            ),
            {"endpoint": bytes.fromhex(endpoint)},
        ).scalar_one()
    )


def drop_waiting(tx: Connection, endpoint: str) -> None:
    """Whatever waits for a (locked) endpoint is dead."""
    tx.execute(
        text(
            "UPDATE webhook_deliveries SET state = 'dead', claimed_until = NULL"
            " WHERE endpoint = :endpoint AND state = 'waiting'"
        ),
        {"endpoint": bytes.fromhex(endpoint)},
    )


def replay(tx: Connection, event: Event, endpoint: str | None, now: datetime) -> int:
    """Send an event again: to one active endpoint, or to all that ask for its kind; to how many."""
    values: dict[str, Any] = {
        "event": bytes.fromhex(event.id),
        "merchant": bytes.fromhex(event.merchant),
        "now": now,
    }
    if endpoint is None:
        return tx.execute(_REPLAY_ONE, values).rowcount
    values["endpoint"] = bytes.fromhex(endpoint)
    return tx.execute(_REPLAY_ONE_TO, values).rowcount


def replay_since(
    tx: Connection, merchant: str, endpoint: str, since: datetime, now: datetime
) -> int:
    """Send all that happened since then to an active endpoint again; how many events."""
    ids = {"merchant": bytes.fromhex(merchant), "endpoint": bytes.fromhex(endpoint)}
    return tx.execute(_REPLAY_SINCE, {**ids, "since": since, "now": now}).rowcount


_PAGE = """
SELECT encode(v.id, 'hex'), encode(v.merchant, 'hex'), v.kind, v.body, v.at FROM webhook_events v
WHERE v.merchant = :merchant AND (v.at, v.id) < (:at, CAST(:last AS bytea))
  AND (CAST(:kind AS text) IS NULL OR v.kind = :kind)%s
ORDER BY v.at DESC, v.id DESC LIMIT :limit"""
_STATE = """
SELECT %s FROM webhook_deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint
WHERE e.merchant = :merchant AND d.state = '%s'"""  # in the open, for the planner to see its index
_ANY = text(_PAGE % "")
_COUNT = {
    state: text(f"SELECT count(*) FROM ({_STATE % ('', state)} LIMIT :few + 1) f")  # noqa: S608
    for state in ("waiting", "dead")
}
_PICK = {state: text(_PAGE % f" AND v.id IN ({_STATE % ('d.event', state)})") for state in _COUNT}
_WALK = {  # OFFSET 0: an event at a time, and not all there are in that state first
    state: text(
        _PAGE % " AND EXISTS (SELECT FROM webhook_deliveries d"
        f" WHERE d.event = v.id AND d.state = '{state}' OFFSET 0)"
    )
    for state in STATES
}
_FEW = 1000
_NEWEST = (datetime(9999, 1, 1, tzinfo=UTC), "ff" * 16)


def page(
    tx: Connection,
    merchant: str,
    state: str | None,
    kind: str | None,
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[Event]:
    """A merchant's events, newest first, after that moment and id; `state` is of a delivery."""
    at, last = after or _NEWEST
    own = {"merchant": bytes.fromhex(merchant)}
    query = _WALK[state] if state else _ANY
    if state in _COUNT:
        found = tx.execute(_COUNT[state], {**own, "few": _FEW}).scalar_one()
        query = _PICK[state] if found <= _FEW else query
    place = {"at": at, "last": bytes.fromhex(last), "kind": kind, "limit": limit}
    return [Event(*row) for row in tx.execute(query, {**own, **place})]


def event(tx: Connection, merchant: str, event_id: str) -> Event | None:
    """A merchant's event."""
    row = tx.execute(
        text(
            "SELECT encode(id, 'hex'), encode(merchant, 'hex'), kind, body, at"
            " FROM webhook_events WHERE id = :id AND merchant = :merchant"
        ),
        {"id": bytes.fromhex(event_id), "merchant": bytes.fromhex(merchant)},
    ).first()
    return Event(*row) if row else None


def of_events(tx: Connection, events: Sequence[str]) -> dict[str, list[Delivery]]:
    """How these events stand with each endpoint."""
    rows = tx.execute(
        text(
            "SELECT encode(event, 'hex'), encode(endpoint, 'hex'), state, attempts, next_at"
            " FROM webhook_deliveries WHERE event = ANY(CAST(:events AS bytea[]))"
            " ORDER BY endpoint"
        ),
        {"events": bytea_array(map(bytes.fromhex, events))},
    )
    found: dict[str, list[Delivery]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(Delivery(*row))
    return found


def attempts(tx: Connection, event_id: str) -> list[Attempt]:
    """Every attempt to deliver an event, in order."""
    rows = tx.execute(
        text(
            "SELECT encode(endpoint, 'hex'), attempt, at, ms, status, error FROM webhook_attempts"
            " WHERE event = :event ORDER BY at, endpoint, attempt"
        ),
        {"event": bytes.fromhex(event_id)},
    )
    return [Attempt(*row) for row in rows]


def forget(tx: Connection, before: datetime, limit: int) -> int:
    """Drop some of the events from before that moment, with all about them; how many."""
    statement = text(
        "DELETE FROM webhook_events WHERE id = ANY(ARRAY("
        "SELECT id FROM webhook_events WHERE at < :before ORDER BY at LIMIT :limit))"
    )
    return tx.execute(statement, {"before": before, "limit": limit}).rowcount


def backlog(tx: Connection) -> Backlog:
    """What waits and what is dead, over all merchants."""
    row = tx.execute(
        text(
            "SELECT (SELECT count(*) FROM webhook_deliveries WHERE state = 'waiting'),"
            " (SELECT count(*) FROM webhook_deliveries WHERE state = 'dead'),"
            " (SELECT min(v.at) FROM webhook_deliveries d JOIN webhook_events v ON v.id = d.event"
            "  WHERE d.state = 'waiting')"
        )
    ).one()
    return Backlog(*row)
