"""The steps of an appeal that people take: its resident, and a reviewer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from secrets import token_hex
from typing import Final

from sqlalchemy import Connection

from app.flows.appeal.case import AppealError, Bench, Case, Said, decide, hold, opened, save, tell
from app.flows.appeal.points import pay, worth
from app.flows.setting import setting
from app.flows.trail import act
from app.store import appeals, entries, people
from app.store.appeals import UNDER_WAY, Appeal
from ledger.entries import instant
from scenarios import read_time

MAX_UNDER_WAY: Final = 20
MAX_QUESTIONS: Final = 5


def file(tx: Connection, bench: Bench, resident: str, about: str, case: Case) -> Appeal:
    """Open an appeal about an entry, a missing act, a rejection, or what we keep of the person.

    Raises AppealError, and Rejected for an act that the rules would have refused.
    """
    wrapped = people.lock(tx, resident)
    if wrapped is None:
        raise AppealError("SUBJECT_ERASED", "this account was erased; nothing can be appealed")
    if appeals.count_under_way(tx, resident) >= MAX_UNDER_WAY:
        raise AppealError(
            "TOO_MANY_APPEALS",
            f"{MAX_UNDER_WAY} of your appeals wait for an answer; withdraw one, or wait",
        )
    thing, case = _examined(tx, bench, resident, about, case)
    if appeals.is_under_way(tx, resident, thing):
        raise AppealError(
            "APPEAL_UNDER_WAY", "your appeal about this waits for an answer; add nothing, or answer"
        )
    new = token_hex(16)
    due = bench.now + timedelta(days=setting(tx, "appeal_days"))
    own = bench.vault.subject_key(resident, wrapped)
    sealed = case.sealed(own, new)
    made = Appeal(new, resident, about, thing, sealed, "open", bench.now, due)
    appeals.add(tx, made)
    return made


def _examined(
    tx: Connection, bench: Bench, resident: str, about: str, case: Case
) -> tuple[bytes, Case]:
    """What an appeal is about, as 16 bytes that are the same for the same thing; and the case with
    the points that it can claim."""
    if about == "entry":
        found = entries.find(tx, case.entry_id or "")
        if found is None or found[1].resident != resident:
            raise AppealError("ENTRY_UNKNOWN", "you have no entry of this id")
        rule = found[1].detail.get("rule")
        scenario = rule[0] if rule else None
        return bytes.fromhex(found[1].id), replace(case, scenario=scenario)
    if about == "missing":
        points = worth(tx, bench, resident, case, bench.now, locked=False)
        minute = int(read_time(case.occurred_at).timestamp()) // 60
        name = f"{case.scenario}\0{minute}"
        return _thing(bench, resident, about, name), replace(case, points=points)
    if about == "rejection":
        if not appeals.was_refused(tx, resident, case.provider or "", case.activity_id or ""):
            raise AppealError("REJECTION_UNKNOWN", "no activity of this id was refused to you")
        return _thing(bench, resident, about, f"{case.provider}\0{case.activity_id}"), case
    return _thing(bench, resident, about, ""), case


def _thing(bench: Bench, resident: str, about: str, name: str) -> bytes:
    return bench.vault.mark(f"appeal\0{resident}\0{about}\0{name}", 16)


def answer(tx: Connection, bench: Bench, resident: str, id: str, text: str) -> Appeal:
    """Answer a reviewer's question; the city's time goes on. Raises AppealError."""
    one, own = _own(tx, bench, resident, id, "asked")
    case = _add(opened(own, one), "resident", text, bench.now)
    stood = bench.now - (one.asked_at or bench.now)
    return save(
        tx,
        one._replace(
            state="open",
            asked_at=None,
            due_at=one.due_at + stood,
            sealed=case.sealed(own, id),
        ),
    )


def withdraw(tx: Connection, bench: Bench, resident: str, id: str) -> Appeal:
    """Take an appeal back. Raises AppealError."""
    one, _ = _own(tx, bench, resident, id, *UNDER_WAY)
    return save(tx, one._replace(state="withdrawn", decided_at=bench.now))


def ask(tx: Connection, bench: Bench, who: str, id: str, text: str) -> Appeal:
    """Ask the resident for more; a reviewer's act. Raises AppealError."""
    one, own = hold(tx, bench, id, "open")
    case = opened(own, one)
    asked = sum(said.by == "reviewer" for said in case.said)
    if asked >= MAX_QUESTIONS:
        raise AppealError(
            "APPEAL_STATE", f"{MAX_QUESTIONS} questions were asked about this appeal; decide it"
        )
    case = _add(case, "reviewer", text, bench.now)
    made = save(tx, one._replace(state="asked", asked_at=bench.now, sealed=case.sealed(own, id)))
    tell(tx, bench, one, f"asked:{asked}", "需要您补充说明", text)
    act(tx, who, "appeal.asked", id, {}, bench.now)
    return made


def grant(tx: Connection, bench: Bench, who: str, id: str, points: int, reason: str) -> Appeal:
    """Decide for the resident, with as many points as is right, perhaps none; a reviewer's act.

    Raises AppealError, also when the budget does not hold the points.
    """
    one, own = hold(tx, bench, id, *UNDER_WAY)
    case = replace(opened(own, one), reason=reason)
    pay(tx, bench, one, case, points, "granted")
    made = decide(tx, bench, one, own, case, "granted", who, points)
    result = f"已获支持，补发 {points} 积分" if points else "已获支持"
    tell(tx, bench, one, "granted", result, reason)
    act(tx, who, "appeal.granted", id, {"points": points}, bench.now)
    return made


def refuse(tx: Connection, bench: Bench, who: str, id: str, reason: str) -> Appeal:
    """Decide against the resident; a reviewer's act. Raises AppealError."""
    one, own = hold(tx, bench, id, *UNDER_WAY)
    case = replace(opened(own, one), reason=reason)
    made = decide(tx, bench, one, own, case, "refused", who, 0)
    tell(tx, bench, one, "refused", "未获支持", reason)
    act(tx, who, "appeal.refused", id, {}, bench.now)
    return made


def _own(
    tx: Connection, bench: Bench, resident: str, id: str, *states: str
) -> tuple[Appeal, bytes]:
    """`_hold` for the resident who asks; another's appeal is as good as none."""
    found = appeals.find(tx, id)
    if found is None or found.resident != resident:
        raise AppealError("NOT_FOUND", "you have no appeal of this id")
    return hold(tx, bench, id, *states)


def _add(case: Case, by: str, text: str, now: datetime) -> Case:
    return replace(case, said=(*case.said, Said(by, instant(now), text)))
