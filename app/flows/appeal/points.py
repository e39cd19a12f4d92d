"""What an appeal is worth by the rules, and how its points are given."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows.appeal.case import AppealError, Bench, Case
from app.flows.fingerprint import fingerprint
from app.flows.limit import lock_names
from app.store import acts, budgets, entries, usage
from app.store.appeals import Appeal
from ledger.buckets import day_number, expiry_bucket
from ledger.entries import instant
from ledger.transfers import adjust
from scenarios import Catalogue, Rejected, check_claim, claim, needs, quantify, read

_APPEALED: Final = "*appeal"  # in place of a provider, whose code has no such letter


def worth(
    tx: Connection, bench: Bench, resident: str, case: Case, claimed_at: datetime, *, locked: bool
) -> int:
    """The points that the rules give for a missing act today, after all that counts already.

    `claimed_at` is when the resident missed it. `locked` keeps others from counting towards the
    same limits until `tx` ends. Raises Rejected, and AppealError SAME_ACT if it was credited.
    """
    version, activity = read(
        bench.registry.current(tx), case.scenario, case.occurred_at, case.quantities, bench.now
    )
    check_claim(version, activity, claimed_at)
    mg, keys = quantify(version, activity).mg, needs(version, activity)
    if locked:
        usage.lock(tx, lock_names([version]))
    mark = fingerprint(bench.vault, resident, version, activity)
    if mark and any(acts.held(tx, "", [mark.cell, mark.neighbour]).values()):
        raise AppealError(
            "SAME_ACT", "an act of this kind at nearly this time is credited; appeal that entry"
        )
    account = bytes.fromhex(resident)
    counted = usage.read(tx, {key: [account] for key in keys}).get(account, {})
    return claim(version, activity, mg, keys, counted).points


def pay(tx: Connection, bench: Bench, one: Appeal, case: Case, points: int, how: str) -> None:
    """Give points for an appeal, once, out of the budget that pays for its scenario. A missing act
    is then the same act as one that is reported late. Raises AppealError BUDGET_SHORT."""
    if not points:
        return
    scopes = budgets.scopes(tx)
    token = budgets.payer(scopes, case.scenario or budgets.ANY_SCOPE)
    if token is None or budgets.lock(tx, [token]).get(token, 0) < points:
        raise AppealError(
            "BUDGET_SHORT", "the budget does not hold these points, or others wait for them"
        )
    today = bench.now.astimezone(CITY_ZONE).date()
    months = _months(bench.registry.current(tx), day_number(today))
    entry = adjust(
        id=bench.vault.entry_id("appeal", one.id),
        at=instant(bench.now),
        resident=one.resident,
        budget=token,
        points=points,
        bucket=expiry_bucket(today, months),
        reason=f"appeal {one.id} {how}",
    )
    (arrival,) = entries.append(tx, [entry])
    if one.about == "missing":
        with suppress(Rejected):  # its scenario may be closed by now, and takes no reports then
            _mark(tx, bench, one.resident, case, arrival)


def _mark(tx: Connection, bench: Bench, resident: str, case: Case, arrival: int) -> None:
    version, activity = read(
        bench.registry.current(tx), case.scenario, case.occurred_at, case.quantities, bench.now
    )
    if mark := fingerprint(bench.vault, resident, version, activity):
        acts.put(tx, [(mark.cell, arrival, _APPEALED, None)])


def _months(catalogue: Catalogue, day: int) -> int:
    """How long points given on a day are valid: one rate holds for every behaviour."""
    for scenario in catalogue.scenarios:
        with suppress(Rejected):
            return catalogue.in_force(scenario, day).rate.validity_months
    raise AppealError("APPEAL_STATE", "no scenario is in force, so points have no rate")
