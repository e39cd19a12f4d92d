"""The closed set of formula shapes. Shapes are code; coefficients are data.

All arithmetic is exact decimal: g per unit becomes mg per unit when a version is read, and the one
rounding (down to a whole mg) is made by `scenarios.reduction.quantify`, at the very end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from scenarios.coefficients import SHARE, Coefficient
from scenarios.errors import Fault, Rejected
from scenarios.inputs import Input
from scenarios.schema import SAFE_INTEGER, Text

EXACT: Final = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
"""Our own context: the caller's thread may have set another precision, and digits must not go."""

_MG_PER_G: Final = 1000
_NOTHING: Final = Decimal(0)

Quantities = Mapping[str, Any]
"""Input name to Decimal, or to a class name; a version's inputs say which."""
Reckon = Callable[[Quantities], Decimal]
"""The milligrams of CO2e avoided, not yet rounded, never negative."""


class Shape(NamedTuple):
    """What a formula needs and how it reads; `shares` are its coefficients in unit "1"."""

    roles: frozenset[str]
    coefficients: frozenset[str]
    shares: frozenset[str]
    words: Text
    arithmetic: str


class Bound(NamedTuple):
    """A formula with its numbers in. `quantity` is the input its result is proportional to, if
    there is one, and `rate` the mg per unit of it."""

    reckon: Reckon
    quantity: str | None = None
    rate: Decimal | None = None


def _shape(
    roles: str, coefficients: str, zh: str, en: str, arithmetic: str, shares: str = ""
) -> Shape:
    return Shape(
        frozenset(roles.split()),
        frozenset(coefficients.split()),
        frozenset(shares.split()),
        Text(zh, en),
        arithmetic,
    )


SHAPES: Final = {
    "per_unit": _shape(
        "quantity",
        "factor",
        "数量 × 单位减排量",
        "quantity × reduction per unit",
        "{quantity} × {factor}",
    ),
    "difference": _shape(
        "quantity",
        "baseline project",
        "数量 × (基准排放 − 项目排放)",
        "quantity × (baseline − project emission per unit)",
        "{quantity} × ({baseline} − {project})",
    ),
    "detour": _shape(
        "quantity",
        "baseline project detour",
        "数量 × (基准排放 − 项目排放 × 绕行系数)",
        "quantity × (baseline − project emission per unit × detour)",
        "{quantity} × ({baseline} − {project} × {detour})",
        shares="detour",
    ),
    "substitution": _shape(
        "quantity",
        "production rate",
        "数量 × 新品生产排放 × 替代率",
        "quantity × emission of producing a new one × substitution rate",
        "{quantity} × {production} × {rate}",
        shares="rate",
    ),
    "saving": _shape(
        "baseline actual",
        "factor",
        "(基准用量 − 实际用量) × 排放因子",
        "(baseline use − actual use) × emission factor",
        "({baseline} − {actual}) × {factor}",
    ),
    "two_baselines": _shape(
        "reference own_average actual",
        "factor",
        "(基准用量 − 实际用量) × 排放因子；基准取参考均值，实际用量高于它时取自身均值",
        "(baseline use − actual use) × emission factor; the baseline is the reference average, or "
        "one's own average when actual use is above the reference",
        "({baseline} − {actual}) × {factor}",
    ),
    "by_class": _shape(
        "class quantity",
        "",  # any: each coefficient is a class
        "数量 × 该类别单位减排量",
        "quantity × reduction per unit of its class",
        "{quantity} × {factor}",
    ),
}


def _per_unit(name: str, mg_per_unit: Decimal, quantities: Quantities) -> Decimal:
    return EXACT.multiply(quantities[name], mg_per_unit)


def _saving(baseline: str, actual: str, mg_per_unit: Decimal, quantities: Quantities) -> Decimal:
    saved = EXACT.subtract(quantities[baseline], quantities[actual])
    return EXACT.multiply(saved, mg_per_unit) if saved > 0 else _NOTHING


def baseline_role(names: Mapping[str, str], quantities: Quantities) -> str:
    """Which of the two baselines counts (深圳市居民低碳用电); `names` are the inputs by role."""
    within = quantities[names["actual"]] <= quantities[names["reference"]]
    return "reference" if within else "own_average"


def _two_baselines(
    names: Mapping[str, str], mg_per_unit: Decimal, quantities: Quantities
) -> Decimal:
    baseline = names[baseline_role(names, quantities)]
    return _saving(baseline, names["actual"], mg_per_unit, quantities)


