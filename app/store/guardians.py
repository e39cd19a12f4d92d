"""Children under 14 and who answers for them; from the day they are 14 the link is void."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Connection, text


def is_minor(tx: Connection, resident: str, today: date) -> bool:
    """Whether a resident is under 14 today."""
    return bool(
        tx.execute(
            text("SELECT minor_until > :today FROM residents WHERE id = :id"),
            {"id": bytes.fromhex(resident), "today": today},
        ).scalar()
    )


def put_code(tx: Connection, code: bytes, guardian: str, now: datetime, until: datetime) -> None:
    """Keep the hash of a guardian's code; the ones before it are void."""
    parameters = {"code": code, "id": bytes.fromhex(guardian), "now": now, "until": until}
    tx.execute(
        text("DELETE FROM guardian_codes WHERE resident = :id OR expires_at <= :now"), parameters
    )
    tx.execute(text("INSERT INTO guardian_codes VALUES (:code, :id, :until)"), parameters)


def take_code(tx: Connection, code: bytes, now: datetime) -> str | None:
    """The guardian whose unused code this is; it is used now."""
    found = tx.execute(
        text(
            "DELETE FROM guardian_codes c USING residents r WHERE c.code = :code"
            " AND c.expires_at > :now AND r.id = c.resident AND r.erased_at IS NULL RETURNING r.id"
        ),
        {"code": code, "now": now},
    ).scalar()
    return found.hex() if found else None


def put_child(tx: Connection, child: str, guardian: str, until: date) -> None:
    """Note until when a resident is under 14, and who answers for them."""
    tx.execute(
        text("UPDATE residents SET minor_until = :until, guardian = :guardian WHERE id = :id"),
        {"id": bytes.fromhex(child), "guardian": bytes.fromhex(guardian), "until": until},
    )


def children(tx: Connection, guardian: str, today: date) -> list[tuple[str, date]]:
    """(resident, first day at 14) of those whom a resident answers for today."""
    rows = tx.execute(
        text(
            "SELECT id, minor_until FROM residents WHERE guardian = :id AND minor_until > :today"
            " AND erased_at IS NULL ORDER BY joined_at, id"
        ),
        {"id": bytes.fromhex(guardian), "today": today},
    )
    return [(row[0].hex(), row[1]) for row in rows]
