"""One frozen edition of a behaviour: everything needed to quantify it, and its canonical bytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from scenarios.coefficients import Coefficient
from scenarios.formulas import Reckon, bind
from scenarios.inputs import Input
from scenarios.points import Rate
from scenarios.schema import TAGS, Text, build, canonical, day, fault, plain, text

AREAS: Final = ("clothing", "food", "housing", "travel", "banking", "shopping", "tourism")
"""衣食住行银购游, in that order."""

_FORMAT: Final = 1
"""Of the canonical form; a reader refuses another."""

_ID: Final = re.compile(rf"(?:{'|'.join(AREAS)})\.[a-z][a-z0-9_]{{1,40}}")


@dataclass(frozen=True, slots=True)
class Cap:
    """What a resident earns points for at most, in one period: carbon itself is never capped.

    `per` is "day" or "month" (Asia/Shanghai); `of` is "count" (activities that earn points),
    "grams" (reduction that earns points) or "points".
    """

    per: str
    of: str
    limit: int
    source: str
    url: str
    tag: str

    def __post_init__(self) -> None:
        if self.per not in ("day", "month") or self.of not in ("count", "grams", "points"):
            raise fault(self.source, "a cap is per day or month, of count, grams or points")
        if self.limit < 1 or not self.source or self.tag not in TAGS:
            raise fault(self.source, "a cap needs a limit above zero, a source and a known tag")

    @property
    def name(self) -> str:
        """Stable words for a grant that was cut: "day.count"."""
        return f"{self.per}.{self.of}"


@dataclass(frozen=True, slots=True)
class Group:
    """Behaviours that describe the same act: a resident claims only one of them in a period."""

    name: str
    per: str
    members: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.per not in ("day", "month") or len(set(self.members)) < 2:
            raise fault(self.name, "a group is per day or month and has at least two members")


@dataclass(frozen=True, slots=True)
class Version:
    """A published edition; it is never edited and its number is never used again.

    `disabled` says why it takes no activities; `conditions` what the provider must make sure of;
    `digest` is SHA-256 of the canonical bytes, in hex.
    """

    scenario: str
    code: str
    number: int
    effective_from: date
    title: Text
    conditions: Text
    formula: str
    inputs: tuple[Input, ...]
    coefficients: tuple[Coefficient, ...]
    caps: tuple[Cap, ...]
    rate: Rate
    group: Group | None = None
    disabled: Text | None = None
    effective_day: int = field(init=False)
    reckon: Reckon = field(init=False, repr=False, compare=False)
    periods: tuple[str, ...] = field(init=False)
    digest: str = field(init=False, repr=False)
    _canonical: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        where = f"{self.scenario} {self.number}"
        if not _ID.fullmatch(self.scenario) or self.number < 1:
            raise fault(where, "the id is area.name and numbers start at 1")
        if self.group and self.scenario not in self.group.members:
            raise fault(where, "a behaviour must be a member of its own group")
        first = self.effective_from
        used = {cap.per for cap in self.caps} | ({self.group.per} if self.group else set())
        derived = {
            "effective_day": first.year * 10_000 + first.month * 100 + first.day,
            "reckon": bind(self.formula, self.inputs, self.coefficients, where),
            "periods": tuple(sorted(used)),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

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

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Version:
        """An edition from its tables, as in the canonical form (and `typical`, which stays out).

        Raises ScenarioError CATALOGUE_FAULT for anything missing, unknown or inconsistent.
        """
        try:
            return cls._parse(document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise fault("a version", f"its tables do not have the right shape ({error})") from error

    @classmethod
    def _parse(cls, document: Mapping[str, Any]) -> Version:
        table = dict(document)
        where = f"{table.get('scenario')} {table.get('number')}"
        if table.pop("format", None) != _FORMAT:
            raise fault(where, f"format {_FORMAT} is expected")
        coefficients = [Coefficient.parse(item, where) for item in _tables(table, "coefficients")]
        classes = tuple(item.name for item in coefficients)
        made: dict[str, object] = {
            "effective_from": day(table.get("effective_from"), where),
            "title": text(table.get("title"), where),
            "conditions": text(table.get("conditions"), where),
            "inputs": tuple(Input.parse(item, classes, where) for item in _tables(table, "inputs")),
            "coefficients": tuple(coefficients),
            "caps": tuple(build(Cap, item, where) for item in _tables(table, "caps")),
            "rate": Rate.parse(table.get("rate", {}), where),
        }
        if "group" in table:
            members = tuple(table["group"].get("members", ()))
            made["group"] = build(Group, table["group"], where, members=members)
        if "disabled" in table:
            made["disabled"] = text(table["disabled"], where)
        version = build(cls, table, where, **made)
        published = {
            **document,
            "inputs": [
                {name: value for name, value in item.items() if name != "typical"}
                for item in document["inputs"]
            ],
        }
        data = canonical(plain(published, where))
        object.__setattr__(version, "_canonical", data)
        object.__setattr__(version, "digest", hashlib.sha256(data).hexdigest())
        return version

    @classmethod
    def from_canonical(cls, data: bytes) -> Version:
        """An edition from its exported bytes; refuses bytes that are not its canonical form."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise fault("a published version", "its bytes are not JSON") from error
        version = cls.parse(document)
        if version.canonical() != data:
            raise fault(version.scenario, "its bytes are not in canonical form")
        return version


def _tables(document: Mapping[str, Any], name: str) -> list[Any]:
    tables = document.get(name)
    if not isinstance(tables, list):
        raise fault(str(document.get("scenario")), f"{name} must be a list of tables")
    return tables
