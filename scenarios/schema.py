"""From plain tables (TOML or JSON) to frozen values and back to canonical bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from datetime import date
from decimal import Decimal
from reprlib import repr as short
from typing import Any, Final, NamedTuple, TypeVar

from scenarios.errors import Fault

T = TypeVar("T")

TAGS: Final = ("P", "S", "C", "D", "rec")
"""P primary text, S secondary report, C public code, D derived by arithmetic, rec our design."""

PERIODS: Final = ("day", "month")
"""Business days and months in Asia/Shanghai."""

UNITS: Final[Mapping[str, str]] = {
    "km": "公里",
    "kg": "千克",
    "t": "吨",
    "m3": "立方米",
    "kWh": "千瓦时",
    "GJ": "吉焦",
    "s": "秒",
    "h": "小时",
    "day": "天",
    "night": "晚",
    "step": "步",
    "floor": "层",
    "ride": "次乘车",
    "trip": "次出行",
    "passage": "次通行",
    "swap": "次换电",
    "donation": "次捐赠",
    "drop": "次投放",
    "time": "次",
    "order": "单",
    "meal": "餐",
    "cup": "杯",
    "pair": "双",
    "garment": "件衣物",
    "unit": "台",
    "item": "件",
    "carton": "个纸箱",
    "parcel": "个包裹",
    "bag": "个袋子",
    "card": "张卡",
    "statement": "份账单",
    "invoice": "张发票",
    "receipt": "张小票",
    "ticket": "张票",
    "payment": "笔支付",
    "transfer": "笔转账",
    "transaction": "笔业务",
    "loan": "笔贷款",
    "visit": "次就诊",
}
"""The closed set of units a quantity may have, with the words a resident reads. A coefficient is in
g of CO2e per one of them, or a plain share ("1")."""

SAFE_INTEGER: Final = 2**53 - 1
"""RFC 8785 and RFC 7493: the largest integer every JSON reader keeps."""

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""Of an input, a coefficient, a class or a rule."""

_NUMBER: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,6})?")
_encode: Final = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


class Text(NamedTuple):
    """One phrase in Chinese and in English."""

    zh: str
    en: str


@contextmanager
def within(place: str) -> Iterator[None]:
    """Faults raised inside name their field below `place`."""
    try:
        yield
    except Fault as error:
        raise error.below(place) from error


def number(written: str, field: str) -> Decimal:
    """A number as the catalogue writes it: at most 9 digits, at most 6 decimals, no sign."""
    if not _NUMBER.fullmatch(written):
        raise Fault(
            "FIELD_MALFORMED",
            field,
            f"{short(written)} is not a plain decimal in text; write it as 12.5, without a sign, "
            "at most 9 digits before the point and 6 after it",
        )
    return Decimal(written)


def text(table: object, field: str) -> Text:
    """A phrase from a table with exactly the keys zh and en."""
    if table is None:
        raise Fault("FIELD_MISSING", field, "a phrase is missing; give zh and en")
    if not isinstance(table, dict) or table.keys() != {"zh", "en"}:
        raise Fault("FIELD_MALFORMED", field, "a phrase needs exactly zh and en")
    if not all(isinstance(phrase, str) and phrase.strip() for phrase in table.values()):
        raise Fault("FIELD_MALFORMED", field, "zh and en must be words")
    return Text(table["zh"], table["en"])


def day(value: object, field: str) -> date:
    """A date written YYYY-MM-DD and in no other way."""
    try:
        read = date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        read = None
    if read is None or read.isoformat() != value:
        raise Fault("FIELD_MALFORMED", field, f"{short(value)} is not a date YYYY-MM-DD")
    return read


def one_of(value: str, known: tuple[str, ...], field: str) -> None:
    """Refuses a word that is not in a closed list."""
    if value not in known:
        known_words = ", ".join(known)
        raise Fault("FIELD_MALFORMED", field, f"{short(value)} is not one of {known_words}")


def sourced(source: str, tag: str, field: str = "source") -> None:
    """Refuses a number without a source, or with an unknown provenance tag."""
    if not source.strip():
        raise Fault("SOURCE_MISSING", field, "name the document or report the number stands in")
    one_of(tag, TAGS, "tag")


def unit_known(unit: str) -> None:
    """Refuses a unit that is not in the closed set."""
    if unit not in UNITS:
        raise Fault("UNIT_UNKNOWN", "unit", f"{short(unit)} is not one of {', '.join(UNITS)}")


def words(value: object, field: str) -> tuple[str, ...]:
    """A list of text."""
    if value is None:
        raise Fault("FIELD_MISSING", field, "a list of text is missing")
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        raise Fault("FIELD_MALFORMED", field, "a list of text is expected")
    return tuple(value)


def tables(document: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    """The list of tables under `field`."""
    found = document.get(field)
    if found is None:
        raise Fault("FIELD_MISSING", field, "a list of tables is missing")
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Fault("FIELD_MALFORMED", field, "a list of tables is expected")
    return found


def build(kind: type[T], table: object, **made: object) -> T:
    """`kind`, a dataclass, from a table, with `made` in place of the values already converted.

    Refuses missing and unknown fields, and anything but text in a str or a whole number in an int
    field. The annotations are read as text, so `kind` lives in a module with postponed annotations.
    """
    if not isinstance(table, Mapping):
        raise Fault("FIELD_MALFORMED", "", "a table is expected")
    given: dict[str, Any] = {**table, **made}
    known: dict[str, Field[Any]] = {
        item.name: item
        for item in fields(kind)  # type: ignore[arg-type]  # every kind here is a dataclass
        if item.init
    }
    for name in given:
        if name not in known:
            raise Fault(
                "FIELD_UNKNOWN", name, f"there is no such field; there are {', '.join(known)}"
            )
    scalars = {"str": str, "int": int}
    for name, item in known.items():
        wanted = scalars.get(str(item.type))
        if name not in given and item.default is MISSING:
            code = "SOURCE_MISSING" if name in ("source", "basis") else "FIELD_MISSING"
            raise Fault(code, name, "it is missing; give it as scenarios/README.md describes")
        if wanted and name in given and type(given[name]) is not wanted:
            raise Fault("FIELD_MALFORMED", name, f"it must be {item.type}")
    return kind(**given)


def plain(value: Any, field: str = "") -> Any:
    """The same tables with only text and safe whole numbers in them; dates become ISO text."""
    if isinstance(value, dict):
        return {key: plain(item, f"{field}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{field}.{place}") for place, item in enumerate(value)]
    if type(value) is date:
        return value.isoformat()
    if type(value) is str or (type(value) is int and abs(value) <= SAFE_INTEGER):
        return value
    raise Fault(
        "FIELD_MALFORMED",
        field,
        f"{short(value)} is neither text nor a whole number; decimals are written as text",
    )


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of text, whole numbers, lists and tables with ASCII keys.

    Raises UnicodeEncodeError on a lone surrogate, which has no UTF-8.
    """
    return _encode(value).encode()
