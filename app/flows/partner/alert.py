"""Alert: tell a merchant once, each time its allowance falls below the level of its contract."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine

from app.flows.webhook.emit import emit
from app.store import merchants
from app.store.db import transact
from app.vault import Vault


def tell_low(engine: Engine, vault: Vault, now: datetime) -> int:
    """Look at every merchant; how many were told. In any number of processes at once: who notes a
    crossing first tells of it."""

    def look(tx: Connection) -> int:
        crossed = [one for one in merchants.note_low(tx, now) if one.low]
        for merchant, left, alert, _ in crossed:
            said = {"allowance_points": str(left), "alert_points": str(alert)}
            emit(tx, vault, merchant, "allowance.low", now.isoformat(), said, now)
        return len(crossed)

    return transact(engine, look)
