"""Steps: each day's count of WeRun becomes walking, by the difference to what was settled before.

A day's count only ever grows here: the same data again, or less, changes nothing. A count that
nobody can have walked is held until a reviewer has decided; the day stands still meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows.document import Document
from app.flows.notify import notify
from app.flows.own import STEPS, WERUN, Reporter, admit, bind, credit_own
from app.store import batches, people, steps
from app.store.catalogue import Registry
from app.store.db import transact
from app.store.steps import Held, StepDay
from app.vault import Vault
from scenarios import Catalogue, Rejected, Version
from scenarios.activity import business_day

PACE: Final = 4
"""Steps a second. rec: sprinters take four to five, and nobody sprints on end."""

LAG: Final = timedelta(hours=1)
"""rec: phones and watches hand their count on late, so that it comes in leaps."""

_INPUT: Final = "steps"
_MAX_DAYS: Final = 62
_MAX_STEPS: Final = 10_000_000
_UNREADABLE = "the data holds no stepInfoList of days with their steps, as wx.getWeRunData has it"


class StepsError(Exception):
    """What came is no step count, or a reviewer decides on a day that does not wait."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Told(NamedTuple):
    """What became of a day: its state, and the outcome of an activity made of it just now.

    The state is "settled", "pending" (too few new steps to credit yet), "held" (for a reviewer) or
    "outside" (before joining, before the scenario, or not begun by our clock).
    """

    day: int
    steps: int
    state: str
    outcome: dict[str, Any] | None = None


def read_steps(data: Mapping[str, Any]) -> dict[int, int]:
    """Steps by day YYYYMMDD (Asia/Shanghai), from what WeRun's data opened to.

    Raises StepsError STEPS_UNREADABLE.
    """
    listed = data.get("stepInfoList")
    if not isinstance(listed, list) or len(listed) > _MAX_DAYS:
        raise StepsError("STEPS_UNREADABLE", _UNREADABLE)
    found: dict[int, int] = {}
    for item in listed:
        at, count = (item.get("timestamp"), item.get("step")) if isinstance(item, dict) else (0, 0)
        if type(at) is not int or type(count) is not int or not 0 < at < 2**32:
            raise StepsError("STEPS_UNREADABLE", _UNREADABLE)
        if not 0 <= count <= _MAX_STEPS:
            raise StepsError("STEPS_UNREADABLE", _UNREADABLE)
        day = business_day(datetime.fromtimestamp(at, UTC))
        found[day] = max(count, found.get(day, 0))
    return found


def put_steps(
    engine: Engine,
    vault: Vault,
    registry: Registry,
    resident: str,
    counts: Mapping[int, int],
    now: datetime,
) -> list[Told]:
    """Credit what is new in a resident's days, oldest first. Raises SourceError."""

    def work(tx: Connection) -> list[Told]:
        who = admit(tx, vault, WERUN, resident, STEPS, now)
        catalogue = registry.current(tx)
        known = steps.known(tx, resident, min(counts, default=0))
        told: dict[int, Told] = {}
        changed: dict[int, StepDay] = {}
        due: list[Document] = []
        for day, count in sorted(counts.items()):
            version = _in_force(catalogue, day, who, now)
            if version is None:
                told[day] = Told(day, count, "outside")
                continue
            old = known.get(day) or StepDay(day, 0, 0, 0, None, None, _begin(day))
            new = _grown(old, count, version, now)
            if new is not old:
                changed[day] = new
            if new.revision > old.revision:
                due.append(_document(who.subject, resident, new, count - old.settled, now))
            told[day] = Told(day, new.steps, _state(new))
        steps.put(tx, resident, changed.values())
        if due:
            label = f"steps-{due[0].id}"
            outcomes = credit_own(tx, vault, catalogue, WERUN, label, due, now)
            for document, outcome in zip(due, outcomes, strict=True):
                day = int(document.id[:8])
                told[day] = told[day]._replace(outcome=outcome)
        return list(told.values())

    return transact(engine, work)


