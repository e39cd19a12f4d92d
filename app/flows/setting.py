"""Settings: what operators may set while the program runs, each with its default and its bounds.

The table is closed: a name that is not here does not exist, and a value out of bounds is never
kept. Whoever needs one asks `setting` at the moment it matters, so a change needs no restart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from string import Formatter
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import Connection

from app.flows.fraud.rules import RULES, name_of
from app.flows.notify import WORDINGS
from app.flows.once import must_match
from app.flows.trail import act
from app.store import settings

_TEMPLATE_ID = re.compile(r"[A-Za-z0-9_-]{10,64}").fullmatch
_PAGE = re.compile(r"[A-Za-z0-9_/.?=&-]{0,128}").fullmatch
# The kinds of WeChat's template fields that a message of ours can fill; they end in a number.
FIELD = re.compile(r"(thing|short_thing|phrase|character_string|number|date|time)[0-9]{1,2}")
_MAX_FIELDS = 5  # a template of WeChat's has no more


class SettingUnknownError(Exception):
    """There is no setting of this name."""

    code = "NOT_FOUND"


class SettingRefusedError(Exception):
    """The value is not one this setting can have; the sentence says what it must be."""

    code = "VALIDATION_FAILED"

    def __init__(self, message: str) -> None:
        super().__init__("1 field(s) are not as they must be")
        self.errors = ({"field": "value", "message": message},)


class Setting(NamedTuple):
    """A setting: its value until it is set, what it means, and the check: "" or what is wrong."""

    default: Any
    meaning: str
    fault: Callable[[Any], str]


def _whole(least: int, most: int) -> Callable[[Any], str]:
    def fault(value: Any) -> str:
        fits = type(value) is int and least <= value <= most
        return "" if fits else f"must be a whole number from {least} to {most}"

    return fault


def sources(kind: str) -> list[str]:
    """What may fill a template's field for a kind of message: parts of it, or its parameters."""
    named = [name for _, name, *_ in Formatter().parse(WORDINGS[kind].sentence) if name]
    return ["title", "text", "at", *named]


def _template(kind: str) -> Callable[[Any], str]:
    known = sources(kind)

    def fault(value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, dict) or value.keys() - {"page"} != {"id", "fields"}:
            return "must be null, or an object of id, fields and perhaps page"
        if not isinstance(value["id"], str) or not _TEMPLATE_ID(value["id"]):
            return "id must be the template's, 10 to 64 of A-Z a-z 0-9 _ -"
        page, fields = value.get("page", ""), value["fields"]
        if not isinstance(page, str) or not _PAGE(page):
            return "page must be a path of the mini-program, of at most 128 characters"
        if not isinstance(fields, dict) or not 1 <= len(fields) <= _MAX_FIELDS:
            return f"fields must be an object of 1 to {_MAX_FIELDS} of the template's fields"
        if not all(FIELD.fullmatch(name) and source in known for name, source in fields.items()):
            return f"fields must map names such as thing1 or time2 to one of {', '.join(known)}"
        return ""

    return fault


SETTINGS: Final[dict[str, Setting]] = {
    "appeal_days": Setting(
        15,
        "days in which an appeal is to be answered before it is granted by itself",
        _whole(1, 90),
    ),
    # A promise that held only once somebody had set a number would be none. One kilogram's points
    # are more than an ordinary act earns, and little enough to bear if a city sleeps.
    "appeal_limit_points": Setting(
        1000, "most points an appeal gives by itself; 0 switches that off", _whole(0, 1_000_000)
    ),
    "appeal_month_points": Setting(
        3000, "most points one resident's appeals give by themselves a month", _whole(0, 10_000_000)
    ),
    **{
        name_of(name): Setting(rule.default, rule.meaning, rule.fault)
        for name, rule in RULES.items()
    },
    "unsealed_entries": Setting(
        5_000_000,
        "batches are put off while more entries wait for their seal; 0: never",
        _whole(0, 1_000_000_000),
    ),
    "order_minutes": Setting(
        15, "minutes for which an order is held until it is confirmed", _whole(1, 1440)
    ),
    "confirm_points": Setting(
        500, "a charge above so many points waits for the resident to confirm", _whole(0, 1_000_000)
    ),
    "minor_day_points": Setting(
        200, "most points a day at tills for who is under fourteen", _whole(0, 1_000_000)
    ),
    "offline_minutes": Setting(
        10, "minutes for which a till without network may take a voucher; 0: never", _whole(0, 120)
    ),
    "offline_points": Setting(
        200, "most points a voucher is worth that is taken without network", _whole(0, 1_000_000)
    ),
    "offline_per_till_day": Setting(
        50, "vouchers that a till may take a day without network", _whole(1, 10_000)
    ),
    "offline_days": Setting(
        3, "days in which a till without network reports what it took", _whole(1, 30)
    ),
    **{
        f"template.{kind}": Setting(
            None, "WeChat's subscription template for messages of this kind", _template(kind)
        )
        for kind in WORDINGS
    },
}


class Stands(NamedTuple):
    """A setting as it stands; `changed_at` is None if nobody ever set it."""

    name: str
    value: Any
    revision: int
    changed_at: datetime | None


def setting(tx: Connection, name: str) -> Any:
    """The value of a setting now. Raises SettingUnknownError."""
    return stands(tx, name).value


def stands(tx: Connection, name: str) -> Stands:
    """A setting as it stands. Raises SettingUnknownError."""
    if name not in SETTINGS:
        raise SettingUnknownError("there is no setting of this name")
    found = settings.find(tx, [name]).get(name)
    if found is None:
        return Stands(name, SETTINGS[name].default, 0, None)
    return Stands(name, *found)


def everything(tx: Connection) -> list[Stands]:
    """All settings as they stand, in the table's order."""
    found = settings.find(tx, SETTINGS)
    return [
        Stands(name, *found[name]) if name in found else Stands(name, one.default, 0, None)
        for name, one in SETTINGS.items()
    ]


def templates(tx: Connection) -> dict[str, list[str]]:
    """The template ids that are set, each with the kinds of message that are sent by it."""
    used: dict[str, list[str]] = {}
    for one in everything(tx):
        if one.name.startswith("template.") and one.value is not None:
            used.setdefault(one.value["id"], []).append(one.name.removeprefix("template."))
    return used


def change(tx: Connection, who: str, name: str, value: Any, seen: str, now: datetime) -> Stands:
    """Set a value over the revision that was read, and leave it in the trail; how it then stands.

    Raises SettingUnknownError, SettingRefusedError, StaleError.
    """
    before = stands(tx, name)
    if fault := SETTINGS[name].fault(value):
        raise SettingRefusedError(fault)
    must_match(seen, str(before.revision))
    if not settings.put(tx, name, value, before.revision, now):
        must_match(seen, str(stands(tx, name).revision))
    detail = {"revision": before.revision + 1, "value": orjson.dumps(value).decode()}
    act(tx, who, "setting.changed", name, detail, now)
    return stands(tx, name)
