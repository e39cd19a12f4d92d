"""Files are checked when they are loaded; a fault names the behaviour, the field and the remedy."""

import dataclasses
from pathlib import Path

import pytest

import scenarios
from scenarios.errors import FAULTS
from scenarios.formulas import SHAPES
from scenarios.rules import KINDS
from scenarios.version import EVIDENCE, SENSITIVE

SHIPPED = Path(scenarios.__file__).parent
RATES = (SHIPPED / "points.toml").read_text(encoding="utf-8")
GRID = (SHIPPED / "grid.toml").read_text(encoding="utf-8")
RATE_2 = RATES[RATES.index("[[rate]]") :].replace("number = 1", "number = 2")
BIKE = """
scenario = "travel.bike"
code = "TRV_BIKE"

[[version]]
number = 1
effective_from = 2018-01-01
confidence = "B"
formula = "per_unit"
title = { zh = "骑行", en = "Ride" }
eligibility = { zh = "每次骑行一次。", en = "Each ride once." }
evidence = { kind = "record", zh = "订单。", en = "The order.", tag = "S" }
consent = { zh = "提供里程，可随时撤回。", en = "The distance is sent; withdraw at any time." }
sensitive = ["movement"]
caps = [{ per = "day", of = "count", limit = 2, source = "rec: two", url = "", tag = "rec" }]
act = { kind = "trip", minutes = 4 }

[[version.rules]]
name = "speed"
kind = "speed"
distance = "distance_km"
duration = "duration_s"
maximum = "35"
mode = "refuse"
basis = "rec: fast"

[[version.rules]]
name = "acts_a_day"
kind = "count"
per = "day"
maximum = "20"
mode = "shadow"
basis = "rec: many"

[[version.inputs]]
name = "distance_km"
role = "quantity"
title = { zh = "里程", en = "Distance" }
unit = "km"
decimals = 3
minimum = "0.1"
maximum = "50"
basis = "rec: a city"
typical = ["1.0", "4.5"]

[[version.inputs]]
name = "duration_s"
role = "check"
presence = "optional"
title = { zh = "用时", en = "Time" }
unit = "s"
decimals = 0
minimum = "60"
maximum = "14400"
basis = "rec: a day out"

[[version.coefficients]]
name = "factor"
title = { zh = "单位减排量", en = "Reduction per kilometre" }
value = "250"
unit = "g/km"
bounds = ["33.88", "250"]
year = 2022
source = "三晋绿色生活 (Shanxi)"
url = ""
tag = "S"
confidence = "B"
alternatives = [
  { value = "33.88", unit = "g/km", source = "哈啰 2022", url = "", tag = "S" },
  { value = "52", unit = "g/ride", source = "北京: a ride", url = "", tag = "S" },
]
"""
HOME = BIKE[: BIKE.index("value =")].replace("km", "kWh") + 'grid = "Shanxi 2023"\n'
COUNT = 'kind = "count"\nper = "day"\nmaximum = "20"\n'
SECOND = BIKE[BIKE.index("[[version]]") :].replace("number = 1", "number = 2")


@pytest.fixture
def load(tmp_path):
    """Loads a folder of one or more files; without names, one file travel/bike.toml."""

    def load(files, rates=RATES, grid=GRID):
        files = {"travel/bike.toml": files} if isinstance(files, str) else files
        for name, text in {**files, "points.toml": rates, "grid.toml": grid}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
        return scenarios.load(tmp_path)

    return load


def fault(call, *arguments, **named):
    with pytest.raises(scenarios.Fault) as refused:
        call(*arguments, **named)
    assert refused.value.title == FAULTS[refused.value.code]
    assert refused.value.detail.endswith(".")
    return refused.value


