"""Monthly challenges, and who takes part. How far somebody has come is never stored."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, text

from app.store.db import bytea_array, int_array

STATES = ("draft", "open", "closed")


class Challenge(NamedTuple):
    """One challenge. `month` is YYYYMM, `body` its titles and goal; `revision` counts contents."""

    id: str
    month: int
    revision: int
    state: str
    body: dict[str, Any]
    changed_at: datetime


class Seat(NamedTuple):
    """A challenge as one resident sees it, who joined it or (None) did not; `told_at` is when they
    were told that they reached it."""

    challenge: Challenge
    joined_at: datetime | None
    told_at: datetime | None


_SELECT = "SELECT encode(c.id, 'hex'), c.month, c.revision, c.state, c.body, c.changed_at"
_FIND = text(f"{_SELECT} FROM challenges c WHERE c.id = :id")
_LOCK = text(f"{_SELECT} FROM challenges c WHERE c.id = :id FOR UPDATE")
_PAGE = text(f"""{_SELECT} FROM challenges c
WHERE (CAST(:state AS text) IS NULL OR c.state = :state)
  AND (c.month, c.id) < (:month, CAST(:id AS bytea))
ORDER BY c.month DESC, c.id DESC LIMIT :limit""")
# Part of every home: the driver's own SQL, since compiling text() costs as much as running it.
_SEATS = f"""{_SELECT}, m.joined_at, m.reached_at
FROM challenges c LEFT JOIN challenge_members m ON m.challenge = c.id AND m.resident = %s
WHERE c.state = 'open' AND c.month >= %s ORDER BY c.month, c.changed_at, c.id"""
_JOINED = text(f"""{_SELECT}, m.joined_at, m.reached_at
FROM challenge_members m JOIN challenges c ON c.id = m.challenge
WHERE m.resident = :resident AND c.state = 'open'""")
_UNTOLD = text(f"""{_SELECT}, m.joined_at, m.reached_at, m.resident
FROM challenge_members m JOIN challenges c ON c.id = m.challenge
JOIN residents r ON r.id = m.resident AND r.erased_at IS NULL AND r.restricted_at IS NULL
WHERE m.reached_at IS NULL AND c.state = 'open'
  AND c.month = ANY(CAST(:months AS integer[]))
  AND m.resident = ANY(CAST(:residents AS bytea[]))""")
# What came in these leaves can add no more than so many acts, days, or grams.
_COME = text("""
WITH span AS MATERIALIZED (
  SELECT min(arrival) AS low, max(arrival + count) - 1 AS high FROM runs_between(:first, :last)
), came AS MATERIALIZED (
  SELECT o.resident, count(*) AS acts
  FROM runs_between(:first, :last) r CROSS JOIN LATERAL (
    SELECT resident FROM openings
    WHERE arrival >= r.arrival AND arrival < r.arrival + r.count OFFSET 0) o
  WHERE EXISTS (SELECT FROM challenge_members m
    WHERE m.resident = o.resident AND m.reached_at IS NULL)
  GROUP BY o.resident
), less AS (
  UPDATE challenge_members m
  SET wanting = m.wanting - CASE c.body -> 'goal' ->> 'of' WHEN 'grams' THEN (
    SELECT ceil(sum(p.amount) / 1000.0)::bigint
    FROM span CROSS JOIN LATERAL own_postings(m.resident, span.low) p
    WHERE p.arrival <= span.high AND p.asset = 1 AND p.amount > 0) ELSE came.acts END
  FROM came CROSS JOIN challenges c
  WHERE m.resident = came.resident AND m.reached_at IS NULL
    AND c.id = m.challenge AND c.state = 'open' AND c.month = ANY(CAST(:months AS integer[]))
  RETURNING m.resident, m.wanting
)
SELECT DISTINCT resident FROM less WHERE wanting IS NULL OR wanting <= 0""")
_WANT = text("""
UPDATE challenge_members m SET wanting = w.wanting
FROM unnest(CAST(:challenges AS bytea[]), CAST(:residents AS bytea[]), CAST(:wanting AS bigint[]))
  AS w (challenge, resident, wanting)
