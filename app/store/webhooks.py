"""Merchants' endpoints and the events written for them."""

from __future__ import annotations

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


# Kept also while a proved endpoint is disabled: what it missed may be replayed to it later.
_PUT_EVENT = text("""
INSERT INTO webhook_events (id, merchant, kind, body, at)
SELECT :id, :merchant, :kind, :body, :at
WHERE EXISTS (SELECT FROM webhook_endpoints
  WHERE merchant = :merchant AND verified_at IS NOT NULL)
ON CONFLICT (id) DO NOTHING""")


def put_event(tx: Connection, event: Event) -> None:
    """Write an event unless it is there, or its merchant never proved an endpoint."""
    tx.execute(
        _PUT_EVENT,
        event._asdict()
        | {"id": bytes.fromhex(event.id), "merchant": bytes.fromhex(event.merchant)},
    )
