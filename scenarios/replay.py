"""The auditor's way through this package: from an opened commitment to the mg and points due."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from scenarios.activity import Activity, business_day, measure, read_time
from scenarios.catalogue import Catalogue
from scenarios.errors import ScenarioError
from scenarios.limits import Key, Usage, claim, needs, undo
from scenarios.reduction import quantify
from scenarios.schema import canonical
from scenarios.version import Version

_FIELDS: Final = ("activity", "occurred_at", "provider", "quantities", "scenario")

# What nearly all openings look like: no escape, and quantities in text.
_TEXT: Final = r'[^"\\\x00-\x1f]*'
_QUANTITY: Final = rf'"([a-z0-9_]+)":"({_TEXT})"'
_SOME: Final = _QUANTITY.replace("(", "(?:")
_PLAIN: Final = re.compile(
    rf'\{{"activity":"{_TEXT}","occurred_at":"({_TEXT})","provider":"{_TEXT}",'
    rf'"quantities":\{{({_SOME}(?:,{_SOME})*)\}},"scenario":"({_TEXT})"\}}'
).fullmatch
_quantities: Final = re.compile(_QUANTITY).findall


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
        self._usage: dict[str, dict[Key, Usage]] = {}
        self._claimed: dict[tuple[str, bytes], Claim] = {}

    def claim(self, account: str, version: tuple[str, int], opening: bytes) -> Claim:
        """The worth of an opening under `version`, which must be the one in force on its day.

        Raises ScenarioError when the activity could not have been credited so.
        """
        edition, activity = self._read(opening)
        if (edition.scenario, edition.number) != version:
            raise ScenarioError(
                "WRONG_VERSION",
                f"{edition.scenario} {edition.number} was in force on {activity.day}, not "
                f"{version[0]} {version[1]}.",
            )
        reduction = quantify(edition, activity)
        keys = needs(edition, activity)
        usage = self._usage.setdefault(account, {}) if keys else {}
        due = claim(edition, activity, reduction.mg, keys, usage)
        made = Claim(reduction.mg, due.points, due.withheld, edition.scenario)
        if keys:
            name = account, opening
            if name in self._claimed:
                raise ScenarioError(
                    "ALREADY_CLAIMED", "The same activity is claimed a second time."
                )
            usage.update(due.changed)
            self._claimed[name] = made
        return made

    def undo(self, account: str, opening: bytes) -> None:
        """Takes a reversed claim off the account's caps and groups.

        Raises ScenarioError UNKNOWN_CLAIM when a limited claim was never made or already undone.
        """
        edition, activity = self._read(opening)
        if not needs(edition, activity):
            return
        claim = self._claimed.pop((account, opening), None)
        if claim is None:
            raise ScenarioError("UNKNOWN_CLAIM", "A claim is undone that was not made before.")
        usage = self._usage[account]
        usage.update(undo(edition, activity, claim.reduction_mg, claim.points, usage))

    def _read(self, data: bytes) -> tuple[Version, Activity]:
        scenario, occurred_at, quantities = _parse(data)
        moment = read_time(occurred_at)
        edition = self._catalogue.in_force(scenario, business_day(moment))
        return edition, measure(edition, moment, quantities)


def _parse(data: bytes) -> tuple[Any, Any, Any]:
    """The scenario, time and quantities of an opening, if it is in its one form."""
    try:
        plain = _PLAIN(data.decode())
        if plain:
            occurred_at, some, scenario = plain.groups()
            pairs = _quantities(some)
            quantities = dict(pairs)
            if len(pairs) == 1 or pairs == sorted(quantities.items()):
                return scenario, occurred_at, quantities
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
