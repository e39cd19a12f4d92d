"""Privacy notices by number, and who accepted which."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Notice(NamedTuple):
    """A privacy notice; `digest` is the SHA-256, in hex, of its text in UTF-8."""

    number: int
    digest: str
    text_zh: str
    published_at: datetime


def put(tx: Connection, notice: Notice) -> str:
    """Publish a notice unless its number is published; the digest that stands under it."""
    tx.execute(
        text(
            "INSERT INTO privacy_notices (number, digest, text_zh, published_at)"
            " VALUES (:number, :digest, :text_zh, :published_at) ON CONFLICT DO NOTHING"
        ),
        notice._asdict(),
    )
    return str(
        tx.execute(
            text("SELECT digest FROM privacy_notices WHERE number = :number"),
            {"number": notice.number},
        ).scalar_one()
    )


def published(tx: Connection) -> list[Notice]:
    """Every notice, the newest first."""
    rows = tx.execute(
        text(
            "SELECT number, digest, text_zh, published_at FROM privacy_notices ORDER BY number DESC"
        )
    )
    return [Notice(*row) for row in rows]


def accept(tx: Connection, resident: str, number: int, now: datetime) -> None:
    """Note that a resident accepts a notice; the first time counts."""
    tx.execute(
        text(
            "INSERT INTO privacy_acceptances (resident, number, accepted_at)"
            " VALUES (:id, :number, :now) ON CONFLICT DO NOTHING"
        ),
        {"id": bytes.fromhex(resident), "number": number, "now": now},
    )


def accepted_newest(tx: Connection, resident: str) -> bool:
    """Whether a resident accepts the notice that is in force, if there is one."""
    return bool(
        tx.execute(
            text(
                "SELECT NOT EXISTS (SELECT FROM privacy_notices n"
                " WHERE n.number = (SELECT max(number) FROM privacy_notices)"
                " AND NOT EXISTS (SELECT FROM privacy_acceptances a"
                " WHERE a.number = n.number AND a.resident = :id))"
            ),
            {"id": bytes.fromhex(resident)},
        ).scalar_one()
    )