def test_a_file_is_a_behaviour_with_its_rate_put_in(load):
    version = load(BIKE).in_force("travel.bike", 20260101)
    assert version.rate.points(1_000_000) == 1000
    assert [rule.name for rule in version.rules] == ["speed", "acts_a_day"]
    assert version.act.minutes == 4
    assert load(BIKE + SECOND.replace("2018", "2027")).versions("travel.bike")[1].number == 2


def test_the_readmes_worked_example_is_the_shipped_behaviour(load, catalogue):
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    example = readme.split("```toml\n")[1].split("```")[0]
    (version,) = load({"food/own_cup.toml": example}).versions("food.own_cup")
    assert version.digest == catalogue.versions("food.own_cup")[0].digest


def test_the_readme_names_every_shape_field_and_rule():
    readme = (SHIPPED / "README.md").read_text(encoding="utf-8")
    fields = {one.name for one in dataclasses.fields(scenarios.Version) if one.init}
    for name in {*SHAPES, *EVIDENCE, *SENSITIVE, *KINDS, *(fields - {"scenario", "code"})}:
        assert f"`{name}`" in readme, name


def test_the_bounds_of_a_fault_name_value_bound_and_source(load):
    above = fault(load, BIKE.replace('value = "250"', 'value = "250.1"'))
    assert above.code == "COEFFICIENT_OUT_OF_BOUNDS"
    assert (above.scenario, above.field) == ("travel.bike", "coefficients.factor.value")
    assert "250 g/km, the highest published value (三晋绿色生活 (Shanxi))" in above.detail
    below = fault(load, BIKE.replace('value = "250"', 'value = "20"'))
    assert "33.88 g/km, the lowest published value (哈啰 2022)" in below.detail
    assert "choose one from 33.88 to 250" in below.detail


@pytest.mark.parametrize(
    ("before", "after", "code", "field"),
    [
        ('["33.88", "250"]', '["30", "250"]', "COEFFICIENT_OUT_OF_BOUNDS", "bounds"),
        ('["33.88", "250"]', '["52", "250"]', "COEFFICIENT_OUT_OF_BOUNDS", "bounds"),
        ('["33.88", "250"]', '["250", "33.88"]', "FIELD_MALFORMED", "bounds"),
        ('["33.88", "250"]', "[]", "FIELD_MALFORMED", "bounds"),
        ('bounds = ["33.88", "250"]', "", "FIELD_MISSING", "bounds"),
        ('value = "250"', 'value = "2e2"', "FIELD_MALFORMED", "value"),
        ('value = "250"', "value = 250", "FIELD_MALFORMED", "value"),
        ('unit = "g/km"', 'unit = "g/mile"', "UNIT_UNKNOWN", "unit"),
        ('unit = "g/km"', 'unit = "kg/km"', "UNIT_UNKNOWN", "unit"),
        ('unit = "g/km"', 'unit = "g/kg"', "COEFFICIENT_OUT_OF_BOUNDS", "bounds"),
        ('source = "三晋绿色生活 (Shanxi)"', 'source = " "', "SOURCE_MISSING", "source"),
        ('source = "三晋绿色生活 (Shanxi)"', "", "SOURCE_MISSING", "source"),
        ('tag = "S"\nconf', 'tag = "X"\nconf', "FIELD_MALFORMED", "tag"),
        ('confidence = "B"\nalt', 'confidence = "D"\nalt', "FIELD_MALFORMED", "confidence"),
        ('confidence = "B"\nalt', 'trust = "B"\nalt', "FIELD_UNKNOWN", "trust"),
        ('unit = "g/ride"', 'unit = "g/hop"', "UNIT_UNKNOWN", "alternatives.1.unit"),
        ('source = "哈啰 2022"', 'source = ""', "SOURCE_MISSING", "alternatives.0.source"),
    ],
)
def test_a_fault_in_a_coefficient_is_named(load, before, after, code, field):
    assert before in BIKE
    found = fault(load, BIKE.replace(before, after, 1))
    assert (found.code, found.field) == (code, f"coefficients.factor.{field}")


