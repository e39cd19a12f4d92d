"""Backtests asked for by editors, and run one after another by a process that does only that."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Final

import orjson
import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.flows import changeset
from app.flows.backtest.run import PROCESSES, Plan, Progress, backtest
from app.flows.changeset import ChangeSet
from app.flows.trail import act
from app.store import backtests, drafts
from app.store.backtests import Backtest
from app.store.catalogue import Registry
from app.vault import Vault
from scenarios import Catalogue, Version

MAX_DAYS: Final = 366

_GIVEN_UP: Final = timedelta(days=1)
_BEAT_S = 1.0
_TESTABLE = ("draft", "rejected", "submitted")
_log = structlog.get_logger("backtest")


class BacktestError(Exception):
    """A backtest cannot be made, or there is none; `code` says which."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def request(
    tx: Connection, actor: str, admin: bytes | None, draft: str | None, days: int, now: datetime
) -> str:
    """Queue a backtest of a draft as it is now, or (None) of the rules in force; return its id.

    Raises BacktestError NOT_FOUND, DRAFT_STATE.
    """
    revision = None
    if draft is not None:
        found = drafts.lock(tx, draft)
        if found is None:
            raise BacktestError("NOT_FOUND", "there is no draft of this id")
        if found.state not in _TESTABLE:
            raise BacktestError(
                "DRAFT_STATE",
                f"the draft is {found.state}; only one that is not decided is backtested",
            )
        revision = found.revision
    made = token_hex(16)
    asked = (draft, revision) if draft is not None and revision is not None else None
    backtests.add(tx, made, asked, days, admin, now)
    detail = {"draft": draft or "", "revision": revision or 0, "days": days}
    act(tx, actor, "backtest.requested", made, detail, now)
    return made


def run_next(
    engine: Engine,
    vault: Vault,
    clock: Callable[[], datetime],
    progress: Progress | None = None,
    only: str | None = None,
    processes: int = PROCESSES,
) -> Backtest | None:
    """Run the first of the queue (or `only` this one), if it is our turn; return it afterwards.

    One that a killed process left running is begun again: whoever runs one holds the turn.
    """
    with backtests.turn(engine) as mine:
        if not mine:
            return None
        with engine.begin() as tx:
            job = backtests.find(tx, only) if only else backtests.waiting(tx)
            if job is not None:
                backtests.take(tx, job.id, clock())
        if job is None:
            return None
        try:
            result, problem = _run(engine, vault, job, clock, progress, processes)
        except KeyboardInterrupt:
            with engine.begin() as tx:
                backtests.finish(tx, job.id, None, "it was stopped by hand", clock())
            raise
        with engine.begin() as tx:
            backtests.finish(tx, job.id, result, problem, clock())
            return backtests.find(tx, job.id)


def _run(
    engine: Engine,
    vault: Vault,
    job: Backtest,
    clock: Callable[[], datetime],
    progress: Progress | None,
    processes: int,
) -> tuple[bytes | None, str | None]:
    """The result as JSON, or why there is none."""
    now = clock()
    if now - job.requested_at > _GIVEN_UP:
        return None, "it did not finish within a day; ask again, for fewer days"
    try:
        with engine.begin() as tx:
            editions = _editions(tx, job, Registry().current(tx), now)
        plan = Plan(editions, job.days, now, processes)
        told = _told(engine, job.id, clock, progress)
        made = {"backtest": job.id, "draft": job.draft, "revision": job.revision}
        return orjson.dumps(made | backtest(engine, vault, plan, told)), None
    except DBAPIError:
        raise  # the database is away: another run will find the job where it is
    except Exception as error:
        code = getattr(error, "code", None)
        ours = isinstance(code, str) and code.isupper()
        _log.error("backtest failed", backtest=job.id, exc_info=not ours)
        return None, str(error) if ours else "a fault of ours; the log of the worker has it"


def _editions(tx: Connection, job: Backtest, catalogue: Catalogue, now: datetime) -> list[Version]:
    """The draft's editions; the notice period does not matter to what they would have done."""
    if job.draft is None:
        return []
    draft = drafts.find(tx, job.draft)
    if draft is None or draft.revision != job.revision:
        raise BacktestError("REVISION_STALE", "the draft was changed since; backtest it again")
    change = ChangeSet.of(draft.title, draft.reason, draft.body)
    editions, findings = changeset.examine(change, catalogue, now, 0)
    if len(editions) != len(change.editions):
        raise BacktestError("VALIDATION_FAILED", f"{findings[0].field}: {findings[0].message}")
    return editions


def _told(
    engine: Engine, job: str, clock: Callable[[], datetime], progress: Progress | None
) -> Progress:
    """Notes in the database how far it is, at most once a second."""
    last = -_BEAT_S

    def tell(done: int, total: int) -> None:
        nonlocal last
        if progress is not None:
            progress(done, total)
        if time.monotonic() - last >= _BEAT_S or done == total:
            last = time.monotonic()
            with engine.begin() as tx:
                backtests.beat(tx, job, done, total, clock())

    return tell
