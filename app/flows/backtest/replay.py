"""A person's acts through both rule sets, chained by the counters that caps and groups go by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from app.flows.backtest.life import Act, Life
from app.vault import opener
from scenarios import (
    SHANGHAI,
    Activity,
    Catalogue,
    Key,
    Rejected,
    ScenarioError,
    Usage,
    Version,
    check_claim,
    claim,
    measure,
    needs,
    quantify,
    read_time,
    undo,
)
from scenarios.activity import business_day

_NONE = Usage(0, 0, 0)


class Worth(NamedTuple):
    """What a rule set makes of an act. With a `code` it refuses the act, and all else is 0."""

    mg: int = 0
    points: int = 0
    withheld: int = 0
    months: int = 0
    cap: str | None = None
    code: str = ""
    shadow: tuple[str, ...] = ()


class Reading(NamedTuple):
    """An opened act under one edition: `own` of its `keys` count it, the others are looked at."""

    version: Version
    activity: Activity
    mg: int
    keys: tuple[Key, ...]

    @property
    def own(self) -> tuple[Key, ...]:
        """The keys under which the act itself is counted."""
        return self.keys[: len(self.version.periods)]


class Case(NamedTuple):
    """An act opened, under the rules in force and, if they may treat it otherwise, the draft's."""

    now: Reading | Worth
    then: Reading | Worth | None


class Rules:
    """The rules in force, and the editions that a draft puts in place of some, for all time."""

    def __init__(self, catalogue: Catalogue, draft: Mapping[str, Version]) -> None:
        self._catalogue, self._draft = catalogue, draft
        near = [version for name in draft for version in (draft[name], *_editions(catalogue, name))]
        self._affected = frozenset(draft).union(*(one.group.members for one in near if one.group))

    @property
    def counts_anew(self) -> bool:
        """Whether the draft counts something over a period over which nothing is counted now."""
        return any(
            not set(version.periods) <= {per for one in now[-1:] for per in one.periods}
            for version in self._draft.values()
            if (now := _editions(self._catalogue, version.scenario))
        )

    def affects(self, scenario: str) -> bool:
        """Whether the draft may treat an act of this scenario otherwise than the rules in force."""
        return scenario in self._affected

    def recorded(self, act: Act) -> Worth:
        """What the ledger says, of an act that was erased: it is the same under both."""
        version = self._catalogue.versions(act.scenario)[act.number - 1]
        return Worth(act.mg, act.due, act.withheld, version.rate.validity_months)

    def open(self, opening: bytes, credited: int) -> Case:
        """The act of an opening, read under both; `credited` is the business day of crediting."""
        document = orjson.loads(opening)
        scenario, moment = document["scenario"], read_time(document["occurred_at"])
        version = self._catalogue.in_force(scenario, business_day(moment))
        now = _read(version, moment, document["quantities"])
        if scenario not in self._affected:
            return Case(now, None)
        draft = self._draft.get(scenario)
        if draft is None:
            return Case(now, now)
        then = _read(draft, moment, document["quantities"])
        if isinstance(then, Reading) and draft.claim_days != version.claim_days:
            then = _claimed(then, credited)
        return Case(now, then)


def _editions(catalogue: Catalogue, scenario: str) -> tuple[Version, ...]:
    return catalogue.versions(scenario) if scenario in catalogue.scenarios else ()


def _read(version: Version, moment: datetime, quantities: Any) -> Reading | Worth:
    try:
        activity = measure(version, moment, quantities)
        mg = quantify(version, activity).mg
    except Rejected as error:
        return Worth(code=error.code)
    return Reading(version, activity, mg, needs(version, activity))


def _claimed(reading: Reading, day: int) -> Reading | Worth:
    """Only what was credited is known: of a correction, not when it was reported first."""
    at = datetime(day // 10_000, day // 100 % 100, day % 100, tzinfo=SHANGHAI)
    try:
        check_claim(reading.version, reading.activity, at)
    except Rejected as error:
        return Worth(code=error.code)
    return reading


def cases(rules: Rules, life: Life, key: bytes) -> dict[str, Case]:
    """Every act of this person's that can be opened, by entry id."""
    open_sealed = opener(key)
    acts = (*life.acts.values(), *life.older.values(), *life.warm.values())
    return {
        act.id: rules.open(open_sealed(act.id, act.sealed), act.day) for act in acts if act.sealed
    }


def wanted(opened: Mapping[str, Case]) -> set[Key]:
    """The counters that these acts touch or look at."""
    return {
        key
        for case in opened.values()
        for reading in (case.now, case.then)
        if isinstance(reading, Reading)
        for key in reading.keys
    }


def begin(
    life: Life, opened: Mapping[str, Case], counters: Mapping[Key, Usage]
) -> dict[Key, Usage]:
    """The counters as they stood when the window began: as they stand, less what it added."""
    start = dict(counters)
    for act in (*life.acts.values(), *life.older.values(), *life.warm.values()):
        case = opened.get(act.id)
        inside = act.id in life.acts
        if case is None or not isinstance(case.now, Reading) or inside == bool(act.gone):
            continue  # came and went inside, or stands from before: the window changed nothing
        sign = -1 if inside else 1
        for key in case.now.own:
            start[key] = _plus(start.get(key, _NONE), act, sign)
    return start


def warm_up(life: Life, opened: Mapping[str, Case], counters: dict[Key, Usage]) -> None:
    """Count what came before the window under keys that only the draft counts by."""
    for act in life.warm.values():
        case = opened.get(act.id)
        if case is None or not isinstance(case.then, Reading):
            continue
        kept = case.now.own if isinstance(case.now, Reading) else ()
        for key in case.then.own:
            if key not in kept:
                counters[key] = _plus(counters.get(key, _NONE), act, 1)


def _plus(usage: Usage, act: Act, sign: int) -> Usage:
    return Usage(
        usage.count + sign, usage.reduction_mg + sign * act.mg, usage.points + sign * act.due
    )


def run(
    events: Iterable[tuple[str, Act]],
    readings: Mapping[str, Reading | Worth],
    counters: dict[Key, Usage],
) -> dict[str, Worth]:
    """Claim and undo in order, changing the counters; what each claimed act is worth, by id."""
    worths: dict[str, Worth] = {}
    for name, act in events:
        reading = readings.get(act.id)
        if reading is None:
            continue
        if name == "claim":
            worths[act.id] = _claim(reading, counters)
        elif isinstance(reading, Reading) and reading.keys:
            # An act from before the window was counted as it was recorded, whatever the rules.
            worth = worths.get(act.id, Worth(act.mg, act.due))
            if not worth.code:
                _undo(reading, worth, counters)
    return worths


def _claim(reading: Reading | Worth, counters: dict[Key, Usage]) -> Worth:
    if isinstance(reading, Worth):
        return reading
    version, activity, mg, keys = reading
    try:
        due = claim(version, activity, mg, keys, counters)
    except Rejected as error:
        return Worth(code=error.code)
    if due.changed:
        counters.update(due.changed)
    return Worth(
        mg, due.points, due.withheld, version.rate.validity_months, due.cap, "", due.shadow
    )


def _undo(reading: Reading, worth: Worth, counters: dict[Key, Usage]) -> None:
    version, activity, _, _ = reading
    with suppress(ScenarioError):  # of a key that was not kept when it was claimed
        counters.update(undo(version, activity, worth.mg, worth.points, counters))
