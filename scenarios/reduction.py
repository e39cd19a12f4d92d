"""Milligrams of CO2e avoided, with workings a resident can follow."""

from __future__ import annotations

from typing import NamedTuple

from scenarios.activity import Activity
from scenarios.coefficients import SHARE, Coefficient
from scenarios.errors import Rejected
from scenarios.formulas import SHAPES, baseline_role
from scenarios.schema import Text
from scenarios.version import Version


class Quantity(NamedTuple):
    """One reported quantity as it entered the formula."""

    title: Text
    value: str
    unit: str


class Workings(NamedTuple):
    """How a result came about; every value is text, ready to be shown."""

    inputs: tuple[Quantity, ...]
    coefficients: tuple[Coefficient, ...]
    formula: Text
    arithmetic: str
    result_g: str


class Reduction(NamedTuple):
    """A result in whole mg; its workings are made only when somebody asks."""

    mg: int
    version: Version
    activity: Activity

    @property
    def workings(self) -> Workings:
        """Inputs, coefficients with their sources, the formula in words and in numbers."""
        version, quantities = self.version, self.activity.quantities
        shape = SHAPES[version.formula]
        used = {item.name: item for item in version.coefficients}
        shown: dict[str, str] = {}
        given = [item for item in version.inputs if item.name in quantities]
        for item in given:
            value = quantities[item.name]
            if item.role == "class":
                used = {"factor": used[str(value)]}
            shown[item.role] = f"{value} {item.unit}"
        if version.formula == "two_baselines":
            names = {item.role: item.name for item in given}
            shown["baseline"] = shown[baseline_role(names, quantities)]
        for name, coefficient in used.items():
            unit = "" if coefficient.unit == SHARE else f" {coefficient.unit}"
            shown[name] = f"{coefficient.value}{unit}"
        grams = f"{self.mg // 1000}.{self.mg % 1000:03d}"
        return Workings(
            tuple(Quantity(item.title, str(quantities[item.name]), item.unit) for item in given),
            tuple(used.values()),
            shape.words,
            f"{shape.arithmetic.format(**shown)} = {grams} g CO2e",
            grams,
        )


def quantify(version: Version, activity: Activity) -> Reduction:
    """The reduction of one activity, rounded once: down to a whole mg, so never too much.

    Raises Rejected NO_REDUCTION when nothing is left to credit.
    """
    mg = int(version.bound.reckon(activity.quantities))  # never negative, so int() rounds down
    if mg == 0:
        raise Rejected(
            "NO_REDUCTION",
            f"{version.scenario} gives less than 1 mg here; report only acts that avoid carbon.",
        )
    return tuple.__new__(Reduction, (mg, version, activity))  # a named tuple is a tuple
