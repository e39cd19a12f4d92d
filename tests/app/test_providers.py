"""A provider's batches, receipts, corrections and unclaimed activities over HTTP."""

from __future__ import annotations

import pytest

from app.api.providers import EchoSchema, ReceiptSchema, UnclaimedPageSchema
from app.store import providers

URL = "/api/v1/batches"


def test_a_batch_gets_an_outcome_for_each_activity_and_the_receipt_can_be_read_again(
    provider, rider, ride
):
    answer = provider.batch("b1", ride(1), ride(2, subject="stranger"), ride(3, id=7))
    assert answer.status_code == 200
    assert ReceiptSchema().validate(answer.json) == {}
    assert [one["outcome"] for one in answer.json["outcomes"]] == [
        "accepted",
        "unclaimed",
        "rejected",
    ]
    assert provider.send("GET", f"{URL}/b1").data == answer.data


def test_the_same_bytes_get_the_same_bytes_and_other_bytes_a_409(provider, rider, ride):
    first = provider.batch("b1", ride(1))
    assert provider.batch("b1", ride(1)).data == first.data
    answer = provider.batch("b1", ride(2))
    assert (answer.status_code, answer.json["code"]) == (409, "BATCH_ID_REUSED")


def test_a_receipt_belongs_to_its_provider(provider, rider, ride, city):
    provider.batch("b1", ride(1))
    with city.engine.begin() as tx:
        key = providers.find_key(tx, "bikes-1")
        providers.add(tx, "buses", "Buses", city.clock())
        providers.add_key(tx, "buses-1", "buses", "ed25519", key.public_key, city.clock())
    provider.key_id = "buses-1"
    assert provider.send("GET", f"{URL}/b1").status_code == 404


@pytest.mark.parametrize("batch_id", ["nothing", "a%20b", "x" * 65])
def test_an_unknown_batch_is_not_found(provider, batch_id):
    assert provider.send("GET", f"{URL}/{batch_id}").status_code == 404


@pytest.mark.parametrize(
    ("envelope", "fields"),
    [
        ({}, {"batch_id", "activities"}),
        ({"batch_id": "b", "activities": []}, {"activities"}),
        ({"batch_id": "b", "activities": [{}] * 5001}, {"activities"}),
        ({"batch_id": "b", "activities": {}}, {"activities"}),
        ({"batch_id": "b b", "activities": [{}]}, {"batch_id"}),
        ({"batch_id": 5, "activities": [{}]}, {"batch_id"}),
        ({"batch_id": "b\n", "activities": [{}]}, {"batch_id"}),
        ({"batch_id": "b", "activities": [{}], "more": 1}, {"more"}),
        ([], {""}),
        (None, {""}),
    ],
)
def test_a_malformed_envelope_names_its_fields_and_writes_nothing(provider, envelope, fields):
    answer = provider.send("POST", URL, envelope)
    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert {row["field"] for row in answer.json["errors"]} == fields
    assert provider.send("GET", f"{URL}/b").status_code == 404


@pytest.mark.parametrize(
    "bad",
    [
        None,
        7,
        [],
        {"quantities": {"distance_km": float("nan")}},
        {"quantities": {"distance_km": 2.5}},
        {"quantities": {"distance_km": 10**400}},
        {"quantities": {"distance_km": "9" * 5000}},
        {"quantities": {"distance_km": "NaN"}},
        {"quantities": {"distance_km": "1", "x\x00": "1"}},
        {"quantities": [[[]]]},
        {"scenario": ["travel.bike_shared"]},
        {"scenario": "travel.teleport"},
        {"occurred_at": "2099-01-01T00:00:00+08:00"},
        {"occurred_at": "1999-01-01T00:00:00+08:00"},
        {"occurred_at": None},
        {"subject": "\x00"},
        {"id": "a\x07b"},
        {"extra\x00": 1},
    ],
)
def test_one_bad_activity_is_one_rejection_and_the_rest_stand(provider, rider, ride, bad):
    broken = ride(1, **bad) if isinstance(bad, dict) else bad
    answer = provider.batch("b1", broken, ride(2))
    assert answer.status_code == 200
    rejected, accepted = answer.json["outcomes"]
    assert rejected["outcome"] == "rejected"
    assert rejected["code"] == rejected["code"].upper()
    assert accepted["outcome"] == "accepted"


