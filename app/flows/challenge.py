"""Monthly challenges: written by an editor, opened by a reviewer, joined by whoever likes to.

How far somebody has come is reckoned from the acts that stand, those done in the challenge's month;
what is late counts for a week after it. Nobody gets points for it. Every verb runs in its caller's
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from secrets import token_hex
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Engine

from app.flows.notify import notify
from app.flows.once import must_match
from app.flows.standing import Act, first_of, in_month, month_before, month_of, standing
from app.flows.trail import act
from app.store import challenges as store
from app.store import log
from app.store.challenges import Challenge
from app.store.db import by_index, transact
from app.vault import Vault

UNITS: Final = ("acts", "grams", "days")
LATE: Final = timedelta(days=7)

_MG_PER_G: Final = 1000
_PAGE: Final = 200  # people whose acts are read at once
_LEAVES: Final = 10_000


class ChallengeError(Exception):
    """A challenge cannot be taken this step; the sentence says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Progress(NamedTuple):
    """How far a resident has come: `done` in the goal's unit, None for who did not join;
    `reached_on` is the business day YYYYMMDD on which it was enough."""

    challenge: Challenge
    joined: bool
    done: int | None
    reached_on: int | None


def draft(tx: Connection, actor: str, month: int, body: dict[str, Any], now: datetime) -> str:
    """Keep a new challenge for a month YYYYMM that nobody sees yet; its id."""
    made = token_hex(16)
    store.add(tx, made, month, body, now)
    act(tx, actor, "challenge.drafted", made, _about(month, body), now)
    return made


def edit(
    tx: Connection,
    actor: str,
    id: str,
    revision: str,
    month: int,
    body: dict[str, Any],
    now: datetime,
) -> None:
    """Put another content in a draft's place. Raises ChallengeError, StaleError."""
    _hold(tx, id, revision, "draft")
    store.revise(tx, id, month, body, now)
    act(tx, actor, "challenge.edited", id, _about(month, body), now)


def start(tx: Connection, actor: str, id: str, revision: str, now: datetime) -> None:
    """Open a draft to residents, by somebody who never wrote in it; it then stays as it is.

    Raises ChallengeError, also when its month is over; StaleError.
    """
    found = _hold(tx, id, revision, "draft")
    if actor in store.editors(tx, id):
        raise ChallengeError(
            "OWN_APPROVAL", "you wrote this challenge; another reviewer must open it"
        )
    if found.month < month_of(now):
        raise ChallengeError("CHALLENGE_STATE", "its month is over; give it a later one first")
    store.bring(tx, id, "open", now)
    act(tx, actor, "challenge.opened", id, _about(found.month, found.body), now)


def close(tx: Connection, actor: str, id: str, revision: str, reason: str, now: datetime) -> None:
    """Take a challenge back: it is shown to nobody and counts for nothing any more.

    Raises ChallengeError, StaleError.
    """
    _hold(tx, id, revision, "draft", "open")
    store.bring(tx, id, "closed", now)
    act(tx, actor, "challenge.closed", id, {"reason": reason}, now)


def join(tx: Connection, vault: Vault, id: str, resident: str, now: datetime) -> Progress:
    """Take part, from the first of the month on whenever one joins. Raises ChallengeError."""
    found = _open(tx, id)
    if found.month < month_of(now):
        raise ChallengeError("CHALLENGE_STATE", "this challenge is over")
    store.join(tx, id, resident, now)
    tell_reached(tx, vault, [resident], now)
    (mine,) = [one for one in progress(tx, vault, resident, now) if one.challenge.id == id]
    return mine


def leave(tx: Connection, id: str, resident: str) -> None:
    """Take part no more. Raises ChallengeError."""
    _open(tx, id)
    store.leave(tx, id, resident)


def progress(tx: Connection, vault: Vault, resident: str, now: datetime) -> list[Progress]:
    """The open challenges of this month and later ones, with how far the resident has come in
    those they joined; those of last month too, while what is late still counts."""
    month, counting = month_of(now), _counting(now)
    seats = [
        seat
        for seat in store.seats(tx, resident, min(counting))
        if seat.challenge.month >= month or (seat.joined_at and seat.challenge.month in counting)
    ]
    acts: Sequence[Act] = ()
    begun = [one.challenge.month for one in seats if one.joined_at and one.challenge.month <= month]
    if begun:
        acts = standing(tx, vault, [resident], first_of(tx, min(begun), now))[resident]
    return [_progress(seat, acts) for seat in seats]


