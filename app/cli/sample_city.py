"""A made-up Changzhi: who lives there and what they do on a day. Seeded, so it is always the same.

A person depends on the seed and a number, a person's day on these and the date: more residents or
more days leave the others as they were. Weights, habits and frequencies are invented for
demonstrations; quantities come from the `typical` ranges of the catalogue. About one activity in
sixty is one that a real provider should not have sent, so that every outcome is seen.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from random import Random
from typing import Any, Final, NamedTuple

from app.config import CITY_ZONE
from scenarios import Catalogue, Version
from scenarios.inputs import Input

PROVIDERS: Final = {
    "bus": "长治公交",
    "bikes": "潞州单车",
    "bank": "上党银行",
    "grid": "长治供电供水",
    "recycler": "太行再生资源",
    "platform": "长治生活平台",
    "hotels": "太行文旅",
}

# Districts by GB/T 2260 code; how many people live where is made up.
_DISTRICTS: Final = {
    "140403": 30, "140404": 11, "140405": 8, "140406": 8, "140423": 9, "140425": 4, "140426": 5,
    "140427": 8, "140428": 9, "140429": 5, "140430": 5, "140431": 5, "140471": 6,
}  # fmt: skip

# Who reports a behaviour: the area's provider, except where another sees it. Times a month of a
# person who has the habit likewise.
_REPORTS: Final = {
    "clothing": ("recycler", 0.6), "food": ("platform", 3), "housing": ("grid", 1),
    "travel": ("platform", 3), "banking": ("bank", 2), "shopping": ("platform", 4),
    "tourism": ("hotels", 0.8),
    "travel.bike_shared": ("bikes", 8), "travel.ebike_shared": ("bikes", 4),
    "travel.bus_ride": ("bus", 12), "travel.bus_km": ("bus", 12),
    "travel.walk_steps": ("platform", 20), "travel.ev_charge": ("grid", 5),
    "travel.car_stop": ("platform", 1), "banking.mobile_pay": ("bank", 14),
    "banking.e_statement": ("bank", 1), "banking.e_card": ("bank", 0.05),
    "food.clean_plate": ("platform", 8), "food.box_recycle_kg": ("recycler", 1),
    "housing.elec_save": ("grid", 12), "housing.appliance_recycle": ("recycler", 0.05),
    "housing.recycle_paper": ("recycler", 1), "housing.recycle_pet": ("recycler", 2),
    "housing.recycle_alu": ("recycler", 1), "housing.book_recycle": ("recycler", 0.2),
    "shopping.carton_reuse": ("recycler", 3), "shopping.secondhand_phone": ("platform", 0.05),
    "shopping.device_recycle": ("recycler", 0.05),
}  # fmt: skip

_HABIT: Final = 0.4  # the chance of having any one habit
_SECOND_APP: Final = "platform"  # now and then it reports what another provider reports too
_FAULTS: Final = ("visitor", "too large", "in future", "sent twice")
_FAULTY: Final = 1 / 60
_MONTH: Final = 30


class Habit(NamedTuple):
    """Something a person does every so often: the provider that sees it, and times a day."""

    version: Version
    provider: str
    daily: float


@dataclass(frozen=True, slots=True)
class Person:
    """One of the city, and what that person is used to doing."""

    number: int
    district: str
    habits: tuple[Habit, ...]


@dataclass(frozen=True, slots=True)
class SampleCity:
    """The city of a seed; `size` people."""

    seed: int
    size: int
    catalogue: Catalogue

    def people(self) -> list[Person]:
        """Everybody, by number."""
        return [self._person(number) for number in range(self.size)]

    def subject(self, provider: str, number: int) -> str:
        """The provider's own identifier of a person."""
        return f"{provider}-customer-{self.seed}-{number:05d}"

    def day(self, people: list[Person], day: date) -> dict[str, list[dict[str, Any]]]:
        """What each provider reports of a day, in order of time."""
        reports: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for person in people:
            rng = Random(f"{self.seed}/{person.number}/{day}")  # noqa: S311 (a story, no secret)
            done = [
                habit for habit in person.habits for _ in range(int(habit.daily + rng.random()))
            ]
            for number, habit in enumerate(done):
                activity = self._activity(rng, person, habit, day, number)
                reports[habit.provider] += _with_faults(rng, activity, habit)
                if self._seen_twice(rng, person, habit):
                    subject = self.subject(_SECOND_APP, person.number)
                    reports[_SECOND_APP].append(activity | {"subject": subject})
        for activities in reports.values():
            activities.sort(key=lambda one: str(one["occurred_at"]))
        return reports

    def reported_by(self, provider: str) -> dict[str, Version]:
        """Every behaviour that a provider may report of its customers."""
        newest = {name: self.catalogue.versions(name)[-1] for name in self.catalogue.scenarios}
        return {
            name: version
            for name, version in newest.items()
            if version.enabled
            and (_habit(version)[0] == provider or (version.act and provider == _SECOND_APP))
        }

    def _person(self, number: int) -> Person:
        rng = Random(f"{self.seed}/{number}")  # noqa: S311
        district = rng.choices(list(_DISTRICTS), list(_DISTRICTS.values()))[0]
        zeal = min(rng.paretovariate(1.6) * 0.45, 5)  # most do little, a few do very much
        chosen: dict[str, str] = {}  # of behaviours that exclude each other a person has one
        habits = []
        for scenario in self.catalogue.scenarios:
            version = self.catalogue.versions(scenario)[-1]
            has_it = rng.random() < _HABIT
            if version.group:
                has_it = scenario == chosen.setdefault(
                    version.group.name, rng.choice(self._open(version.group.members))
                )
            if version.enabled and has_it:
                provider, monthly = _habit(version)
                habits.append(Habit(version, provider, zeal * monthly / _MONTH))
        return Person(number, district, tuple(habits))

    def _open(self, members: tuple[str, ...]) -> list[str]:
        """Those of a group that take activities; all of them if none does."""
        enabled = [name for name in members if self.catalogue.versions(name)[-1].enabled]
        return enabled or list(members)

    @staticmethod
    def _seen_twice(rng: Random, person: Person, habit: Habit) -> bool:
        """Whether the person's other app reports the same trip: only one of the two counts."""
        return (
            habit.version.act is not None
            and habit.provider != _SECOND_APP
            and rng.random() < _FAULTY
            and any(one.provider == _SECOND_APP for one in person.habits)
        )

    def _activity(
        self, rng: Random, person: Person, habit: Habit, day: date, number: int
    ) -> dict[str, Any]:
        second = int(rng.triangular(6 * 3600, 23 * 3600, 12 * 3600))
        moment = datetime.combine(day, time(), CITY_ZONE) + timedelta(seconds=second)
        return {
            "id": f"{self.seed}-{person.number:05d}-{day:%Y%m%d}-{number}",
            "subject": self.subject(habit.provider, person.number),
            "scenario": habit.version.scenario,
            "occurred_at": moment.isoformat(),
            "quantities": {one.name: _quantity(rng, one) for one in habit.version.inputs},
        }


