"""One frozen edition of a behaviour: everything needed to quantify it, and its canonical bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from math import ceil
from typing import Any, Final

from scenarios.caps import Cap, Group
from scenarios.coefficients import CONFIDENCES, Coefficient
from scenarios.errors import Fault
from scenarios.formulas import EXACT, Bound, bind
from scenarios.inputs import Input
from scenarios.points import Rate
from scenarios.rules import Act, Rule
from scenarios.schema import (
    TAGS,
    Text,
    build,
    canonical,
    day,
    one_of,
    plain,
    tables,
    text,
    within,
    words,
)

AREAS: Final = ("clothing", "food", "housing", "travel", "banking", "shopping", "tourism")
"""衣食住行银购游, in that order."""

FORMAT: Final = 2
"""Of the canonical form; a reader refuses another."""

EVIDENCE: Final = ("record", "meter", "scale", "device", "photo", "code", "declared")
"""What a provider can hold: its own order, ride or payment record; a meter; a scale; a phone's or
vehicle's sensor; a photo; a scanned code; the resident's word."""

SENSITIVE: Final = ("movement", "finance", "health")
"""Kinds of sensitive personal information (个人信息保护法 art. 28) that the inputs can show."""

MAX_CLAIM_DAYS: Final = 3650
"""As long as points may be valid at most."""

_MG_PER_G: Final = 1000

Check = tuple[str, int, int, Rule]
"""A rule's kind, the place of its period among an edition's, and its bound as it is counted there:
in acts ("count") or in mg, to which a total is proportional ("total"); and the rule itself."""

Cut = tuple[int, bool, int, str]
"""The place of a cap's period, whether it counts acts, its limit in acts or points, its name."""

