"""Caps cut points and never carbon; a group lets one member through; a rule refuses or tells; undo
takes back exactly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import scenarios
from scenarios import Usage
from scenarios.errors import TITLES

DAY = "2026-11-22T08:00:00+08:00"
ON_DAY = 20261122


class Resident:
    """Claims one after the other, keeping usage as a store would: only under the keys asked for."""

    def __init__(self, versions):
        self.versions = {version.scenario: version for version in versions}
        self.usage = {}
        self.shadow = []

    def claim(self, scenario, quantities, at=DAY):
        version = self.versions[scenario]
        activity = scenarios.measure(version, scenarios.read_time(at), quantities)
        mg = scenarios.quantify(version, activity).mg
        keys = scenarios.needs(version, activity)
        loaded = {key: self.usage[key] for key in keys if key in self.usage}
        claimed = scenarios.claim(version, activity, mg, keys, loaded)
        assert set(claimed.changed) == set(keys[: len(version.periods)])
        self.usage |= claimed.changed
        self.shadow.append(claimed.shadow)
        return version, activity, mg, claimed

    def undo(self, version, activity, mg, claimed):
        self.usage |= scenarios.undo(version, activity, mg, claimed.points, self.usage)


@pytest.fixture
def resident(catalogue):
    return Resident(catalogue.versions(name)[-1] for name in catalogue.scenarios)


def cap(of, limit, per="day"):
    return {"per": per, "of": of, "limit": limit, "source": "rec", "url": "", "tag": "rec"}


def rule(name, **fields):
    return {"name": name, "mode": "refuse", "basis": "rec: for these tests", **fields}


RIDE = {"distance_km": "2"}
ONE = {"count": "1"}


def outcome(claimed):
    return claimed.points, claimed.withheld, claimed.cap


def refusal(call, *arguments):
    with pytest.raises(scenarios.Rejected) as refused:
        call(*arguments)
    assert refused.value.title == TITLES[refused.value.code]
    assert str(refused.value).endswith(".")
    return refused.value.code, str(refused.value)


def test_a_count_cap_pays_the_first_and_counts_and_records_all(resident):
    claims = [resident.claim("travel.bike_shared", RIDE)[3] for _ in range(3)]
    assert [outcome(one) for one in claims[:2]] == [(500, 0, None), (500, 0, None)]
    assert outcome(claims[2]) == (0, 500, "day.count")
    assert resident.usage == {("travel.bike_shared", ON_DAY): Usage(3, 1_500_000, 1000)}


def test_a_cap_begins_anew_the_next_day_in_shanghai(resident):
    for _ in range(3):
        resident.claim("travel.bike_shared", RIDE, "2026-11-20T15:59:59Z")
    assert resident.claim("travel.bike_shared", RIDE, "2026-11-20T16:00:00Z")[3].points == 500


def test_a_gram_cap_pays_up_to_the_gram(edition):
    resident = Resident([edition(caps=[cap("grams", 296)])])
    claims = [resident.claim("travel.one", {"distance_km": km})[3] for km in ("0.7", "0.7", "1")]
    assert [one.points for one in claims] == [175, 296 - 175, 0]
    assert (claims[1].withheld, claims[1].cap) == (175 - 121, "day.grams")


def test_a_points_cap_pays_up_to_the_point(edition):
    resident = Resident([edition(caps=[cap("points", 600, "month")])])
    claims = [resident.claim("travel.one", RIDE)[3] for _ in range(3)]
    assert [outcome(one)[0] for one in claims] == [500, 100, 0]
    assert resident.usage == {("travel.one", 202611): Usage(3, 1_500_000, 600)}


def test_the_tighter_of_two_caps_is_named(resident):
    parcel = {"kind": "washer", "count": "1"}
    days = [f"2026-11-{day:02d}T08:00:00+08:00" for day in (1, 1, 2, 3, 4)]
    claims = [resident.claim("housing.appliance_recycle", parcel, at)[3] for at in days]
    names = [None, "day.count", None, "month.grams", "month.grams"]
    assert [one.cap for one in claims] == names
    assert sum(one.points for one in claims) == 399_280


def test_without_caps_group_and_counting_rules_nothing_has_to_be_loaded(edition):
    version = edition()
    activity = scenarios.measure(version, scenarios.read_time(DAY), RIDE)
    assert scenarios.needs(version, activity) == ()
    assert scenarios.claim(version, activity, 500_000, (), {}) == (500, 0, None, (), {})
    assert scenarios.undo(version, activity, 500_000, 500, {}) == {}


@pytest.mark.parametrize(
    ("first", "second", "quantities"),
    [
        ("travel.bus_km", "travel.bus_ride", ({"distance_km": "5"}, ONE)),
        ("travel.bus_ride", "travel.bus_km", (ONE, {"distance_km": "5"})),
        ("food.no_cutlery", "food.no_chopsticks", (ONE, ONE)),
        ("food.no_chopsticks", "food.no_cutlery", (ONE, ONE)),
        ("travel.walk_steps", "travel.walk_km", ({"steps": "900"}, {"distance_km": "1"})),
        ("travel.ev_charge", "travel.ev_km", ({"energy_kwh": "9"}, {"distance_km": "9"})),
    ],
)
def test_only_one_of_a_group_counts_on_one_day(resident, first, second, quantities):
    claimed = resident.claim(first, quantities[0])
    resident.claim(first, quantities[0])
    before = dict(resident.usage)
    assert refusal(resident.claim, second, quantities[1])[0] == "EXCLUDED_BY_GROUP"
    assert resident.usage == before
    assert resident.claim(second, quantities[1], "2026-11-21T08:00:00+08:00")
    resident.undo(*claimed)
    assert refusal(resident.claim, second, quantities[1])[0] == "EXCLUDED_BY_GROUP"
    resident.undo(*claimed)
    assert resident.claim(second, quantities[1])


def test_a_claim_without_points_still_holds_the_group(edition):
    group = {"name": "travel.two", "per": "day", "members": ["travel.one", "travel.two"]}
    capped = edition(group=group, caps=[cap("points", 1, "month")])
    resident = Resident([capped, edition("travel.two", group=group)])
    resident.claim("travel.one", RIDE, "2026-11-20T08:00:00+08:00")
    assert outcome(resident.claim("travel.one", RIDE)[3]) == (0, 500, "month.points")
    code, sentence = refusal(resident.claim, "travel.two", RIDE)
    assert code == "EXCLUDED_BY_GROUP"
    assert "travel.one was already claimed" in sentence


SPEED = rule("speed", kind="speed", distance="distance_km", duration="duration_s", maximum="35")


@pytest.fixture
def timed(edition, parts):
    """A resident of one edition under `rules`, with an optional time beside the distance."""
    _, _, quantity = parts
    time = quantity("duration_s", "check", "s", decimals=0, maximum="90000", presence="optional")
    return lambda *rules: Resident([edition(inputs=[quantity(), time], rules=list(rules))])


def test_a_speed_is_refused_above_its_bound_and_only_when_the_time_is_given(timed):
    resident = timed(SPEED)
    assert resident.claim("travel.one", {"distance_km": "3.5", "duration_s": "360"})
    assert resident.claim("travel.one", {"distance_km": "99"})
    for too_fast in ({"distance_km": "3.501", "duration_s": "360"}, {**RIDE, "duration_s": "0"}):
        code, sentence = refusal(resident.claim, "travel.one", too_fast)
        assert code == "IMPLAUSIBLE_SPEED"
        assert "35 km/h" in sentence


def test_a_check_can_be_demanded(timed):
    resident = timed(rule("duration_given", kind="given", of="duration_s"))
    code, sentence = refusal(resident.claim, "travel.one", RIDE)
    assert (code, "needs duration_s" in sentence) == ("CHECK_MISSING", True)
    assert resident.claim("travel.one", {**RIDE, "duration_s": "9"})


def test_too_many_acts_on_a_day_are_refused_and_do_not_count(timed):
    resident = timed(rule("acts_a_day", kind="count", per="day", maximum="3"))
    claims = [resident.claim("travel.one", RIDE) for _ in range(3)]
    assert refusal(resident.claim, "travel.one", RIDE)[0] == "TOO_MANY_ACTS"
    assert resident.usage == {("travel.one", ON_DAY): Usage(3, 1_500_000, 1500)}
    assert resident.claim("travel.one", RIDE, "2026-11-21T08:00:00+08:00")
    resident.undo(*claims[0])
    assert resident.claim("travel.one", RIDE)


def test_acts_are_counted_before_caps(edition):
    rules = [rule("acts_a_day", kind="count", per="day", maximum="2")]
    resident = Resident([edition(rules=rules, caps=[cap("count", 1)])])
    assert [resident.claim("travel.one", RIDE)[3].points for _ in range(2)] == [500, 0]
    assert refusal(resident.claim, "travel.one", RIDE)[0] == "TOO_MANY_ACTS"


def test_a_days_total_is_refused_above_its_bound(timed):
    resident = timed(rule("km_a_day", kind="total", per="day", of="distance_km", maximum="150"))
    for distance in ("100", "49.999", "0.001"):
        resident.claim("travel.one", {"distance_km": distance})
    code, sentence = refusal(resident.claim, "travel.one", {"distance_km": "0.001"})
    assert (code, "150" in sentence) == ("TOO_MUCH_IN_TOTAL", True)


def test_a_total_goes_by_the_difference_that_is_credited(edition, parts):
    _, coefficient, _ = parts
    rules = [rule("km_a_day", kind="total", per="day", of="distance_km", maximum="10")]
    numbers = [coefficient("baseline", "104"), coefficient("project", "52")]
    resident = Resident([edition(formula="difference", coefficients=numbers, rules=rules)])
    resident.claim("travel.one", {"distance_km": "10"})
    assert refusal(resident.claim, "travel.one", RIDE)[0] == "TOO_MUCH_IN_TOTAL"


def test_a_shadow_rule_only_tells_what_it_would_have_refused(timed):
    rules = [
        SPEED,
        rule("duration_given", kind="given", of="duration_s"),
        rule("acts_a_day", kind="count", per="day", maximum="1"),
        rule("km_a_day", kind="total", per="day", of="distance_km", maximum="5"),
    ]
    resident = timed(*({**one, "mode": "shadow"} for one in rules))
    for quantities in (RIDE, {**RIDE, "duration_s": "1"}, {**RIDE, "duration_s": "999"}):
        assert resident.claim("travel.one", quantities)[3].points == 500
    assert resident.shadow == [
        ("duration_given",),
        ("speed", "acts_a_day"),
        ("acts_a_day", "km_a_day"),
    ]


def test_a_rule_that_refuses_comes_after_the_group_and_before_caps(edition):
    group = {"name": "travel.two", "per": "day", "members": ["travel.one", "travel.two"]}
    rules = [rule("acts_a_day", kind="count", per="day", maximum="1")]
    both = [
        edition(name, group=group, rules=rules, caps=[cap("count", 1)]) for name in group["members"]
    ]
    resident = Resident(both)
    resident.claim("travel.one", RIDE)
    assert refusal(resident.claim, "travel.two", RIDE)[0] == "EXCLUDED_BY_GROUP"
    assert refusal(resident.claim, "travel.one", RIDE)[0] == "TOO_MANY_ACTS"


def test_a_corrected_claim_gets_its_points_again(resident):
    claims = [resident.claim("travel.bike_shared", RIDE) for _ in range(3)]
    resident.undo(*claims[0])
    resident.undo(*claims[2])
    assert resident.claim("travel.bike_shared", {"distance_km": "1"})[3].points == 250


def test_undoing_what_was_never_claimed_is_refused(resident):
    claimed = resident.claim("travel.bike_shared", RIDE)
    resident.undo(*claimed)
    with pytest.raises(scenarios.ScenarioError) as refused:
        resident.undo(*claimed)
    assert refused.value.code == "USAGE_UNDERFLOW"


@given(st.lists(st.integers(100, 9_000), max_size=8), st.integers(0, 7))
def test_a_cap_is_never_passed_and_nothing_is_lost(edition, metres, undone):
    resident = Resident([edition(caps=[cap("grams", 996), cap("count", 4, "month")])])
    distances = [f"{one // 1000}.{one % 1000:03d}" for one in metres]
    claims = [resident.claim("travel.one", {"distance_km": one}) for one in distances]
    assert sum(claimed.points for *_, claimed in claims) <= 996
    for place, (*_, mg, claimed) in enumerate(claims):
        assert claimed.points + claimed.withheld == mg // 1000
        assert min(claimed.points, claimed.withheld) >= 0
        assert (claimed.cap is None) == (claimed.withheld == 0)
        assert place < 4 or claimed.points == 0
    for one in claims[undone:]:
        resident.undo(*one)
    kept = claims[:undone]
    expected = Usage(
        len(kept),
        sum(mg for *_, mg, _ in kept),
        sum(claimed.points for *_, claimed in kept),
    )
    for period in (ON_DAY, ON_DAY // 100):
        assert resident.usage.get(("travel.one", period), Usage()) == expected
