"""Farewell: a resident asks to be erased, is shown what will be lost, and confirms with a code."""

from __future__ import annotations

from datetime import datetime, timedelta
from hmac import compare_digest
from secrets import choice
from typing import Final, NamedTuple

from sqlalchemy import Connection

from app.flows.erase import leave
from app.store import farewells, people, statements
from app.vault import Vault
from ledger.accounts import Asset
from ledger.entries import Entry

CONFIRM_WITHIN: Final = timedelta(minutes=15)

_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: nothing reads like another
_LENGTH = 8
_MARK = 32


class ErasureCodeError(Exception):
    """What was sent is not the code that was given within the last quarter of an hour."""

    code = "ERASURE_CODE_INVALID"


class Asked(NamedTuple):
    """The code that confirms, until when, and what will be lost: points and mg of CO2e."""

    confirm_code: str
    expires_at: datetime
    points: int
    held_points: int
    waiting_points: int
    reduction_mg: int


def ask(tx: Connection, vault: Vault, resident: str, now: datetime) -> Asked:
    """Give a new code; one given before is void."""
    code = "".join(choice(_LETTERS) for _ in range(_LENGTH))
    farewells.ask(tx, resident, _mark(vault, resident, code), now)
    wallet = people.wallet(tx, resident)
    totals = {
        asset: sum(amount for (held, _), amount in wallet.items() if held is asset)
        for asset in Asset
    }
    return Asked(
        code,
        now + CONFIRM_WITHIN,
        totals[Asset.POINT],
        people.held(tx, resident),
        statements.waiting(tx, resident),
        totals[Asset.CO2E],
    )


def confirm(tx: Connection, vault: Vault, resident: str, code: str, now: datetime) -> Entry:
    """Erase the resident for good. Raises ErasureCodeError."""
    expected = farewells.asked(tx, resident, now - CONFIRM_WITHIN)
    if expected is None or not compare_digest(expected, _mark(vault, resident, code)):
        raise ErasureCodeError(
            "this is not the code that was given last, or it is older than 15 minutes;"
            " nothing was erased"
        )
    return leave(tx, vault, resident, now)


def _mark(vault: Vault, resident: str, code: str) -> bytes:
    return vault.mark(f"farewell\0{resident}\0{code}", _MARK)
