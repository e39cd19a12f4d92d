"""The worker: one loop seals, another pays who waits, expires points and forgets what is outdated.

Every step is safe to repeat and to run in several processes at once; the restart path is the
normal path.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta

import structlog
from redis import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from app.config import CITY_ZONE
from app.flows.appeal.overdue import grant_in_time
from app.flows.archive import make_next
from app.flows.bill.close import Closing
from app.flows.budget import pay_waiting
from app.flows.challenge import Watch
from app.flows.charge.timeout import time_out
from app.flows.claim import claim_stragglers
from app.flows.erase import forget_stragglers
from app.flows.expire import Expiry
from app.flows.fingerprint import oldest_kept
from app.flows.fraud.watch import Patrol
from app.flows.login import LIFE
from app.flows.once import KEPT
from app.flows.order.timeout import release_due
from app.flows.partner.alert import tell_low
from app.flows.pay_code import KEPT as CODES_SHOWN
from app.flows.ranking import Rankings
from app.flows.remind import Reminders
from app.flows.report import PICTURES_KEPT
from app.flows.seal import LIMIT, Sealer, SecondHistoryError
from app.flows.sign_in import CODES_KEPT, ENDED_KEPT
from app.flows.voucher.lapse import Lapses
from app.store import acts, admins, answers, logins, pay_codes, providers, reports
from app.store.catalogue import Registry
from app.vault import Vault

_PAUSE_S = 1.0
_RETRY_S = 5.0
_NONCE_AGE = timedelta(minutes=10)  # twice the skew: no older timestamp is fresh again
_SWEEP = timedelta(minutes=1)
_HEARING = timedelta(hours=1)  # deadlines are days, and what stays overdue is looked at each time
_FOLLOW = timedelta(minutes=1)
_log = structlog.get_logger("worker")


class Worker:
    """Runs until SIGTERM or SIGINT."""

    def __init__(
        self,
        engine: Engine,
        vault: Vault,
        sealer: Sealer,
        clock: Callable[[], datetime],
        also: Callable[[], None] = lambda: None,
        beside: Sequence[Callable[[threading.Event], None]] = (),
        rankings: Rankings | None = None,
    ) -> None:
        """`also` is called once a round: a quick look at whether something else is to be done.
        What sends to other servers runs `beside` the rounds, so that none waits for them."""
        self._engine, self._vault, self._sealer, self._clock = engine, vault, sealer, clock
        self._also, self._registry = also, Registry()
        self._stop = threading.Event()
        self._tidied_on: date | None = None
        self._swept_at: datetime | None = None
        self._heard_at: datetime | None = None
        self._beside = beside
        self._watch, self._rankings = Watch(engine, vault), rankings
        self._patrol, self._closing = Patrol(engine), Closing(engine, vault)
        self._daily = (Expiry(engine, vault), Reminders(engine, vault), Lapses(engine, vault))
        self._followed_at: datetime | None = None

    def run(self) -> None:
        """Work until told to stop: seal, and beside that, so that sealing waits for nothing, all
        the rest. A database that is away is waited for; a second history ends the process, since no
        waiting mends it, and so does whatever else goes wrong."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self._stop.set())
        for run in self._beside:
            threading.Thread(target=run, args=(self._stop,), daemon=True).start()
        with ThreadPoolExecutor(1, "chores") as pool:
            chores = pool.submit(self._keep_at, self._tend)
            self._keep_at(lambda: self._seal() >= LIMIT)
        chores.result()

    def step(self) -> int:
        """One round of all; returns how many entries were sealed."""
        self._tend()
        return self._seal()

    def _keep_at(self, work: Callable[[], bool]) -> None:
        """Round after round until told to stop, at once as long as there may be more to do."""
        try:
            while not self._stop.is_set():
                try:
                    more = work()
                except DBAPIError as error:
                    _log.error("database away", error=type(error.orig).__name__)
                    self._stop.wait(_RETRY_S)
                    continue
                if not more:
                    self._stop.wait(_PAUSE_S)
        finally:
            self._stop.set()

    def _seal(self) -> int:
        try:
            return self._sealer.seal(self._clock())
        except SecondHistoryError as error:
            _log.error("sealing refused", reason=str(error))
            raise

    def _tend(self) -> bool:
        """One round of all but sealing; whether there may be more to do."""
        now = self._clock()
        self._also()
        pay_waiting(self._engine, self._vault, self._registry, now)
        time_out(self._engine, self._vault, now)
        release_due(self._engine, self._vault, now)
        today = now.astimezone(CITY_ZONE).date()
        if self._tidied_on != today:
            with self._engine.begin() as tx:
                providers.forget_nonces(tx, now - _NONCE_AGE)
                acts.forget_before(tx, oldest_kept(now))
                answers.forget(tx, now - KEPT)
                admins.forget_sessions(tx, now - LIFE)
                logins.forget_refresh(tx, now)
                reports.drop_pictures(tx, now - PICTURES_KEPT)
            self._tidied_on = today
        if self._heard_at is None or now - self._heard_at >= _HEARING:
            grant_in_time(self._engine, self._vault, self._registry, now)
            self._heard_at = now
        if self._swept_at is None or now - self._swept_at >= _SWEEP:
            claim_stragglers(self._engine, self._vault, self._registry, now)
            tell_low(self._engine, self._vault, now)
            forget_stragglers(self._engine, now)
            with self._engine.begin() as tx:
                logins.sweep(tx, now - CODES_KEPT, now - ENDED_KEPT)
                pay_codes.sweep(tx, now - CODES_SHOWN)
            self._swept_at = now
        if self._followed_at is None or now - self._followed_at >= _FOLLOW:
            self._followed_at = None if self._follow(now) else now
        make_next(self._engine, self._vault, self._registry, now)
        return self._followed_at is None

    def _follow(self, now: datetime) -> bool:
        """One page of work for those who go through the ledger or the wallets, so that none waits
        long for another; whether there may be more. Without Redis there are no rankings, and all
        else goes on."""
        followers = (*self._daily, self._watch, self._patrol, self._closing)
        done = [one.step(now) for one in followers]  # a page of each
        more = any(done)
        try:
            return (self._rankings is not None and self._rankings.step(now)) or more
        except RedisError as error:
            _log.warning("rankings wait for Redis", error=type(error).__name__)
            return more
