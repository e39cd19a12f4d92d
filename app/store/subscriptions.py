"""How many messages of each WeChat template a resident has asked for: one tap, one message."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

MOST = 100  # taps kept: nobody needs more, and a number that only grows tells nothing


class Subscription(NamedTuple):
    """What is left of a resident's taps on a template, and when they last refused it."""

    template: str
    quota: int
    refused_at: datetime | None


def of_resident(tx: Connection, resident: str) -> dict[str, Subscription]:
    """A resident's subscriptions by template."""
    rows = tx.execute(
        text("SELECT template, quota, refused_at FROM subscriptions WHERE resident = :resident"),
        {"resident": bytes.fromhex(resident)},
    )
    return {row.template: Subscription(*row) for row in rows}


def accept(tx: Connection, resident: str, template: str, taps: int) -> None:
    """Count taps that ask for a message each; what was refused before is forgotten."""
    _run(
        tx,
        "INSERT INTO subscriptions AS s (resident, template, quota)"
        " VALUES (:resident, :template, least(:taps, :most))"
        " ON CONFLICT (resident, template)"
        " DO UPDATE SET quota = least(s.quota + :taps, :most), refused_at = NULL",
        resident=bytes.fromhex(resident),
        template=template,
        taps=taps,
        most=MOST,
    )


def refuse(tx: Connection, resident: str, template: str, now: datetime) -> None:
    """Send nothing more by this template until the resident asks for it again."""
    _run(
        tx,
        "INSERT INTO subscriptions (resident, template, quota, refused_at)"
        " SELECT id, :template, 0, :now FROM residents"
        " WHERE id = :resident AND erased_at IS NULL"  # who left meanwhile leaves no row
        " ON CONFLICT (resident, template) DO UPDATE SET quota = 0, refused_at = :now",
        resident=bytes.fromhex(resident),
        template=template,
        now=now,
    )


def spend(tx: Connection, resident: str, template: str) -> bool:
    """Take one message off the quota; False if there is none left."""
    return _run(
        tx,
        "UPDATE subscriptions SET quota = quota - 1"
        " WHERE resident = :resident AND template = :template AND quota > 0",
        resident=bytes.fromhex(resident),
        template=template,
    )


def give_back(tx: Connection, resident: str, template: str) -> None:
    """Put back a message that WeChat did not send, unless its resident refused meanwhile."""
    _run(
        tx,
        "UPDATE subscriptions SET quota = quota + 1"
        " WHERE resident = :resident AND template = :template AND refused_at IS NULL",
        resident=bytes.fromhex(resident),
        template=template,
    )


def _run(tx: Connection, statement: str, **values: object) -> bool:
    return tx.execute(text(statement), values).rowcount == 1
