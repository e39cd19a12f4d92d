"""From plain tables (TOML or JSON) to frozen values and back to canonical bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar

from scenarios.errors import ScenarioError

T = TypeVar("T")

TAGS: Final = ("P", "S", "C", "D", "rec")
"""P primary text, S secondary report, C public code, D derived by arithmetic, rec our design."""

SAFE_INTEGER: Final = 2**53 - 1
"""RFC 8785 and RFC 7493: the largest integer every JSON reader keeps."""

_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?")
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


class Text(NamedTuple):
    """One phrase in Chinese and in English."""

    zh: str
    en: str


def fault(where: str, problem: str) -> ScenarioError:
    """A fault of the catalogue, naming the place that must be mended."""
    return ScenarioError("CATALOGUE_FAULT", f"{where}: {problem}.")


def number(text: str, where: str) -> Decimal:
    """A number as the catalogue writes it: at most 9 digits, at most 6 decimals, no sign."""
    if not _NUMBER.fullmatch(text):
        raise fault(where, f"{text!r} is not a plain decimal")
    return Decimal(text)


def text(table: object, where: str) -> Text:
    """A phrase from a table with exactly the keys zh and en."""
    if not isinstance(table, dict) or table.keys() != {"zh", "en"}:
        raise fault(where, "a phrase needs zh and en")
    if not all(isinstance(phrase, str) and phrase for phrase in table.values()):
        raise fault(where, "zh and en must be words")
    return Text(table["zh"], table["en"])


def day(value: object, where: str) -> date:
    """A date written YYYY-MM-DD and in no other way."""
    try:
        read = date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        read = None
    if read is None or read.isoformat() != value:
        raise fault(where, f"{value!r} is not a date YYYY-MM-DD")
    return read


def build(kind: type[T], table: object, where: str, **made: object) -> T:
    """`kind` from a table, with `made` in place of the values already converted.

    Refuses missing and unknown fields, and anything but text in a str or a whole number in an int
    field. The annotations are read as text, so `kind` lives in a module with postponed annotations.
    """
    if not isinstance(table, Mapping):
        raise fault(where, "a table is expected")
    given: dict[str, Any] = {**table, **made}
    scalars = {"str": str, "int": int}
    for field in fields(kind):  # type: ignore[arg-type]  # every kind here is a dataclass
        wanted = scalars.get(str(field.type))
        if wanted and field.name in given and type(given[field.name]) is not wanted:
            raise fault(where, f"{field.name} must be {field.type}")
    try:
        return kind(**given)
    except TypeError as error:
        raise fault(where, str(error)) from error


def plain(value: Any, where: str) -> Any:
    """The same tables with only text and safe whole numbers in them; dates become ISO text."""
    if isinstance(value, dict):
        return {key: plain(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where) for item in value]
    if type(value) is date:
        return value.isoformat()
    if type(value) is str or (type(value) is int and abs(value) <= SAFE_INTEGER):
        return value
    raise fault(where, f"{value!r} is neither text nor a whole number")


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of text, whole numbers, lists and tables with ASCII keys.

    Raises UnicodeEncodeError on a lone surrogate, which has no UTF-8.
    """
    return _encode(value).encode()
