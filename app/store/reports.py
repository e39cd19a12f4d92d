"""What residents report themselves, the evidence they show, and what reviewers decide."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array

STATES: Final = ("waiting", "accepted", "refused")


class Report(NamedTuple):
    """A reported act, its content sealed under its resident's key; `wrapped_key` is that key's."""

    id: bytes
    resident: str
    wrapped_key: bytes
    scenario: str
    sealed: bytes
    state: str
    reported_at: datetime
    decided_at: datetime | None
    reason: str | None
    pictured: bool


class Evidence(NamedTuple):
    """What is shown once: keyed hashes of it and, for a picture, of its pixels; and the sealed
    picture."""

    digest: bytes
    pixels: bytes | None = None
    sealed: bytes | None = None


_SELECT = (
    "SELECT p.id, p.resident, r.wrapped_key, p.scenario, p.sealed, p.state, p.reported_at,"
    " p.decided_at, p.reason, EXISTS"
    " (SELECT FROM evidence e WHERE e.report = p.id AND e.sealed IS NOT NULL) AS pictured"
    " FROM reports p JOIN residents r ON r.id = p.resident AND r.erased_at IS NULL"
)


def joined_at(tx: Connection, resident: str) -> datetime:
    """When a resident joined."""
    at: datetime = tx.execute(
        text("SELECT joined_at FROM residents WHERE id = :id"), {"id": bytes.fromhex(resident)}
    ).scalar_one()
    return at


def put(
    tx: Connection, id: bytes, resident: str, scenario: str, sealed: bytes, now: datetime
) -> None:
    """Add a report that waits for a reviewer."""
    tx.execute(
        text(
            "INSERT INTO reports (id, resident, scenario, sealed, state, reported_at)"
            " VALUES (:id, :resident, :scenario, :sealed, 'waiting', :now)"
        ),
        {
            "id": id,
            "resident": bytes.fromhex(resident),
            "scenario": scenario,
            "sealed": sealed,
            "now": now,
        },
    )


def waiting(tx: Connection, resident: str) -> int:
    """How many of a resident's reports wait for a reviewer."""
    count: int = tx.execute(
        text("SELECT count(*) FROM reports WHERE resident = :who AND state = 'waiting'"),
        {"who": bytes.fromhex(resident)},
    ).scalar_one()
    return count


def was_shown(tx: Connection, evidence: Sequence[Evidence]) -> bool:
    """Whether any of this was shown before, by whomever."""
    found = tx.execute(
        text(
            "SELECT EXISTS (SELECT FROM evidence WHERE digest = ANY(CAST(:digests AS bytea[]))"
            " OR pixels = ANY(CAST(:pixels AS bytea[])))"
        ),
        {
            "digests": bytea_array(one.digest for one in evidence),
            "pixels": bytea_array(one.pixels for one in evidence if one.pixels),
        },
    ).scalar_one()
    return bool(found)


def show(tx: Connection, report: bytes, resident: str, evidence: Sequence[Evidence]) -> None:
    """Keep what was shown with a report."""
    rows = [
        {"report": report, "resident": bytes.fromhex(resident), **one._asdict()} for one in evidence
    ]
    if rows:
        tx.execute(
            text(
                "INSERT INTO evidence (digest, pixels, report, resident, sealed)"
                " VALUES (:digest, :pixels, :report, :resident, :sealed)"
            ),
            rows,
        )


def picture(tx: Connection, report: bytes) -> bytes | None:
    """The sealed picture of a report."""
    return tx.execute(
        text("SELECT sealed FROM evidence WHERE report = :id AND sealed IS NOT NULL"),
        {"id": report},
    ).scalar()


def drop_pictures(tx: Connection, before: datetime) -> None:
    """Delete the pictures of reports decided before that moment; they stay known."""
    tx.execute(
        text(
            "UPDATE evidence e SET sealed = NULL FROM reports p"
            " WHERE p.id = e.report AND p.decided_at < :before AND e.sealed IS NOT NULL"
        ),
        {"before": before},
    )


def find(tx: Connection, id: bytes, *, lock: bool = False) -> Report | None:
    """One report of a living resident."""
    tail = " WHERE p.id = :id" + (" FOR UPDATE OF p" if lock else "")
    row = tx.execute(text(_SELECT + tail), {"id": id}).first()
    return _report(row) if row else None


def decide(
    tx: Connection, id: bytes, state: str, who: str, reason: str | None, now: datetime
) -> None:
    """Note what was decided of a report that waited."""
    tx.execute(
        text(
            "UPDATE reports SET state = :state, decided_by = :who, decided_at = :now,"
            " reason = :reason WHERE id = :id"
        ),
        {"id": id, "state": state, "who": who, "now": now, "reason": reason},
    )


def of_resident(
    tx: Connection, resident: str, before: tuple[datetime, bytes], limit: int
) -> list[Report]:
    """A resident's reports, newest first."""
    tail = (
        " WHERE p.resident = :who AND (p.reported_at, p.id) < (:at, :id)"
        " ORDER BY p.reported_at DESC, p.id DESC LIMIT :limit"
    )
    who = bytes.fromhex(resident)
    values = {"who": who, "at": before[0], "id": before[1], "limit": limit}
    return [_report(row) for row in tx.execute(text(_SELECT + tail), values)]


def in_state(tx: Connection, state: str, after: tuple[datetime, bytes], limit: int) -> list[Report]:
    """Reports in a state, those that were made first before the others."""
    tail = (
        " WHERE p.state = :state AND (p.reported_at, p.id) > (:at, :id)"
        " ORDER BY p.reported_at, p.id LIMIT :limit"
    )
    values = {"state": state, "at": after[0], "id": after[1], "limit": limit}
    return [_report(row) for row in tx.execute(text(_SELECT + tail), values)]


def _report(row: Any) -> Report:
    return Report(row[0], row[1].hex(), *row[2:])
