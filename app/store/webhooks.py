"""Merchants' endpoints and the events written for them; their deliveries are in `deliveries`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Event(NamedTuple):
    """What is told: id and merchant as 32 hex digits, the kind, the JSON bytes that are sent."""

    id: str
    merchant: str
    kind: str
    body: bytes
    at: datetime


class Endpoint(NamedTuple):
    """An URL that a merchant is told things at. The secrets are sealed; `kinds` empty means all.
    `reason` says why it is disabled, or what its last proof failed by. `failing_since` is when the
    first of the attempts failed of which none has succeeded since."""

    id: str
    merchant: str
    url: str
    secret: bytes
    old_secret: bytes | None
    old_until: datetime | None
    kinds: list[str]
    state: str
    reason: str
    made_at: datetime
    verified_at: datetime | None
    failing_since: datetime | None


class Line(NamedTuple):
    """A line of a bill whose entry is sealed, as leaf `leaf`; `store` and `till` are codes."""

    leaf: int
    merchant: str
    kind: str
    number: str
    origin: str
    entry_id: str
    points: int
    store: str | None
    till: str | None
    day: int
    at: datetime


ENDPOINT_STATES = ("pending", "active", "disabled")
_COLUMNS = (
    "encode(id, 'hex'), encode(merchant, 'hex'), url, secret, old_secret, old_until, kinds, state,"
    " reason, made_at, verified_at, failing_since"
)
# Kept also while a proved endpoint is disabled: what it missed may be replayed to it later.
_PUT_EVENT = text("""
INSERT INTO webhook_events (id, merchant, kind, body, at)
SELECT :id, :merchant, :kind, :body, :at
WHERE EXISTS (SELECT FROM webhook_endpoints
  WHERE merchant = :merchant AND verified_at IS NOT NULL)
ON CONFLICT (id) DO NOTHING""")
_LINES = text("""
SELECT r.leaf + b.arrival - r.arrival, encode(b.merchant, 'hex'), b.kind, b.number, b.origin,
  encode(b.entry, 'hex'), b.points, s.code, t.code, b.day, b.at
FROM runs_between(:first, :last) r
JOIN bill_lines b ON b.arrival >= r.arrival AND b.arrival < r.arrival + r.count
LEFT JOIN stores s ON s.id = b.store LEFT JOIN tills t ON t.id = b.till
WHERE EXISTS (SELECT FROM webhook_endpoints e
  WHERE e.merchant = b.merchant AND e.verified_at IS NOT NULL)
ORDER BY 1""")


def put_event(tx: Connection, event: Event) -> None:
    """Write an event unless it is there, or its merchant never proved an endpoint."""
    put_events(tx, [event])


def put_events(tx: Connection, events: Sequence[Event]) -> None:
    """The same for several."""
    if events:
        tx.execute(_PUT_EVENT, [_event(event) for event in events])


def put_for(tx: Connection, event: Event, endpoint: str, now: datetime) -> None:
    """Write an event that is for one endpoint only, whatever its state, and due at once."""
    tx.execute(
        text(
            "INSERT INTO webhook_events (id, merchant, kind, body, at, spread)"
            " VALUES (:id, :merchant, :kind, :body, :at, true)"
        ),
        _event(event),
    )
    tx.execute(
        text(
            "INSERT INTO webhook_deliveries (event, endpoint, state, next_at)"
            " VALUES (:event, :endpoint, 'waiting', :now)"
        ),
        {"event": bytes.fromhex(event.id), "endpoint": bytes.fromhex(endpoint), "now": now},
    )


def _event(event: Event) -> dict[str, object]:
    ids = {"id": bytes.fromhex(event.id), "merchant": bytes.fromhex(event.merchant)}
    return event._asdict() | ids


def take_head(tx: Connection) -> int | None:
    """How many leaves of the log have been told, locked; None if somebody else is telling."""
    query = "SELECT leaf FROM webhook_head FOR UPDATE SKIP LOCKED"
    return tx.execute(text(query)).scalar()


def move_head(tx: Connection, leaf: int) -> None:
    """The leaves below this one have been told."""
    tx.execute(text("UPDATE webhook_head SET leaf = :leaf"), {"leaf": leaf})


def lines(tx: Connection, first: int, last: int) -> list[Line]:
    """What stands in leaves `first` to below `last` on the bills of merchants who are told."""
    # both tables grow faster than their statistics
    tx.execute(text("SET LOCAL enable_seqscan = off"))
    return [Line(*row) for row in tx.execute(_LINES, {"first": first, "last": last})]


def add(tx: Connection, one: Endpoint) -> None:
    """Add an endpoint."""
    ids = {"id": bytes.fromhex(one.id), "merchant": bytes.fromhex(one.merchant)}
    tx.execute(
        text(
            "INSERT INTO webhook_endpoints (id, merchant, url, secret, kinds, state, made_at)"
            " VALUES (:id, :merchant, :url, :secret, :kinds, :state, :made_at)"
        ),
        one._asdict() | ids,
    )


def of_merchant(tx: Connection, merchant: str) -> list[Endpoint]:
    """A merchant's endpoints, oldest first."""
    query = f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE merchant = :m ORDER BY made_at, id"  # noqa: S608 (our own text)
    return [Endpoint(*row) for row in tx.execute(text(query), {"m": bytes.fromhex(merchant)})]


