"""Budgets in both rule sets: everybody's acts in the order they arrived, paid while money is there.

People are replayed one after another, so their claims on budgets come out of order: each part of
the work writes its own, sorted, to a file, and the files are merged. A budget that could pay for
all of both rule sets from the start is not gone through at all.

Who waits is paid as soon as the money is there; in life that is up to some seconds later. Payment
is in order of arrival and nobody is paid before who waits, so in the end the same people wait.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import count
from pathlib import Path
from struct import Struct
from typing import NamedTuple

SIDES = (0, 1)  # the rules in force, the draft


class Step(NamedTuple):
    """One change of a budget. A claim, whose `target` is itself, takes `amounts` (one a side) or
    waits for them. Any other undoes the claim whose arrival is `target`: if it was paid the budget
    gets `amounts`, else it leaves the line. With a target of 0 it is money from outside."""

    arrival: int
    target: int
    budget: int
    amounts: tuple[int, int]

    @property
    def claims(self) -> bool:
        """Whether it takes."""
        return self.target == self.arrival


_RECORD = Struct("<qqHqq")
_OPEN = 256  # files at a time
_PAID = 4096  # claims that were paid are forgotten so many at a time


def write(path: Path, steps: Iterable[Step]) -> None:
    """Keep steps that come in the order of their arrivals."""
    with path.open("wb") as file:
        for arrival, to, budget, both in steps:
            file.write(_RECORD.pack(arrival, to, budget, *both))


def steps_of(folder: Path) -> Iterator[Step]:
    """All steps of a folder's files in the order of their arrivals.

    While there are more files than are to be open at a time, some become one.
    """
    paths = deque(sorted(folder.iterdir()))
    for number in count():
        if len(paths) <= _OPEN:
            break
        some = [paths.popleft() for _ in range(_OPEN)]
        paths.append(folder / f"merged-{number}")
        write(paths[-1], merge(*map(_steps, some)))
        for path in some:
            path.unlink()
    return merge(*map(_steps, paths))


def _steps(path: Path) -> Iterator[Step]:
    with path.open("rb") as file:
        while chunk := file.read(_RECORD.size * 512):
            for arrival, target, budget, now, then in _RECORD.iter_unpack(chunk):
                yield Step(arrival, target, budget, (now, then))


class Line:
    """One budget under one rule set: what is left, and who waits, by arrival."""

    def __init__(self, left: int) -> None:
        self.left, self.waiting = left, 0
        self._arrivals, self._points = array("q"), array("q")
        self._first = 0  # of those who wait; those before were paid

    def claim(self, arrival: int, points: int) -> None:
        """Pay, or put at the end of the line."""
        if not self.waiting and points <= self.left:
            self.left -= points
        elif points:
            self._arrivals.append(arrival)
            self._points.append(points)
            self.waiting += points

    def give(self, arrival: int, points: int) -> None:
        """Take the claim of that arrival out of the line, or, if it was paid, take points back."""
        place = bisect_left(self._arrivals, arrival, self._first)
        if arrival and self._arrivals[place : place + 1] == array("q", (arrival,)):
            self.waiting -= self._points[place]
            self._points[place] = 0
        else:
            self.left += points
        self._pay()

    def _pay(self) -> None:
        while self._first < len(self._points) and self._points[self._first] <= self.left:
            self.left -= self._points[self._first]
            self.waiting -= self._points[self._first]
            self._first += 1
        if not self.waiting:  # whoever is left in it was taken out
            self._first = len(self._points)
        if self._first == len(self._points) or self._first > max(_PAID, len(self._points) // 2):
            del self._arrivals[: self._first], self._points[: self._first]
            self._first = 0


def pay(steps: Iterable[Step], opening: dict[int, int]) -> dict[int, tuple[Line, Line]]:
    """Go through the steps of these budgets, which begin with `opening` points each."""
    lines = {budget: (Line(left), Line(left)) for budget, left in opening.items()}
    for arrival, target, budget, amounts in steps:
        both = lines.get(budget)
        if both is None:
            continue
        for line, points in zip(both, amounts, strict=True):
            if target == arrival:
                line.claim(arrival, points)
            else:
                line.give(target, points)
    return lines
