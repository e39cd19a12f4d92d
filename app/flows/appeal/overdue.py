"""What happens to appeals by themselves once somebody's time is up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.appeal.case import AppealError, Bench, Case, decide, hold, opened, save, tell
from app.flows.appeal.points import pay, worth
from app.flows.setting import setting
from app.store import appeals
from app.store.appeals import Appeal
from app.store.catalogue import Registry
from app.store.db import transact
from app.vault import Vault
from scenarios import Rejected

_PAGE: Final = 100


def grant_in_time(engine: Engine, vault: Vault, registry: Registry, now: datetime) -> int:
    """Grant what nobody answered in time, and close what its resident did not answer; how many
    were granted.

    One transaction an appeal. What the limits or the budget do not allow stays open and overdue:
    its resident is told once, and a person must decide. Nothing is granted in part, since nobody
    would then look at the rest.
    """
    bench = Bench(vault, registry, now)
    with engine.connect() as tx:
        patience = timedelta(days=setting(tx, "appeal_days"))
    for one in _each(engine, "asked", None):
        if one.asked_at is not None and one.asked_at + patience < now:
            transact(engine, partial(_lapse, bench=bench, id=one.id, patience=patience))
    granted = 0
    for one in _each(engine, "open", now):
        granted += transact(engine, partial(_grant, bench=bench, id=one.id))
    return granted


def _each(engine: Engine, state: str, due: datetime | None) -> Iterator[Appeal]:
    after = None
    while True:
        with engine.connect() as tx:
            page = appeals.by_due(tx, state, due, after, _PAGE, processed=True)
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].due_at, page[-1].id


def _grant(tx: Connection, bench: Bench, id: str) -> bool:
    with suppress(AppealError):  # decided, erased or asked meanwhile
        one, own = hold(tx, bench, id, "open")
        if one.due_at >= bench.now:
            return False
        case = opened(own, one)
        points = _allowed(tx, bench, one, case)
        try:
            if points:
                pay(tx, bench, one, case, points, "not answered in time")
        except AppealError:
            points = 0  # the budget is short
        if points:
            decide(tx, bench, one, own, case, "granted_in_time", None, points)
            tell(tx, bench, one, "granted", f"超过期限未答复，已自动补发 {points} 积分")
            return True
        tell(tx, bench, one, "overdue", "已超过答复期限，须由人工处理，我们会尽快答复")
    return False


def _allowed(tx: Connection, bench: Bench, one: Appeal, case: Case) -> int:
    """The points that an appeal is granted without anybody's looking: all it claims, or none."""
    points = case.points
    if one.about == "missing":
        try:
            points = min(points, worth(tx, bench, one.resident, case, one.opened_at, locked=True))
        except (Rejected, AppealError):
            return 0
    if appeals.was_granted(tx, one.resident, one.thing):
        return 0
    month = bench.now.astimezone(CITY_ZONE).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    before = appeals.granted_in_time(tx, one.resident, month)
    within = points <= setting(tx, "appeal_limit_points")
    return points if within and before + points <= setting(tx, "appeal_month_points") else 0


def _lapse(tx: Connection, bench: Bench, id: str, patience: timedelta) -> None:
    with suppress(AppealError):
        one, _ = hold(tx, bench, id, "asked")
        if one.asked_at is not None and one.asked_at + patience < bench.now:
            save(tx, one._replace(state="withdrawn", decided_at=bench.now))
            tell(tx, bench, one, "lapsed", "因未收到您的补充说明已关闭，您可以重新提出")
