"""At once: a plain charge as two statements, each its own transaction: look, then pay.

Nothing is locked while Python thinks, so no till waits for another server's turn: `pay` locks,
holds what was looked up against what is so then, writes all, and commits. Whatever is not plain (a
number, a nonce or a code used before, a key no longer in force, a refusal, a rule against fraud, a
resident to be asked, somebody who came first) is left undone here, for the long way to tell.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from app.config import CITY_ZONE
from app.flows import pay_code
from app.flows.charge.asked import Asked, digest_of, face, new
from app.flows.fraud.check import Attempt, is_clean, since
from app.flows.setting import SETTINGS
from app.store import charges
from app.store.charges import Face, Look
from app.store.db import lost_a_race, one_statement
from app.store.merchants import Signed
from app.vault import Vault
from ledger import transfers
from ledger.buckets import day_number
from ledger.entries import instant
from ledger.errors import Insufficient


def at_once(
    engine: Engine, vault: Vault, asked: Asked, now: datetime, signed: Signed | None = None
) -> Face | None:
    """Charge, if that is plain; None if it is not, and nothing was done. If the request was only
    `signed`, that its key is in force is looked up with the rest, and its nonce taken."""
    code, merchant = pay_code.digest_of(vault, asked.code), asked.partner.id
    key_id = signed.key_id if signed else None
    today = day_number(now.astimezone(CITY_ZONE).date())
    try:
        with one_statement(engine) as alone:
            found = charges.look(
                alone, merchant, asked.number, asked.till, code, key_id, *since(now)
            )
            if signed is not None and found.key != signed.key:
                return None
            if not _is_plain(asked, found, today, now):
                return None
            one = new(asked, found.scan, digest_of(vault, asked), now)
            entry = transfers.charge(
                id=vault.entry_id("charge", f"{merchant}\0{asked.number}"),
                at=instant(now),
                resident=one.resident or "",
                points=asked.points,
                wallet=found.wallet,
                today=today,
                merchant=merchant,
            )
            one = one._replace(entry=entry.id)
            charges.pay(alone, one, code, signed, found.wallet, entry, today)
    except Insufficient:
        return None
    except DBAPIError as error:
        if lost_a_race(error):
            return None
        raise
    return face(asked, found.scan, one)


def _is_plain(asked: Asked, found: Look, today: int, now: datetime) -> bool:
    seen, partner, shown = found.scan, asked.partner, found.scan.code
    if seen.known or partner.state != "approved":
        return False
    if seen.till is None or partner.till not in (None, seen.till):
        return False
    if shown is None or shown.voucher is not None or not pay_code.is_living(shown, now):
        return False
    if seen.minor_until is not None and today < seen.minor_until:
        return False
    limit = seen.confirm_points
    if asked.points > (SETTINGS["confirm_points"].default if limit is None else limit):
        return False
    attempt = Attempt(shown.resident, shown.device, partner.id, asked.points, "charge")
    return is_clean(attempt, found.seen)