def _habit(version: Version) -> tuple[str, float]:
    return _REPORTS.get(version.scenario) or _REPORTS[version.area]


def _quantity(rng: Random, one: Input) -> str:
    if one.role == "exclusion":  # a provider knows whom not to report, and slips now and then
        return "yes" if rng.random() < _FAULTY else "no"
    if one.classes:
        return rng.choice(one.classes)
    scale = 10**one.decimals
    low, high = (int(float(bound) * scale) for bound in one.typical or (one.minimum, one.minimum))
    return f"{rng.randint(low, high) / scale:.{one.decimals}f}"


def _with_faults(rng: Random, activity: dict[str, Any], habit: Habit) -> list[dict[str, Any]]:
    """The activity as it is reported: now and then wrongly, or twice."""
    if rng.random() > _FAULTY:
        return [activity]
    fault = rng.choice(_FAULTS)
    if fault == "visitor":  # nobody here: kept until somebody binds the identifier
        return [activity | {"subject": f"visitor-{activity['id']}"}]
    if fault == "in future":
        later = datetime.fromisoformat(activity["occurred_at"]) + timedelta(days=3650)
        return [activity | {"occurred_at": later.isoformat()}]
    if fault == "too large":
        last = habit.version.inputs[-1]
        beyond = "nothing" if last.classes else str(int(last.high) + 1)
        return [activity | {"quantities": activity["quantities"] | {last.name: beyond}}]
    return [activity, activity]
