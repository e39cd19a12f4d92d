"""Report: an act that a resident states and shows, and a reviewer's decision on it.

Nothing is credited before a reviewer has accepted it. What was shown as evidence is shown once: the
same picture or code is refused, whoever sends it, also after its resident was erased.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from secrets import token_bytes
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection

from app.config import CITY_ZONE
from app.flows.document import Document
from app.flows.notify import notify
from app.flows.own import SELF, admit, bind, credit_own, takes
from app.flows.picture import Picture
from app.store import batches, people, reports
from app.store.reports import Evidence, Report
from app.vault import Vault, seal, unseal
from scenarios import Catalogue, Version, quantify, read
from scenarios.activity import business_day

MAX_WAITING: Final = 20
"""rec: more than a week's clean plates; a reviewer sees every one."""

OLDEST: Final = timedelta(days=31)
"""rec: as far back as WeChat's steps reach."""

PICTURES_KEPT: Final = timedelta(days=180)
"""rec: after the decision; who disagrees has appealed long before."""


class ReportError(Exception):
    """The report is not taken, or not to be decided on; the code says why. Nothing was written."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Claim(NamedTuple):
    """What a resident states: quantities as an activity has them, and a code where there is one."""

    scenario: str
    occurred_at: str
    quantities: Mapping[str, str]
    code: str = ""


def report(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    resident: str,
    claim: Claim,
    picture: Picture | None,
    now: datetime,
) -> Report:
    """Put a report before the reviewers.

    Raises Rejected for what the scenario would refuse, SourceError, and ReportError
    NOT_REPORTABLE, EVIDENCE_MISSING, TOO_LONG_AGO, TOO_MANY_WAITING, EVIDENCE_REUSED.
    """
    parts = (claim.scenario, claim.occurred_at, claim.quantities)
    version, activity = read(catalogue, *parts, now)
    quantify(version, activity)
    _check_evidence(version, claim, picture)
    who = admit(tx, vault, SELF, resident, claim.scenario, now)
    if activity.day < max(who.joined_on, business_day(now - OLDEST)):
        detail = f"report an act within {OLDEST.days} days, and none from before you joined"
        raise ReportError("TOO_LONG_AGO", detail)
    if reports.waiting(tx, resident) >= MAX_WAITING:
        detail = f"{MAX_WAITING} of your reports wait for a reviewer; send more when some are done"
        raise ReportError("TOO_MANY_WAITING", detail)
    made, key = token_bytes(16), vault.subject_key(resident, who.wrapped_key)
    shown = []
    if picture:
        sealed = seal(key, picture.jpeg, _context("picture", made))
        shown.append(Evidence(picture.digest, picture.pixels, sealed))
    if claim.code:
        shown.append(Evidence(vault.mark(f"code {claim.scenario}\0{claim.code}", 32)))
    if reports.was_shown(tx, shown):
        detail = "this picture or code was sent before; each counts once, for one person"
        raise ReportError("EVIDENCE_REUSED", detail)
    stated = seal(key, orjson.dumps(claim[1:]), _context("report", made))
    reports.put(tx, made, resident, claim.scenario, stated, now)
    reports.show(tx, made, resident, shown)
    state = ("waiting", now, None, None, picture is not None)
    return Report(made, resident, who.wrapped_key, claim.scenario, stated, *state)


def _check_evidence(version: Version, claim: Claim, picture: Picture | None) -> None:
    kind = version.evidence.kind
    if not takes(SELF, version):
        detail = f"{version.scenario} is reported by providers, who hold its records"
        raise ReportError("NOT_REPORTABLE", detail)
    if (kind == "photo" and picture is None) or (kind == "code" and not claim.code):
        raise ReportError("EVIDENCE_MISSING", f"{version.scenario} needs a {kind}")


def accept_report(
    tx: Connection, vault: Vault, catalogue: Catalogue, id: bytes, who: str, now: datetime
) -> dict[str, Any]:
    """A reviewer accepts: the act is credited as any provider's is; what became of it.

    If the rules, or a consent that was withdrawn, refuse it, then so is the report. Raises
    ReportError REPORT_UNKNOWN, REPORT_DECIDED.
    """
    found = _lock_waiting(tx, id)
    claim = read_claim(vault, found)
    subject = bind(tx, vault, SELF, found.resident, now)
    name = id.hex()
    document = Document(name, subject, claim.scenario, claim.occurred_at, claim.quantities, name)
    label = _label(found)
    (outcome,) = credit_own(tx, vault, catalogue, SELF, label, [document], now)
    if outcome["outcome"] == "rejected":
        reports.decide(tx, id, "refused", who, outcome["detail"], now)
        _tell(tx, vault, catalogue, found, "未通过", outcome["detail"], now)
    else:
        reports.decide(tx, id, "accepted", who, None, now)
        _tell(tx, vault, catalogue, found, "已通过", "", now)
    return outcome


def refuse_report(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    id: bytes,
    who: str,
    reason: str,
    now: datetime,
) -> None:
    """A reviewer refuses; the resident is told why. Raises ReportError REPORT_UNKNOWN,
    REPORT_DECIDED."""
    found = _lock_waiting(tx, id)
    reports.decide(tx, id, "refused", who, reason, now)
    act = id.hex(), found.scenario
    refusal = batches.Refused(bytes.fromhex(found.resident), 0, *act, "REPORT_REFUSED", reason)
    batches.put_rejections(tx, SELF, _label(found), [refusal], now)
    _tell(tx, vault, catalogue, found, "未通过", reason, now)


def read_claim(vault: Vault, found: Report) -> Claim:
    """What a report states. Raises VaultError."""
    key = vault.subject_key(found.resident, found.wrapped_key)
    return Claim(
        found.scenario, *orjson.loads(unseal(key, found.sealed, _context("report", found.id)))
    )


def read_photo(tx: Connection, vault: Vault, id: bytes) -> bytes:
    """The picture that was sent with a report: a JPEG. Raises ReportError REPORT_UNKNOWN, also for
    a report without a picture."""
    found, sealed = reports.find(tx, id), reports.picture(tx, id)
    if found is None or sealed is None:
        raise ReportError("REPORT_UNKNOWN", "there is no such report, or no picture with it")
    key = vault.subject_key(found.resident, found.wrapped_key)
    return unseal(key, sealed, _context("picture", id))


def credited_as(vault: Vault, id: bytes) -> str:
    """The id of the entry that an accepted report became."""
    return vault.entry_id(f"activity:{SELF}", id.hex())


def title_of(catalogue: Catalogue, found: Report) -> str:
    """The scenario's Chinese title, as it was when the report was made."""
    day = business_day(found.reported_at.astimezone(CITY_ZONE))
    return catalogue.in_force(found.scenario, day).title.zh


def _lock_waiting(tx: Connection, id: bytes) -> Report:
    """A report to decide on and its resident, locked. The resident goes first, as everywhere."""
    found = reports.find(tx, id)
    if found is None or people.lock(tx, found.resident) is None:
        raise ReportError("REPORT_UNKNOWN", "there is no report of this id")
    again = reports.find(tx, id, lock=True)
    if again is None or again.state != "waiting":
        raise ReportError("REPORT_DECIDED", "this report was decided on before")
    return again


def _label(found: Report) -> str:
    return f"report-{found.id[:8].hex()}"


def _tell(
    tx: Connection,
    vault: Vault,
    catalogue: Catalogue,
    found: Report,
    result: str,
    reason: str,
    now: datetime,
) -> None:
    params = {"title": title_of(catalogue, found), "result": result, "reason": reason}
    notify(tx, vault, found.resident, "report.decided", found.id.hex(), params, now)


def _context(what: str, id: bytes) -> bytes:
    return f"{what} {id.hex()}".encode()
