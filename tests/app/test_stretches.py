"""A resident's lines are found by stretches of arrivals: the same lines, in the same order."""

from __future__ import annotations

from itertools import count

import pytest
from sqlalchemy import create_engine, text

from app.flows.erase import erase
from app.store import archives, entries, history, standing, statements
from ledger.entries import Kind, instant
from ledger.transfers import record_action

STRETCH = 2**21
PAGE, MOST = 7, 40
_OWN = text(
    "SELECT DISTINCT arrival FROM postings WHERE account = :who AND account_kind <= 3"
    " ORDER BY arrival DESC"
)
_SEARCHES = text("SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'postings'")


@pytest.fixture
def skip(city):
    """skip(3): the next entry is so many stretches further."""

    def go_on(stretches):
        owner = create_engine(city.owner_url)
        with owner.begin() as tx:
            moved = text("SELECT setval('arrivals', (last_value / :n + :more) * :n) FROM arrivals")
            tx.execute(moved, {"n": STRETCH, "more": stretches})
        owner.dispose()

    return go_on


@pytest.fixture
def life(city, provider, rider, ride, skip):
    """The rider's arrivals, newest first: acts in four stretches, of seven."""
    numbers = count()
    for batch, further in enumerate((1, 2, 1, 2)):
        skip(further)
        at = f"2026-11-{17 + batch}T08:00:00+08:00"
        acts = [ride(next(numbers), occurred_at=at) for _ in range(MOST - 3 + batch)]
        assert provider.batch(f"stretch-{batch}", *acts).json["counts"]["accepted"] == len(acts)
        while city.sealer.seal(city.clock()):  # what waits is reckoned by numbers: a gap counts
            pass
    with city.engine.connect() as tx:
        found = list(tx.execute(_OWN, {"who": bytes.fromhex(rider)}).scalars())
    assert len({arrival // STRETCH for arrival in found}) == 4
    return found


def test_pages_go_through_all_stretches_and_end(city, rider, life):
    with city.engine.connect() as tx:
        seen, wanted = [], statements.Wanted()
        while page := [one.arrival for one in statements.lines(tx, rider, PAGE, wanted)]:
            seen += page
            wanted = wanted._replace(before=page[-1])
        assert seen == life
        assert [one.arrival for one in statements.lines(tx, rider)] == life


def test_what_is_filtered_is_looked_for_in_all_stretches(city, rider, life):
    with city.engine.connect() as tx:
        wanted = statements.Wanted(kind=Kind.ISSUE, since=life[-2], before=life[0])
        found = statements.lines(tx, rider, None, wanted)
    assert [one.arrival for one in found] == life[1:-1]


@pytest.mark.parametrize(("limit", "searched"), [(MOST, 1), (MOST + 1, 3)])
def test_a_page_is_looked_for_no_further_back_than_it_reaches(city, rider, life, limit, searched):
    """The newest of seven stretches holds a page, the next one nothing."""
    with city.engine.connect() as tx:
        before = tx.execute(_SEARCHES).scalar() or 0
        assert len(statements.lines(tx, rider, limit)) == limit
        assert tx.execute(_SEARCHES).scalar() - before == searched


def test_whoever_asks_for_a_person_gets_all_stretches(city, rider, life):
    who, oldest = bytes.fromhex(rider), life[::-1]
    with city.engine.connect() as tx:
        assert len(list(archives.facts(tx, rider))) == len(life)
        assert len(entries.of_kind(tx, rider, Kind.ISSUE)) == len(life)
        once = standing.lines(tx, [rider], oldest[1])
        assert len(once) == len(life) - 1
        assert standing.lines(tx, [rider, rider], oldest[1]) == once
        above = (int.from_bytes(who) + 1).to_bytes(16)
        slices = history.lines(tx, who, above, oldest[2])
        assert [one.arrival for one in slices] == oldest[2:]


def test_nothing_of_any_stretch_is_left_of_who_is_erased(city, rider, life):
    kept = text("SELECT (SELECT count(*) FROM openings), (SELECT count(*) FROM usage)")
    with city.engine.connect() as tx:
        opened, counted = tx.execute(kept).one()
    assert (opened, counted > 1) == (len(life), True), "counted by days"
    erase(city.engine, city.vault, rider, city.clock())
    with city.engine.connect() as tx:
        assert tx.execute(kept).one() == (0, 0)


def test_what_is_sealed_is_told_also_beside_what_waits_with_an_older_number(
    city, provider, rider, ride
):
    provider.batch("first", ride(0))
    with city.engine.begin() as slow:
        late = {"id": "d" * 32, "at": instant(city.clock()), "action": "x", "commitment": "c" * 64}
        entries.append(slow, [record_action(**late)])
        provider.batch("sealed", ride(1, occurred_at="2026-11-18T08:00:00+08:00"))
        city.sealer.seal(city.clock())
    provider.batch("waits", ride(2, occurred_at="2026-11-17T08:00:00+08:00"))
    with city.engine.connect() as tx:
        for wanted in (None, statements.Wanted(kind=Kind.ISSUE)):
            found = statements.lines(tx, rider, 9, wanted)
            assert [one.sealed for one in found] == [False, True, True]
