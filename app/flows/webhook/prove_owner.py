"""Prove that an endpoint is its merchant's: it must answer a signed request with our challenge.

Whoever merely receives the request, such as the owner of another's server, answers something else:
a body that only echoes what was sent is no proof either.
"""

from __future__ import annotations

from datetime import datetime
from hmac import compare_digest
from secrets import token_urlsafe

import orjson
from sqlalchemy import Connection

from app.flows.webhook.emit import VERIFICATION, made
from app.flows.webhook.endpoint import find, must_have_room, others
from app.store import deliveries, webhooks
from app.store.merchants import Partner
from app.store.webhooks import Endpoint
from app.vault import Vault


def ask(tx: Connection, vault: Vault, asks: Partner, endpoint: str, now: datetime) -> Endpoint:
    """Have the worker ask an endpoint that is pending or disabled, unless that is under way; the
    endpoint as it stands before. An active one needs no proof.

    Raises WebhookError WEBHOOK_UNKNOWN, WEBHOOKS_FULL, MERCHANT_NOT_APPROVED.
    """
    known = others(tx, asks)
    there = find(tx, asks.id, endpoint)
    if there.state == "active" or deliveries.waits(tx, there.id):
        return there
    if there.state == "disabled":
        must_have_room(known)
    challenge = token_urlsafe(32)
    event = made(vault, asks.id, VERIFICATION, challenge, {"challenge": challenge}, now)
    webhooks.put_for(tx, event, there.id, now)
    return there


def proves(sent: bytes, answer: bytes) -> bool:
    """Whether an answer is the challenge of the body that was sent: as plain text, or as the member
    `challenge` of a JSON object."""
    challenge = orjson.loads(sent)["data"]["challenge"]
    said: object = answer.decode("utf-8", "replace").strip()
    try:
        document = orjson.loads(answer)
        said = document.get("challenge") if isinstance(document, dict) else said
    except orjson.JSONDecodeError:
        pass
    return isinstance(said, str) and compare_digest(said.encode(), challenge.encode())
