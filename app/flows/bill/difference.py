"""Difference: a merchant's books say otherwise than a bill; compared at once, document by document.

What agrees is answered so. What does not opens one case a report, for a reviewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from app.flows.bill.close import date_of
from app.flows.bill.pay import BillError
from app.store import bills, cases
from app.store.bills import Known
from ledger.buckets import day_number

CLAIMS: Final = ("missing", "extra", "amount")
_AROUND: Final = timedelta(days=3)
"""A document of just before midnight, or one whose day was cut before it, is on a bill nearby."""


class Claim(NamedTuple):
    """A document of which the merchant's books say that the bill lacks it, that it should not be
    there, or that it is of other points; `points` are the books' own, negative if given back."""

    number: str
    claim: str
    points: int | None
    text: str


class Answered(NamedTuple):
    """What became of a claim: matches (both books agree after all), differs, or unknown (we have no
    such document near that day); and the documents of that number that we have."""

    claim: Claim
    outcome: str
    ours: tuple[Known, ...]


def report_differences(
    tx: Connection, merchant: str, day: int, out_no: str, claims: Sequence[Claim], now: datetime
) -> tuple[list[Answered], str | None]:
    """Answer each claim, in order, and open a case for those that do not match; its id, or None.

    Raises BillError BILL_NOT_CLOSED.
    """
    if bills.closed(tx) < day:
        detail = f"the bill of {date_of(day)} is made after that day; report differences then"
        raise BillError("BILL_NOT_CLOSED", detail)
    near = tuple(day_number(date_of(day) + by) for by in (-_AROUND, _AROUND))
    known: dict[str, list[Known]] = {}
    for one in bills.by_number(tx, merchant, (near[0], near[1]), [one.number for one in claims]):
        known.setdefault(one.number, []).append(one)
    answered = [_answer(one, day, tuple(known.get(one.number, ()))) for one in claims]
    open_ones = [one for one in answered if one.outcome != "matches"]
    if not open_ones:
        return answered, None
    facts = {
        "date": date_of(day).isoformat(),
        "out_no": out_no,
        "items": [_fact(one) for one in open_ones],
    }
    finding = cases.Finding("difference", "bill", f"{merchant}\0{out_no}", merchant, facts)
    return answered, cases.open_case(tx, finding, now)


def _answer(claim: Claim, day: int, ours: tuple[Known, ...]) -> Answered:
    here = [one for one in ours if one.day == day]
    if claim.claim == "extra":
        return Answered(claim, "differs" if here else "matches", ours)
    if any(one.points == claim.points for one in here):
        return Answered(claim, "matches", ours)
    return Answered(claim, "differs" if ours else "unknown", ours)


def _fact(one: Answered) -> dict[str, Any]:
    points = one.claim.points
    return {
        "number": one.claim.number,
        "claim": one.claim.claim,
        "points": None if points is None else str(points),
        "text": one.claim.text,
        "outcome": one.outcome,
        "ours": [shown(known) for known in one.ours],
    }


def shown(known: Known) -> dict[str, str]:
    """A document of ours, as JSON."""
    return {
        "date": date_of(known.day).isoformat(),
        "kind": known.kind,
        "points": str(known.points),
    }
