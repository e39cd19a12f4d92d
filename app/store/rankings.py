"""The rankings' sorted sets in Redis: one for the city, one a district, by mg of CO2e avoided.

They hold nothing that the database does not say better, and are made anew from it at any time.
Beside them stand where everybody is (`where`, a hash from resident to district), up to which leaf
of the log the sets are true for which month (`state`), and `turn`, which every change of who is
shown moves on: a writer watches it, reads the database, and writes only if it stood still
meanwhile. So whoever left is never put back by somebody who read before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

import redis
from redis.client import Pipeline

T = TypeVar("T")

_CHUNK = 5000
_ASIDE_S = 600  # what a builder that was killed leaves behind goes by itself

# ARGV: resident, how many to show. One step, so that all of it is of one moment.
_LOOK = """
local state = redis.call('HGET', KEYS[1], 'month')
local score = redis.call('ZSCORE', KEYS[2], ARGV[1])
local above = 0
if score then above = redis.call('ZCOUNT', KEYS[2], '(' .. score, '+inf') end
local top = redis.call('ZREVRANGE', KEYS[2], 0, tonumber(ARGV[2]) - 1, 'WITHSCORES')
return {state, redis.call('ZCARD', KEYS[2]), score, above, top}
"""


class Place(NamedTuple):
    """For which month YYYYMM the sets are, and up to which leaf they are true."""

    month: int
    leaf: int


class Look(NamedTuple):
    """A set at one moment: its month (None if there is none), its size, one resident's mg (None
    if absent) and how many have more, and the first ones with theirs."""

    month: int | None
    size: int
    mine: int | None
    above: int
    top: list[tuple[str, int]]


class Standing(NamedTuple):
    """Where a resident belongs: a district, and mg avoided."""

    district: str
    mg: int


Amounts = Callable[[list[str]], dict[str, int]]
"""The mg in the sets of those of these people who are in them."""


class Sets:
    """The sets of one database. Every method may raise RedisError."""

    def __init__(self, client: redis.Redis, database: str) -> None:
        """`database` keeps cities apart that share one Redis; in braces, as the part of the name
        that a cluster hashes: scripts and transactions here touch several keys."""
        self._redis: Any = client  # its stubs promise awaitables
        self._root = f"puhui:{{{database}}}:ranking:"

    def place(self) -> Place | None:
        """What the sets are true for; None if there are none."""
        month, leaf = self._redis.hmget(self._key("state"), "month", "leaf")
        return Place(int(month), int(leaf)) if month and leaf else None

    def size(self) -> int:
        """How many are in the city's set."""
        return int(self._redis.zcard(self._key("city")))

    def look(self, district: str, resident: str, shown: int) -> Look:
        """A district's set, as one resident sees it."""
        keys = self._key("state"), self._of(district)
        month, size, mine, above, top = self._redis.eval(_LOOK, 2, *keys, resident, shown)
        pairs = zip(top[::2], top[1::2], strict=True)
        return Look(
            int(month) if month else None,
            int(size),
            None if mine is None else int(mine),
            int(above),
            [(who.decode(), int(mg)) for who, mg in pairs],
        )

    def amounts(self, residents: list[str]) -> tuple[int | None, dict[str, int]]:
        """The month, and mg of those of these people who are in the city's set."""
        with self._redis.pipeline() as pipe:
            pipe.hget(self._key("state"), "month")
            pipe.zmscore(self._key("city"), residents)
            month, scores = pipe.execute()
        found = zip(residents, scores, strict=True)
        return (int(month) if month else None), {
            who: int(mg) for who, mg in found if mg is not None
        }

    def move(self, resident: str, read: Callable[[int], Standing | None]) -> None:
        """Put one resident where `read` says, or (None) nowhere; `read` asks the database, for what
        is true up to the leaf it is given."""

        def change(pipe: Pipeline) -> None:
            place = self.place()
            standing = read(place.leaf if place else 0)
            old = self._where(pipe, [resident])[resident]
            pipe.multi()
            pipe.incr(self._key("turn"))
            self._put(pipe, resident, old, standing if place else None)

        self._redis.transaction(change, self._key("turn"), self._key("state"))

    def update(
        self, seen: Place, leaf: int, read: Callable[[Amounts], Mapping[str, Standing]]
    ) -> None:
        """Put people where `read` says, which may ask how many mg somebody has in the sets; these
        are then true up to `leaf`. Nothing is done if the sets are no longer at the place that was
        seen: somebody else went on."""

        def change(pipe: Pipeline) -> None:
            if self.place() != seen:
                pipe.multi()
                return
            found = read(lambda residents: self.amounts(residents)[1] if residents else {})
            where = self._where(pipe, list(found))
            pipe.multi()
            for resident, standing in found.items():
                self._put(pipe, resident, where[resident], standing)
            pipe.hset(self._key("state"), "leaf", leaf)

        self._redis.transaction(change, self._key("turn"), self._key("state"))

    def replace(self, place: Place, read: Callable[[], Mapping[str, Standing]]) -> None:
        """Swap all sets for those that hold these people; a reader sees the old or the new."""

        def change(pipe: Pipeline) -> None:
            found = read()
            gone = {self._of(one.decode()) for one in set(self._redis.hvals(self._key("where")))}
            aside = self._lay_aside(found)
            pipe.multi()
            pipe.delete(self._key("city"), self._key("where"), *gone)
            for name, other in aside.items():
                pipe.rename(other, name)
                pipe.persist(name)
            pipe.hset(self._key("state"), mapping={"month": place.month, "leaf": place.leaf})

        self._redis.transaction(change, self._key("turn"))

    def _lay_aside(self, found: Mapping[str, Standing]) -> dict[str, str]:
        """Build the sets under other names; those names by their own."""
        sets: dict[str, dict[str, int]] = {}
        for resident, (district, mg) in found.items():
            sets.setdefault(self._key("city"), {})[resident] = mg
            sets.setdefault(self._of(district), {})[resident] = mg
        aside = f"{self._key('aside')}:{token_hex(8)}:"
        for name, members in sets.items():
            for scores in _chunks(members.items()):
                self._redis.zadd(aside + name, dict(scores))
            self._redis.expire(aside + name, _ASIDE_S)
        where = self._key("where")
        for chunk in _chunks((one, it.district) for one, it in found.items()):
            self._redis.hset(aside + where, mapping=dict(chunk))
            self._redis.expire(aside + where, _ASIDE_S)
        return {name: aside + name for name in (*sets, *([where] if found else []))}

    def _put(self, pipe: Pipeline, resident: str, old: str | None, new: Standing | None) -> None:
        if old is not None and (new is None or new.district != old):
            pipe.zrem(self._of(old), resident)
        if new is None:
            pipe.zrem(self._key("city"), resident)
            pipe.hdel(self._key("where"), resident)
            return
        pipe.zadd(self._key("city"), {resident: new.mg})
        pipe.zadd(self._of(new.district), {resident: new.mg})
        pipe.hset(self._key("where"), resident, new.district)

    def _where(self, pipe: Any, residents: list[str]) -> dict[str, str | None]:
        found = pipe.hmget(self._key("where"), residents) if residents else []
        pairs = zip(residents, found, strict=True)
        return {who: None if at is None else at.decode() for who, at in pairs}

    def _of(self, district: str) -> str:
        return self._key(f"in:{district}")

    def _key(self, name: str) -> str:
        return self._root + name


def _chunks(items: Iterable[T]) -> Iterable[list[T]]:
    rows = list(items)
    return (rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK))