@pytest.mark.parametrize(
    ("before", "after", "code", "field"),
    [
        ('scenario = "travel.bike"', 'scenario = "travel.bus"', "FIELD_MALFORMED", "scenario"),
        ('code = "TRV_BIKE"', 'code = "bike"', "FIELD_MALFORMED", "code"),
        ('formula = "per_unit"', 'formula = "per_mile"', "FIELD_MALFORMED", "formula"),
        ('formula = "per_unit"', 'formula = "saving"', "FIELD_MALFORMED", "inputs"),
        ('formula = "per_unit"', 'formula = "difference"', "FIELD_MALFORMED", "coefficients"),
        ('confidence = "B"', 'confidence = "D"', "FIELD_MALFORMED", "confidence"),
        ("eligibility =", "conditions =", "FIELD_MISSING", "eligibility"),
        ('zh = "骑行", en = "Ride"', 'zh = "骑行"', "FIELD_MALFORMED", "title"),
        ('kind = "record"', 'kind = "rumour"', "FIELD_MALFORMED", "evidence.kind"),
        ('"movement"', '"shoe_size"', "FIELD_MALFORMED", "sensitive"),
        ('"movement"', '"movement", "movement"', "FIELD_MALFORMED", "sensitive"),
        ("sensitive = [", "sensitiv = [", "FIELD_MISSING", "sensitive"),
        ('per = "day", of', 'per = "week", of', "FIELD_MALFORMED", "caps.0.per"),
        ("limit = 2", "limit = 0", "FIELD_MALFORMED", "caps.0.limit"),
        ("limit = 2", 'limit = "2"', "FIELD_MALFORMED", "caps.0.limit"),
        ('source = "rec: two"', 'source = ""', "SOURCE_MISSING", "caps.0.source"),
        ('kind = "trip"', 'kind = "meal"', "FIELD_MALFORMED", "act.kind"),
        ("minutes = 4", "minutes = 0", "FIELD_MALFORMED", "act.minutes"),
        ('role = "quantity"', 'role = "amount"', "FIELD_MALFORMED", "inputs"),
        ('unit = "km"', 'unit = "mile"', "UNIT_UNKNOWN", "inputs.distance_km.unit"),
        ('maximum = "50"', 'maximum = "0.01"', "FIELD_MALFORMED", "inputs.distance_km.minimum"),
        ('maximum = "50"', "", "FIELD_MALFORMED", "inputs.distance_km.maximum"),
        ('basis = "rec: a city"', "", "SOURCE_MISSING", "inputs.distance_km.basis"),
        ("decimals = 3", "decimals = 7", "FIELD_MALFORMED", "inputs.distance_km.minimum"),
        ('name = "distance_km"', 'name = "Distance"', "FIELD_MALFORMED", "inputs.Distance.name"),
        ('name = "duration_s"', 'name = "distance_km"', "FIELD_MALFORMED", "inputs"),
        ('"check"', '"exclusion"', "FIELD_MALFORMED", "inputs.duration_s.presence"),
        ('"optional"', '"perhaps"', "FIELD_MALFORMED", "inputs.duration_s.presence"),
        ('"1.0", "4.5"', '"1.0"', "FIELD_MALFORMED", "inputs.distance_km.typical"),
        ("effective_from = 2018", "effective_from = 2017", "FIELD_MALFORMED", "effective_from"),
        ("2018-01-01", '"2018-13-01"', "FIELD_MALFORMED", "effective_from"),
        ("number = 1", "number = 2", "CATALOGUE_FAULT", "number"),
        ("[[version.inputs]]", "[[version.input]]", "FIELD_MISSING", "inputs"),
        ('value = "250"', "value = 250.5", "FIELD_MALFORMED", "version.0.coefficients.0.value"),
        ("year = 2022", "year = true", "FIELD_MALFORMED", "version.0.coefficients.0.year"),
        ("[[version]]", "[[version", "CATALOGUE_FAULT", ""),
    ],
)
def test_a_fault_in_an_edition_is_named(load, before, after, code, field):
    assert before in BIKE
    found = fault(load, BIKE.replace(before, after))
    assert (found.scenario, found.code, found.field) == ("travel.bike", code, field)
    assert str(found).startswith("travel.bike")


