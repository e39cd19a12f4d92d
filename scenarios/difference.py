"""What changed between two editions of a behaviour, field by field, for people to read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from scenarios.version import Version

_NOT_TOLD: Final = ("format", "scenario", "code", "number", "effective_from")
"""Fields that always differ, or never."""

_KINDS: Final[Mapping[str, str]] = {
    "disabled": "state",
    "rate": "rate",
    "group": "group",
    "caps": "cap",
    "rules": "rule",
    "act": "rule",
    "claim_days": "rule",
    "inputs": "input",
    "formula": "coefficient",
    "coefficients": "coefficient",
    "confidence": "source",
    "eligibility": "eligibility",
    "evidence": "eligibility",
    "title": "text",
    "consent": "text",
    "sensitive": "text",
}

_SOURCES: Final = frozenset(
    {"source", "sources", "url", "tag", "year", "confidence", "alternatives", "basis"}
)


class Change(NamedTuple):
    """One field that differs, such as "coefficients.factor.value": `old` is "" where the field is
    new, `new` is "" where it is gone."""

    field: str
    old: str
    new: str


def differences(old: Version, new: Version) -> list[Change]:
    """Every field that differs, by field; the items of lists are matched by their names."""
    before, after = _fields(old), _fields(new)
    return [
        Change(field, before.get(field, ""), after.get(field, ""))
        for field in sorted(before.keys() | after.keys())
        if before.get(field) != after.get(field)
    ]


def kind(change: Change) -> str:
    """What a change is about: "coefficient", "cap", "rule", "input", "text", "eligibility",
    "rate", "group", "state" (enabled or disabled) or "source"."""
    head, *rest = change.field.split(".")
    if head != "evidence" and not _SOURCES.isdisjoint(rest):
        return "source"
    if "title" in rest or (head == "disabled" and change.old and change.new):
        return "text"
    return _KINDS[head]


def _fields(version: Version) -> dict[str, str]:
    document = json.loads(version.canonical())
    shown = {name: value for name, value in document.items() if name not in _NOT_TOLD}
    return dict(_walk("", shown))


def _walk(field: str, value: Any) -> Iterator[tuple[str, str]]:
    """Each leaf with its path. A list of named tables is a table; other lists are one text."""
    if isinstance(value, list) and field in ("coefficients", "inputs", "rules"):
        value = {item["name"]: item for item in value}
    elif field == "caps":
        value = {f"{cap['per']}.{cap['of']}": cap for cap in value}
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(f"{field}.{name}".lstrip("."), item)
    elif isinstance(value, list):
        yield field, "; ".join(_words(item) for item in value)
    else:
        yield field, str(value)


def _words(item: Any) -> str:
    """An alternative, a source or a plain word on one line."""
    if not isinstance(item, dict):
        return str(item)
    number = f"{item['value']} {item['unit']}: " if "value" in item else ""
    return f"{number}{item['source']} {item['url']} [{item['tag']}]".replace("  ", " ")
