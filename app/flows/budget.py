"""Fund a budget, and pay those who wait for it, in the order they arrived."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.store import budgets, entries, people
from app.store.catalogue import Registry
from app.store.db import transact
from app.vault import Vault
from ledger.buckets import expiry_bucket
from ledger.entries import Entry, instant
from ledger.transfers import fund, settle

_PAGE = 1000  # of the line, paid in one transaction


class UnknownBudgetError(Exception):
    """No budget has this scope."""

    code = "BUDGET_UNKNOWN"


class ReferenceReusedError(Exception):
    """The reference stands for another sum already."""

    code = "REFERENCE_REUSED"


def fund_budget(
    engine: Engine, vault: Vault, scope: str, points: int, reference: str, now: datetime
) -> Entry:
    """`add_points` in a transaction of its own; the entry."""
    return transact(engine, lambda tx: add_points(tx, vault, scope, points, reference, now))[0]


def add_points(
    tx: Connection, vault: Vault, scope: str, points: int, reference: str, now: datetime
) -> tuple[Entry, bool]:
    """Add points to the budget of a scope. The reference (a decision's number) counts once: the
    same one again returns the first entry, and False. Raises UnknownBudgetError,
    ReferenceReusedError."""
    token = budgets.scopes(tx).get(scope)
    if token is None:
        raise UnknownBudgetError(f"no budget has the scope {scope!r}; create it first")
    entry = fund(
        id=vault.entry_id("fund", f"{token}\0{reference}"),
        at=instant(now),
        budget=token,
        points=points,
        reference=reference,
    )
    return append_once(tx, entry, reference)


def append_once(tx: Connection, entry: Entry, reference: str) -> tuple[Entry, bool]:
    """Append an entry whose id is made of this reference, or find the one that was: the first, and
    whether it is new. Raises ReferenceReusedError if that one says other points."""
    found = entries.find(tx, entry.id)
    if found is None:
        entries.append(tx, [entry])
        return entry, True
    if found[1].postings != entry.postings:
        raise ReferenceReusedError(
            f"{reference} stands for other points already; a reference counts once"
        )
    return found[1], False


def pay_waiting(engine: Engine, vault: Vault, registry: Registry, now: datetime) -> int:
    """Pay all who can be paid, a page of one budget a transaction; return how many were."""
    paid = 0
    with engine.begin() as tx:
        tokens = sorted(set(budgets.scopes(tx).values()))
    for token in tokens:
        while True:
            with engine.begin() as tx:
                count = _pay_page(tx, vault, registry, token, now)
            paid += count
            if count < _PAGE:
                break
    return paid


def _pay_page(tx: Connection, vault: Vault, registry: Registry, budget: str, now: datetime) -> int:
    """Residents are locked before the budget, as everywhere. So the line is read twice: to learn
    whom to lock, and with the locks held, since it may have moved in between."""
    first = budgets.next_waiting(tx, budget, 1)
    if not first or first[0].points > budgets.peek(tx, budget):
        return 0  # what the worker sees every second while a budget is empty
    known = {place.resident for place in budgets.next_waiting(tx, budget, _PAGE)}
    living = {resident for resident in sorted(known) if people.lock(tx, resident) is not None}
    left = budgets.balance(tx, budget)
    line = budgets.next_waiting(tx, budget, _PAGE)
    owed = people.debts(tx, [bytes.fromhex(resident) for resident in living])
    catalogue = registry.current(tx)
    at, today = instant(now), now.astimezone(CITY_ZONE).date()
    made: list[Entry] = []
    served: list[int] = []
    for place in line:
        if place.points > left or place.resident not in known:
            break
        issued = entries.find(tx, place.entry_id)
        served.append(place.arrival)
        if place.resident not in living or issued is None:
            continue  # erased meanwhile: the points lapse
        scenario, number, _ = issued[1].detail["rule"]
        months = catalogue.versions(scenario)[number - 1].rate.validity_months
        entry = settle(
            id=vault.entry_id("settle", place.entry_id),
            at=at,
            resident=place.resident,
            points=place.points,
            bucket=expiry_bucket(today, months),
            budget=budget,
            settles=place.entry_id,
            debt=owed.get(place.resident, {}),
        )
        people.repay(owed, entry)
        made.append(entry)
        left -= place.points
    if budgets.leave_line(tx, served) != len(served):
        raise RuntimeError("the waiting line changed under its lock")
    entries.append(tx, made)
    return len(served)
