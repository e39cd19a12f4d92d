"""Replay: send again what an endpoint has lost or never got. Its ladder begins anew."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.webhook.emit import VERIFICATION
from app.flows.webhook.endpoint import WebhookError, find
from app.store import deliveries


def replay(
    tx: Connection, merchant: str, event_id: str, endpoint: str | None, now: datetime
) -> int:
    """Send an event again to one active endpoint, or to all that ask for its kind; to how many.

    Raises WebhookError EVENT_UNKNOWN, WEBHOOK_UNKNOWN, WEBHOOK_STATE.
    """
    event = deliveries.event(tx, merchant, event_id)
    if event is None or event.kind == VERIFICATION:
        raise WebhookError("EVENT_UNKNOWN", "there is no event of this id that could be replayed")
    if endpoint is not None:
        _must_be_active(tx, merchant, endpoint)
    return deliveries.replay(tx, event, endpoint, now)


def replay_since(
    tx: Connection, merchant: str, endpoint: str, since: datetime, now: datetime
) -> int:
    """Send all that happened since then to an active endpoint, delivered or not; how many events.

    Raises WebhookError WEBHOOK_UNKNOWN, WEBHOOK_STATE.
    """
    _must_be_active(tx, merchant, endpoint)
    return deliveries.replay_since(tx, merchant, endpoint, since, now)


def _must_be_active(tx: Connection, merchant: str, endpoint: str) -> None:
    there = find(tx, merchant, endpoint)
    if there.state != "active":
        raise WebhookError("WEBHOOK_STATE", f"the endpoint is {there.state}; prove it first")
