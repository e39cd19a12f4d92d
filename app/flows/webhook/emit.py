"""Emit: write an event for a merchant's endpoints, in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.store import webhooks
from app.store.webhooks import Event
from app.vault import Vault

# What an endpoint may ask for. The first six are told from the sealed log, by `spread`.
KINDS: Final = (
    "charge.succeeded",
    "charge.refunded",
    "charge.reversed",
    "order.confirmed",
    "voucher.voided",
    "voucher.lapsed",
    "voucher.used",
    "allowance.low",
    "bill.ready",
    "merchant.state",
    "endpoint.disabled",
)
TEST: Final = "endpoint.test"
VERIFICATION: Final = "endpoint.verification"


def emit(
    tx: Connection,
    vault: Vault,
    merchant: str,
    kind: str,
    key: str,
    data: Mapping[str, Any],
    now: datetime,
) -> None:
    """Tell a merchant (32 hex digits) something once for each (merchant, kind, key).

    `data` is what the event says: ids and amounts as strings, and nothing about a person. A
    merchant that never had an endpoint is told nothing, and nothing is kept.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind} is not a kind of event")
    webhooks.put_event(tx, made(vault, merchant, kind, key, data, now))


def made(
    vault: Vault, merchant: str, kind: str, key: str, data: Mapping[str, Any], at: datetime
) -> Event:
    """An event and the very bytes that are sent: the payload that Standard Webhooks suggests."""
    moment = at.astimezone(CITY_ZONE).isoformat(timespec="seconds")
    body = orjson.dumps({"type": kind, "timestamp": moment, "data": data})
    event_id = vault.mark(f"webhook {merchant}\0{kind}\0{key}", 16).hex()
    return Event(event_id, merchant, kind, body, at)
