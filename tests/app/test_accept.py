"""A batch becomes entries, balances and a receipt; whatever is wrong with an item stays with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from app.flows.accept import Batch, BatchIdReusedError, accept
from app.flows.enroll import enroll
from app.store import providers


@pytest.fixture
def send(city):
    with city.engine.begin() as tx:
        providers.add(tx, "bikes", "Bikes", city.clock())
    enroll(city.engine, city.vault, city.registry, "bikes", ["rider-1"], "140403", city.clock())

    def call(batch_id: str, *activities: Any) -> dict[str, Any]:
        body = json.dumps(activities).encode()
        batch = Batch("bikes", batch_id, body, activities)
        receipt = accept(city.engine, city.vault, city.registry, batch, city.clock())
        return json.loads(receipt)

    return call


def test_a_ride_is_credited_with_grams_and_points(send, city, ride):
    (outcome,) = send("b1", ride(1))["outcomes"]
    assert outcome["outcome"] == "accepted"
    assert outcome["reduction_mg"] == "625000"
    assert outcome["points"] == "625"
    assert city.sealer.seal(city.clock()) > 0
    with city.engine.begin() as tx:
        total = tx.execute(
            text(
                "SELECT asset, sum(amount) FROM (SELECT asset, amount FROM balances UNION ALL"
                " SELECT asset, amount FROM open_balances) a GROUP BY asset"
            )
        ).all()
    assert {row[0]: int(row[1]) for row in total} == {1: 0, 2: 0}


def test_the_same_batch_again_gets_the_same_bytes_and_other_bytes_are_refused(send, city, ride):
    assert send("b1", ride(1)) == send("b1", ride(1))
    with pytest.raises(BatchIdReusedError):
        send("b1", ride(2))


def test_the_same_ride_in_another_batch_names_the_first_entry(send, ride):
    first = send("b1", ride(1))["outcomes"][0]
    again, other = send("b2", ride(1), ride(1, quantities={"distance_km": "3"}))["outcomes"]
    assert again == {"id": "ride-1", "outcome": "duplicate", "entry_id": first["entry_id"]}
    assert other["code"] == "ACTIVITY_ID_REUSED"
