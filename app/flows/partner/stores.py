"""Stores and tills: a merchant says where its tills stand. Closed ones are kept, since bills name
them."""

from __future__ import annotations

from secrets import token_bytes
from typing import Any

from sqlalchemy import Connection

from app.flows.partner.standing import PartnerError
from app.store import premises
from app.store.premises import Store, TillFace

_ID = 16


def put_store(tx: Connection, merchant: str, code: str, said: dict[str, Any]) -> Store:
    """Keep a store under a merchant's own code for it; `said` is name, district, address, open."""
    return premises.put_store(tx, merchant, Store(token_bytes(_ID), code, **said))


def put_till(tx: Connection, merchant: str, code: str, store: str, *, is_open: bool) -> TillFace:
    """Keep a till under a merchant's own code for it, in a store. Raises PartnerError
    STORE_UNKNOWN."""
    there = premises.find_store(tx, merchant, store)
    if there is None:
        raise PartnerError("STORE_UNKNOWN", f"there is no store {store}; make it first")
    premises.put_till(tx, merchant, token_bytes(_ID), there.id, code, is_open=is_open)
    return TillFace(code, store, is_open)
