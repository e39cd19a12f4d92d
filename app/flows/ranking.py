"""Rankings for those who want them: by district, and among friends, by this month's reductions.

The order lives in Redis and comes from the ledger: `settle` brings one resident in line after
anything that changes who is shown, `refresh` follows the log, `rebuild` makes all anew. No rank
and no list is given of a district with fewer than ten people in it, and no rank among fewer than
ten friends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple

import redis
import structlog
from sqlalchemy import Connection, Engine

from app.flows.nickname import read_nickname
from app.flows.standing import first_of, in_month, month_of, standing
from app.store import friends, log, messages
from app.store import standing as ledger
from app.store.db import by_index, transact
from app.store.friends import Named
from app.store.rankings import Amounts, Place, Sets, Standing
from app.vault import Vault, seal, unseal

FEWEST: Final = 10
SHOWN: Final = 50

_PAGE: Final = 200  # people a transaction
_LEAVES: Final = 10_000
_log = structlog.get_logger("rankings")


class RankingsUnavailableError(Exception):
    """Redis is away, or the sets are being made; everything else works."""

    code = "RANKINGS_UNAVAILABLE"


class RankingError(Exception):
    """A resident cannot do this with rankings or friends; `code` says which rule says no."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Row(NamedTuple):
    """One line of a ranking; no rank among too few people."""

    rank: int | None
    nickname: str
    mg: int
    me: bool


class Ranking(NamedTuple):
    """A ranking as one resident sees it. `people` is None for fewer than ten, which the sizes of
    groups that small would tell too much about; `mine` is None for who is not shown."""

    month: int
    people: int | None
    mine: Row | None
    rows: list[Row]


