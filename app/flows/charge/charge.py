"""Charge: take points for what a resident buys, by the code they show. One transaction.

Every outcome is kept under the merchant's number, the refusals too, so that the same request gets
the same answer and nobody at a till has to guess. What is plain is done `at_once`; the way here is
the one for everything, and tells it from its start.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows import pay_code, redeem
from app.flows.charge.asked import Asked as Asked
from app.flows.charge.asked import digest_of, face, new
from app.flows.charge.at_once import at_once
from app.flows.charge.query import ChargeError, must_be_same, query
from app.flows.fraud.check import Attempt, Verdict, check
from app.flows.notify import notify
from app.flows.setting import SETTINGS, setting
from app.store import bills, charges, merchants
from app.store.charges import Charge, Face, Scan
from app.store.db import transact
from app.vault import Vault
from ledger.buckets import day_number
from ledger.errors import Exhausted, Insufficient

CONFIRM: Final = timedelta(seconds=60)
"""For so long a charge waits for its resident, at a counter with people behind."""


def charge(engine: Engine, vault: Vault, asked: Asked, now: datetime) -> Face:
    """Charge, once for each number; the charge as it stands: succeeded, pending, or failed.

    Raises ChargeError REQUEST_NO_REUSED, CHARGE_REVERSED, MERCHANT_NOT_APPROVED.
    """
    if asked.partner.state == "applied":
        detail = "the city has not approved this merchant yet; it can charge nobody"
        raise ChargeError("MERCHANT_NOT_APPROVED", detail)
    try:
        return at_once(engine, vault, asked, now) or transact(
            engine, lambda tx: _attempt(tx, vault, asked, now)
        )
    except Insufficient as short:
        refusal = _short(short)  # its transaction is gone; that it failed is kept by another
        return transact(engine, lambda tx: _attempt(tx, vault, asked, now, refusal))


def _attempt(
    tx: Connection, vault: Vault, asked: Asked, now: datetime, refusal: Verdict | None = None
) -> Face:
    code, digest = pay_code.digest_of(vault, asked.code), digest_of(vault, asked)
    seen = charges.scan(tx, asked.partner.id, asked.number, asked.till, code)
    if seen.known:
        return _again(tx, asked, digest)
    refusal = refusal or _refusal(tx, asked, seen, now)
    one = new(asked, seen, digest, now)
    if refusal is not None:
        failed = one._replace(state="failed", code=refusal.code, detail=refusal.detail)
        return face(asked, seen, failed) if charges.put(tx, failed) else _again(tx, asked, digest)
    limit = seen.confirm_points
    if asked.points > (SETTINGS["confirm_points"].default if limit is None else limit):
        one = one._replace(state="pending", expires_at=now + CONFIRM, closed_at=None)
    else:
        one = one._replace(entry=vault.entry_id("charge", f"{one.merchant}\0{one.number}"))
    made, used = charges.begin(tx, one, code)
    if not made:
        return _again(tx, asked, digest)
    if not used:  # by another till, while this one waited for the resident
        late = pay_code.used()
        one = one._replace(state="failed", code=late.code, detail=str(late), entry=None)
        charges.change(tx, one)
    elif one.state == "pending":
        one = _hold(tx, vault, one, seen.merchant_name, now)
    else:
        _take(tx, vault, one, now)
    return face(asked, seen, one)


def _refusal(tx: Connection, asked: Asked, seen: Scan, now: datetime) -> Verdict | None:
    partner = asked.partner
    if partner.state != "approved":
        return Verdict("MERCHANT_SUSPENDED", "the city has suspended this merchant")
    if seen.till is None:
        return Verdict("TILL_UNKNOWN", f"no open till of an open store has the code {asked.till}")
    if partner.till not in (None, seen.till):
        return Verdict("TILL_NOT_YOURS", "this key is of another till than the request")
    try:
        shown = pay_code.living(seen.code, now)
    except pay_code.PayCodeError as dead:
        return Verdict(dead.code, str(dead))
    if shown.voucher is not None:
        detail = "this code uses a voucher; send it to /api/v1/merchant/uses"
        return Verdict("PAY_CODE_FOR_VOUCHER", detail)
    today = now.astimezone(CITY_ZONE)
    if seen.minor_until is not None and day_number(today.date()) < seen.minor_until:
        limit = setting(tx, "minor_day_points")
        begins = today.replace(hour=0, minute=0, second=0, microsecond=0)
        if charges.spent_since(tx, shown.resident, begins) + asked.points > limit:
            detail = f"before fourteen a resident may spend at most {limit} points a day at tills"
            return Verdict("MINOR_LIMIT", detail)
    attempt = Attempt(shown.resident, shown.device, partner.id, asked.points, "charge")
    return check(tx, attempt, now)


def _hold(tx: Connection, vault: Vault, one: Charge, merchant: str, now: datetime) -> Charge:
    """Set the points aside, and ask the resident; nobody is asked in vain. Raises Insufficient."""
    resident = one.resident or ""
    params = {"points": str(one.points), "merchant": merchant}
    notify(tx, vault, resident, "charge.pending", one.id, params, now)
    request = f"charge {one.merchant} {one.number}"
    moved = redeem.hold(tx, vault, resident, one.points, request, now)
    if merchants.allowance(tx, one.merchant) < one.points:
        raise Exhausted(
            "The merchant's allowance does not cover what a resident is to be asked for."
        )
    held = one._replace(hold=moved.entry.id)
    charges.change(tx, held)
    return held


def _take(tx: Connection, vault: Vault, one: Charge, now: datetime) -> None:
    parts = (one.resident or "", one.points, one.merchant, one.number, now)
    bill(tx, one, redeem.charge(tx, vault, *parts), now)


def bill(tx: Connection, one: Charge, moved: redeem.Moved, now: datetime) -> None:
    """Put a charge that was paid on its merchant's bill."""
    line = bills.Line(
        arrival=moved.arrival,
        merchant=one.merchant,
        kind="charge",
        number=one.number,
        origin="",
        entry_id=moved.entry.id,
        points=one.points,
        store=one.store,
        till=one.till,
    )
    bills.add(tx, line, now)


def _again(tx: Connection, asked: Asked, digest: bytes) -> Face:
    """The charge that has this number, if it is this one and was not reversed."""
    found = query(tx, asked.partner.id, asked.number)
    if found.charge.digest is not None:
        must_be_same(digest, found.charge.digest)
    if found.charge.state == "reversed":
        detail = "this number was reversed; charge again under a new one"
        raise ChargeError("CHARGE_REVERSED", detail)
    return found


def _short(short: Insufficient) -> Verdict:
    if isinstance(short, Exhausted):
        return Verdict(
            "ALLOWANCE_EXHAUSTED", "the merchant's allowance does not cover these points"
        )
    return Verdict("INSUFFICIENT_POINTS", "the resident has fewer points than these to spend")
