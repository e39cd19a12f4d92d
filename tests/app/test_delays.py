"""The arrival clock: how late a provider's activities come, read off counts in bins."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app.flows.delays import bin_of, longest, record, within

MINUTE, HOUR, DAY = 60, 3600, 86_400


@pytest.fixture
def late(provider, city, ride):
    """Reports rides that happened so many seconds ago, as one batch."""

    def report(batch_id: str, *seconds: int, subject: str = "rider-1"):
        rides = [
            ride(
                f"{batch_id}-{number}",
                subject=subject,
                occurred_at=(city.clock() - timedelta(seconds=ago)).isoformat(),
            )
            for number, ago in enumerate(seconds)
        ]
        return provider.batch(batch_id, *rides)

    return report


def clock(client) -> dict:
    body = client.get("/api/v1/providers").json
    assert body["days"] == 30
    (one,) = [item for item in body["items"] if item["code"] == "bikes"]
    return one


@given(st.integers(-(10**6), 10**11))
def test_a_bin_is_never_too_short_and_at_most_a_quarter_too_long(delay):
    real, shown = max(0, delay), longest(bin_of(delay))
    assert real <= shown <= real + real // 4
    assert bin_of(shown) == bin_of(delay) != bin_of(shown + 1)


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=60), st.integers(1, 100))
def test_a_percentile_is_that_of_the_sorted_delays_to_within_its_bin(delays, percent):
    counts: dict[int, int] = {}
    for delay in delays:
        counts[bin_of(delay)] = counts.get(bin_of(delay), 0) + 1
    rank = -(-len(delays) * percent // 100)
    assert within(counts, percent) == longest(bin_of(sorted(delays)[rank - 1]))


def test_known_delays_give_the_published_figures(late, rider, client):
    late("b1", *[MINUTE] * 12, *[HOUR] * 7, 3 * DAY)
    shown = clock(client)
    assert shown["acts"] == "20"
    assert MINUTE <= shown["median_s"] <= MINUTE * 5 // 4
    assert HOUR <= shown["p95_s"] <= HOUR * 5 // 4
    late("b2", 3 * DAY)
    assert 3 * DAY <= clock(client)["p95_s"] <= 3 * DAY * 5 // 4


def test_what_is_sent_again_or_refused_is_not_counted_again(late, rider, client, provider, ride):
    late("b1", HOUR, HOUR)
    late("b1", HOUR, HOUR)
    late("b2", HOUR)
    provider.batch("b3", ride("b1-0"), ride("x", quantities={"distance_km": "-1"}), "nonsense")
    assert clock(client)["acts"] == "3"


def test_what_nobody_claims_is_the_backlog(late, rider, client):
    assert clock(client) == {
        "code": "bikes",
        "name": "Bikes",
        "acts": "0",
        "median_s": None,
        "p95_s": None,
        "unclaimed_acts": "0",
    }
    late("b1", HOUR, HOUR, subject="stranger")
    shown = clock(client)
    assert (shown["acts"], shown["unclaimed_acts"]) == ("2", "2")


def test_only_thirty_days_of_receipt_count(late, rider, client, city):
    late("b1", DAY)
    city.clock.move(days=29)
    late("b2", MINUTE)
    assert clock(client)["acts"] == "2"
    city.clock.move(days=1)
    shown = clock(client)
    assert (shown["acts"], shown["p95_s"]) == ("1", longest(bin_of(MINUTE)))


def test_batches_that_end_together_lose_no_count(city, provider):
    now = city.clock()

    def many(numbers: list[int]) -> None:
        for _ in range(20):
            record(city.engine, "bikes", dict.fromkeys(numbers, 1), now)

    threads = [
        threading.Thread(target=many, args=(numbers,))
        for numbers in ([1, 2, 3], [3, 2, 1], [2, 3, 1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT bin, acts FROM arrival_delays ORDER BY bin")).all()
    assert [tuple(row) for row in rows] == [(1, 60), (2, 60), (3, 60)]