class Rankings:
    """The rankings of one city."""

    def __init__(self, engine: Engine, vault: Vault, client: redis.Redis) -> None:
        self._engine, self._vault = engine, vault
        self._sets = Sets(client, engine.url.database or "")
        self._building: Iterator[int] | None = None

    def settle(self, resident: str, now: datetime) -> None:
        """Bring the sets in line with the database for one resident: after they joined, left,
        moved, restricted processing or were erased, and after that was committed.

        If Redis is away nothing is lost: `step` finds out that the sets hold other people.
        """
        try:
            self._sets.move(
                resident, lambda leaf: self._read([resident], range(leaf), now).get(resident)
            )
        except redis.RedisError as error:
            _log.warning("rankings not settled", error=type(error).__name__)

    def district(self, resident: str, now: datetime) -> Ranking:
        """The resident's district. Raises RankingsUnavailableError."""
        month = month_of(now)
        with self._engine.connect() as tx:
            mine = friends.districts(tx, [resident])
        if resident not in mine:
            return Ranking(month, None, None, [])
        try:
            look = self._sets.look(mine[resident], resident, SHOWN)
            if look.month != month or look.mine is None:
                self._build_small(now)
                look = self._sets.look(mine[resident], resident, SHOWN)
        except redis.RedisError:
            raise _away() from None
        if look.month != month or look.mine is None:
            raise _away()
        names = self._names([resident, *(who for who, _ in look.top)])
        if resident not in names:
            return Ranking(month, None, None, [])
        # who left a moment ago, or while Redis was away, is not counted
        gone = [mg for who, mg in look.top if who not in names]
        me = Row(
            look.above - sum(mg > look.mine for mg in gone) + 1, names[resident], look.mine, True
        )
        if look.size - len(gone) < FEWEST:
            return Ranking(month, None, me._replace(rank=None), [])
        top = [one for one in look.top if one[0] in names]
        rows = [
            Row(rank, names[who], mg, who == resident)
            for rank, (who, mg) in zip(competition([mg for _, mg in top]), top, strict=True)
        ]
        return Ranking(month, look.size - len(gone), me, rows)

    def among_friends(self, resident: str, now: datetime) -> Ranking:
        """The resident and those of their friends who are shown. Raises RankingsUnavailableError.

        Fewer than ten are listed by nickname, without ranks.
        """
        month = month_of(now)
        with self._engine.connect() as tx:
            people = friends.names(tx, [resident])
            if people:
                people |= {who: named for who, _, named in friends.friends(tx, resident)}
        if not people:
            return Ranking(month, None, None, [])
        try:
            built, amounts = self._sets.amounts(list(people))
            if built != month or len(amounts) < len(people):
                self._build_small(now)
                built, amounts = self._sets.amounts(list(people))
        except redis.RedisError:
            raise _away() from None
        if built != month or resident not in amounts:
            raise _away()
        names = {who: self.open_name(who, people[who]) for who in amounts}
        order = sorted(amounts.items(), key=lambda one: (-one[1], names[one[0]], one[0]))
        ranks: list[int] | list[None] = competition([mg for _, mg in order])
        if len(order) < FEWEST:
            order.sort(key=lambda one: (names[one[0]], one[0]))
            ranks = [None] * len(order)
        rows = [
            Row(rank, names[who], mg, who == resident)
            for rank, (who, mg) in zip(ranks, order, strict=True)
        ]
        (me,) = (row for row in rows if row.me)
        return Ranking(month, len(rows) if len(rows) >= FEWEST else None, me, rows)

    def open_name(self, resident: str, named: Named) -> str:
        """A nickname. Raises VaultError."""
        key = self._vault.subject_key(resident, named.wrapped_key)
        return unseal(key, named.nickname, _context(resident)).decode()

    def step(self, now: datetime) -> bool:
        """One page of work of the worker: follow the log, or make all anew where the sets are
        missing, of another month, of other people, or ahead of a restored log. Whether there may
        be more.

        Raises RedisError.
        """
        if self._building is None:
            place = self._sets.place()
            with self._engine.connect() as tx:
                wrong = place is None or place.month != month_of(now)
                wrong = wrong or self._sets.size() != friends.count(tx)
                wrong = wrong or (place is not None and place.leaf > log.head(tx).size)
            if not wrong:
                return self.refresh(now)
            self._building = self.rebuild(now)
        if next(self._building, None) is None:
            self._building = None
        return self._building is not None

    def refresh(self, now: datetime) -> bool:
        """Follow the log by one page of leaves; whether there are more. Raises RedisError."""
        place = self._sets.place()
        if place is None or place.month != month_of(now):
            return True
        with self._engine.connect() as tx:
            size = log.head(tx).size
        leaves = range(place.leaf, min(size, place.leaf + _LEAVES))
        if leaves:
            self._sets.update(place, leaves.stop, partial(self._add, leaves, now))
        return leaves.stop < size

    def rebuild(self, now: datetime) -> Iterator[int]:
        """Make the sets anew beside those in use and swap them in at the end; after each page of
        people, how many are done. Raises RedisError."""
        with self._engine.connect() as tx:
            place = Place(month_of(now), log.head(tx).size)
            leaves = range(place.leaf)
            people = sorted(friends.everybody(tx))
        found: dict[str, Standing] = {}
        for at in range(0, len(people), _PAGE):
            found |= self._read(people[at : at + _PAGE], leaves, now)
            yield len(found)
        self._sets.replace(place, lambda: self._as_now(found, leaves, now))

    def _as_now(
        self, found: dict[str, Standing], leaves: range, now: datetime
    ) -> dict[str, Standing]:
        """The same for those who are shown now, which may be others than a while ago."""
        with self._engine.connect() as tx:
            people = friends.everybody(tx)
        missing = [who for who in people if who not in found]
        found |= self._read(missing, leaves, now)
        return {
            who: Standing(district, found[who].mg)
            for who, district in people.items()
            if who in found
        }

    def _build_small(self, now: datetime) -> None:
        """Make the sets of a small city at once; a large one waits for the worker."""
        with self._engine.connect() as tx:
            if friends.count(tx) > _PAGE:
                raise _away()
        for _ in self.rebuild(now):
            pass

    def _add(self, leaves: range, now: datetime, amounts: Amounts) -> dict[str, Standing]:
        """Where those belong whom these leaves touch: what they had, and what came. Whoever is not
        in the sets, or had something reversed, is reckoned anew."""
        with self._engine.connect() as tx:
            touched = ledger.touched(tx, leaves)
            anew = ledger.reversed_for(tx, leaves)
        had = amounts(sorted(touched - anew))
        came = self._read(sorted(had), leaves, now)
        more = {who: one._replace(mg=had[who] + one.mg) for who, one in came.items()}
        return more | self._read(sorted((touched | anew).difference(had)), range(leaves.stop), now)

    def _read(self, residents: Sequence[str], leaves: range, now: datetime) -> dict[str, Standing]:
        """Where those of these people belong who are shown, by these leaves alone."""
        month, found = month_of(now), {}
        with self._engine.begin() as tx:
            by_index(tx)
            districts = friends.districts(tx, residents)
            first = first_of(tx, month, now)
            shown = list(districts)
            for at in range(0, len(shown), _PAGE):
                acts = standing(tx, self._vault, shown[at : at + _PAGE], first, leaves)
                for who, own in acts.items():
                    mg = sum(act.reduction_mg for act in in_month(own, month))
                    found[who] = Standing(districts[who], mg)
        return found

    def _names(self, residents: list[str]) -> dict[str, str]:
        with self._engine.connect() as tx:
            named = friends.names(tx, residents)
        return {who: self.open_name(who, one) for who, one in named.items()}


def show(engine: Engine, vault: Vault, resident: str, nickname: str, now: datetime) -> str:
    """Let a resident be seen under a nickname, or under another one; as it will be shown.

    Raises NicknameError, RankingError SUBJECT_ERASED.
    """
    name = read_nickname(nickname)

    def work(tx: Connection) -> None:
        wrapped = messages.hold(tx, resident)
        if wrapped is None:
            raise RankingError("SUBJECT_ERASED", "this account was erased")
        key = vault.subject_key(resident, wrapped)
        friends.show(tx, resident, seal(key, name.encode(), _context(resident)), now)

    transact(engine, work)
    return name


def competition(amounts: Sequence[int]) -> list[Any]:
    """Standard competition ranks (1, 2, 2, 4) of falling amounts."""
    ranks: list[int] = []
    for at, amount in enumerate(amounts):
        ranks.append(ranks[-1] if at and amounts[at - 1] == amount else at + 1)
    return ranks


def _context(resident: str) -> bytes:
    return f"nickname {resident}".encode()


def _away() -> RankingsUnavailableError:
    return RankingsUnavailableError("rankings are being made; ask again in a moment")