WHERE m.challenge = w.challenge AND m.resident = w.resident""")
_PLACE = text("SELECT leaf FROM places WHERE follower = 'challenges' FOR UPDATE SKIP LOCKED")
_GO_ON = text("UPDATE places SET leaf = :leaf WHERE follower = 'challenges'")


def add(tx: Connection, id: str, month: int, body: dict[str, Any], now: datetime) -> None:
    """Keep a new draft, as revision 1."""
    tx.execute(
        text(
            "INSERT INTO challenges (id, month, revision, body, state, changed_at)"
            " VALUES (:id, :month, 1, CAST(:body AS jsonb), 'draft', :now)"
        ),
        {"id": bytes.fromhex(id), "month": month, "body": _json(body), "now": now},
    )


def find(tx: Connection, id: str) -> Challenge | None:
    """The challenge of this id, or None."""
    row = tx.execute(_FIND, {"id": bytes.fromhex(id)}).first()
    return Challenge(*row) if row else None


def lock(tx: Connection, id: str) -> Challenge | None:
    """The same, and nobody else changes it until this transaction ends."""
    row = tx.execute(_LOCK, {"id": bytes.fromhex(id)}).first()
    return Challenge(*row) if row else None


def page(
    tx: Connection, state: str | None, before: tuple[int, str] | None, limit: int
) -> list[Challenge]:
    """Challenges, the latest month first, beginning after the place (month, id) of one."""
    month, last = before or (1_000_000, "")
    asked = {"state": state, "month": month, "id": bytes.fromhex(last), "limit": limit}
    return [Challenge(*row) for row in tx.execute(_PAGE, asked)]


def revise(tx: Connection, id: str, month: int, body: dict[str, Any], now: datetime) -> None:
    """Put another content in its place."""
    tx.execute(
        text(
            "UPDATE challenges SET revision = revision + 1, month = :month,"
            " body = CAST(:body AS jsonb), changed_at = :now WHERE id = :id"
        ),
        {"id": bytes.fromhex(id), "month": month, "body": _json(body), "now": now},
    )


def bring(tx: Connection, id: str, state: str, now: datetime) -> None:
    """Bring a challenge to another state; that is a revision too."""
    tx.execute(
        text(
            "UPDATE challenges SET revision = revision + 1, state = :state, changed_at = :now"
            " WHERE id = :id"
        ),
        {"id": bytes.fromhex(id), "state": state, "now": now},
    )


def editors(tx: Connection, id: str) -> set[str]:
    """Everybody who ever wrote this challenge, out of the trail: nobody can take it out."""
    rows = tx.execute(
        text(
            "SELECT DISTINCT actor FROM trail"
            " WHERE target = :target AND action IN ('challenge.drafted', 'challenge.edited')"
        ),
        {"target": id},
    )
    return set(rows.scalars())


def taking_part(tx: Connection, id: str) -> int:
    """How many joined a challenge."""
    count = tx.execute(
        text("SELECT count(*) FROM challenge_members WHERE challenge = :id"),
        {"id": bytes.fromhex(id)},
    ).scalar_one()
    return int(count)


def join(tx: Connection, id: str, resident: str, now: datetime) -> None:
    """Let a resident take part; who does so already stays as they are."""
    tx.execute(
        text(
            "INSERT INTO challenge_members (challenge, resident, joined_at)"
            " VALUES (:id, :resident, :now) ON CONFLICT DO NOTHING"
        ),
        {"id": bytes.fromhex(id), "resident": bytes.fromhex(resident), "now": now},
    )


def leave(tx: Connection, id: str, resident: str) -> None:
    """Let a resident take part no more."""
    tx.execute(
        text("DELETE FROM challenge_members WHERE challenge = :id AND resident = :resident"),
        {"id": bytes.fromhex(id), "resident": bytes.fromhex(resident)},
    )


def seats(tx: Connection, resident: str, since: int) -> list[Seat]:
    """Every open challenge of a month YYYYMM or later, as this resident sees it."""
    rows = tx.exec_driver_sql(_SEATS, (bytes.fromhex(resident), since))
    return [Seat(Challenge(*row[:6]), *row[6:]) for row in rows]


def joined(tx: Connection, resident: str) -> list[Seat]:
    """Every open challenge that this resident joined, of whatever month."""
    rows = tx.execute(_JOINED, {"resident": bytes.fromhex(resident)})
    return [Seat(Challenge(*row[:6]), *row[6:]) for row in rows]


def untold(
    tx: Connection, residents: Iterable[str], months: Iterable[int]
) -> list[tuple[str, Seat]]:
    """Which of these people have joined a challenge of these months that they were not told they
    reached: (resident, seat)."""
    asked = {
        "residents": bytea_array(map(bytes.fromhex, residents)),
        "months": int_array(months),
    }
    rows = tx.execute(_UNTOLD, asked)
    return [(row[8].hex(), Seat(Challenge(*row[:6]), *row[6:8])) for row in rows]


def want(tx: Connection, wanting: Iterable[tuple[str, str, int]]) -> None:
    """Keep how much is wanting: (challenge, resident, amount in the goal's unit)."""
    rows = list(wanting)
    asked = {
        "challenges": bytea_array(bytes.fromhex(challenge) for challenge, _, _ in rows),
        "residents": bytea_array(bytes.fromhex(resident) for _, resident, _ in rows),
        "wanting": int_array(amount for _, _, amount in rows),
    }
    tx.execute(_WANT, asked)


def come(tx: Connection, leaves: range, months: Iterable[int]) -> list[str]:
    """Take what these leaves can add off what is wanting in challenges of these months; who may
    have reached one now, or was never reckoned.

    No act is taken for less than it adds. Nothing is put back for one that was reversed: that shows
    when its resident is reckoned anew.
    """
    asked = {"first": leaves.start, "last": leaves.stop, "months": int_array(months)}
    return sorted(resident.hex() for resident in tx.execute(_COME, asked).scalars())


def place(tx: Connection) -> int | None:
    """The next leaf of the log to look at, locked; None if somebody else is looking."""
    found: int | None = tx.execute(_PLACE).scalar()
    return found


def go_on(tx: Connection, leaf: int) -> None:
    """Move that place."""
    tx.execute(_GO_ON, {"leaf": leaf})


def tell(tx: Connection, id: str, resident: str, now: datetime) -> None:
    """Note that a resident is told of having reached a challenge."""
    tx.execute(
        text(
            "UPDATE challenge_members SET reached_at = :now"
            " WHERE challenge = :id AND resident = :resident AND reached_at IS NULL"
        ),
        {"id": bytes.fromhex(id), "resident": bytes.fromhex(resident), "now": now},
    )


def _json(body: dict[str, Any]) -> str:
    return orjson.dumps(body).decode()
