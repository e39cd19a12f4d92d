"""The auditor's way through this package: from an opened commitment to the mg and points due."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from scenarios.activity import Activity, business_day, measure, read_time
from scenarios.catalogue import Catalogue
from scenarios.errors import ScenarioError
from scenarios.limits import Key, Usage, claim, needs, undo
from scenarios.reduction import quantify
from scenarios.schema import canonical
from scenarios.version import Version

_FIELDS: Final = ("activity", "occurred_at", "provider", "quantities", "scenario")

# What nearly all openings look like: ASCII with no escape, and the time at Shanghai's offset.
_TEXT: Final = r"[ !#-\[\]-~]*"
_PLAIN: Final = re.compile(
    rf'\{{"activity":"{_TEXT}","occurred_at":"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})'
    rf'T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\+08:00","provider":"{_TEXT}",'
    rf'"quantities":\{{([^{{}}\\\x00-\x1f\x7f-\xff]+)\}},"scenario":"({_TEXT})"\}}'.encode()
).fullmatch
_BETWEEN: Final = {4 * n + 1: ["", *(":," * n)[:-1], ""] for n in range(1, 9)}
"""What stands between the quotes of so many names and values, by the parts these cut them into."""
_KNOWN: Final = 256
"""Quantities remembered of an edition: many acts of a behaviour have the same."""

_tuple: Final = tuple.__new__  # the hot path: a named tuple is a tuple


class Claim(NamedTuple):
    """What one opened activity is worth: mg, points due after caps, points lost to a cap."""

    reduction_mg: int
    points: int
    withheld: int
    scenario: str


def opening(
    provider: str, activity: str, scenario: str, occurred_at: str, quantities: Mapping[str, str]
) -> bytes:
    """The bytes an entry commits to: RFC 8785 JSON of the activity as its provider reported it.

    Raises ScenarioError OPENING_MALFORMED for text that has no UTF-8 (a lone surrogate).
    """
    try:
        return canonical(
            {
                "activity": activity,
                "occurred_at": occurred_at,
                "provider": provider,
                "quantities": dict(quantities),
                "scenario": scenario,
            }
        )
    except UnicodeEncodeError as error:
        raise _malformed() from error


class _Day(NamedTuple):
    """The edition in force on a day, and what its quantities were found to be and to give in mg,
    by their bytes in an opening; all days of an edition share those."""

    edition: Version
    begins: datetime
    number: int
    known: dict[bytes, tuple[Mapping[str, Decimal | str], int]]


class Replay:
    """Recomputes claims in ledger order; it remembers each account's use of caps and groups, and
    what was claimed."""

    def __init__(
        self, versions: Iterable[bytes], withdrawn: Iterable[tuple[str, int]] = ()
    ) -> None:
        """`versions` are the exported canonical bytes, `withdrawn` the (scenario, number) of those
        that were taken back before they took effect. Raises Fault."""
        editions = [Version.from_canonical(data) for data in versions]
        self._catalogue = Catalogue(editions, withdrawn)
        self._known: dict[str, dict[bytes, tuple[Mapping[str, Decimal | str], int]]] = {
            edition.digest: {} for edition in editions
        }
        self._days: dict[tuple[bytes, bytes], _Day] = {}
        self._usage: dict[str, dict[Key, Usage]] = {}
        self._claimed: dict[str, dict[bytes, Claim]] = {}

    def claim(self, account: str, version: tuple[str, int], opening: bytes) -> Claim:
        """The worth of an opening under `version`, which must be the one in force on its day.

        Raises ScenarioError when the activity could not have been credited so.
        """
        edition, activity, mg = self._read(opening)
        if (edition.scenario, edition.number) != version:
            raise ScenarioError(
                "WRONG_VERSION",
                f"{edition.scenario} {edition.number} was in force on {activity.day}, not "
                f"{version[0]} {version[1]}.",
            )
        keys = needs(edition, activity)
        usage = self._usage.setdefault(account, {}) if keys else {}
        due = claim(edition, activity, mg, keys, usage)
        made = _tuple(Claim, (mg, due.points, due.withheld, edition.scenario))
        if keys:
            claimed = self._claimed.setdefault(account, {})
            if opening in claimed:
                raise ScenarioError(
                    "ALREADY_CLAIMED", "The same activity is claimed a second time."
                )
            usage.update(due.changed)
            claimed[opening] = made
        return made

    def undo(self, account: str, opening: bytes) -> None:
        """Takes a reversed claim off the account's caps and groups.

        Raises ScenarioError UNKNOWN_CLAIM when a limited claim was never made or already undone.
        """
        edition, activity, _ = self._read(opening)
        if not needs(edition, activity):
            return
        claim = self._claimed.get(account, {}).pop(opening, None)
        if claim is None:
            raise ScenarioError("UNKNOWN_CLAIM", "A claim is undone that was not made before.")
        usage = self._usage[account]
        usage.update(undo(edition, activity, claim.reduction_mg, claim.points, usage))

    def forget(self, account: str) -> None:
        """Lets go of an account of which no claim follows."""
        self._usage.pop(account, None)
        self._claimed.pop(account, None)

    def _read(self, data: bytes) -> tuple[Version, Activity, int]:
        """The edition in force, the activity, at some time of its day, and its milligrams."""
        plain = _PLAIN(data)
        if plain:
            date, some, scenario = plain.groups()
            day = self._days.get((scenario, date)) or self._begin(scenario, date)
            found = day.known.get(some) or _reckon(day, some)
            if found:
                values, mg = found
                edition = day.edition
                return (
                    edition,
                    _tuple(Activity, (edition.scenario, day.begins, values, day.number)),
                    mg,
                )
        name, occurred_at, quantities = _parse(data)
        moment = read_time(occurred_at)
        edition = self._catalogue.in_force(name, business_day(moment))
        activity = measure(edition, moment, quantities)
        return edition, activity, quantify(edition, activity).mg

    def _begin(self, scenario: bytes, date: bytes) -> _Day:
        begins = read_time(f"{date.decode()}T00:00:00+08:00")
        number = business_day(begins)
        edition = self._catalogue.in_force(scenario.decode(), number)
        day = _Day(edition, begins, number, self._known[edition.digest])
        self._days[scenario, date] = day
        return day


def _reckon(day: _Day, some: bytes) -> tuple[Mapping[str, Decimal | str], int] | None:
    """What quantities are and give; None if they are not in the one form most have."""
    parts = some.decode().split('"')
    if parts[::2] != _BETWEEN.get(len(parts)):
        return None
    names = parts[1::4]
    quantities = dict(zip(names, parts[3::4], strict=True))
    if len(names) > 1 and [*quantities] != sorted(names):  # a name twice, or before an earlier one
        return None
    activity = measure(day.edition, day.begins, quantities)
    found = activity.quantities, quantify(day.edition, activity).mg
    if len(day.known) < _KNOWN:
        day.known[some] = found
    return found


def _parse(data: bytes) -> tuple[Any, Any, Any]:
    """The scenario, time and quantities of an opening, if it is in its one form."""
    try:
        table = json.loads(data)
        if type(table) is dict and tuple(table) == _FIELDS and canonical(table) == data:
            return table["scenario"], table["occurred_at"], table["quantities"]
    except (ValueError, TypeError, RecursionError):
        pass  # not JSON, not UTF-8 or nested without end: refused below with one sentence
    raise _malformed()


def _malformed() -> ScenarioError:
    return ScenarioError(
        "OPENING_MALFORMED",
        f"An opening must be RFC 8785 JSON with exactly the fields {', '.join(_FIELDS)}.",
    )
