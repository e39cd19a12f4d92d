"""A month and a year of entries: the sums are those of the statement's own lines."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from secrets import token_hex

import pytest

from app.api.periods import MonthReportSchema, YearReportSchema
from app.flows.budget import fund_budget, pay_waiting
from app.store import budgets

WALK = {"scenario": "travel.walk_steps", "quantities": {"steps": "5000"}}
PAY = {"scenario": "banking.mobile_pay", "quantities": {"count": "1"}}


@pytest.fixture
def report(provider, rider, ride, city):
    """Reports rides at a moment: report("2026-12-01T10:00:00+08:00", ride(...), …)."""

    def make(at: str, *rides: dict) -> list[dict]:
        city.clock.now = datetime.fromisoformat(at)
        return provider.batch(f"b-{at[:19].replace(':', '')}", *rides).json["outcomes"]

    return make


def ask(me, path: str, schema) -> dict:
    body = me(path).json
    assert schema().validate(body) == {}
    return body


def month_of(me, month: str) -> dict:
    return ask(me, f"months/{month}", MonthReportSchema)


def areas(period: dict) -> dict[str, tuple[int, str, str]]:
    return {
        one["area"]: (one["acts"], one["reduction_mg"], one["points"]) for one in period["areas"]
    }


def test_a_month_is_summed_by_area_and_what_did_not_count_by_code(me, report, ride):
    at = "2026-12-10T08:00:00+08:00"
    made = report(
        "2026-12-10T12:00:00+08:00",
        ride(1, occurred_at=at),
        ride(2, **PAY, occurred_at=at),
        ride(3, occurred_at="2027-01-01T00:00:00+08:00"),
        ride(4, quantities={"distance_km": "0"}),
    )
    assert [one["outcome"] for one in made] == ["accepted", "accepted", "rejected", "rejected"]
    body = month_of(me, "2026-12")
    assert set(areas(body)) == {"travel", "banking"}
    assert areas(body)["travel"] == (1, made[0]["reduction_mg"], made[0]["points"])
    assert areas(body)["banking"] == (1, made[1]["reduction_mg"], made[1]["points"])
    assert body["total"]["points"] == str(sum(int(one["points"]) for one in made[:2]))
    refused = Counter(one["code"] for one in made[2:])
    assert {one["code"]: one["acts"] for one in body["rejected"]} == refused
    for empty in ("2026-11", "2027-01", "2999-12"):
        assert month_of(me, empty)["areas"] == month_of(me, empty)["rejected"] == []


def test_months_part_at_midnight_in_the_city(me, report, ride):
    report("2026-12-31T23:59:59.999+08:00", ride(1))
    report("2027-01-01T00:00:00+08:00", ride(2, occurred_at="2026-11-20T09:00:00+08:00"))
    for month in ("2026-12", "2027-01"):
        assert month_of(me, month)["total"]["acts"] == 1


def test_what_a_cap_cut_and_what_waits_for_a_budget_stand_beside_the_points(me, report, ride, city):
    rides = [
        ride(n, occurred_at=f"2026-12-10T{n:02d}:00:00+08:00", quantities={"distance_km": "9"})
        for n in range(12)
    ]
    made = report("2026-12-10T12:00:00+08:00", *rides)
    withheld = sum(int(one.get("withheld_points", 0)) for one in made)
    total = month_of(me, "2026-12")["total"]
    assert withheld > 0
    assert total["withheld_points"] == str(withheld)
    with city.engine.begin() as tx:
        budgets.create(tx, token_hex(16), "pay", "banking", city.clock())
    (later,) = report("2026-12-11T12:00:00+08:00", ride(50, **PAY))
    points = later["waiting_points"]
    body = month_of(me, "2026-12")
    assert areas(body)["banking"] == (1, later["reduction_mg"], "0")
    assert body["total"]["waiting_points"] == points
    city.clock.now = datetime.fromisoformat("2027-01-05T12:00:00+08:00")
    fund_budget(city.engine, city.vault, "banking", 1000, "decision 2", city.clock())
    pay_waiting(city.engine, city.vault, city.registry, city.clock())
    assert month_of(me, "2026-12")["total"]["waiting_points"] == "0"
    assert areas(month_of(me, "2027-01")) == {"banking": (0, "0", points)}


def test_a_correction_in_a_later_month_is_told_there(me, report, ride, provider, city):
    report("2026-12-10T12:00:00+08:00", ride(1), ride(2, occurred_at="2026-11-20T09:00:00+08:00"))
    city.clock.now = datetime.fromisoformat("2027-01-05T12:00:00+08:00")
    shorter = ride(1, quantities={"distance_km": "1.5"})
    assert provider.send("PUT", "/api/v1/activities/ride-1/correction", shorter).status_code == 200
    assert areas(month_of(me, "2026-12")) == {"travel": (2, "1250000", "1250")}
    assert areas(month_of(me, "2027-01")) == {"travel": (0, "-250000", "-250")}


def test_a_year_adds_up_its_months_and_names_the_best(me, report, ride):
    report("2026-12-10T12:00:00+08:00", ride(1))
    report("2027-01-10T12:00:00+08:00", ride(2, occurred_at="2027-01-05T09:00:00+08:00"))
    report(
        "2027-03-10T12:00:00+08:00",
        ride(3, occurred_at="2027-03-05T09:00:00+08:00", quantities={"distance_km": "5"}),
        ride(4, **PAY, occurred_at="2027-03-05T09:00:00+08:00"),
    )
    body = ask(me, "years/2027", YearReportSchema)
    assert [one["month"] for one in body["months"]] == ["2027-01", "2027-03"]
    assert body["best_month"] == "2027-03"
    for one in body["months"]:
        assert one.items() <= month_of(me, one["month"]).items()
    assert body["total"]["acts"] == sum(one["total"]["acts"] for one in body["months"]) == 3
    assert int(body["total"]["reduction_mg"]) == sum(int(a["reduction_mg"]) for a in body["areas"])
    empty = ask(me, "years/2030", YearReportSchema)
    assert (empty["best_month"], empty["months"]) == (None, [])


@pytest.mark.parametrize(
    "path", ["months/2026-13", "months/2026-1", "months/x", "months/1999-01", "years/26", "years/x"]
)
def test_what_is_no_month_or_year_is_not_found(me, path):
    assert me(path).status_code == 404