def _by_class(
    kind: str, name: str, mg_per_unit: Mapping[str, Decimal], quantities: Quantities
) -> Decimal:
    return EXACT.multiply(quantities[name], mg_per_unit[quantities[kind]])


def _numberless(quantities: Quantities) -> NoReturn:
    raise Rejected("SCENARIO_DISABLED", "No number is known for this formula yet.")


def bind(formula: str, inputs: Sequence[Input], coefficients: Sequence[Coefficient]) -> Bound:
    """The formula with its names and numbers put in, after checking that they fit together.

    Without coefficients, or with one that has no value, it reckons nothing.
    Raises Fault on an unknown shape, on roles, coefficients or units that do not fit it, and on
    numbers so large that a result could pass 2^53 - 1 mg.
    """
    shape = SHAPES.get(formula)
    if shape is None:
        raise Fault("FIELD_MALFORMED", "formula", f"it must be one of {', '.join(SHAPES)}")
    parts = [item for item in inputs if item.role not in ("check", "exclusion")]
    names = {item.role: item.name for item in parts}
    if names.keys() != shape.roles or len(names) != len(parts):
        raise Fault(
            "FIELD_MALFORMED",
            "inputs",
            f"{formula} needs one input for each of the roles {', '.join(sorted(shape.roles))}, "
            "and besides them only checks and exclusions",
        )
    if len({item.name for item in inputs}) != len(inputs):
        raise Fault("FIELD_MALFORMED", "inputs", "two inputs have one name")
    if coefficients:
        _check_coefficients(formula, shape, parts, coefficients)
    if not coefficients or not all(item.value for item in coefficients):
        return Bound(_numberless, names["quantity"] if names.keys() == {"quantity"} else None)
    return _insert(formula, names, {item.name: item.amount for item in coefficients})


def _check_coefficients(
    formula: str, shape: Shape, parts: Sequence[Input], coefficients: Sequence[Coefficient]
) -> None:
    given = {item.name for item in coefficients}
    if len(given) != len(coefficients) or given != (shape.coefficients or given):
        raise Fault(
            "FIELD_MALFORMED",
            "coefficients",
            f"{formula} needs exactly the coefficients "
            f"{', '.join(sorted(shape.coefficients)) or 'of its classes, each once'}",
        )
    units = {f"g/{item.unit}" for item in parts if item.numeric}
    for item in coefficients:
        wanted = {SHARE} if item.name in shape.shares else units
        if {item.unit} != wanted:
            raise Fault(
                "FIELD_MALFORMED",
                f"coefficients.{item.name}.unit",
                f"it must be in {' and '.join(sorted(wanted))}, to fit the inputs",
            )
    grams = (item.amount for item in coefficients if item.unit != SHARE)
    most = EXACT.multiply(max(grams), max(item.high for item in parts))
    if most > SAFE_INTEGER // _MG_PER_G:
        raise Fault("FIELD_MALFORMED", "inputs", "the largest result does not fit 2^53 - 1 mg")


def _insert(formula: str, names: Mapping[str, str], grams: Mapping[str, Decimal]) -> Bound:
    if formula == "by_class":
        mg = {name: EXACT.multiply(value, _MG_PER_G) for name, value in grams.items()}
        return Bound(partial(_by_class, names["class"], names["quantity"], mg))
    mg_per_unit = EXACT.multiply(_grams_per_unit(formula, grams), _MG_PER_G)
    if formula == "saving":
        return Bound(partial(_saving, names["baseline"], names["actual"], mg_per_unit))
    if formula == "two_baselines":
        return Bound(partial(_two_baselines, names, mg_per_unit))
    quantity = names["quantity"]
    return Bound(partial(_per_unit, quantity, mg_per_unit), quantity, mg_per_unit)


def _grams_per_unit(formula: str, grams: Mapping[str, Decimal]) -> Decimal:
    if "factor" in grams:
        return grams["factor"]
    if formula == "substitution":
        if grams["rate"] > 1:
            raise Fault("FIELD_MALFORMED", "coefficients.rate.value", "a share is at most 1")
        return EXACT.multiply(grams["production"], grams["rate"])
    project = EXACT.multiply(grams["project"], grams.get("detour", Decimal(1)))
    if grams["baseline"] < project:
        raise Fault(
            "FIELD_MALFORMED",
            "coefficients.project.value",
            "the project may not emit more than its baseline",
        )
    return EXACT.subtract(grams["baseline"], project)