def accept_day(
    tx: Connection, vault: Vault, catalogue: Catalogue, held_id: bytes, counted: int, now: datetime
) -> dict[str, Any]:
    """A reviewer lets a held day count, with `counted` of its steps; what became of them.

    Raises StepsError STEP_DAY_UNKNOWN, STEPS_OUT_OF_RANGE.
    """
    held = _lock_held(tx, held_id)
    resident, old = held.resident, held.day
    if not old.settled < counted <= old.steps:
        detail = f"steps must be from {old.settled + 1} to {old.steps}, of which some were credited"
        raise StepsError("STEPS_OUT_OF_RANGE", detail)
    new = _released(tx, resident, old)
    subject = bind(tx, vault, WERUN, resident, now)
    document = _document(subject, resident, new, counted - old.settled, now)
    label = f"steps-{document.id}"
    (outcome,) = credit_own(tx, vault, catalogue, WERUN, label, [document], now)
    accepted = outcome["outcome"] == "accepted"
    result = "已通过" if accepted else "未通过"
    reason = f"计入 {counted} 步。" if accepted else outcome["detail"]
    _tell(tx, vault, catalogue, resident, new, result, reason, now)
    return outcome


def refuse_day(
    tx: Connection, vault: Vault, catalogue: Catalogue, held_id: bytes, reason: str, now: datetime
) -> None:
    """A reviewer refuses what is not yet settled of a held day. Raises StepsError
    STEP_DAY_UNKNOWN."""
    held = _lock_held(tx, held_id)
    resident, old = held.resident, held.day
    new = _released(tx, resident, old)
    act = f"{new.day}-{new.revision}", STEPS
    refusal = batches.Refused(bytes.fromhex(resident), 0, *act, "STEPS_REFUSED", reason)
    batches.put_rejections(tx, WERUN, f"steps-{new.day}-{new.revision}", [refusal], now)
    _tell(tx, vault, catalogue, resident, new, "未通过", reason, now)


def _in_force(catalogue: Catalogue, day: int, who: Reporter, now: datetime) -> Version | None:
    """The edition by which a day counts; None if it does not."""
    if not who.joined_on <= day <= business_day(now):
        return None
    try:
        version = catalogue.in_force(STEPS, day)
    except Rejected:
        return None
    return version if version.enabled else None


def _grown(old: StepDay, count: int, version: Version, now: datetime) -> StepDay:
    """The day with a new count: held, or settled up to it if that is enough to credit."""
    if count <= old.steps or old.held_id:
        return old
    bounds = next(item for item in version.inputs if item.name == _INPUT)
    seconds = (now - old.updated_at + LAG) // timedelta(seconds=1)
    new = old._replace(steps=count, updated_at=now)
    if count > bounds.high or count - old.steps > PACE * seconds:
        return new._replace(held_at=now, held_id=os.urandom(16))
    if count - old.settled < bounds.low:
        return new
    return new._replace(settled=count, revision=old.revision + 1)


def _state(one: StepDay) -> str:
    if one.held_id:
        return "held"
    return "settled" if one.settled == one.steps else "pending"


def _document(subject: bytes, resident: str, day: StepDay, new: int, now: datetime) -> Document:
    """One piece of a day as an activity: at the day's end, or now if it has not ended."""
    name = f"{day.day}-{day.revision}"
    at = min(now, _begin(day.day) + timedelta(days=1, seconds=-1)).astimezone(CITY_ZONE)
    when = at.isoformat(timespec="seconds")
    return Document(name, subject, STEPS, when, {_INPUT: str(new)}, f"{resident}\n{name}")


def _begin(day: int) -> datetime:
    return datetime(day // 10000, day // 100 % 100, day % 100, tzinfo=CITY_ZONE)


def _lock_held(tx: Connection, held_id: bytes) -> Held:
    """The day of this id and its resident, locked. The resident goes first, as everywhere."""
    found = steps.find_held(tx, held_id)
    if found and people.lock(tx, found.resident) and (again := steps.find_held(tx, held_id)):
        return again
    raise StepsError("STEP_DAY_UNKNOWN", "no day of this id waits for a reviewer")


def _released(tx: Connection, resident: str, old: StepDay) -> StepDay:
    new = old._replace(settled=old.steps, revision=old.revision + 1, held_at=None, held_id=None)
    steps.put(tx, resident, [new])
    return new


def _tell(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    resident: str,
    day: StepDay,
    result: str,
    reason: str,
    now: datetime,
) -> None:
    title = catalogue.in_force(STEPS, day.day).title.zh
    params = {"title": f"{title} {_begin(day.day):%Y-%m-%d}", "result": result, "reason": reason}
    key = f"steps-{day.day}-{day.revision}"
    notify(tx, vault, resident, "report.decided", key, params, now)