_ID: Final = re.compile(rf"(?:{'|'.join(AREAS)})\.[a-z][a-z0-9_]{{1,40}}")
_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{2,40}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the provider must hold for each act, in words and as one of `EVIDENCE`."""

    kind: str
    zh: str
    en: str
    tag: str

    def __post_init__(self) -> None:
        one_of(self.kind, EVIDENCE, "kind")
        one_of(self.tag, TAGS, "tag")
        text({"zh": self.zh, "en": self.en}, "zh")


@dataclass(frozen=True, slots=True)
class Version:
    """A published edition; it is never edited and its number is never used again.

    `disabled` says why it takes no activities; `eligibility` who and what counts; `consent` what a
    resident agrees to; `digest` is SHA-256 of the canonical bytes, in hex. `confidence` is the
    methodology's: with D an edition is disabled. `claim_days` is how many business days after the
    act its claim may come at the latest, 0 where any day will do.
    """

    scenario: str
    code: str
    number: int
    effective_from: date
    confidence: str
    title: Text
    eligibility: Text
    evidence: Evidence
    consent: Text
    sensitive: tuple[str, ...]
    formula: str
    inputs: tuple[Input, ...]
    coefficients: tuple[Coefficient, ...]
    caps: tuple[Cap, ...]
    rate: Rate
    rules: tuple[Rule, ...] = ()
    act: Act | None = None
    group: Group | None = None
    disabled: Text | None = None
    claim_days: int = 0
    effective_day: int = field(init=False)
    bound: Bound = field(init=False, repr=False, compare=False)
    periods: tuple[str, ...] = field(init=False)
    checks: tuple[Check, ...] = field(init=False, repr=False, compare=False)
    cuts: tuple[Cut, ...] = field(init=False, repr=False, compare=False)
    digest: str = field(init=False, repr=False)
    _canonical: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.scenario):
            raise Fault("FIELD_MALFORMED", "scenario", "an id is an area, a dot and a name")
        if not _CODE.fullmatch(self.code) or self.number < 1:
            raise Fault("FIELD_MALFORMED", "code", "a code is upper case, and numbers start at 1")
        for kind in self.sensitive:
            one_of(kind, SENSITIVE, "sensitive")
        first = self.effective_from
        derived = {
            "effective_day": first.year * 10_000 + first.month * 100 + first.day,
            "bound": bind(self.formula, self.inputs, self.coefficients),
            "periods": tuple(sorted(self._periods())),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        self._check_limits()
        made = [self._check(rule) for rule in self.rules]
        object.__setattr__(self, "checks", tuple([check for check in made if check]))
        object.__setattr__(self, "cuts", tuple([self._cut(cap) for cap in self.caps]))
        self._check_state()

    @property
    def area(self) -> str:
        """One of `AREAS`."""
        return self.scenario.partition(".")[0]

    @property
    def enabled(self) -> bool:
        """Whether it takes activities."""
        return self.disabled is None

    def canonical(self) -> bytes:
        """The edition as RFC 8785 JSON: text and whole numbers only."""
        return self._canonical

    def _check(self, rule: Rule) -> Check | None:
        """The check a rule makes; None of a total while no rate is known, which nothing breaks."""
        if rule.kind == "count":
            return rule.kind, self.periods.index(rule.per), ceil(rule.most), rule
        if rule.kind == "total":
            place, rate = self.periods.index(rule.per), self.bound.rate
            most_mg = int(EXACT.multiply(rule.most, rate)) if rate is not None else None
            return None if most_mg is None else (rule.kind, place, most_mg, rule)
        return rule.kind, 0, 0, rule

    def _cut(self, cap: Cap) -> Cut:
        """A cap in grams is one in the points those grams give: each act has the same rate."""
        limit = self.rate.points(cap.limit * _MG_PER_G) if cap.of == "grams" else cap.limit
        return self.periods.index(cap.per), cap.of == "count", limit, cap.name

    def _periods(self) -> set[str]:
        """The periods over which it is counted what a resident does."""
        group = {self.group.per} if self.group else set()
        return (
            group | {cap.per for cap in self.caps} | {rule.per for rule in self.rules if rule.per}
        )

    def _check_limits(self) -> None:
        if self.group and self.scenario not in self.group.members:
            detail = "a behaviour must be a member of its own group"
            raise Fault("GROUP_INCONSISTENT", "group.members", detail)
        for name, kinds in (
            ("caps", [cap.name for cap in self.caps]),
            ("rules", [rule.name for rule in self.rules]),
            ("sensitive", list(self.sensitive)),
        ):
            if len(set(kinds)) != len(kinds):
                raise Fault("FIELD_MALFORMED", name, "one of them is given twice")
        for rule in self.rules:
            with within(f"rules.{rule.name}"):
                rule.check(self.inputs, self.bound.quantity)

    def _check_state(self) -> None:
        """An enabled edition has every number, and none that nothing supports."""
        one_of(self.confidence, CONFIDENCES, "confidence")
        if self.disabled is not None:
            return
        if self.confidence == "D":
            raise Fault(
                "FIELD_MALFORMED", "confidence", "with D it must be disabled, with a reason"
            )
        if not self.coefficients:
            raise Fault("VALUE_MISSING", "coefficients", "give them, or say why it is disabled")
        for item in self.coefficients:
            if not item.value:
                raise Fault(
                    "VALUE_MISSING",
                    f"coefficients.{item.name}.value",
                    "give the published value and its bounds, or say why the edition is disabled",
                )
            if item.confidence == "D":
                raise Fault(
                    "FIELD_MALFORMED",
                    f"coefficients.{item.name}.confidence",
                    "a number of confidence D may stand only in a disabled edition",
                )

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Version:
        """An edition from its tables, as in the canonical form (and `typical`, which stays out).

        Raises Fault for anything missing, unknown or inconsistent, whatever `document` is.
        """
        if not isinstance(document, Mapping):
            raise Fault("FIELD_MALFORMED", "", "an edition is a table")
        scenario = document.get("scenario")
        try:
            return cls._parse(document)
        except Fault as error:
            raise error.of(scenario if isinstance(scenario, str) else "") from error
        except (UnicodeEncodeError, RecursionError) as error:
            raise Fault(
                "FIELD_MALFORMED", "", "it holds text or depth no JSON can carry"
            ) from error

    @classmethod
    def _parse(cls, document: Mapping[str, Any]) -> Version:
        table = dict(document)
        if table.pop("format", None) != FORMAT:
            raise Fault("FIELD_MALFORMED", "format", f"{FORMAT} is expected")
        coefficients = _each(table, "coefficients", Coefficient.parse)
        classes = tuple(item.name for item in coefficients)
        made: dict[str, object] = {
            "effective_from": day(table.get("effective_from"), "effective_from"),
            **{name: text(table.get(name), name) for name in ("title", "eligibility", "consent")},
            "sensitive": words(table.get("sensitive"), "sensitive"),
            "coefficients": coefficients,
            "inputs": _each(table, "inputs", lambda item: Input.parse(item, classes)),
            "caps": _each(table, "caps", lambda item: build(Cap, item)),
        }
        for name, parse in (
            ("rate", Rate.parse),
            ("evidence", lambda item: build(Evidence, item)),
            ("act", lambda item: build(Act, item)),
            ("group", Group.parse),
        ):
            if name in table:
                with within(name):
                    made[name] = parse(table[name])
        if "claim_days" in table:
            made["claim_days"] = _claim_days(table["claim_days"])
        if "rules" in table:
            made["rules"] = _each(table, "rules", lambda item: build(Rule, item))
        if "disabled" in table:
            made["disabled"] = text(table["disabled"], "disabled")
        version = build(cls, table, **made)
        data = canonical(plain({**document, "inputs": _published(document["inputs"])}))
        object.__setattr__(version, "_canonical", data)
        object.__setattr__(version, "digest", hashlib.sha256(data).hexdigest())
        return version

    @classmethod
    def from_canonical(cls, data: bytes) -> Version:
        """An edition from its exported bytes; refuses bytes that are not its canonical form."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Fault("CATALOGUE_FAULT", "", "an edition's bytes are not JSON") from error
        version = cls.parse(document)
        if version.canonical() != data:
            raise Fault("CATALOGUE_FAULT", "", "its bytes are not in canonical form").of(
                version.scenario
            )
        return version


def _claim_days(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_CLAIM_DAYS:
        detail = f"it must be 1 to {MAX_CLAIM_DAYS} whole days; left out, any day will do"
        raise Fault("FIELD_MALFORMED", "claim_days", detail)
    return value


def _each(table: Mapping[str, Any], field: str, parse: Any) -> tuple[Any, ...]:
    """Every table of a list read, faults named by the item's own name or its position."""
    made = []
    for position, item in enumerate(tables(table, field)):
        name = item.get("name")
        with within(f"{field}.{name if isinstance(name, str) and name else position}"):
            made.append(parse(item))
    return tuple(made)


def _published(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name != "typical"} for item in inputs]
