"""What the sealer takes, and what it adds up: entry by entry, however their numbers lie."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.store import entries, log
from ledger import transfers
from ledger.merkle import leaf_hash

COUNT = 12


@pytest.fixture
def fundings():
    """Twelve, that draw 1, 2, 4 … points from one open account."""
    return [
        transfers.fund(
            id=f"{number + 1:032x}",
            at="2026-11-22T04:00:00.000Z",
            budget="b" * 32,
            points=2**number,
            reference="x",
        )
        for number in range(COUNT)
    ]


@pytest.fixture
def funded(empty, fundings):
    """All of them written; their arrivals."""
    with empty.engine.begin() as tx:
        return empty.engine, entries.append(tx, fundings)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.integers(0, COUNT - 1), min_size=1))
def test_sums_are_of_the_numbers_given_and_of_none_between_them(funded, chosen):
    engine, arrivals = funded
    with engine.connect() as tx:  # and all of it is taken back
        log.fold_open(tx, [log.Run(arrivals[number], arrivals[number]) for number in chosen])
        assert log.open_totals(tx) == {"issuance:POINT": -sum(2**number for number in chosen)}


@pytest.mark.parametrize("few", [0, 1000])
def test_the_first_are_taken_in_order_and_once_and_no_run_is_cut(empty, fundings, monkeypatch, few):
    monkeypatch.setattr(entries, "FEW", few)
    runs = [fundings[:3], fundings[3:4], fundings[4:9], fundings[9:]]
    with empty.engine.connect() as tx:
        written = [
            log.Pending(
                entries.append(tx, run)[0], b"".join(leaf_hash(one.payload()) for one in run)
            )
            for run in runs
        ]
        taken = [log.take_pending(tx, limit) for limit in (4, 2, 100, 100)]
    assert taken == [written[:2], written[2:3], written[3:], []]


numbers = st.sets(st.integers(1, 40), min_size=1).map(sorted)


@given(numbers, st.data())
def test_runs_are_of_the_same_numbers_and_no_two_could_be_one(arrivals, data):
    hashes = [bytes([number]) * 32 for number in arrivals]
    rows = list(entries.waiting(arrivals, hashes))
    assert [
        (first + n, leaf_hashes[32 * n : 32 * n + 32])
        for first, count, leaf_hashes in rows
        for n in range(count)
    ] == list(zip(arrivals, hashes, strict=True))
    assert all(len(leaf_hashes) == 32 * count for _, count, leaf_hashes in rows)
    # As the sealer gets them: of several transactions, which cut runs that follow each other.
    cuts = data.draw(st.sets(st.sampled_from(range(len(arrivals)))).map(sorted))
    parts = pairwise(sorted({0, *cuts, len(arrivals)}))
    pending = [
        log.Pending(first, leaf_hashes)
        for low, high in parts
        for first, _, leaf_hashes in entries.waiting(arrivals[low:high], hashes[low:high])
    ]
    runs = log.joined(pending)
    assert runs == [log.Run(first, first + count - 1) for first, count, _ in rows]
    assert all(other.first > one.last + 1 for one, other in pairwise(runs))
