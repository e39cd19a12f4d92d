"""What would have expired: a person's points by the day they end, earned, spent and taken back.

Only for those who hold points that can end inside the window; nobody else's can expire in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from app.flows.backtest.life import Act, Life, Move
from app.flows.backtest.replay import Worth
from ledger.buckets import expiry_bucket, grace_bucket

Lines = list[tuple[int, int]]  # bucket, points


class Ended(NamedTuple):
    """Points that expired inside the window, and redemptions the wallet did not cover."""

    expired: int = 0
    uncovered: int = 0


@lru_cache(maxsize=4096)
def bucket_of(day: int, months: int) -> int:
    """The bucket of points that are granted on a business day YYYYMMDD."""
    return expiry_bucket(date(day // 10000, day // 100 % 100, day % 100), months)


def opening_wallet(life: Life, now: Mapping[int, int]) -> dict[int, int]:
    """The wallet as it stood when the window began: as it stands, less what the window moved."""
    start = dict(now)
    for bucket, amount in _recorded(life):
        start[bucket] = start.get(bucket, 0) - amount
    return start


def _recorded(life: Life) -> Iterable[tuple[int, int]]:
    for act in life.acts.values():
        if act.bucket:
            yield act.bucket, act.due - act.repaid
    for move in life.moves:
        yield from move.points


def may_end(life: Life, worths: Mapping[str, Worth], wallet: Mapping[int, int], end: int) -> bool:
    """Whether any point of this person's can expire before the day `end`."""
    if any(bucket < end for bucket in wallet):
        return True
    return any(
        worth.points and bucket_of(life.acts[entry].day, worth.months) < end
        for entry, worth in worths.items()
    )


def ended(life: Life, worths: Mapping[str, Worth], start: Mapping[int, int], end: int) -> Ended:
    """Live through the window with these acts' worths; `end` is the first day after it."""
    return _Wallet(life, worths, start).live(end)


class _Wallet:
    """Points by bucket; holds and redemptions remember what they took, to give back the same."""

    def __init__(self, life: Life, worths: Mapping[str, Worth], start: Mapping[int, int]) -> None:
        self._life, self._worths, self._points = life, worths, dict(start)
        self._taken: dict[str, Lines] = {}
        self._granted: dict[str, tuple[int, int]] = {}  # by the entry that paid: bucket, points
        self._settled: set[str] = set()
        self._expired = self._uncovered = 0

    def live(self, end: int) -> Ended:
        acts = self._life.acts.values()
        both: list[Act | Move] = [*acts, *self._life.moves]
        events = sorted(both, key=lambda one: one.arrival)
        for event in events:
            self._expire(event.day)
            if isinstance(event, Act):
                if not event.waited:
                    self._grant(event.id, event, event.day, event.repaid)
            else:
                self._move(event)
        self._expire(end)
        return Ended(self._expired, self._uncovered)

    def _move(self, move: Move) -> None:
        act = self._life.acts.get(move.refers)
        if move.kind == "settle" and act:
            self._settled.add(move.id)
            self._grant(move.id, act, move.day, act.due - move.paid)
        elif move.kind == "reverse" and (act or move.refers in self._settled):
            bucket, points = self._granted.pop(move.refers, (0, 0))
            self._take(points, bucket)
        elif move.kind == "hold" or (move.kind == "redeem" and not move.refers):
            points = -sum(amount for _, amount in move.points)
            self._taken[move.id] = lines = self._take(points, 0)
            self._uncovered += points - sum(amount for _, amount in lines)
        elif move.kind == "redeem" and move.refers in self._taken:
            self._taken[move.id] = self._taken.pop(move.refers)
        elif move.kind in ("release", "refund") and move.refers in self._taken:
            self._give_back(move, self._taken[move.refers])
        elif move.kind != "expire":  # what expires follows from the days, not from the record
            for bucket, amount in move.points:
                if amount < 0:
                    self._take(-amount, bucket)
                else:
                    self._put(bucket, amount)

    def _grant(self, entry: str, act: Act, day: int, repaid: int) -> None:
        worth = self._worths[act.id]
        points = max(0, worth.points - repaid)
        if points:
            bucket = bucket_of(day, worth.months)
            self._put(bucket, points)
            self._granted[entry] = bucket, points

    def _put(self, bucket: int, points: int) -> None:
        self._points[bucket] = self._points.get(bucket, 0) + points

    def _take(self, points: int, first: int) -> Lines:
        """Out of one bucket first, then the earliest; at most what there is."""
        lines = []
        for bucket in sorted(self._points, key=lambda one: (one != first, one)):
            amount = min(points, self._points[bucket])
            if amount > 0:
                self._points[bucket] -= amount
                points -= amount
                lines.append((bucket, amount))
        return lines

    def _give_back(self, move: Move, lines: Lines) -> None:
        points = sum(amount for _, amount in move.points)
        while lines and points:
            bucket, amount = lines.pop()
            back = min(points, amount)
            lives = move.kind == "release" or bucket >= move.day
            self._put(bucket if lives else grace_bucket(move.day), back)
            points -= back
            if back < amount:
                lines.append((bucket, amount - back))

    def _expire(self, today: int) -> None:
        for bucket in [one for one in self._points if one < today]:
            self._expired += self._points.pop(bucket)