def find(tx: Connection, endpoint: str) -> Endpoint:
    """The endpoint of this id, which a delivery names."""
    query = f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE id = :id"  # noqa: S608
    return Endpoint(*tx.execute(text(query), {"id": bytes.fromhex(endpoint)}).one())


def lock(tx: Connection, merchant: str, endpoint: str) -> Endpoint | None:
    """A merchant's endpoint, which nobody else changes or sends to until `tx` ends."""
    row = tx.execute(
        text(
            f"SELECT {_COLUMNS} FROM webhook_endpoints"  # noqa: S608
            " WHERE id = :id AND merchant = :merchant FOR NO KEY UPDATE"
        ),
        {"id": bytes.fromhex(endpoint), "merchant": bytes.fromhex(merchant)},
    ).first()
    return Endpoint(*row) if row else None


def change(tx: Connection, one: Endpoint) -> None:
    """Keep all of a locked endpoint that may change."""
    tx.execute(
        text(
            "UPDATE webhook_endpoints SET secret = :secret, old_secret = :old_secret,"
            " old_until = :old_until, kinds = :kinds, state = :state, reason = :reason,"
            " verified_at = :verified_at, failing_since = :failing_since WHERE id = :id"
        ),
        one._asdict() | {"id": bytes.fromhex(one.id)},
    )


class Watched(NamedTuple):
    """An endpoint among those of all merchants: its merchant's code, and how many deliveries wait
    for it and are dead, counted up to `COUNTED`."""

    code: str
    endpoint: Endpoint
    waiting: int
    dead: int


COUNTED = 10_000
_COUNT = """CROSS JOIN LATERAL (SELECT count(*) FROM (SELECT FROM webhook_deliveries
  WHERE endpoint = e.key AND state = '%s' LIMIT :counted) few) %s (count)"""
_WATCHED = text(f"""
SELECT m.code, waiting.count, dead.count, e.*
FROM (SELECT id AS key, merchant AS owner, {_COLUMNS} FROM webhook_endpoints) e
JOIN merchants m ON m.id = e.owner
{_COUNT % ("waiting", "waiting")}
{_COUNT % ("dead", "dead")}
WHERE (m.code, e.key) > (:code, :id)
  AND (CAST(:merchant AS text) IS NULL OR m.code = :merchant)
  AND (CAST(:state AS text) IS NULL OR e.state = :state)
  AND (NOT :failing OR e.failing_since IS NOT NULL OR dead.count > 0)
ORDER BY m.code, e.key LIMIT :limit""")  # noqa: S608


def watched(
    tx: Connection,
    merchant: str | None,
    state: str | None,
    after: tuple[str, str],
    limit: int,
    *,
    failing: bool,
) -> list[Watched]:
    """Endpoints of all merchants, or of that code, after a merchant's code and an endpoint's id;
    in a state, or only those whose deliveries fail or are dead."""
    given = {
        "code": after[0],
        "id": bytes.fromhex(after[1]),
        "merchant": merchant,
        "state": state,
        "failing": failing,
        "counted": COUNTED,
        "limit": limit,
    }
    return [
        Watched(code, Endpoint(*columns), waiting, dead)
        for code, waiting, dead, _, _, *columns in tx.execute(_WATCHED, given)
    ]
