"""Batches are put off while too much waits for its seal."""

from __future__ import annotations

from app.flows.backlog import COME_AGAIN_S
from app.store import settings


def test_batches_wait_for_a_sealer_that_is_far_behind_and_nothing_of_them_is_taken(
    provider, rider, ride, city, monkeypatch
):
    monkeypatch.setattr("app.flows.backlog._FRESH_S", 0.0)
    city.sealer.seal(city.clock())
    with city.engine.begin() as tx:
        settings.put(tx, "unsealed_entries", 2, 0, city.clock())
    assert provider.batch("b1", *[ride(n) for n in range(3)]).status_code == 200
    answer = provider.batch("b2", ride(4))
    assert (answer.status_code, answer.json["code"]) == (429, "CITY_BUSY")
    assert answer.headers["Retry-After"] == str(COME_AGAIN_S)
    assert provider.send("GET", "/api/v1/batches/b2").status_code == 404
    city.sealer.seal(city.clock())
    assert provider.batch("b2", ride(4)).json["counts"]["accepted"] == 1


def test_nought_takes_batches_however_far_sealing_is_behind(
    provider, rider, ride, city, monkeypatch
):
    monkeypatch.setattr("app.flows.backlog._FRESH_S", 0.0)
    with city.engine.begin() as tx:
        settings.put(tx, "unsealed_entries", 0, 0, city.clock())
    assert provider.batch("b1", ride(1), ride(2)).status_code == 200
    assert provider.batch("b2", ride(3)).status_code == 200
