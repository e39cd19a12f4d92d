"""What the sealer takes, and what it adds up: entry by entry, however their numbers lie."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store import entries, log
from ledger import transfers

COUNT = 12


@pytest.fixture
def funded(empty):
    """Twelve fundings that draw 1, 2, 4 … points from one open account; their arrivals."""
    with empty.engine.begin() as tx:
        made = [
            transfers.fund(
                id=f"{number + 1:032x}",
                at="2026-11-22T04:00:00.000Z",
                budget="b" * 32,
                points=2**number,
                reference="x",
            )
            for number in range(COUNT)
        ]
        return empty.engine, entries.append(tx, made)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.integers(0, COUNT - 1), min_size=1))
def test_sums_are_of_the_numbers_given_and_of_none_between_them(funded, chosen):
    engine, arrivals = funded
    with engine.connect() as tx:  # and all of it is taken back
        log.fold_open(tx, [arrivals[number] for number in sorted(chosen)])
        assert log.open_totals(tx) == {"issuance:POINT": -sum(2**number for number in chosen)}


def test_the_first_are_taken_in_order_and_once(funded):
    engine, arrivals = funded
    with engine.connect() as tx:
        taken = [log.take_pending(tx, limit) for limit in (5, 5, 5, 5)]
    assert [[one.arrival for one in some] for some in taken] == [
        arrivals[:5],
        arrivals[5:10],
        arrivals[10:],
        [],
    ]