@pytest.mark.parametrize(
    ("before", "after", "code", "field"),
    [
        ('mode = "refuse"', 'mode = "warn"', "FIELD_MALFORMED", "speed.mode"),
        ('kind = "speed"', 'kind = "height"', "FIELD_MALFORMED", "speed.kind"),
        ('kind = "speed"', 'kind = "count"', "FIELD_UNKNOWN", "speed.distance"),
        ('maximum = "35"', "", "FIELD_MISSING", "speed.maximum"),
        ('maximum = "35"', 'maximum = "fast"', "FIELD_MALFORMED", "speed.maximum"),
        ('"rec: fast"', '""', "SOURCE_MISSING", "speed.basis"),
        ('basis = "rec: fast"', "", "SOURCE_MISSING", "speed.basis"),
        ('duration = "duration_s"', 'duration = "x"', "FIELD_MALFORMED", "speed.duration"),
        ('distance = "dis', 'distance = "dus', "FIELD_MALFORMED", "speed.distance"),
        ('per = "day"\n', 'per = "year"\n', "FIELD_MALFORMED", "acts_a_day.per"),
        ('kind = "count"', 'kind = "total"', "FIELD_MISSING", "acts_a_day.of"),
        ('kind = "count"', 'kind = "total"\nof = "duration_s"', "FIELD_MALFORMED", "acts_a_day.of"),
        (COUNT, 'kind = "given"\nof = "distance_km"\n', "FIELD_MALFORMED", "acts_a_day.of"),
        ('name = "acts_a_day"', 'name = "speed"', "FIELD_MALFORMED", ""),
    ],
)
def test_a_fault_in_a_rule_is_named(load, before, after, code, field):
    assert before in BIKE
    found = fault(load, BIKE.replace(before, after, 1))
    assert (found.code, found.field) == (code, f"rules.{field}".strip("."))


def test_a_file_of_the_first_format_is_refused_by_name(load):
    old = BIKE.replace("eligibility =", "conditions =").replace("travel.bike", "travel.old")
    assert fault(load, {"travel/bike.toml": BIKE, "travel/old.toml": old}).scenario == "travel.old"


def test_a_disabled_edition_may_lack_its_numbers_and_an_enabled_one_may_not(load):
    numberless = BIKE.replace('value = "250"', 'value = ""').replace('["33.88", "250"]', "[]")
    missing = fault(load, numberless)
    assert (missing.code, missing.field) == ("VALUE_MISSING", "coefficients.factor.value")
    none = BIKE[: BIKE.index("[[version.coefficients]]")]
    assert fault(load, none).code == "VALUE_MISSING"
    disabled = 'disabled = { zh = "缺少数值", en = "No number was found." }\nformula ='
    for text in (numberless, none):
        weak = text.replace('confidence = "B"', 'confidence = "D"')
        version = load(weak.replace("formula =", disabled, 1)).versions("travel.bike")[0]
        assert not version.enabled
        with pytest.raises(scenarios.Rejected) as refused:
            version.bound.reckon({})
        assert refused.value.code == "SCENARIO_DISABLED"
    assert fault(load, none.replace("formula =", disabled + ' "x" #', 1)).field == "formula"


def test_a_project_may_not_emit_more_than_its_baseline(document, parts):
    _, coefficient, _ = parts
    numbers = [coefficient("baseline", "97"), coefficient("project", "98")]
    made = document(formula="difference", coefficients=numbers)
    assert fault(scenarios.Version.parse, made).field == "coefficients.project.value"
    made["formula"] = "detour"
    made["coefficients"] = [numbers[0], coefficient("project", "50")]
    made["coefficients"].append(coefficient("detour", "1.95", unit="1"))
    assert fault(scenarios.Version.parse, made).field == "coefficients.project.value"


