"""Writes that are safe to send again: once by a key, or only over what the sender has seen.

A caller names each request by an Idempotency-Key of its own. One transaction claims the key, does
the work and keeps the answer: so the work and its answer are there together or not at all, and the
same request again is answered without being done again. Refusals are not kept. An answer is kept
sealed, since it may hold a secret that is shown once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Final, NamedTuple

from sqlalchemy import Connection, Engine

from app.store import answers
from app.store.db import transact
from app.vault import Vault

KEPT: Final = timedelta(days=30)


class Repeat(NamedTuple):
    """What a request goes by: who sends it, its key, and a digest of all it asks."""

    scope: str
    key: str
    digest: bytes


class Answer(NamedTuple):
    """An HTTP status and JSON bytes; `again` if they were given before."""

    status: int
    body: bytes
    again: bool = False


class KeyReusedError(Exception):
    """The key named another request before."""

    code = "IDEMPOTENCY_KEY_REUSED"


class RequestRunningError(Exception):
    """The same request is being worked on at this moment."""

    code = "REQUEST_RUNNING"


class StaleError(Exception):
    """What is to be changed has changed since the sender read it."""

    code = "REVISION_STALE"


def once(
    engine: Engine,
    vault: Vault,
    repeat: Repeat,
    now: datetime,
    work: Callable[[Connection], Answer],
) -> Answer:
    """Do `work` in one transaction unless this request was answered already; the answer.

    `work` may run more than once, in transactions of which one commits. Raises KeyReusedError,
    RequestRunningError, and whatever `work` raises.
    """
    scope, key, digest = repeat

    def attempt(tx: Connection) -> Answer:
        if not answers.take_turn(tx, scope, key):
            raise RequestRunningError("this request is being worked on; send it again in a second")
        kept = answers.find(tx, scope, key)
        if kept is None:
            made = work(tx)
            answers.keep(tx, scope, key, to_keep(vault, repeat, made), now)
            return made
        if not compare_digest(kept.digest, digest):
            raise KeyReusedError("this Idempotency-Key named another request; make a new one")
        return Answer(kept.status, vault.open_for(_purpose(repeat), kept.sealed), again=True)

    return transact(engine, attempt)


def to_keep(vault: Vault, repeat: Repeat, made: Answer) -> answers.Kept:
    """An answer as it is kept for whoever sends its request again."""
    return answers.Kept(repeat.digest, made.status, vault.seal_for(_purpose(repeat), made.body))


def _purpose(repeat: Repeat) -> str:
    return f"answer {repeat.scope} {repeat.key}"


def must_match(given: str, current: str) -> None:
    """Hold the revision a sender has seen against the one that stands. Raises StaleError."""
    if given != current:
        raise StaleError(
            f'the revision is now "{current}"; read it again and send the change with that If-Match'
        )
