"""Many at once: what is claimed, spent, paid or sealed is so once, whoever comes first."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from threading import Barrier, Event
from time import sleep

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError

from app.flows import pay_code, tune
from app.flows.accept import accept
from app.flows.budget import fund_budget, pay_waiting
from app.flows.correct import correct
from app.flows.erase import erase
from app.flows.prove import consistency
from app.flows.seal import Sealer
from app.flows.work import Worker
from app.store import entries, people
from app.store.catalogue import Registry
from ledger.checkpoint import open as open_checkpoint
from ledger.entries import Kind, instant
from ledger.errors import Exhausted, Insufficient
from ledger.merkle import verify_consistency
from ledger.transfers import fund

WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE wait_event_type = 'Lock' AND datname = current_database()"""


@pytest.fixture
def at_once(town):
    """at_once(call, arguments): call(engine, argument) for all, each in a thread with an engine of
    its own, begun together. What they return or raise, in order."""
    engines = []

    def run(call, arguments, threads=8):
        arguments = list(arguments)
        own = [create_engine(town.config.database_url) for _ in range(min(threads, len(arguments)))]
        engines.extend(own)
        start = Barrier(len(own))
        answers = [None] * len(arguments)

        def work(number):
            start.wait()
            for at in range(number, len(arguments), len(own)):
                try:
                    answers[at] = call(own[number], arguments[at])
                except Exception as error:
                    answers[at] = error

        with ThreadPoolExecutor(len(own)) as pool:
            list(pool.map(work, range(len(own))))
        return answers

    yield run
    for engine in engines:
        engine.dispose()


