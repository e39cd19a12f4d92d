"""Detaching as an operator does it, and what residents are told when a file is not there."""

from __future__ import annotations

import dataclasses
import time
from datetime import date, timedelta

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from app.cli.detach import detach_months
from app.cli.operate import check
from app.store import detached as store


@pytest.fixture
def run(city, monkeypatch):
    """Run a command of the city, by the city's clock."""
    monkeypatch.setattr("app.cli.detach._now", city.clock)

    def invoke(command, *arguments):
        found = CliRunner().invoke(command, [str(one) for one in arguments], obj=city.config)
        return found.exit_code, found.output

    return invoke


def test_a_month_is_detached_read_and_missed(city, app, me, provider, ride, run, tmp_path):
    days = [f"2025-{n % 12 + 1:02}-{n // 12 + 1:02}T08:00:00Z" for n in range(260)]
    outcomes = provider.batch("b1", *(ride(n, occurred_at=day) for n, day in enumerate(days))).json[
        "outcomes"
    ]
    city.sealer.seal(city.clock())
    city.clock.move(days=10)
    engine = app.extensions["puhui"].engine
    code, said = run(detach_months, tmp_path / "old", "--before", "2026-12")
    assert (code, said) == (
        0,
        f"256 entries are read from {tmp_path / 'old'}; back it up with the database\n",
    )
    assert run(check) == (0, "everything holds\n")
    entry = outcomes[0]["entry_id"]
    assert me("statement", area="travel", limit=50).status_code == 200
    whole = me(f"entries/{entry}").json, me(f"entries/{entry}/receipt").data
    file = tmp_path / "old/tile/entries/000.gz"
    kept = file.read_bytes()
    for damage in (b"", kept[:-1]):
        file.write_bytes(damage)
        store.look_again(engine)
        for path in (f"entries/{entry}", f"entries/{entry}/receipt"):
            answer = me(path)
            assert (answer.status_code, answer.json["code"]) == (503, "DETACHED_UNREADABLE")
            assert "tile/entries/000.gz" in answer.json["detail"]
            assert str(tmp_path) not in answer.json["detail"]
    file.write_bytes(kept)
    assert (me(f"entries/{entry}").json, me(f"entries/{entry}/receipt").data) == whole


@pytest.mark.usefixtures("rider")
def test_dropping_bytes_leaves_entries_on_their_pages(
    city, provider, ride, run, tmp_path, monkeypatch, superuser
):
    """Else each new version would be put into every index, and the table would grow. What older
    transactions of the server may still see keeps its room, so these are let end first."""
    for part in range(4):
        some = (ride(n, occurred_at=a_day(n)) for n in range(part * 512, (part + 1) * 512))
        provider.batch(f"b{part}", *some)
        city.sealer.seal(city.clock())
    city.clock.move(days=10)
    drop = store.drop

    def wait_and_drop(tx, first, end):
        (now,) = superuser.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::xid").fetchone()
        while superuser.execute(OLDER, {"now": now}).fetchone() != (False,):
            time.sleep(0.05)
        drop(tx, first, end)

    monkeypatch.setattr(store, "drop", wait_and_drop)
    before = pages_of(city)
    assert run(detach_months, tmp_path / "old", "--before", "2026-12")[0] == 0
    after = pages_of(city)
    assert sum(after[one] == page for one, page in before.items()) > 0.9 * len(before)


OLDER = """
SELECT age(pg_snapshot_xmin(pg_current_snapshot())::xid) > age(%(now)s::text::xid) OR EXISTS (
  SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND age(backend_xmin) > age(%(now)s::text::xid))"""


def a_day(number):
    """A moment of one of 2000 days of which none has another's activities."""
    return f"{(date(2020, 1, 1) + timedelta(days=number)).isoformat()}T08:00:00Z"


def pages_of(city):
    """The page on which each entry lies."""
    with city.engine.connect() as tx:
        query = "SELECT arrival, (ctid::text::point)[0] FROM entries"
        return dict(tx.execute(text(query)).all())


def test_a_month_that_is_none_or_not_over_is_refused(city, run, tmp_path):
    for month, why in (("2026-13", "as YYYY-MM"), ("november", "as YYYY-MM")):
        code, said = run(detach_months, tmp_path / "old", "--before", month)
        assert code == 2
        assert why in said
    code, said = run(detach_months, tmp_path / "old", "--before", "2026-12")
    assert (code, "this month at the latest" in said) == (2, True)
    assert not (tmp_path / "old").exists()


def test_nobody_but_the_owner_detaches(city, tmp_path, run):
    city.sealer.seal(city.clock())
    bare = dataclasses.replace(city.config, owner_url=None)
    arguments = [str(tmp_path / "old"), "--before", "2026-11"]
    found = CliRunner().invoke(detach_months, arguments, obj=bare)
    assert "DATABASE_OWNER_URL is not set" in str(found.exception)
