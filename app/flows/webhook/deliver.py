"""Deliver: make the attempts that are due, at least once each, and settle what became of them.

An attempt is claimed and that committed before anybody is called; whoever dies in between leaves a
claim that lapses, and the event is sent again under the same id. One that fails is tried again by
the ladder that Standard Webhooks suggests, and is dead at its end. No order is kept: an endpoint
that takes one event slowly gets the next ones meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from secrets import SystemRandom
from typing import Final

import structlog
from sqlalchemy import Connection, Engine
from standardwebhooks import Webhook

from app.flows.webhook.address import AddressError, read_url
from app.flows.webhook.emit import VERIFICATION
from app.flows.webhook.endpoint import give_up, secrets_of
from app.flows.webhook.post import Answer, Poster
from app.flows.webhook.prove_owner import proves
from app.flows.webhook.spread import forget, spread, tell
from app.store import deliveries, webhooks
from app.store.deliveries import Attempt, Claim
from app.store.webhooks import Endpoint
from app.vault import Vault

LADDER: Final = tuple(
    timedelta(seconds=pause)
    for pause in (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
)
"""Pauses after the first attempt, the second …; after the tenth there is none."""
FAILING: Final = timedelta(days=5)
AT_ONCE: Final = 16
_JITTER: Final = 0.2  # later by up to this part, so that what failed together does not come back so
_LONGEST: Final = timedelta(hours=24)  # that a Retry-After is heard
_CLAIM: Final = timedelta(seconds=60)  # six times what an attempt may take
_BUSY_S: Final = 0.02
_PAUSE_S: Final = 1.0
_AWAY_S: Final = 10.0
_SWEEP: Final = timedelta(hours=1)
_GONE: Final = 410
_LATER: Final = frozenset({429, 503})
_log = structlog.get_logger("webhooks")
_random = SystemRandom()


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Courier:
    """Tells, spreads and delivers; one or many may run. `wall` dates signatures: receivers hold
    them against their own clocks, also where ours is a test's."""

    engine: Engine
    vault: Vault
    clock: Callable[[], datetime]
    poster: Poster = field(default_factory=Poster)
    loopback: bool = False
    wall: Callable[[], datetime] = _utc_now

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Beside the worker's loop, which waits for no other server."""
        flying: list[threading.Thread] = []
        swept: datetime | None = None
        while not stop.is_set():
            flying = [one for one in flying if one.is_alive()]
            try:
                now = self.clock()
                if swept is None or now - swept >= _SWEEP:
                    forget(self.engine, now)
                    swept = now
                more = self._prepare()
                taken = self._claim(AT_ONCE - len(flying))
            except Exception as error:  # nobody would see the end of a thread
                _log.error("no webhook is sent for now", exc_info=error)
                stop.wait(_AWAY_S)
                continue
            for one in taken:  # daemons: the claim of one that the process's end cuts off lapses
                thread = threading.Thread(target=self._try, args=(one,), daemon=True)
                thread.start()
                flying.append(thread)
            full = len(flying) >= AT_ONCE
            stop.wait(_BUSY_S if more or taken or full else _PAUSE_S)

    def step(self) -> int:
        """Do all that is due now, one after another; how many attempts were made."""
        while self._prepare():
            pass
        count = 0
        while taken := self._claim(AT_ONCE):
            for one in taken:
                self.deliver(one)
            count += len(taken)
        return count

    def deliver(self, made: Claim) -> None:
        """Make one attempt and settle it."""
        with self.engine.connect() as tx:
            there = webhooks.find(tx, made.endpoint)
        began, at = time.monotonic(), self.clock()
        answer = self._send(there, made)
        took = round((time.monotonic() - began) * 1000)
        what = Attempt(there.id, made.attempt, at, took, answer.status, answer.error)
        with self.engine.begin() as tx:
            self._settle(tx, made, answer, what)

    def _prepare(self) -> bool:
        more = tell(self.engine, self.vault)
        return spread(self.engine, self.clock()) or more

    def _claim(self, most: int) -> list[Claim]:
        if most <= 0:
            return []
        now = self.clock()
        with self.engine.begin() as tx:
            return deliveries.claim(tx, now, now + _CLAIM, most)

    def _try(self, made: Claim) -> None:
        try:
            self.deliver(made)
        except Exception as error:  # the claim lapses, and it is tried again
            _log.error("an attempt is not settled", event_id=made.event, exc_info=error)

    def _send(self, there: Endpoint, made: Claim) -> Answer:
        try:
            target = read_url(there.url, loopback=self.loopback)
        except AddressError:
            return Answer(None, "ADDRESS_REFUSED")
        headers = signed(secrets_of(self.vault, there, self.clock()), made, self.wall())
        proof = made.kind == VERIFICATION
        answer = self.poster.post(target, headers, made.body, read=proof)
        if proof and not answer.error and not proves(made.body, answer.body):
            return answer._replace(error="CHALLENGE_WRONG")
        return answer

    def _settle(self, tx: Connection, made: Claim, answer: Answer, what: Attempt) -> None:
        there, now = webhooks.lock(tx, made.merchant, made.endpoint), self.clock()
        if there is None:
            raise LookupError("endpoints are never removed")
        if made.kind == VERIFICATION:
            self._settle_proof(tx, there, made, what, now)
        elif not answer.error:
            deliveries.finish(tx, made, "delivered", now, what)
            if there.failing_since is not None:
                webhooks.change(tx, there._replace(failing_since=None))
        else:
            self._settle_failure(tx, there, made, answer, what, now)

    def _settle_proof(
        self, tx: Connection, there: Endpoint, made: Claim, what: Attempt, now: datetime
    ) -> None:
        state = "dead" if what.error else "delivered"
        if not deliveries.finish(tx, made, state, now, what):
            return  # it was disabled meanwhile
        if what.error:
            webhooks.change(tx, there._replace(reason=what.error))
        else:
            proved = there._replace(state="active", reason="", verified_at=now, failing_since=None)
            webhooks.change(tx, proved)

    def _settle_failure(
        self,
        tx: Connection,
        there: Endpoint,
        made: Claim,
        answer: Answer,
        what: Attempt,
        now: datetime,
    ) -> None:
        dead = made.rung > len(LADDER) or answer.status == _GONE
        pause = timedelta(0) if dead else self._pause(made, answer)
        if not deliveries.finish(tx, made, "dead" if dead else "waiting", now + pause, what):
            return
        since = there.failing_since or now
        if answer.status == _GONE:
            give_up(tx, self.vault, there, "GONE", now)
        elif now - since >= FAILING:
            give_up(tx, self.vault, there, "FAILING", now)
        elif there.failing_since is None:
            webhooks.change(tx, there._replace(failing_since=now))

    def _pause(self, made: Claim, answer: Answer) -> timedelta:
        pause = LADDER[made.rung - 1] * (1 + _JITTER * _random.random())
        if answer.status in _LATER:
            pause = max(pause, asked_pause(answer.retry_after, self.wall()))
        return pause


def signed(secrets: list[str], made: Claim, at: datetime) -> dict[str, str]:
    """The three headers of Standard Webhooks, with a signature for each secret."""
    body = made.body.decode()
    return {
        "webhook-id": made.event,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(one).sign(made.event, at, body) for one in secrets),
    }


def asked_pause(retry_after: str, now: datetime) -> timedelta:
    """The pause that a Retry-After asks for, in seconds or as an HTTP date, a day at most; none if
    it does not read."""
    if retry_after.isascii() and retry_after.isdecimal():
        return min(timedelta(seconds=int(retry_after[:9])), _LONGEST)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return timedelta(0)
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(timedelta(0), min(at - now, _LONGEST))