@contextmanager
def blocked(town, call, waiting=1):
    """Start a call that must wait for a lock, as so many do then; yields its future."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        while town.value(WAITING) < waiting:
            assert not future.done(), "it did not have to wait"
            sleep(0.01)
        yield future


def test_sealers_and_writers_at_once_leave_no_gap_and_nothing_twice(town, at_once, tmp_path):
    town.enroll(*(f"rider-{n}" for n in range(6)))
    town.seal()
    writers, done = 5, Event()

    def write(engine, writer):
        for n in range(15):
            rides = [
                town.dated(60 * writer + 4 * n + i, subject=f"rider-{(writer + i) % 6}")
                for i in range(4)
            ]
            accept(
                engine,
                town.vault,
                town.registry,
                town.batch(f"w{writer}-{n}", *rides),
                town.clock(),
            )
        finished.append(writer)
        if len(finished) == writers:
            done.set()

    def seal(engine, _):
        sealer, total = Sealer(engine, town.vault, town.config.head_file), 0
        while True:
            last = done.is_set()
            total += (sealed := sealer.seal(town.clock(), limit=7))
            if last and not sealed:
                return total

    finished = []
    jobs = [(write, n) for n in range(writers)] + [(seal, 0)] * 3
    before = town.value("SELECT size FROM log_head")
    answers = at_once(lambda engine, job: job[0](engine, job[1]), jobs)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert sum(answers[writers:]) + town.seal() == 15 * 4 * writers
    assert min(sorted(answers[writers:])[1:]) > 0, "more than one of them sealed"
    leaves = [leaf for (leaf,) in town.rows("SELECT leaf FROM leaves ORDER BY leaf")]
    assert leaves == list(range(before + 15 * 4 * writers))
    assert town.value("SELECT count(DISTINCT arrival) FROM leaves") == len(leaves)
    assert town.value("SELECT count(*) FROM outbox") == 0
    each_checkpoint_extends_the_one_before(town)
    town.prove(tmp_path / "export")


def each_checkpoint_extends_the_one_before(town):
    notes = [note for (note,) in town.rows("SELECT note FROM checkpoints ORDER BY size")]
    heads = [open_checkpoint(note, town.vault.ring.verifiers) for note in notes]
    assert len(heads) > 10
    with town.engine.connect() as tx:
        for old, new in pairwise(heads):
            proof = consistency(tx, old.size, new.size)
            verify_consistency(old.size, new.size, proof, old.root, new.root)


def test_who_drew_a_number_first_and_commits_last_is_not_skipped(town, tmp_path):
    """Sequences commit out of order; a sealer that read 'above the last' would lose this entry."""
    town.enroll("rider-0")
    town.budget("travel")
    budget = town.value("SELECT token FROM budgets WHERE scope = 'travel'").hex()
    with town.engine.begin() as slow:
        late = fund(id="d" * 32, at=instant(town.clock()), budget=budget, points=9, reference="x")
        (arrival,) = entries.append(slow, [late])
        town.send("b1", town.ride(1, scenario="food.no_cutlery", quantities={"count": "1"}))
        town.seal()
        assert town.value("SELECT max(arrival) FROM leaves") > arrival
    assert town.seal() == 1
    assert town.value("SELECT arrival FROM leaves ORDER BY leaf DESC LIMIT 1") == arrival
    town.prove(tmp_path / "export")


def test_a_hundred_redeemers_of_one_wallet_spend_what_it_holds(town, at_once, tmp_path):
    (resident,) = town.enroll("rider-0")
    town.send("b1", *(town.dated(n) for n in range(5)))
    town.allow(10_000)
    balance, price = town.points(resident), 70
    assert balance == 5 * 625

    def buy(engine, n):
        till = town.till(engine)
        if n % 2:
            till.charge(resident, price, f"charge {n}")
        else:
            till.redeem(till.hold(resident, price, f"order {n}").id)
        return price

    answers = at_once(buy, range(100), threads=20)
    refused = [answer for answer in answers if answer != price]
    assert {type(answer) for answer in refused} == {Insufficient}
    assert answers.count(price) == balance // price
    assert town.points(resident) == balance % price
    town.prove(tmp_path / "export")


def test_a_hundred_tills_of_one_merchant_redeem_what_it_is_allowed(town, at_once, tmp_path):
    people = town.enroll(*(f"rider-{n}" for n in range(10)))
    town.send("b1", *(town.dated(n, subject=f"rider-{n}") for n in range(10)))
    town.allow(1500)

    def buy(engine, n):
        return town.till(engine).charge(people[n % 10], 35, f"charge {n}").kind

    answers = at_once(buy, range(100), threads=20)
    assert Counter(map(type, answers)) == {Kind: 1500 // 35, Exhausted: 100 - 1500 // 35}
    assert sum(map(town.points, people)) == 10 * 625 - 1500 // 35 * 35
    town.prove(tmp_path / "export")


def test_a_batch_sent_eight_times_at_once_has_one_receipt(town, at_once, tmp_path):
    (resident,) = town.enroll("rider-0")
    batch = town.batch("b1", *(town.dated(n) for n in range(5)))

    def send(engine, _):
        return accept(engine, town.vault, town.registry, batch, town.clock())

    receipts = at_once(send, range(8))
    assert len(set(receipts)) == 1
    assert [item["outcome"] for item in json.loads(receipts[0])["outcomes"]] == ["accepted"] * 5
    assert town.points(resident) == 5 * 625
    town.prove(tmp_path / "export")


def test_an_act_in_eight_batches_at_once_is_credited_once(town, at_once, tmp_path):
    (resident,) = town.enroll("rider-0")

    def send(engine, n):
        batch = town.batch(f"b{n}", town.dated(n + 10), town.dated(1))
        return json.loads(accept(engine, town.vault, town.registry, batch, town.clock()))

    outcomes = [receipt["outcomes"][1] for receipt in at_once(send, range(8))]
    assert sorted(item["outcome"] for item in outcomes) == ["accepted"] + ["duplicate"] * 7
    assert len({item["entry_id"] for item in outcomes}) == 1
    assert town.points(resident) == 9 * 625
    town.prove(tmp_path / "export")


def test_funding_and_paying_at_once_pays_everybody_once_and_in_order(town, at_once, tmp_path):
    town.budget("travel")
    town.enroll(*(f"rider-{n}" for n in range(4)))
    town.send("b1", *(town.dated(n, subject=f"rider-{n % 4}") for n in range(40)))
    line = [entry for (entry,) in town.rows("SELECT entry_id FROM waiting ORDER BY arrival")]
    assert len(line) == 40

    def work(engine, job):
        verb, n = job
        if verb == "pay":
            return pay_waiting(engine, town.vault, town.registry, town.clock())
        if verb == "fund":
            reference = f"decision {n % 5}"  # each twice: it counts once
            return fund_budget(engine, town.vault, "travel", 2000, reference, town.clock())
        rides = town.batch(f"c{n}", town.dated(100 + n))
        return accept(engine, town.vault, town.registry, rides, town.clock())

    jobs = [(verb, n) for n in range(10) for verb in ("pay", "fund", "send")]
    answers = at_once(work, jobs, threads=6)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    paid = sum(answers[::3]) + pay_waiting(*town.parts, town.clock())
    assert paid == 5 * 2000 // 625
    settled = "SELECT payload FROM entries WHERE kind = 'issue' ORDER BY arrival"
    details = [json.loads(payload)["detail"] for (payload,) in town.rows(settled)]
    order = [detail["settles"] for detail in details if "settles" in detail]
    assert order == [entry.hex() for entry in line[:paid]]
    town.prove(tmp_path / "export")


def test_an_act_corrected_by_eight_at_once_is_taken_back_once(town, at_once, tmp_path):
    (resident,) = town.enroll("rider-0")
    town.send("b1", town.dated(1), town.dated(2))

    def void(engine, _):
        parts = (engine, town.vault, town.registry)
        return correct(*parts, "bikes", "ride-1", None, town.clock())

    answers = at_once(void, range(8))
    assert all(answer == answers[0] for answer in answers)
    assert town.points(resident) == 625
    assert town.value("SELECT count(*) FROM entries WHERE kind = 'reverse'") == 1
    town.prove(tmp_path / "export")


def test_corrections_that_cross_each_other_and_intake_all_come_through(town, at_once, tmp_path):
    """Each moves a ride between two people, two budgets and two caps, while batches of others'
    acts touch the same budgets and caps."""
    town.budget("travel")
    town.fund("travel", 100_000, "decision 2")
    town.enroll("rider-0", "rider-1", "rider-2", "rider-3")
    town.send("b1", *(town.dated(n, subject=f"rider-{n % 2}") for n in range(24)))

    def work(engine, n):
        parts = (engine, town.vault, town.registry)
        food = {"scenario": "food.no_cutlery", "quantities": {"count": "1"}}
        other = town.dated(n, subject=f"rider-{(n + 1) % 2}", **food)
        if n < 24:
            return correct(*parts, "bikes", f"ride-{n}", other, town.clock())
        acts = [town.dated(n, subject="rider-2"), town.dated(100 + n, subject="rider-3", **food)]
        return accept(*parts, town.batch(f"c{n}", *acts), town.clock())

    answers = at_once(work, [n for turn in range(24) for n in (turn, turn + 24)])
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert town.value("SELECT count(*) FROM entries WHERE kind = 'reverse'") == 24
    town.prove(tmp_path / "export")


def test_refunds_at_once_give_back_no_more_than_was_spent(town, at_once, tmp_path):
    (resident,) = town.enroll("rider-0")
    town.send("b1", town.dated(1))
    town.allow(600)
    spent = town.till().charge(resident, 600, "1")

    def back(engine, n):
        return town.till(engine).refund(spent.id, 100, f"refund {n // 2}").id

    answers = at_once(back, range(20))
    given = [answer for answer in answers if isinstance(answer, str)]
    assert len(set(given)) == 6
    assert {type(answer) for answer in answers} == {str, Insufficient}
    assert town.points(resident) == 625
    town.prove(tmp_path / "export")


def test_a_batch_that_waited_for_an_erasure_finds_nobody(town, tmp_path):
    (resident,) = town.enroll("rider-0")
    town.send("b1", town.dated(1))
    now = town.clock()
    with town.engine.connect() as first:
        first.exec_driver_sql("SELECT FROM residents FOR UPDATE")
        with (
            blocked(town, lambda: erase(town.engine, town.vault, resident, now)),
            blocked(town, lambda: town.send("b2", town.dated(2)), waiting=2) as sent,
        ):
            first.rollback()
            (outcome,) = sent.result()
    assert outcome["outcome"] == "unclaimed"
    town.prove(tmp_path / "export")


def test_who_is_in_a_batch_spends_until_it_numbers_entries_and_then_waits(town, tmp_path):
    (resident,) = town.enroll("rider-0")
    town.send("b1", town.dated(1))

    def shows_a_code():
        with town.engine.begin() as tx:
            tx.exec_driver_sql("SET LOCAL lock_timeout = '30s'")  # rather than wait for itself
            return pay_code.new_code(tx, town.vault, resident, None, town.clock())

    with town.admin() as admin:
        admin.autocommit = False
        admin.execute("LOCK TABLE usage IN ACCESS EXCLUSIVE MODE")  # of stage 6
        with blocked(town, lambda: town.send("b2", town.dated(2))) as sent:
            assert shows_a_code().code
            admin.rollback()
            assert sent.result()[0]["outcome"] == "accepted"
        admin.execute("LOCK TABLE openings IN ACCESS EXCLUSIVE MODE")  # of stage 8
        with (
            blocked(town, lambda: town.send("b3", town.dated(3))) as sent,
            blocked(town, shows_a_code, waiting=2) as shown,
        ):
            admin.rollback()
            assert sent.result()[0]["outcome"] == "accepted"
            assert shown.result().code
    town.prove(tmp_path / "export")


def test_an_act_put_aside_while_its_subject_was_bound_is_credited_by_the_worker(town, tmp_path):
    (resident,) = town.enroll("rider-0")
    (outcome,) = town.send("b1", town.dated(1, subject="rider-9"))
    assert outcome["outcome"] == "unclaimed"
    with town.engine.begin() as tx:  # as if the batch had read before this and written after it
        bonds = {town.vault.subject("bikes", "rider-9"): resident}
        people.bind(tx, "bikes", bonds, town.clock())
    Worker(town.engine, town.vault, town.sealer, town.clock).step()
    assert town.points(resident) == 625
    town.prove(tmp_path / "export")


def test_a_statement_and_a_copy_that_fail_raise_the_same_kind_of_error(town):
    """What waits for a database that is away, or tries again after a race, knows one family."""
    late = fund(id="d" * 32, at=instant(town.clock()), budget="b" * 32, points=9, reference="x")
    with pytest.raises(IntegrityError), town.engine.begin() as tx:
        entries.append(tx, [late, late])


def test_of_drafts_approved_at_once_no_two_overlap(town, drafts, at_once, tmp_path):
    for n in range(1, 7):
        drafts.begin(n)

    def approve(engine, n):
        drafts.act(engine, n, tune.approve)
        return n

    answers = at_once(approve, range(1, 7))
    done = [n for n in answers if isinstance(n, int)]
    assert done
    assert {error.code for error in answers if not isinstance(error, int)} <= {"EFFECT_OVERLAPS"}
    days = town.rows(
        "SELECT effective_from FROM scenario_versions"
        " WHERE scenario = 'travel.bus_km' ORDER BY number"
    )
    assert days == sorted(set(days))
    assert len(days) == 1 + len(done)
    town.prove(tmp_path / "export")


def test_a_draft_is_decided_once_whoever_decides_at_once(town, drafts, at_once):
    verbs = [(tune.approve,), (tune.reject, "no")] * 3
    for n in range(1, 5):
        drafts.begin(n)
        answers = at_once(lambda engine, verb: drafts.act(engine, n, *verb), verbs)  # noqa: B023
        decided = [verb for verb, answer in zip(verbs, answers, strict=True) if answer is None]
        assert len({verb[0] for verb in decided}) == 1
        states = {tune.approve: "approved", tune.reject: "rejected"}
        assert drafts.state(n) == states[decided[0][0]]
        refused = {error.code for error in answers if error is not None}
        assert refused <= {"DRAFT_STATE", "REQUEST_RUNNING"}


def test_an_approval_that_was_rolled_back_is_nobodys_rule(town, drafts):
    drafts.begin(1)
    with town.engine.connect() as tx:
        tune.approve(tx, drafts.desk("reviewer"), drafts.ids[1], "1")
        tx.rollback()

    def editions(registry):
        with town.engine.begin() as tx:
            return len(registry.current(tx).versions("travel.bus_km"))

    elsewhere = Registry()
    assert editions(town.registry) == editions(elsewhere) == 1
    drafts.act(town.engine, 1, tune.approve)
    assert editions(town.registry) == editions(elsewhere) == 2
    drafts.act(town.engine, 1, tune.withdraw, "doubt")
    with town.engine.begin() as tx:
        for registry in (town.registry, elsewhere):
            assert registry.current(tx).withdrawn("travel.bus_km", 2)
