"""Old entries' bytes leave the database: whoever read them reads them still, and none is lost."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from datetime import datetime, timedelta

import psycopg
import pytest
from sqlalchemy import create_engine, text

from app.config import CITY_ZONE
from app.flows.correct import correct
from app.flows.detach import DetachError, detach
from app.flows.erase import erase, erase_again
from app.flows.prove import receipt
from app.store import (
    archives,
    entries,
    farewells,
    gauges,
    history,
    log,
    scan_bills,
    standing,
    statements,
)
from app.store import detached as store
from app.store.detached import DetachedUnreadableError
from app.store.statements import Wanted
from ledger.audit import audit
from ledger.entries import Kind, instant
from ledger.errors import Unverified
from ledger.proof import verify
from ledger.tiles import pack

DECEMBER = datetime(2026, 12, 1, tzinfo=CITY_ZONE)
FOOD = {"scenario": "food.no_cutlery", "quantities": {"count": "1"}}
LEFT = "SELECT count(*) FROM entries WHERE payload IS NOT NULL"


@pytest.fixture
def owner(town):
    engine = create_engine(town.config.owner_url)
    yield engine
    engine.dispose()


@pytest.fixture
def go(town, owner, tmp_path):
    """Detach what was sealed before December into a folder."""

    def run(folder=tmp_path / "old", before=DECEMBER, engine=owner):
        return detach(engine, town.vault, town.config.head_file, folder, before)

    return run


@pytest.fixture
def aged(town):
    """A town with two full bundles of November, of many kinds, and a little of December."""
    town.budget("food")
    spender, saver, leaver = town.people = town.enroll("rider-0", "rider-1", "rider-2")
    town.send("b1", *(town.dated(n) for n in range(270)))
    town.send("b2", *(town.dated(n, subject="rider-1") for n in range(300, 540)))
    town.send("b3", town.ride(900, **FOOD), town.ride(901, "rider-2"))
    town.allow(200_000)
    town.sold = town.till().charge(spender, 30_000, "1")
    town.held = town.till().hold(saver, 40_000, "2")
    correct(*town.parts, "bikes", "ride-5", None, town.clock())
    erase(town.engine, town.vault, leaver, town.clock())
    town.seal()
    town.clock.move(days=10)
    town.send("b4", town.ride(950, occurred_at="2026-12-01T08:00:00Z"))
    town.seal()
    town.send("b5", town.ride(951, occurred_at="2026-12-01T09:00:00Z"))
    assert town.value(LEFT) > 520
    return town


@contextmanager
def anew(town):
    """A connection of an engine that has read nothing before."""
    engine = create_engine(town.config.database_url)
    try:
        with engine.connect() as tx:
            yield tx
    finally:
        engine.dispose()


def read(town):
    """What each reader of entries is told."""
    noon = instant(town.clock() - timedelta(days=5))
    asked = [
        Wanted(kind=Kind.ISSUE),
        Wanted(kind=Kind.REVERSE),
        Wanted(scenario="food.no_cutlery"),
        Wanted(area="travel", first=noon),
        Wanted(area="travel", end=noon),
    ]
    with anew(town) as tx:
        every = [
            row.id.hex() for row in tx.execute(text("SELECT id FROM entries ORDER BY arrival"))
        ]
        size = log.head(tx).size
        found = [
            [entries.find(tx, one) for one in every[::9]],
            statements.facts(tx, every),
            [log.sealed(tx, one) for one in every[::9]],
            [log.payloads(tx, 0, size), log.payloads(tx, 200, 100)],
            history.by_id(tx, every),
            history.lines(tx, bytes(16), b"\xff" * 16, 0),
            [history.first_since(tx, at) for at in ("2026", noon, "2027")],
            standing.lines(tx, town.people, 0),
            standing.lines(tx, town.people, 0, range(size // 2, size)),
            standing.touched(tx, range(size)),
            standing.reversed_for(tx, range(size)),
            farewells.in_the_log(tx),
            gauges.newest(tx),
            list(scan_bills.pairs(tx)),
        ]
        for one in town.people:
            found += [list(archives.facts(tx, one)), history.awaited(tx, one)]
            found += [entries.of_kind(tx, one, Kind.HOLD), statements.lines(tx, one, 50)]
            for wanted in asked:
                found += [statements.lines(tx, one, limit, wanted) for limit in (None, 3)]
            found += [statements.full(tx, one, name, ("0" * 32,) * 2) for name in every[::50]]
    return found


def test_whoever_read_an_entry_reads_it_still(aged, go, owner, tmp_path):
    before = read(aged)
    total = aged.value("SELECT count(*) FROM entries")
    assert go() == 512
    assert aged.value(LEFT) == total - 512
    assert read(aged) == before
    with aged.engine.connect() as tx:
        old = next(one for one in before[0] if one[1].kind is Kind.ISSUE)[1]
        found = receipt(tx, old.id)
        assert verify(found, old.payload(), aged.vault.ring.verifiers).size == log.head(tx).size
    report = aged.prove(tmp_path / "export")
    assert (report.recomputed, report.missing) == (report.issues - 1, 0), "of the one who left"
    assert not list((tmp_path / "export").rglob("*.gz"))


def test_the_ledger_goes_on_with_what_is_detached(aged, go, tmp_path):
    spender, saver, _ = aged.people
    go()
    again = aged.send("b6", *(aged.dated(n) for n in range(270)))
    assert [one["outcome"] for one in again[:5]] == ["duplicate"] * 5
    points = aged.points(spender)
    aged.till().refund(aged.sold.id, 1_000, "3")
    assert aged.points(spender) == points + 1_000
    aged.till().redeem(aged.held.id)
    correct(*aged.parts, "bikes", "ride-6", None, aged.clock())
    aged.fund("food", 10_000, "decision 2")
    erase(aged.engine, aged.vault, saver, aged.clock())
    assert erase_again(aged.engine, aged.vault, None, aged.clock()) == 2
    aged.prove(tmp_path / "export")


def test_an_export_may_lie_in_the_folder_of_the_detached(aged, go, tmp_path):
    folder = tmp_path / "both"
    aged.export(folder)
    plain = sum(path.stat().st_size for path in folder.glob("tile/entries/*"))
    go(folder)
    assert sum(path.stat().st_size for path in folder.glob("tile/entries/*")) < plain / 2
    aged.seal()
    aged.export(folder)
    assert sorted(path.name for path in folder.glob("tile/entries/*.gz")) == ["000.gz", "001.gz"]
    assert not (folder / "tile/entries/000").exists()
    assert audit(folder, trusted=aged.vault.ring.verifiers).recomputed


def test_it_goes_on_month_after_month_and_is_idempotent(aged, go):
    november = datetime(2026, 11, 1, tzinfo=CITY_ZONE)
    assert go(before=november) == 0
    before = read(aged)
    for wanted in (512, 512, 512):
        assert go() == wanted
    assert go(before=november) == 512, "what is out stays out"
    assert read(aged) == before
    aged.clock.move(days=30)
    aged.send("b9", *(aged.dated(n, subject="rider-1") for n in range(540, 624)))
    aged.send("b10", *(aged.ride(f"x{n}") for n in range(200)))
    aged.seal()
    assert go(before=aged.clock() + timedelta(days=1)) == 768
    assert aged.faults() == []


def test_what_was_dropped_is_room_for_what_comes(aged, go):
    def pages():
        return aged.value("SELECT pg_relation_size('entries')")

    go()
    before = pages()
    for n in range(300):
        aged.fund("*", 1, f"decision {n:0>250}")  # two thirds of a plain issue's bytes and more
    assert pages() <= before + 8192


def test_it_can_die_anywhere_and_the_next_run_goes_on(aged, go, deaths, tmp_path):
    def payloads():
        with anew(aged) as tx:
            return log.payloads(tx, 0, log.head(tx).size)

    before, total = payloads(), aged.value(LEFT)
    with aged.admin() as admin:
        admin.execute("CREATE SCHEMA kept")
        admin.execute("CREATE TABLE kept.entries AS TABLE entries")

    def prepare(n):
        with aged.admin() as admin:
            admin.execute("SET session_replication_role = replica")
            admin.execute("TRUNCATE entries")
            admin.execute("INSERT INTO entries TABLE kept.entries")
            admin.execute("UPDATE detached SET size = 0, dropped = 0")

    def job(engine, n):
        owner = create_engine(aged.config.owner_url)
        detach(owner, aged.vault, aged.config.head_file, tmp_path / f"{n}", DECEMBER)

    partly = 0
    for n, _ in deaths(job, prepare):
        left = aged.value(LEFT)
        partly += total - 512 < left < total
        assert payloads() == before
        assert go(tmp_path / f"{n}") == 512
        assert aged.value(LEFT) == total - 512
        assert payloads() == before
    assert partly > 1, "some deaths lie between the first payloads and the last"
    assert aged.faults() == []


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "another's": lambda path: shutil.copy(path.with_name("000.gz"), path),
    "no bundle": lambda path: path.write_bytes(pack(b"no bundle")),
}


def test_a_file_that_is_not_what_was_sealed_is_named_and_can_be_put_back(aged, go, tmp_path):
    aged.export(tmp_path / "export")
    before = read(aged)
    go()
    path = tmp_path / "old/tile/entries/001.gz"
    whole = path.read_bytes()
    for damage in DAMAGE.values():
        damage(path)
        wanted = pytest.raises(DetachedUnreadableError, match=r"tile/entries/001\.gz.*Put it back")
        with anew(aged) as tx, wanted:
            log.payloads(tx, 300, 1)
        path.write_bytes(whole)
    path.unlink()
    with pytest.raises(DetachedUnreadableError, match=r"tile/entries/001"):
        aged.export(tmp_path / "another")
    (fault,) = aged.faults()
    assert "tile/entries/001" in fault.what
    shutil.copy(tmp_path / "export/tile/entries/001", path.parent)
    assert read(aged) == before
    assert aged.faults() == []


def test_the_files_can_move_when_all_of_them_are_there(aged, go, tmp_path):
    before = read(aged)
    go()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    part = tmp_path / "new/tile/entries/000.gz"
    whole = part.read_bytes()
    part.unlink()
    with pytest.raises(DetachError, match=r"new/tile/entries/000\.gz"):
        go(tmp_path / "new")
    assert read(aged) == before
    part.write_bytes(whole)
    assert go(tmp_path / "new") == 512
    shutil.rmtree(tmp_path / "old")
    assert read(aged) == before


def test_a_file_in_the_way_that_is_not_of_this_log_is_named(aged, go, tmp_path):
    path = tmp_path / "old/tile/entries/000.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(pack(b"another city's"))
    left = aged.value(LEFT)
    with pytest.raises(DetachError, match=r"tile/entries/000\.gz: .*remove the file"):
        go()
    assert aged.value(LEFT) == left
    path.unlink()
    assert go() == 512


def test_only_a_log_that_extends_the_kept_checkpoint_lets_go(aged, go, copy_of, tmp_path):
    older = copy_of(aged)
    aged.seal()
    head, left = aged.config.head_file, aged.value(LEFT)
    older.send("b7", older.ride(960, occurred_at="2026-12-01T10:00:00Z"))
    older.seal()
    kept = head.read_text()
    for other, wrong in (
        (older.config.head_file.read_text(), DetachError),
        (kept.replace("\n5", "\n6", 1), Unverified),
    ):
        head.write_text(other)
        with pytest.raises(wrong):
            go()
    head.unlink()
    with pytest.raises(FileNotFoundError):
        go()
    assert aged.value(LEFT) == left
    head.write_text(kept)
    with aged.admin() as admin:
        admin.execute("SET session_replication_role = replica")
        admin.execute("UPDATE tiles SET hashes = set_byte(hashes, 9, get_byte(hashes, 9) # 1)")
    with pytest.raises(DetachError, match=r"000\.gz"):
        go()
    assert aged.value(LEFT) == left


def test_two_cannot_detach_at_once(aged, go, owner):
    with owner.begin() as tx:
        store.lock(tx)
        with pytest.raises(DetachError, match="somebody else"):
            go()


def test_the_database_lets_go_of_nothing_else(aged, go, owner, tmp_path):
    """Not even at its owner's word."""
    url = aged.config.owner_url.replace("+psycopg", "")

    def refused(statement, error=psycopg.errors.RestrictViolation):
        with psycopg.connect(url) as one, pytest.raises(error):
            one.execute(statement)

    any_payload = "UPDATE entries SET payload = NULL WHERE arrival = "
    first, over = (
        aged.value(f"SELECT arrival FROM leaves WHERE leaf = {leaf}") for leaf in (0, 512)
    )
    refused(any_payload + str(first))
    go()
    refused(any_payload + str(over))
    refused(any_payload + "(SELECT min(arrival) FROM outbox)")
    for change in ("payload = 'x'", "payload = NULL, kind = 'hold'", "id = sha256('')"):
        refused(f"UPDATE entries SET {change} WHERE arrival = {first}")
        refused(f"UPDATE entries SET {change} WHERE arrival = {over}")
    refused("INSERT INTO entries VALUES (1000000, substr(sha256(''), 1, 16), 'issue', NULL)")
    refused("UPDATE detached SET size = 768, dropped = 512")
    refused("UPDATE detached SET size = 256, dropped = 256")
    refused("UPDATE detached SET dropped = 256")
    refused("UPDATE detached SET size = 511", psycopg.errors.RestrictViolation)
    refused("DELETE FROM detached")
    with aged.engine.begin() as tx, pytest.raises(Exception, match="permission denied"):
        store.move(tx, 512, "/elsewhere")
    drop_all = text("UPDATE entries SET payload = NULL")
    with aged.engine.begin() as tx, pytest.raises(Exception, match="permission denied"):
        tx.execute(drop_all)
