"""One physical act is credited once, whoever reports it; shadow rules only tell."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.flows.accept import Batch, accept
from app.flows.claim import claim
from app.flows.consent import open_scenarios
from app.flows.correct import correct
from app.flows.enroll import connect, enroll
from app.flows.fingerprint import fingerprint, oldest_kept
from app.store import acts, people, providers
from app.vault import Vault
from scenarios import SHANGHAI, Activity, load

START = datetime.fromisoformat("2026-11-20T08:00:00+08:00")
RIDE = load().versions("travel.bike_shared")[-1]
VAULT = Vault(None, *(bytes([n]) * 32 for n in range(5)))
HALF = timedelta(minutes=RIDE.act.minutes) / 2


@pytest.fixture
def report(city, ride):
    """report("maps", 7, minutes=3, place="140403"): one ride of the one resident, by a provider."""
    with city.engine.begin() as tx:
        for code in ("bikes", "maps"):
            providers.add(tx, code, code, city.clock())
    parts = (city.engine, city.vault, city.registry)
    resident = enroll(*parts, "bikes", ["rider-1"], "140403", city.clock())["rider-1"]
    with city.engine.begin() as tx:
        bonds = {city.vault.subject("maps", "me"): resident}
        connect(
            tx, "maps", bonds, open_scenarios(city.registry.current(tx), city.clock()), city.clock()
        )

    def send(provider: str, number: int, minutes: float = 0, **changes: Any) -> dict[str, Any]:
        subject = {"bikes": "rider-1", "maps": "me"}[provider]
        at = (START + timedelta(minutes=minutes)).isoformat()
        act = ride(number, **{"subject": subject, "occurred_at": at} | changes)
        body = json.dumps(act).encode()
        batch = Batch(provider, f"{provider}-{number}-{at}", body, [act])
        answer = json.loads(accept(*parts, batch, city.clock()))
        return answer["outcomes"][0]

    send.resident = resident
    return send


def test_the_second_provider_of_one_ride_gets_the_reason(report, city):
    assert report("bikes", 1)["outcome"] == "accepted"
    refused = report("maps", 2, minutes=1)
    assert refused["code"] == "SAME_ACT"
    with city.engine.connect() as tx:
        told = tx.execute(text("SELECT code FROM rejections")).scalars().all()
    assert told == ["SAME_ACT"]


def test_another_time_another_place_or_the_same_provider_is_another_act(report):
    assert report("bikes", 1, place="140403")["outcome"] == "accepted"
    assert report("bikes", 2, minutes=1, place="140403")["outcome"] == "accepted"
    assert report("maps", 3, minutes=1, place="140426")["outcome"] == "accepted"
    assert report("maps", 4, minutes=60)["outcome"] == "accepted"
    assert report("maps", 5, minutes=-1, place="140403")["code"] == "SAME_ACT"


def test_one_trip_is_one_mode(report):
    assert report("bikes", 1)["outcome"] == "accepted"
    walked = {"scenario": "travel.bus_km", "quantities": {"distance_km": "2.5"}}
    assert report("maps", 2, **walked)["code"] == "SAME_ACT"


def test_a_void_ride_leaves_its_time_to_others(report, city):
    report("bikes", 1)
    correct(city.engine, city.vault, city.registry, "bikes", "ride-1", None, city.clock())
    assert report("maps", 2)["outcome"] == "accepted"


def test_what_waited_for_a_binding_is_told_apart_too(report, city):
    assert report("maps", 9, subject="stranger", place="140403")["outcome"] == "unclaimed"
    report("bikes", 1, place="140403")
    subject = city.vault.subject("maps", "stranger")
    with city.engine.begin() as tx:
        people.bind(tx, "maps", {subject: report.resident}, city.clock())
        claim(tx, city.vault, city.registry, "maps", subject, city.clock())
        reasons = tx.execute(text("SELECT code FROM rejections")).scalars().all()
    assert reasons == ["SAME_ACT"]


def test_a_place_that_is_no_county_is_refused(report):
    for n, place in enumerate(("1404", "长治", 140403, None, "14040３")):
        assert report("bikes", n, place=place)["code"] == "PLACE_MALFORMED"


def test_no_trace_is_kept(report, city):
    report("bikes", 1, place="140403")
    with city.engine.connect() as tx:
        kept = str(tx.execute(text("SELECT * FROM acts")).all())
    assert "140403" not in kept
    assert report.resident not in kept


def test_old_fingerprints_are_forgotten(report, city):
    report("bikes", 1)
    with city.engine.begin() as tx:
        acts.forget_before(tx, oldest_kept(START))
        assert tx.execute(text("SELECT count(*) FROM acts")).scalar() == 1
        acts.forget_before(tx, oldest_kept(START + timedelta(days=70)))
        assert tx.execute(text("SELECT count(*) FROM acts")).scalar() == 0


@given(
    st.datetimes(datetime(2018, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 (a zone is put in)
    st.timedeltas(timedelta(0), 4 * HALF),
)
def test_acts_half_a_cell_apart_meet_and_far_ones_do_not(first, apart):
    def marks(at):
        at = at.replace(second=0, microsecond=0, tzinfo=SHANGHAI)
        return fingerprint(VAULT, "11" * 16, RIDE, Activity(RIDE.scenario, at, {}, 0))

    minutes = timedelta(minutes=apart // timedelta(minutes=1))
    early, late = marks(first), marks(first + minutes)
    meetings = {early.cell in late[:2], late.cell in early[:2]}  # whichever is reported first
    if minutes <= HALF:
        assert meetings == {True}
    if minutes > 3 * HALF:
        assert meetings == {False}


def test_a_shadow_rule_refuses_nothing_and_is_counted(report, city):
    assert report("bikes", 1)["outcome"] == "accepted"
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT scenario, rule, acts, reduction_mg FROM shadow_refusals"))
        assert rows.all() == [("travel.bike_shared", "duration_given", 1, 625_000)]


def test_a_speed_that_cannot_be_is_refused(report):
    fast = {"distance_km": "2.5", "duration_s": "100"}
    assert report("bikes", 1, quantities=fast)["code"] == "IMPLAUSIBLE_SPEED"
    slow = {"distance_km": "2.5", "duration_s": "900"}
    assert report("bikes", 2, quantities=slow)["outcome"] == "accepted"
