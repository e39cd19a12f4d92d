"""Erase a person: what could name them goes, what the ledger committed to stays provable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine

from app.flows.charge.timeout import let_go
from app.flows.order.cancel import cancel_all
from app.store import budgets, entries, farewells, history, people
from app.store.db import transact
from app.vault import Vault
from ledger.accounts import Asset
from ledger.audit import audit
from ledger.entries import Entry, Kind, instant
from ledger.errors import Refused
from ledger.export import Export, Leaves
from ledger.transfers import adjust, erase_subject, release

LINGER: Final = timedelta(hours=1)
"""Longer than any request runs that began before its resident was erased."""


def erase(engine: Engine, vault: Vault, resident: str, now: datetime) -> Entry:
    """Erase a resident in a transaction of its own; see `leave`. Raises Refused."""
    return transact(engine, lambda tx: leave(tx, vault, resident, now))


def leave(tx: Connection, vault: Vault, resident: str, now: datetime) -> Entry:
    """Destroy the resident's key and all that is theirs, and seal that this was done.
    Raises Refused if there never was such a resident.

    Nothing keeps a person here: points on hold are released, and with the rest of the wallet go
    back to the general budget, by ordinary entries, so that others can earn them. The carbon stays
    credited, to nobody; a debt stays with the account. Done again, only what came back meanwhile,
    by a slow request or out of a backup, is forgotten again.
    """
    alive = people.lock(tx, resident) is not None  # or waited until somebody else had erased them
    entry_id = vault.entry_id("erase", resident)
    found = entries.find(tx, entry_id)
    if found is not None:
        people.forget(tx, resident, now)
        return found[1]
    if not alive:
        raise Refused("There is no such resident.")
    let_go(tx, vault, resident, now)
    cancel_all(tx, vault, resident, now)
    entries.append(tx, list(_releases(tx, vault, resident, now)))
    entry = erase_subject(id=entry_id, at=instant(now), resident=resident)
    entries.append(tx, [*_closing(tx, vault, resident, now), entry])
    people.forget(tx, resident, now)
    return entry


def _releases(tx: Connection, vault: Vault, resident: str, now: datetime) -> Iterator[Entry]:
    holds = {
        vault.entry_id("resolve", hold.id): hold
        for hold in entries.of_kind(tx, resident, Kind.HOLD)
    }
    resolved = entries.known(tx, list(holds))
    for entry_id, hold in holds.items():
        if entry_id not in resolved:
            yield release(id=entry_id, at=instant(now), hold=hold)


def _closing(tx: Connection, vault: Vault, resident: str, now: datetime) -> Iterator[Entry]:
    general = budgets.scopes(tx)[budgets.ANY_SCOPE]
    for (asset, bucket), points in sorted(people.wallet(tx, resident).items()):
        if asset is Asset.POINT:
            yield adjust(
                id=vault.entry_id("close", f"{resident}\n{bucket}"),
                at=instant(now),
                resident=resident,
                budget=general,
                points=-points,
                bucket=bucket,
                reason="account closed",
            )


def forget_stragglers(engine: Engine, now: datetime) -> None:
    """Forget again whoever was erased within the hour: a request that was under way then may have
    written after it."""
    with engine.begin() as tx:
        for resident in history.erased(tx, now - LINGER):
            people.forget(tx, resident, now)


def erase_again(engine: Engine, vault: Vault, export: Path | None, now: datetime) -> int:
    """Erase everybody whom the log says was erased: after a restore, a database may know them
    again. `export` is one of the same log, made before the loss; it is audited first, since what
    it says cannot be undone. Returns how many. Raises LedgerError.
    """
    with engine.connect() as tx:
        accounts = set(farewells.in_the_log(tx))
        if export is not None:
            accounts |= farewells.known(tx, _erased(export, vault))
    for resident in sorted(accounts):
        erase(engine, vault, resident, now)
    return len(accounts)


def _erased(folder: Path, vault: Vault) -> Iterable[str]:
    report = audit(folder, trusted=vault.ring.verifiers)
    leaves = Leaves(Export(folder), report.head.size)
    for leaf in range(report.head.size):
        entry = leaves.entry(leaf)
        if entry.kind is Kind.SUBJECT_ERASED:
            yield farewells.account_of(entry)