def reached_days(tx: Connection, resident: str, acts: Sequence[Act]) -> list[int]:
    """The days on which a resident's acts, all that stand, reached challenges they joined."""
    found = (_progress(seat, acts).reached_on for seat in store.joined(tx, resident))
    return [day for day in found if day is not None]


def reckon(goal: dict[str, Any], acts: Iterable[Act]) -> tuple[int, int | None]:
    """How much of a goal `{"of", "at_least", "area", "scenarios"}` a month's acts make up, in its
    unit, and the day on which it was enough. The order of the acts says nothing."""
    count = mg = 0
    days: set[int] = set()
    reached = None
    for one in sorted(acts, key=lambda one: one.day):
        if (goal["area"] and one.area != goal["area"]) or (
            goal["scenarios"] and one.scenario not in goal["scenarios"]
        ):
            continue
        count, mg = count + 1, mg + one.reduction_mg
        days.add(one.day)
        done = {"acts": count, "grams": mg // _MG_PER_G, "days": len(days)}[goal["of"]]
        if reached is None and done >= goal["at_least"]:
            reached = one.day
    return {"acts": count, "grams": mg // _MG_PER_G, "days": len(days)}[goal["of"]], reached


def tell_reached(tx: Connection, vault: Vault, residents: Iterable[str], now: datetime) -> int:
    """Tell those of these people who reached a challenge and were not told, and keep how much is
    wanting to the others; how many messages."""
    untold = sorted(store.untold(tx, residents, _counting(now)), key=lambda one: one[0])
    begun = [seat.challenge.month for _, seat in untold if seat.challenge.month <= month_of(now)]
    if not begun:
        return 0
    people = sorted({resident for resident, _ in untold})
    acts = standing(tx, vault, people, first_of(tx, min(begun), now))
    told, wanting = 0, list[tuple[str, str, int]]()
    for resident, seat in untold:
        found = seat.challenge
        done, reached_on = reckon(found.body["goal"], in_month(acts[resident], found.month))
        if reached_on is None:
            wanting.append((found.id, resident, found.body["goal"]["at_least"] - done))
            continue
        title = {"title": found.body["title_zh"]}
        told += notify(tx, vault, resident, "challenge.reached", found.id, title, now)
        store.tell(tx, found.id, resident, now)
    store.want(tx, wanting)
    return told


class Watch:
    """The worker's eye on who reaches a challenge: it takes what new leaves can add off what was
    wanting, and reckons anew who may have reached it. Told twice is told once."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault

    def step(self, now: datetime) -> bool:
        """Look at one page; whether there may be more."""
        return transact(self._engine, partial(_follow, vault=self._vault, now=now))


def _follow(tx: Connection, vault: Vault, now: datetime) -> bool:
    place, size = store.place(tx), log.head(tx).size
    if place is None or place == size:
        return False
    # a log that was restored may end before the place
    leaves = range(min(place, size), min(size, place + _LEAVES))
    by_index(tx)
    due = store.come(tx, leaves, _counting(now))
    for at in range(0, len(due), _PAGE):
        tell_reached(tx, vault, due[at : at + _PAGE], now)
    store.go_on(tx, leaves.stop)
    return leaves.stop < size


def _progress(seat: store.Seat, acts: Sequence[Act]) -> Progress:
    found = seat.challenge
    if seat.joined_at is None:
        return Progress(found, False, None, None)
    return Progress(found, True, *reckon(found.body["goal"], in_month(acts, found.month)))


def _counting(now: datetime) -> tuple[int, ...]:
    """The months whose acts still count: this one, and early in it the last one too."""
    month, late = month_of(now), month_of(now - LATE)
    return (month,) if late == month else (month_before(month), month)


def _hold(tx: Connection, id: str, revision: str, *states: str) -> Challenge:
    found = store.lock(tx, id)
    if found is None:
        raise ChallengeError("NOT_FOUND", "there is no challenge of this id")
    must_match(revision, str(found.revision))
    if found.state not in states:
        raise ChallengeError(
            "CHALLENGE_STATE",
            f"the challenge is {found.state}; this takes one that is {' or '.join(states)}",
        )
    return found


def _open(tx: Connection, id: str) -> Challenge:
    found = store.find(tx, id)
    if found is None or found.state != "open":
        raise ChallengeError("NOT_FOUND", "there is no open challenge of this id")
    return found


def _about(month: int, body: dict[str, Any]) -> dict[str, Any]:
    goal = {name: value for name, value in body["goal"].items() if value}
    return {"month": month, "title": body["title_zh"], "goal": goal}
