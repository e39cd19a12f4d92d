"""The closed set of formula shapes. Shapes are code; coefficients are data.

All arithmetic is exact decimal: g per unit becomes mg per unit when a version is read, and the one
rounding (down to a whole mg) is made by `scenarios.reduction.quantify`, at the very end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from functools import partial
from typing import Any, Final, NamedTuple

from scenarios.coefficients import Coefficient
from scenarios.inputs import Input
from scenarios.schema import SAFE_INTEGER, Text, fault

_EXACT: Final = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
"""Our own context: the caller's thread may have set another precision, and digits must not go."""

_MG_PER_G: Final = 1000

Quantities = Mapping[str, Any]
"""Input name to Decimal, or to a class name; a version's inputs say which."""
Reckon = Callable[[Quantities], Decimal]
"""The milligrams of CO2e avoided, not yet rounded, never negative."""


class Shape(NamedTuple):
    """What a formula needs and how it reads."""

    roles: frozenset[str]
    coefficients: frozenset[str]
    words: Text
    arithmetic: str


SHAPES: Final = {
    "per_unit": Shape(
        frozenset({"quantity"}),
        frozenset({"factor"}),
        Text("数量 × 单位减排量", "quantity × reduction per unit"),
        "{quantity} × {factor}",
    ),
    "difference": Shape(
        frozenset({"quantity"}),
        frozenset({"baseline", "project"}),
        Text("数量 × (基准排放 − 项目排放)", "quantity × (baseline − project emission per unit)"),
        "{quantity} × ({baseline} − {project})",
    ),
    "saving": Shape(
        frozenset({"baseline", "actual"}),
        frozenset({"factor"}),
        Text("(基准用量 − 实际用量) × 排放因子", "(baseline use − actual use) × emission factor"),
        "({baseline} − {actual}) × {factor}",
    ),
    "by_class": Shape(
        frozenset({"class", "quantity"}),
        frozenset(),  # any: each coefficient is a class
        Text("数量 × 该类别单位减排量", "quantity × reduction per unit of its class"),
        "{quantity} × {factor}",
    ),
}


def _per_unit(name: str, mg_per_unit: Decimal, quantities: Quantities) -> Decimal:
    return _EXACT.multiply(quantities[name], mg_per_unit)


def _saving(baseline: str, actual: str, mg_per_unit: Decimal, quantities: Quantities) -> Decimal:
    saved = _EXACT.subtract(quantities[baseline], quantities[actual])
    return _EXACT.multiply(saved, mg_per_unit) if saved > 0 else Decimal(0)


def _by_class(
    kind: str, name: str, mg_per_unit: Mapping[str, Decimal], quantities: Quantities
) -> Decimal:
    return _EXACT.multiply(quantities[name], mg_per_unit[quantities[kind]])


def bind(
    formula: str, inputs: Sequence[Input], coefficients: Sequence[Coefficient], where: str
) -> Reckon:
    """The formula with its names and numbers put in, after checking that they fit together.

    Raises ScenarioError on an unknown shape, on roles, coefficients or units that do not fit it,
    and on numbers so large that a result could pass 2^53 - 1 mg.
    """
    shape = SHAPES.get(formula)
    if shape is None:
        raise fault(where, f"{formula!r} is not one of {', '.join(SHAPES)}")
    names = {item.role: item.name for item in inputs}
    mg = {item.name: _EXACT.multiply(item.grams, _MG_PER_G) for item in coefficients}
    if names.keys() != shape.roles or len(set(names.values())) != len(inputs):
        raise fault(where, f"{formula} needs one input for each of {sorted(shape.roles)}")
    if len(mg) != len(coefficients) or not mg or (shape.coefficients or mg.keys()) != mg.keys():
        raise fault(where, f"{formula} needs the coefficients {sorted(shape.coefficients)}")
    units = {f"g/{item.unit}" for item in inputs if item.role != "class"}
    if len(units) != 1 or {item.unit for item in coefficients} != units:
        raise fault(where, f"every coefficient must be in {' and '.join(sorted(units))}")
    if _EXACT.multiply(max(mg.values()), max(item.high for item in inputs)) > SAFE_INTEGER:
        raise fault(where, "the largest result does not fit 2^53 - 1 mg")
    if formula == "saving":
        return partial(_saving, names["baseline"], names["actual"], mg["factor"])
    if formula == "by_class":
        return partial(_by_class, names["class"], names["quantity"], mg)
    if formula == "per_unit":
        return partial(_per_unit, names["quantity"], mg["factor"])
    if mg["baseline"] < mg["project"]:
        raise fault(where, "the project may not emit more than its baseline")
    difference = _EXACT.subtract(mg["baseline"], mg["project"])
    return partial(_per_unit, names["quantity"], difference)
