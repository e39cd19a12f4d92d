"""Endpoints: where a merchant wants to be told what, and the secrets that we sign with.

    pending ──proved──▶ active ◀──proved── disabled
                          └── by its merchant, 410, five days of failing ──▶ disabled

A secret is shown when it is made and never again. After a rotation the old one signs as well for a
day, so that a receiver can change over without losing an event.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from secrets import token_bytes, token_hex
from typing import Final, NamedTuple

from sqlalchemy import Connection

from app.flows.webhook.address import read_url
from app.flows.webhook.emit import TEST, emit, made
from app.store import deliveries, merchants, webhooks
from app.store.merchants import Partner
from app.store.webhooks import Endpoint
from app.vault import Vault

MAX_ENDPOINTS: Final = 5
OLD_SECRET: Final = timedelta(hours=24)
_SECRET_BYTES: Final = 32


class WebhookError(Exception):
    """An endpoint or event is not there, or not in the state that this needs."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Shown(NamedTuple):
    """An endpoint, and its secret in the clear if it was made just now."""

    endpoint: Endpoint
    secret: str | None


def register(
    tx: Connection,
    vault: Vault,
    asks: Partner,
    url: str,
    kinds: Sequence[str],
    now: datetime,
    *,
    loopback: bool,
) -> Shown:
    """Add an endpoint, or set the kinds of the one at this URL; one that was never proved gets a
    new secret, so that a lost answer costs nothing. Empty `kinds` are all, now and later.

    Raises AddressError, WebhookError MERCHANT_NOT_APPROVED, WEBHOOKS_FULL.
    """
    read_url(url, loopback=loopback)
    known = others(tx, asks)
    there = next((one for one in known if one.url == url), None)
    if there is None:
        must_have_room(known)
        endpoint_id, secret = token_hex(16), _new_secret()
        sealed = seal_secret(vault, endpoint_id, secret)
        parts = (endpoint_id, asks.id, url, sealed, None, None, sorted(set(kinds)))
        new = Endpoint(*parts, "pending", "", now, None, None)
        webhooks.add(tx, new)
        return Shown(new, secret)
    there = find(tx, asks.id, there.id)._replace(kinds=sorted(set(kinds)))
    if there.state == "pending":
        secret = _new_secret()
        there = there._replace(secret=seal_secret(vault, there.id, secret))
        webhooks.change(tx, there)
        return Shown(there, secret)
    webhooks.change(tx, there)
    return Shown(there, None)


def rotate(tx: Connection, vault: Vault, merchant: str, endpoint: str, now: datetime) -> Shown:
    """Make a new secret; the one before signs as well for a day. Raises WebhookError."""
    there, secret = find(tx, merchant, endpoint), _new_secret()
    there = there._replace(
        secret=seal_secret(vault, there.id, secret),
        old_secret=there.secret,
        old_until=now + OLD_SECRET,
    )
    webhooks.change(tx, there)
    return Shown(there, secret)


def disable(tx: Connection, merchant: str, endpoint: str) -> Endpoint:
    """Send nothing more to it: what waits is dead. Raises WebhookError WEBHOOK_UNKNOWN."""
    return _switch_off(tx, find(tx, merchant, endpoint), "BY_MERCHANT")


def give_up(tx: Connection, vault: Vault, there: Endpoint, reason: str, now: datetime) -> None:
    """Disable a (locked) endpoint that does not want or take what is sent, and say so in the log
    and to the merchant's other endpoints."""
    _switch_off(tx, there, reason)
    data = {"endpoint": there.id, "url": there.url, "reason": reason}
    key = f"{there.id} {now.isoformat()}"
    emit(tx, vault, there.merchant, "endpoint.disabled", key, data, now)


def send_test(tx: Connection, vault: Vault, merchant: str, endpoint: str, now: datetime) -> str:
    """Send an active endpoint an event that says nothing; its id. Raises WebhookError."""
    there = find(tx, merchant, endpoint)
    if there.state != "active":
        raise WebhookError("WEBHOOK_STATE", f"the endpoint is {there.state}; prove it first")
    event = made(vault, merchant, TEST, token_hex(16), {"endpoint": there.id}, now)
    webhooks.put_for(tx, event, there.id, now)
    return event.id


def find(tx: Connection, merchant: str, endpoint: str) -> Endpoint:
    """A merchant's endpoint, locked. Raises WebhookError WEBHOOK_UNKNOWN."""
    there = webhooks.lock(tx, merchant, endpoint)
    if there is None:
        raise WebhookError("WEBHOOK_UNKNOWN", "this merchant has no endpoint of this id")
    return there


def others(tx: Connection, asks: Partner) -> list[Endpoint]:
    """A merchant's endpoints; nobody adds to them until `tx` ends, so that two at once do not both
    take the last place. Raises WebhookError MERCHANT_NOT_APPROVED."""
    if asks.state == "applied":  # anybody may apply; we call nobody on their word
        raise WebhookError("MERCHANT_NOT_APPROVED", "endpoints may be added after the approval")
    merchants.lock(tx, asks.code)
    return webhooks.of_merchant(tx, asks.id)


def must_have_room(known: Sequence[Endpoint]) -> None:
    """Hold a merchant to so many endpoints that are not disabled. Raises WebhookError."""
    if sum(one.state != "disabled" for one in known) >= MAX_ENDPOINTS:
        raise WebhookError(
            "WEBHOOKS_FULL",
            f"a merchant has at most {MAX_ENDPOINTS} endpoints that are not disabled; disable one",
        )


def seal_secret(vault: Vault, endpoint: str, secret: str) -> bytes:
    """A secret as it is stored."""
    return vault.seal_for(f"webhook {endpoint}", secret.encode())


def secrets_of(vault: Vault, there: Endpoint, now: datetime) -> list[str]:
    """The secrets that sign now, the newest first. Raises VaultError."""
    sealed = [there.secret]
    if there.old_secret and there.old_until and now < there.old_until:
        sealed.append(there.old_secret)
    return [vault.open_for(f"webhook {there.id}", one).decode() for one in sealed]


def _switch_off(tx: Connection, there: Endpoint, reason: str) -> Endpoint:
    deliveries.drop_waiting(tx, there.id)
    off = there._replace(state="disabled", reason=reason, failing_since=None)
    webhooks.change(tx, off)
    return off


def _new_secret() -> str:
    return f"whsec_{b64encode(token_bytes(_SECRET_BYTES)).decode()}"
