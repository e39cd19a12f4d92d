"""How often one caller may ask: a courtesy to the others. Nothing that must be right hangs on it.

The counters are those of the `limits` package in Redis (fixed window), one round trip a request;
of callers who ask much a process counts a few requests ahead, as many as they used in the last
second, twice as many if that was not enough for it, and at most a thousandth of the window.
While Redis is away each process counts in its own memory, and tries Redis again every few seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

import redis
import structlog
from flask import Flask, current_app, g
from limits.storage import MemoryStorage, RedisStorage, Storage

_WINDOW_S = 60
_RETRY_REDIS_S = 5
_AHEAD_S = 1.0
_AHEAD = 1000  # of a window only one part in so many is ever counted ahead
_CALLERS = 4096  # that are counted ahead at a time
_EXTENSION = "puhui.limits"


class TooManyRequestsError(Exception):
    """The caller's window is used up; `retry_after_s` says when the next one opens."""

    code = "TOO_MANY_REQUESTS"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many requests; the next window opens in {retry_after_s} s")
        self.retry_after_s = retry_after_s
        self.headers = {"Retry-After": str(retry_after_s)}


@dataclass(frozen=True, slots=True)
class Policy:
    """`amount` requests a minute for one caller of one audience."""

    name: str
    amount: int


RESIDENT = Policy("resident", 600)
PROVIDER = Policy("provider", 6000)
MERCHANT = Policy("merchant", 60_000)  # all tills of a chain together
APPLICATION = Policy("application", 20)  # by address: anybody may apply to become a merchant
PUBLIC = Policy("public", 6000)
ADMIN = Policy("admin", 600)
LOGIN = Policy("login", 20)
PICTURES = Policy("pictures", 30)  # of one resident: each is decoded before anybody looks at it
SIGN_IN = Policy("sign-in", 600)  # by address, and a carrier has thousands of phones behind one


@dataclass(frozen=True, slots=True)
class Spent:
    """What one request left of its caller's window, for the RateLimit fields."""

    policy: Policy
    remaining: int


@dataclass(slots=True)
class _Ahead:
    """What was counted ahead for a caller: the window's count with it, how much, what is left of
    it, until when it may be used, and how often the caller has asked in that second."""

    count: int = 0
    took: int = 0
    left: int = 0
    until: float = 0.0
    used: int = 0


class Limits:
    """The counters of one application."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = RedisStorage("redis://", connection_pool=client.connection_pool)
        self._memory = MemoryStorage()
        self._redis_again_at = time.monotonic()
        self._ahead: dict[str, _Ahead] = {}
        self._lock = Lock()

    def hit(self, policy: Policy, caller: str) -> Spent:
        """Count one request. Raises TooManyRequestsError."""
        key, most = f"{policy.name}/{caller}", policy.amount // _AHEAD
        if most <= 1:
            return Spent(policy, policy.amount - self._count(policy, key, 1))
        with self._lock:
            ahead = self._of(key)
            now = time.monotonic()
            if now >= ahead.until:
                was = ahead.used if now < ahead.until + _AHEAD_S else 0
                ahead.took, ahead.left, ahead.used, ahead.until = was // 2, 0, 0, now + _AHEAD_S
            ahead.used += 1
            if ahead.left > 0:
                ahead.left -= 1
                return Spent(policy, policy.amount - ahead.count + ahead.left)
            take = min(most, max(1, 2 * ahead.took))
        count = self._count(policy, key, take)  # not under the lock: Redis may be slow to answer
        with self._lock:
            ahead.count, ahead.took, ahead.left = count, take, take - 1
        return Spent(policy, policy.amount - count + take - 1)

    def _of(self, key: str) -> _Ahead:
        if key not in self._ahead and len(self._ahead) >= _CALLERS:
            self._ahead.clear()
        return self._ahead.setdefault(key, _Ahead())

    def _count(self, policy: Policy, key: str, amount: int) -> int:
        storage: Storage = self._redis
        if time.monotonic() < self._redis_again_at:
            storage = self._memory
        try:
            count = storage.incr(key, _WINDOW_S, amount)
        except redis.RedisError:
            structlog.get_logger().warning("rate limits fall back to memory")
            self._redis_again_at = time.monotonic() + _RETRY_REDIS_S
            return self._count(policy, key, amount)
        if count > policy.amount:
            raise TooManyRequestsError(max(1, round(storage.get_expiry(key) - time.time())))
        return count


def install(app: Flask, client: redis.Redis) -> None:
    """Give an application its counters."""
    app.extensions[_EXTENSION] = Limits(client)


def spend(policy: Policy, caller: str) -> None:
    """Count the current request and keep the outcome in `g.spent`. Raises TooManyRequestsError."""
    g.spent = current_app.extensions[_EXTENSION].hit(policy, caller)
