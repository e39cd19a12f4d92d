"""Consent through HTTP and flows: given by the text that was read, withdrawn in the same second."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from app.flows.consent import Wish, decide, open_scenarios, text_digest
from app.flows.tokens import issue_access_token

BIKES, BUS = "travel.bike_shared", "travel.bus_km"


@pytest.fixture
def put(client, city, rider):
    def send(*wishes):
        token = issue_access_token(city.vault.token, rider, city.clock())
        headers = {"Authorization": f"Bearer {token}"}
        return client.put("/api/v1/me/consents", json={"consents": list(wishes)}, headers=headers)

    return send


@pytest.fixture
def wish(city):
    """wish(scenario, given): the consent to the text in force."""
    with city.engine.connect() as tx:
        versions = open_scenarios(city.registry.current(tx), city.clock())

    def make(scenario=BIKES, given=True, **changes):
        digest = text_digest(versions[scenario])
        named = {"provider": "bikes", "scenario": scenario}
        return named | {"text_digest": digest, "given": given} | changes

    return make


@pytest.fixture
def rows(city):
    def read(query):
        with city.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(query))]

    return read


def told(answer):
    (one,) = answer.json["outcomes"]
    return one.get("code", one["outcome"])


def state(answer, scenario):
    (found,) = (one for one in answer.json["items"] if one["scenario"] == scenario)
    (source,) = found["providers"]
    return source["state"]


def test_every_open_scenario_of_a_bound_provider_is_shown_with_its_text(me, rider):
    items = me("consents").json["items"]
    bike = next(one for one in items if one["scenario"] == BIKES)
    assert bike["providers"] == [
        {"provider": "bikes", "name": "Bikes", "state": "given", "text_changed": False}
    ]
    assert "撤回" in bike["text_zh"]
    assert bike["sensitive"] == ["movement"]
    assert len(items) > 20


def test_withdrawn_means_nothing_more_is_taken_and_nothing_is_taken_back(
    put, wish, provider, ride, me
):
    assert told(provider.batch("b1", ride(1))) == "accepted"
    answer = put({"provider": "bikes", "scenario": BIKES, "given": False})
    assert state(answer, BIKES) == "withdrawn"
    assert told(provider.batch("b2", ride(2))) == "CONSENT_MISSING"
    assert me("balances").json["points"] == "625"
    assert me("rejections").json["items"][0]["code"] == "CONSENT_MISSING"
    bus = ride(3, scenario=BUS, occurred_at="2026-11-21T09:00:00+08:00")
    assert told(provider.batch("b3", bus)) == "accepted"  # only that scenario
    assert state(put(wish()), BIKES) == "given"
    assert told(provider.batch("b4", ride(2))) == "accepted"


def test_another_text_than_the_one_in_force_is_not_consented_to(put, wish, rows):
    before = rows("SELECT * FROM consents ORDER BY scenario")
    refused = put(wish(BUS, False), wish(text_digest="0" * 64))
    assert (refused.status_code, refused.json["code"]) == (409, "CONSENT_TEXT_CHANGED")
    assert rows("SELECT * FROM consents ORDER BY scenario") == before  # all or none


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"scenario": "travel.nothing"}, 404),
        ({"provider": "nobody"}, 404),
        ({"given": "yes"}, 422),
        ({"text_digest": "short"}, 422),
        ({"more": 1}, 422),
    ],
)
def test_what_there_is_not_cannot_be_consented_to(put, wish, change, status):
    assert put(wish() | change).status_code == status


def test_a_list_names_each_consent_once(put, wish):
    assert put(wish(), wish(given=False)).status_code == 422
    assert put().status_code == 422


def test_the_record_keeps_the_text_and_both_moments(put, wish, rows, city):
    query = f"SELECT given_at, withdrawn_at FROM consents WHERE scenario = '{BIKES}'"
    ((given, _),) = rows(query)
    city.clock.move(hours=1)
    put(wish())  # again, to the same text: it has held all along
    assert rows(query) == [(given, None)]
    put(wish(given=False))
    assert rows(query) == [(given, city.clock())]
    digest = wish()["text_digest"]
    assert rows(f"SELECT text_digest FROM consents WHERE scenario = '{BIKES}'") == [(digest,)]


def test_people_with_the_same_consents_share_one_set(put, wish, rows):
    put(wish(given=False))
    first = rows("SELECT consent_set FROM bindings")
    put(wish())
    put(wish(given=False))
    assert rows("SELECT consent_set FROM bindings") == first
    assert len(rows("SELECT * FROM consent_sets")) == 3  # none, all, all but one


def test_a_restricted_resident_is_credited_nothing(provider, rider, ride, city):
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = now()"))
    assert told(provider.batch("b1", ride(1))) == "PROCESSING_RESTRICTED"


def test_a_batch_that_waits_for_a_withdrawal_heeds_it(provider, rider, ride, city):
    """It read the consent before; by the time it has the resident's lock, there is none."""
    waits, sent = _Waits(city), []
    with city.engine.begin() as tx:
        parts = (tx, city.vault, city.registry, rider)
        decide(*parts, [Wish("bikes", BIKES, "", given=False)], city.clock())
        batch = threading.Thread(target=lambda: sent.append(provider.batch("b1", ride(1))))
        batch.start()
        waits.until_somebody_waits()
    batch.join()
    assert told(sent[0]) == "CONSENT_MISSING"


def test_a_withdrawal_while_batches_run_stops_all_that_come_after_it(provider, rider, ride, city):
    """Whatever the order they came in: nothing is credited after the withdrawal was answered."""

    def send(number):
        began = time.monotonic()
        return began, told(provider.batch(f"b{number}", ride(number)))

    def withdraw():
        time.sleep(0.05)
        with city.engine.begin() as tx:
            wishes = [Wish("bikes", BIKES, "", given=False)]
            decide(tx, city.vault, city.registry, rider, wishes, city.clock())
        return time.monotonic()

    with ThreadPoolExecutor(4) as pool:
        ended = pool.submit(withdraw)
        answers = list(pool.map(send, range(30)))
        ended.result()
        answers.append(send(30))
    after = [outcome for began, outcome in answers if began > ended.result()]
    assert after
    assert set(after) == {"CONSENT_MISSING"}


def test_a_scenario_with_a_character_that_no_text_can_hold_is_refused(put):
    answer = put({"provider": "bikes", "scenario": "travel\0", "given": False})
    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")


class _Waits:
    def __init__(self, city):
        self.city = city

    def until_somebody_waits(self):
        query = text(
            "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE NOT l.granted AND a.datname = current_database()"
        )
        deadline = time.monotonic() + 10
        with self.city.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as tx:
            while not tx.execute(query).scalar_one():
                assert time.monotonic() < deadline
                time.sleep(0.01)