def test_a_correction_replaces_the_credit_once_and_null_voids_it(provider, rider, ride, me):
    provider.batch("b1", ride(1))
    url = "/api/v1/activities/ride-1/correction"
    shorter = ride(1, quantities={"distance_km": "1"})
    first = provider.send("PUT", url, shorter)
    assert (first.status_code, first.json["reduction_mg"]) == (200, "250000")
    again = provider.send("PUT", url, shorter)
    assert again.json["entry_id"] == first.json["entry_id"]
    assert me("balances").json["reduction_mg"] == "250000"
    assert provider.send("PUT", url, None).json["outcome"] == "reversed"
    assert provider.send("PUT", url, None).json["outcome"] == "reversed"
    assert me("balances").json["reduction_mg"] == "0"


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"id": "ride-2"}, 422, "ACTIVITY_MALFORMED"),
        ([], 422, "ACTIVITY_MALFORMED"),
        ("other id", 422, "ACTIVITY_ID_MISMATCH"),
        ("too far", 422, "QUANTITY_TOO_LARGE"),
    ],
)
def test_a_correction_that_cannot_be_is_refused_and_changes_nothing(
    provider, rider, ride, me, document, status, code
):
    provider.batch("b1", ride(1))
    before = me("balances").json
    if document == "other id":
        document = ride(2)
    if document == "too far":
        document = ride(1, quantities={"distance_km": "999"})
    answer = provider.send("PUT", "/api/v1/activities/ride-1/correction", document)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert me("balances").json == before


def test_only_a_credited_activity_can_be_corrected(provider, ride):
    answer = provider.send("PUT", "/api/v1/activities/ride-9/correction", None)
    assert (answer.status_code, answer.json["code"]) == (404, "ACTIVITY_UNKNOWN")


def test_an_unclaimed_activity_is_corrected_and_withdrawn(provider, rider, ride):
    provider.batch("b1", ride(1, subject="stranger"), ride(2, subject="stranger"))
    page = "/api/v1/activities/unclaimed"

    def correct(name, document):
        return provider.send("PUT", f"/api/v1/activities/{name}/correction", document)

    longer = ride(1, subject="stranger", quantities={"distance_km": "9"})
    assert correct("ride-1", longer).json == {"id": "ride-1", "outcome": "unclaimed"}
    assert correct("ride-1", ride(1)).json["outcome"] == "accepted"
    assert correct("ride-2", None).json == {"id": "ride-2", "outcome": "reversed"}
    assert provider.send("GET", page).json["items"] == []
    assert correct("ride-2", None).status_code == 404


def test_unclaimed_activities_come_in_pages(provider, rider, ride):
    provider.batch("b1", *(ride(n, subject=f"stranger-{n}") for n in range(5)))
    url, seen, cursor = "/api/v1/activities/unclaimed?limit=2", [], ""
    while cursor is not None:
        answer = provider.send("GET", url + (f"&cursor={cursor}" if cursor else ""))
        assert UnclaimedPageSchema().validate(answer.json) == {}
        assert len(answer.json["items"]) <= 2
        seen += [one["activity_id"] for one in answer.json["items"]]
        cursor = answer.json["next_cursor"]
        assert answer.json["has_more"] is (cursor is not None)
    assert seen == [f"ride-{n}" for n in range(5)]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=51", "limit=x", "cursor=", "cursor=%00", "x=1"]
)
def test_a_page_that_cannot_be_is_refused(provider, query):
    answer = provider.send("GET", f"/api/v1/activities/unclaimed?{query}")
    assert answer.status_code == 422


def test_the_echo_fits_its_document(provider):
    assert EchoSchema().validate(provider.send("POST", "/api/v1/echo-signature", {}).json) == {}