def test_coefficients_are_in_the_unit_of_the_input_or_a_share(document, parts):
    _, coefficient, _ = parts
    for unit in ("g/kg", "1"):
        made = document(coefficients=[coefficient(unit=unit)])
        assert fault(scenarios.Version.parse, made).field == "coefficients.factor.unit"
    numbers = [coefficient("production"), coefficient("rate", "0.5")]
    made = document(formula="substitution", coefficients=numbers)
    assert fault(scenarios.Version.parse, made).field == "coefficients.rate.unit"


def test_a_share_is_at_most_the_whole(document, parts):
    _, coefficient, _ = parts
    numbers = [coefficient("production"), coefficient("rate", "1.01", unit="1")]
    made = document(formula="substitution", coefficients=numbers)
    assert fault(scenarios.Version.parse, made).field == "coefficients.rate.value"


def test_no_result_can_pass_what_json_keeps(document, parts):
    _, coefficient, quantity = parts
    huge = document(
        inputs=[quantity(maximum="999999999")], coefficients=[coefficient(value="999999999")]
    )
    assert "2^53" in fault(scenarios.Version.parse, huge).detail


def test_a_grid_factor_is_put_in(load):
    text = HOME.replace("distance_kWh", "energy_kwh").replace("travel.bike", "housing.pv")
    text = text[: text.index("[[version.rules]]")] + text[text.index("[[version.inputs]]") :]
    version = load({"housing/pv.toml": text}).versions("housing.pv")[0]
    assert (version.coefficients[0].value, version.coefficients[0].unit) == ("663.4", "g/kWh")
    unknown = fault(load, {"housing/pv.toml": text.replace("Shanxi 2023", "Shanxi 1999")})
    assert unknown.field == "coefficients.factor.grid"
    assert "Shanxi 2023" in unknown.detail


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('value = "663.4"', 'value = "x"', "grid.toml.factor.8.value"),
        ("[[elsewhere]]", "[[somewhere]]", "grid.toml.elsewhere"),
        ("year = 2022", "year = 2021", "grid.toml.factor"),
    ],
)
def test_a_fault_in_the_grid_factors_is_named(load, before, after, field):
    assert before in GRID
    assert fault(load, BIKE, grid=GRID.replace(before, after, 1)).field.startswith(field)


def test_a_new_rate_needs_a_new_version_on_its_first_day(load):
    rates = RATES + RATE_2.replace("2018-01-01", "2027-01-01").replace("1000", "500")
    assert "rate 2 needs a new version" in fault(load, BIKE, rates=rates).detail
    later = BIKE + SECOND.replace("2018-01-01", "2027-02-01")
    assert "rate 2 needs a new version" in fault(load, later, rates=rates).detail
    old, new = load(BIKE + SECOND.replace("2018-01-01", "2027-01-01"), rates=rates).versions(
        "travel.bike"
    )
    assert (old.rate.points(330_999), new.rate.points(330_999)) == (330, 165)


@pytest.mark.parametrize(
    ("rates", "named"),
    [
        (RATES.replace("validity_months = 120", "validity_months = 121"), "120 months"),
        (RATES.replace("points_per_kg = 1000", "points_per_kg = 0"), "points_per_kg"),
        (RATES.replace("number = 1", "number = 2"), "numbered"),
        (RATES + RATE_2, "must rise"),
        ("", "missing"),
        ("rate = 1", "list of tables"),
        (RATES[: RATES.index("sources")], "missing"),
    ],
)
def test_a_fault_in_the_rates_is_named(load, rates, named):
    found = fault(load, BIKE, rates=rates)
    assert named in found.detail
    assert found.field.startswith("points.toml")
