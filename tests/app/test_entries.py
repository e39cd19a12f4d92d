"""The door into the ledger: few entries in one call, many by COPY, and no other difference."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from app.store import entries
from ledger import transfers
from ledger.errors import Exhausted, Insufficient
from ledger.merkle import leaf_hash

AT = "2026-11-22T04:00:00.000Z"
BUDGET, SHOP, A, C = "b" * 32, "d" * 32, "a" * 32, "c" * 32
LIVE = 20301231
TABLES = {
    "balances": "account, account_kind, asset, bucket, amount",
    "entries": "arrival - (SELECT min(arrival) FROM entries), id, kind, payload",
    "postings": "arrival - (SELECT min(arrival) FROM entries), amount, account, bucket,"
    " account_kind, asset",
}


@pytest.fixture(params=["one call", "COPY"])
def way(request, monkeypatch):
    monkeypatch.setattr(entries, "FEW", 1000 if request.param == "one call" else 0)


def numbered():
    for number in range(1, 1000):
        yield {"id": f"{number:032x}", "at": AT}


def a_history():
    """Funds, a day's acts by two people, a charge, a hold, a refund, and a fact without lines."""
    stamps = numbered()
    yield transfers.fund(**next(stamps), budget=BUDGET, points=500, reference="x")
    yield transfers.fund_merchant(**next(stamps), merchant=SHOP, points=90, reference='"\\{é')
    known = {"budget": BUDGET, "bucket": LIVE, "reason": "x"}
    for who in (C, A):
        yield transfers.adjust(**next(stamps), resident=who, points=100, **known)
    spend = {"wallet": {LIVE: 100}, "today": 20261122}
    sold = transfers.charge(**next(stamps), resident=A, points=70, merchant=SHOP, **spend)
    yield sold
    yield transfers.hold(**next(stamps), resident=C, points=30, **spend)
    back = {"redeem": sold, "points": 70, "refunded": 0, "today": 20261122}
    yield transfers.refund(**next(stamps), **back)
    yield transfers.record_action(**next(stamps), action="tested", commitment="c" * 64)


WAITING = """
SELECT arrival + n - (SELECT min(arrival) FROM entries), substr(leaf_hashes, 32 * n + 1, 32)
FROM outbox CROSS JOIN generate_series(0, count - 1) n"""


def stored(tx):
    asked = {table: f"SELECT {columns} FROM {table}" for table, columns in TABLES.items()}
    return {
        table: Counter(tuple(row) for row in tx.execute(text(query)))
        for table, query in (asked | {"outbox": WAITING}).items()
    }


@pytest.mark.parametrize("together", [True, False])
def test_both_ways_write_the_same(empty, monkeypatch, together):
    history = list(a_history())
    found = []
    for few in (0, 1000):
        monkeypatch.setattr(entries, "FEW", few)
        with empty.engine.connect() as tx:
            made = [history] if together else [[entry] for entry in history]
            arrivals = [number for some in made for number in entries.append(tx, some)]
            assert arrivals == sorted(set(arrivals))
            assert [entries.find(tx, entry.id) for entry in history] == list(
                zip(arrivals, history, strict=True)
            )
            found.append(stored(tx))
    assert found[0] == found[1]
    hashes = Counter((n, leaf_hash(entry.payload())) for n, entry in enumerate(history))
    assert found[0]["outbox"] == hashes
    assert found[0]["balances"].total() == 5


def charge(number, points, merchant=SHOP):
    known = {"resident": A, "wallet": {LIVE: 999}, "today": 20261122, "merchant": merchant}
    return transfers.charge(id=f"{number:032x}", at=AT, points=points, **known)


@pytest.fixture
def started(empty):
    """Mrs A has 100 points, and the shop may redeem 90."""
    with empty.engine.begin() as tx:
        entries.append(tx, list(a_history())[:4])
    return empty.engine


def test_what_an_account_does_not_hold_is_refused_by_name(started, way):
    for wrong, error in (
        ([charge(11, 91)], Exhausted),
        ([charge(11, 50), charge(12, 41)], Exhausted),
        ([charge(11, 1, "e" * 32)], Exhausted),
        ([charge(11, 101)], Insufficient),
    ):
        with started.connect() as tx, pytest.raises(Insufficient) as refusal:
            entries.append(tx, wrong)
        assert type(refusal.value) is error
    with started.connect() as tx:
        assert len(entries.append(tx, [charge(11, 50), charge(12, 40)])) == 2


def test_an_id_is_written_once(started, way):
    with started.begin() as tx:
        entries.append(tx, [charge(11, 1)])
    before = [charge(13, 1), charge(11, 2)]
    with started.connect() as tx, pytest.raises(IntegrityError):
        entries.append(tx, before)
    with started.connect() as tx:
        assert entries.append(tx, []) == []
        assert entries.known(tx, [entry.id for entry in before]).keys() == {before[1].id}


def test_one_entry_is_one_round_trip(started, monkeypatch):
    asked = []
    monkeypatch.setattr(
        entries, "fetch", lambda *call, fetch=entries.fetch: asked.append(call) or fetch(*call)
    )
    with started.connect() as tx:
        tx.execute(text("SELECT"))  # which begins the transaction
        event.listen(started, "before_cursor_execute", lambda *call: asked.append(call))
        entries.append(tx, [charge(11, 1)])
    assert len(asked) == 1
