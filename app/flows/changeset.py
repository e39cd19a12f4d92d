"""What a draft says: whole editions to come, read strictly and held against the registry.

Editors write neither numbers nor dates into an edition: which number is the next, and which rate
is in force on the first day, is settled by the registry as it stands, anew at every look.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, NamedTuple

import orjson

from app.flows.publish import NoticeError, check_notice
from scenarios import Catalogue, Version
from scenarios.difference import Change, differences
from scenarios.errors import Fault
from scenarios.version import FORMAT

_FILLED = ("format", "number", "effective_from", "rate")
"""The fields of an edition that are the registry's to fill in."""


MAX_TITLE: Final = 100


class TuneError(Exception):
    """A refusal to an administrator, with the fields it is about."""

    def __init__(self, code: str, detail: str, errors: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(detail)
        self.code = code
        self.errors = errors


class Finding(NamedTuple):
    """One thing that does not hold: a stable code, the field, and a sentence with the remedy."""

    code: str
    field: str
    message: str


class Wanted(NamedTuple):
    """Another value of a coefficient; `origin` is its source, url, tag, year and confidence, as far
    as they are given: a listed alternative brings its own."""

    value: str
    origin: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Editions that take effect together. `rate`, if any, has no number and no date of its own."""

    title: str
    reason: str
    effective_from: date
    editions: Sequence[Mapping[str, Any]]
    rate: Mapping[str, Any] | None = None

    def body(self) -> bytes:
        """What is stored of it beside title and reason."""
        return orjson.dumps(
            {
                "effective_from": self.effective_from,
                "editions": self.editions,
                "rate": self.rate,
            }
        )

    @classmethod
    def of(cls, title: str, reason: str, body: bytes) -> ChangeSet:
        """A change set as it was stored."""
        held = orjson.loads(body)
        first = date.fromisoformat(held["effective_from"])
        return cls(title, reason, first, held["editions"], held["rate"])


def standing(catalogue: Catalogue, scenario: str) -> list[Version]:
    """A behaviour's editions that are or will be in force or were, oldest first."""
    if scenario not in catalogue.scenarios:
        return []
    return [
        one for one in catalogue.versions(scenario) if not catalogue.withdrawn(scenario, one.number)
    ]


def before(catalogue: Catalogue, scenario: str, first_day: date) -> Version | None:
    """The edition that one beginning on `first_day` takes the place of; None if it is the first."""
    earlier = [one for one in standing(catalogue, scenario) if one.effective_from < first_day]
    return earlier[-1] if earlier else None


def content(version: Version) -> dict[str, Any]:
    """An edition as a draft holds it: its published tables without what the registry fills in."""
    table: dict[str, Any] = json.loads(version.canonical())
    return {name: value for name, value in table.items() if name not in _FILLED}


def examine(
    change: ChangeSet, catalogue: Catalogue, now: datetime, notice_days: int
) -> tuple[list[Version], list[Finding]]:
    """The editions as they would be published now, and everything that forbids it.

    An edition that cannot be read is left out of the first list and named in the second.
    """
    versions, findings = _read(change, catalogue)
    findings += too_early(change, now, notice_days)
    if len(versions) == len(change.editions):
        try:
            catalogue.amended(versions)
        except Fault as fault:
            named = [one.scenario for one in versions]
            place = named.index(fault.scenario) if fault.scenario in named else None
            where = "editions" if place is None else f"editions[{place}]"
            findings.append(_finding(fault, where))
    return versions, findings


def too_early(change: ChangeSet, now: datetime, notice_days: int) -> list[Finding]:
    """What the notice says against its first day."""
    try:
        check_notice(change.effective_from, now, notice_days)
    except NoticeError as error:
        return [Finding(error.code, "effective_from", str(error))]
    return []


def require(findings: Sequence[Finding]) -> None:
    """Raise TuneError if anything was found, by the code of the first, each with its field."""
    if findings:
        first = findings[0]
        detail = f"{first.field}: {first.message}" if first.field else first.message
        if len(findings) > 1:
            detail += f" (and {len(findings) - 1} more)"
        raise TuneError(
            first.code, detail, [{"field": one.field, "message": one.message} for one in findings]
        )


def without(catalogue: Catalogue, versions: Sequence[tuple[str, int]]) -> list[Finding]:
    """What would not hold in the registry if these versions were withdrawn."""
    every = [one for name in catalogue.scenarios for one in catalogue.versions(name)]
    gone = [key for one in every if catalogue.withdrawn(*(key := (one.scenario, one.number)))]
    try:
        Catalogue(every, [*gone, *versions])
    except Fault as fault:
        return [Finding(fault.code, fault.field, str(fault))]
    return []


def settled(change: ChangeSet, versions: Sequence[Version]) -> ChangeSet:
    """The same change set with its editions as they were read, nothing less and nothing more."""
    editions = [content(one) for one in versions]
    return ChangeSet(change.title, change.reason, change.effective_from, editions, change.rate)


def copies(catalogue: Catalogue, scenarios: Sequence[str], first_day: date) -> list[dict[str, Any]]:
    """The editions of these behaviours that will stand on the eve of `first_day`, to be changed.

    Raises TuneError for a behaviour that has none.
    """
    made = []
    for place, scenario in enumerate(scenarios):
        edition = before(catalogue, scenario, first_day)
        if edition is None:
            told = f"{scenario} has no edition to begin from; the registry lists those that have"
            require([Finding("UNKNOWN_SCENARIO", f"scenarios[{place}]", told)])
        else:
            made.append(content(edition))
    return made


def chosen(
    editions: Sequence[Mapping[str, Any]], place: tuple[str, str], wanted: Wanted
) -> list[Mapping[str, Any]]:
    """The editions with another value of one coefficient, its source with it. Raises TuneError."""
    scenario, name = place
    made: list[Mapping[str, Any]] = []
    found = False
    for edition in editions:
        numbers = list(edition["coefficients"])
        for n, one in enumerate(numbers):
            if (edition["scenario"], one["name"]) == place:
                numbers[n] = _choose(one, wanted)
                found = True
        made.append({**edition, "coefficients": numbers})
    if not found:
        raise TuneError("NOT_FOUND", f"this draft has no coefficient {name} of {scenario}")
    return made


def reverted(done: ChangeSet, catalogue: Catalogue, reason: str, first_day: date) -> ChangeSet:
    """A change set that brings back what was in force before `done`.

    What began with it is switched off; a new rate is followed by another like the one before.
    """
    editions: list[Mapping[str, Any]] = []
    rate = None
    for edition in done.editions:
        old = before(catalogue, edition["scenario"], done.effective_from)
        if old is None:
            editions.append({**edition, "disabled": {"zh": reason, "en": reason}})
            continue
        editions.append(content(old))
        if done.rate is not None:
            table = json.loads(old.canonical())["rate"]
            rate = {key: table[key] for key in ("points_per_kg", "validity_months", "sources")}
    return ChangeSet(f"撤销：{done.title}"[:MAX_TITLE], reason, first_day, editions, rate)


def compare(catalogue: Catalogue, version: Version) -> tuple[int | None, list[Change]]:
    """The number of the edition that `version` takes the place of, and what differs from it."""
    old = before(catalogue, version.scenario, version.effective_from)
    return (old.number, differences(old, version)) if old else (None, [])


def _choose(coefficient: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """A coefficient table with another value and that value's own source, never the old one's.

    The value that was in force stays beside it as an alternative. Raises TuneError.
    """
    unit, others = coefficient["unit"], coefficient.get("alternatives", [])
    origin = {name: given for name, given in wanted.origin.items() if given is not None}
    if wanted.value == coefficient["value"]:
        return {**coefficient, **origin}
    listed = [one for one in others if (one["value"], one["unit"]) == (wanted.value, unit)]
    if listed:
        origin = {name: listed[0][name] for name in ("source", "url", "tag")} | origin
    for name in ("source", "tag"):
        if not origin.get(name):
            known = ", ".join(one["value"] for one in others if one["unit"] == unit) or "none"
            told = f"{wanted.value} {unit} is no listed alternative ({known}); give source and tag"
            require([Finding("SOURCE_MISSING", name, told)])
    kept = [one for one in others if one not in listed]
    if coefficient["value"]:
        held = {name: coefficient[name] for name in ("value", "unit", "source", "url", "tag")}
        kept = [held, *kept]
    unsaid = {"url": "", "year": 0}  # an alternative has no year of its own
    return {**coefficient, **unsaid, **origin, "value": wanted.value, "alternatives": kept}


def _read(change: ChangeSet, catalogue: Catalogue) -> tuple[list[Version], list[Finding]]:
    versions: list[Version] = []
    findings: list[Finding] = []
    seen: set[str] = set()
    rate = _rate(change, catalogue)
    for place, edition in enumerate(change.editions):
        where = f"editions[{place}]"
        scenario = edition.get("scenario")
        if not isinstance(scenario, str):
            findings.append(Finding("FIELD_MISSING", f"{where}.scenario", "name the behaviour"))
            continue
        for name in _FILLED:
            if name in edition:
                told = "leave it out; it is filled in when the draft is approved"
                findings.append(Finding("FIELD_UNKNOWN", f"{where}.{name}", told))
        if scenario in seen:
            told = f"{scenario} stands in this draft twice; leave one of them out"
            findings.append(Finding("EFFECT_OVERLAPS", f"{where}.scenario", told))
        seen.add(scenario)
        known = catalogue.versions(scenario) if scenario in catalogue.scenarios else ()
        filled = {
            "format": FORMAT,
            "number": len(known) + 1,
            "effective_from": change.effective_from.isoformat(),
            "rate": rate,
        }
        try:
            versions.append(Version.parse({**edition, **filled}))
        except Fault as fault:
            findings.append(_finding(fault, where))
    return versions, findings


def _rate(change: ChangeSet, catalogue: Catalogue) -> dict[str, Any]:
    """The draft's own rate with number and day, or the one that is in force on its first day."""
    every = [one for name in catalogue.scenarios for one in catalogue.versions(name)]
    if change.rate is not None:
        number = 1 + max((one.rate.number for one in every), default=0)
        first = change.effective_from.isoformat()
        return {**change.rate, "number": number, "effective_from": first}
    held = [
        one
        for one in every
        if one.effective_from < change.effective_from
        and not catalogue.withdrawn(one.scenario, one.number)
    ]
    if not held:
        return {}
    newest = max(held, key=lambda one: one.rate.number)
    table: dict[str, Any] = json.loads(newest.canonical())["rate"]
    return table


def _finding(fault: Fault, where: str) -> Finding:
    """A fault of the rules, with its field's place in the draft."""
    if fault.field.split(".")[0] in ("rate", "effective_from"):
        return Finding(fault.code, fault.field, fault.detail)
    return Finding(fault.code, f"{where}.{fault.field}" if fault.field else where, fault.detail)
