"""Points that expire: announced a month and a week before, and gone the day after the last."""

from __future__ import annotations

from datetime import datetime, timedelta
from secrets import token_hex

import pytest
from sqlalchemy import text

from app.flows import expire, remind
from app.flows.enroll import enroll
from app.flows.expire import Expiry, expire_points
from app.flows.notify import read_letter
from app.flows.remind import Reminders
from app.flows.work import Worker
from app.store import budgets, entries, messages, statements
from ledger.buckets import day_number
from ledger.entries import instant
from ledger.transfers import adjust

LAST = datetime.fromisoformat("2026-12-31T12:00:00+08:00")


@pytest.fixture
def give(city):
    """Gives somebody points that expire on a day: give(resident, 50, LAST)."""

    def make(resident: str, points: int, last: datetime) -> None:
        with city.engine.begin() as tx:
            entry = adjust(
                id=token_hex(16),
                at=instant(city.clock()),
                resident=resident,
                budget=budgets.scopes(tx)["*"],
                points=points,
                bucket=day_number(last.date()),
                reason="a test",
            )
            entries.append(tx, [entry])

    return make


@pytest.fixture
def told(city, rider):
    """Moves the clock, runs the day's reminders, and says what the rider's inbox then holds."""

    def ask(before: int, by: Reminders | None = None) -> list[tuple[str, str]]:
        city.clock.now = LAST - timedelta(days=before)
        reminders = by or Reminders(city.engine, city.vault)
        while reminders.step(city.clock()):
            pass
        with city.engine.connect() as tx:
            own = city.vault.subject_key(rider, statements.wrapped_key(tx, rider) or b"")
            found = messages.page(tx, rider, 2**62, 50)
        letters = [read_letter(own, one) for one in reversed(found)]
        assert all(one.params["points"] in one.text for one in letters)
        return [
            (one.key, letter.params["points"])
            for one, letter in zip(reversed(found), letters, strict=True)
        ]

    return ask


def test_a_month_and_a_week_before_points_expire_their_owner_is_told_once(give, told, rider):
    give(rider, 50, LAST)
    give(rider, 9, LAST + timedelta(days=365))
    assert told(31) == []
    month = [("20261231:30", "50")]
    assert told(30) == told(29) == told(8) == month
    assert told(7) == told(3) == told(0) == [*month, ("20261231:7", "50")]
    assert told(-1) == told(7)


def test_a_day_without_a_worker_is_made_up_for(give, told, rider):
    give(rider, 50, LAST)
    assert told(12) == [("20261231:30", "50")]
    give(rider, 5, LAST)
    assert told(5) == [("20261231:30", "50"), ("20261231:7", "55")]


def test_one_worker_asks_once_a_day(give, told, rider, city):
    reminders = Reminders(city.engine, city.vault)
    assert told(30, reminders) == []
    give(rider, 50, LAST)
    assert told(30, reminders) == []
    assert told(29, reminders) == [("20261231:30", "50")]


def test_nobody_is_left_out_between_two_pages(give, city, provider, monkeypatch):
    monkeypatch.setattr(remind, "_PAGE", 2)
    monkeypatch.setattr(expire, "_PAGE", 2)
    names = [f"r-{n}" for n in range(5)]
    parts = (city.engine, city.vault, city.registry, "bikes", names, "140403", city.clock())
    crowd = enroll(*parts).values()
    for resident in crowd:
        give(resident, 10, LAST)
        give(resident, 20, LAST - timedelta(days=1))
    city.clock.now = LAST - timedelta(days=7)
    reminders, rounds = Reminders(city.engine, city.vault), 1
    while reminders.step(city.clock()):
        rounds += 1
        reminders = Reminders(city.engine, city.vault) if rounds == 3 else reminders
    with city.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM messages")).scalar_one() == 10
    assert rounds > 5
    city.clock.now = LAST + timedelta(days=1)
    expiry = Expiry(city.engine, city.vault)
    assert expiry.step(city.clock()) is True  # killed after a page, and begun anew
    assert expire_points(city.engine, city.vault, city.clock()) == 10 - expiry.expired
    assert expire_points(city.engine, city.vault, city.clock()) == 0


def test_points_are_good_through_their_last_day(give, city, rider):
    give(rider, 50, LAST)
    city.clock.now = LAST
    assert expire_points(city.engine, city.vault, city.clock()) == 0
    city.clock.move(days=1)
    assert expire_points(city.engine, city.vault, city.clock()) == 1
    with city.engine.connect() as tx:
        assert sum(one.amount for one in statements.balances(tx, rider)) == 0


def test_the_worker_does_both(give, city, rider):
    worker = Worker(city.engine, city.vault, city.sealer, city.clock)
    give(rider, 50, LAST)
    city.clock.now = LAST
    worker.step()
    with city.engine.connect() as tx:
        assert messages.unread(tx, rider) == 1
    city.clock.move(days=1)
    worker.step()
    with city.engine.connect() as tx:
        assert sum(one.amount for one in statements.balances(tx, rider)) == 0
