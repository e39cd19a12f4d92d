"""Case: a reviewer upholds or dismisses what a rule or a merchant brought up.

Nothing else follows by itself: whether a merchant is suspended, an operator decides.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from app.flows.trail import act
from app.store import cases
from app.store.cases import Case


class CaseError(Exception):
    """The case is not there (NOT_FOUND) or somebody decided it before (CASE_CLOSED)."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def decide(tx: Connection, who: str, id: str, state: str, reason: str, now: datetime) -> Case:
    """Close an open case as upheld or dismissed, with a trail; how it then stands.

    Raises CaseError.
    """
    closed = cases.close(tx, id, state, who, reason, now)
    found = cases.find(tx, id)
    if found is None:
        raise CaseError("NOT_FOUND", "there is no case of this id")
    if not closed:
        raise CaseError("CASE_CLOSED", f"this case was {found.state} before; it stays so")
    detail = {"kind": found.kind, "rule": found.rule, "reason": reason}
    act(tx, who, f"case.{state}", id, detail, now)
    return found
