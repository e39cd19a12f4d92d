"""Check: may this resident spend here, now? A refusal, or a case that nobody at the till notices.

Asked within the transaction that spends, after the resident was locked, so that two tills cannot
both be the last one under a limit.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection


class Attempt(NamedTuple):
    """What is about to be spent. `resident` and `merchant` are ids (32 hex digits); `device` is
    what showed the code, if that is known; `kind` is charge or order."""

    resident: str
    device: bytes | None
    merchant: str
    points: int
    kind: str


class Verdict(NamedTuple):
    """A refusal: its code (of app.errors.PROBLEMS) and its sentence."""

    code: str
    detail: str


def check(tx: Connection, attempt: Attempt, now: datetime) -> Verdict | None:
    """The refusal of the first rule that is broken and refuses; None: go on. Cases are opened
    here, also those of rules that only watch, and are kept if `tx` commits."""
    return None
