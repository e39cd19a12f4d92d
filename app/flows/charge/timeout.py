"""Time out: a charge that waited for its resident in vain gives back the points it held."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine

from app.flows import redeem
from app.flows.charge.query import hold_still
from app.store import charges
from app.store.charges import Charge
from app.store.db import transact
from app.vault import Vault

_PAGE: Final = 100


def time_out(engine: Engine, vault: Vault, now: datetime) -> int:
    """End the charges whose minute is over, each in a transaction of its own; how many."""
    with engine.connect() as tx:
        overdue = charges.overdue(tx, now, _PAGE)
    return sum(
        transact(engine, partial(_time_out, vault=vault, merchant=merchant, number=number, now=now))
        for merchant, number in overdue
    )


def _time_out(tx: Connection, *, vault: Vault, merchant: str, number: str, now: datetime) -> bool:
    found = hold_still(tx, merchant, number)
    if found is None or found.charge.state != "pending":
        return False
    end(tx, vault, found.charge, "failed", "CONFIRMATION_EXPIRED", now)
    return True


def let_go(tx: Connection, vault: Vault, resident: str, now: datetime) -> None:
    """End what waits for a resident who leaves for good; the caller has locked them."""
    for one in charges.waiting(tx, resident):
        end(tx, vault, one, "failed", "RESIDENT_LEFT", now)


_WHY: Final = {
    "": "",
    "CONFIRMATION_EXPIRED": "the resident did not confirm within the minute",
    "CONFIRMATION_DECLINED": "the resident declined",
    "RESIDENT_LEFT": "the resident has left the programme",
    "ALLOWANCE_EXHAUSTED": "the merchant's allowance does not cover these points",
}


def end(tx: Connection, vault: Vault, one: Charge, state: str, code: str, now: datetime) -> Charge:
    """End a pending charge, locked as its resident is, without payment: it is then `state`, failed
    or reversed."""
    ended = one._replace(state=state, code=code, detail=_WHY[code], closed_at=now)
    charges.change(tx, ended)
    redeem.release(tx, vault, one.hold or "", now)
    return ended
