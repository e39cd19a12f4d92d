"""A process that dies at any statement leaves the whole of what it did, or nothing of it.

Each job runs in a child process that dies at the n-th event; see `deaths`.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.flows import tune
from app.flows.accept import accept
from app.flows.appeal.case import Bench, Case
from app.flows.appeal.overdue import grant_in_time
from app.flows.appeal.steps import file
from app.flows.budget import add_points, pay_waiting
from app.flows.consent import open_scenarios, text_digest
from app.flows.correct import correct
from app.flows.erase import erase
from app.flows.once import Answer, Repeat, once
from app.flows.report import Claim, ReportError, accept_report, report
from app.flows.seal import Sealer
from app.flows.steps import put_steps
from app.flows.trail import act
from app.store import consents, settings
from scenarios.activity import business_day


def test_accept_writes_the_whole_batch_or_none_of_it(town, deaths, tmp_path):
    town.enroll("rider-0", "rider-1")

    def documents(n):
        food = {"scenario": "food.no_cutlery", "quantities": {"count": "1"}}
        return (
            town.dated(4 * n),
            town.dated(4 * n + 1, subject="rider-1", **food),
            town.dated(4 * n + 2, subject="nobody"),
            town.dated(4 * n + 3, quantities={"distance_km": "0"}),
        )

    def job(engine, n):
        batch = town.batch(f"b{n}", *documents(n))
        accept(engine, town.vault, town.registry, batch, town.clock())

    written = town.value("SELECT count(*) FROM entries")
    for n, trace in deaths(job):
        count = town.value("SELECT count(*) FROM entries")
        assert count == written + 2 * trace
        known = town.value("SELECT count(*) FROM batches WHERE batch_id = :id", id=f"b{n}")
        assert known == trace
        outcomes = [item["outcome"] for item in town.send(f"b{n}", *documents(n))]
        assert outcomes == ["accepted", "accepted", "unclaimed", "rejected"]
        written += 2
    town.prove(tmp_path / "export")


def test_the_sealer_can_die_anywhere_and_the_next_one_goes_on(town, deaths, tmp_path):
    town.enroll("rider-0")

    def prepare(n):
        town.clock.move(days=1)
        town.seal()
        town.send(f"b{n}", *(town.dated(3 * n + i) for i in range(3)))

    def job(engine, n):
        Sealer(engine, town.vault, town.config.head_file).seal(town.clock())

    behind = 0
    for _, trace in deaths(job, prepare):
        size = town.value("SELECT size FROM log_head")
        assert size == town.value("SELECT count(*) FROM leaves")
        assert (town.value("SELECT count(*) FROM outbox") == 0) == trace
        behind += f"\n{size}\n" not in town.config.head_file.read_text()
        town.clock.move(days=1)
        assert town.seal() >= 3 - 3 * trace
    assert behind > 1, "some deaths lie between the commit and the outside copy"
    town.prove(tmp_path / "export")


def test_a_correction_is_made_whole_or_not_at_all(town, deaths, tmp_path):
    (resident,) = town.enroll("rider-0")

    def prepare(n):
        town.send(f"b{n}", town.dated(n))

    def job(engine, n):
        replacement = town.dated(n, quantities={"distance_km": "1"})
        parts = (engine, town.vault, town.registry)
        correct(*parts, "bikes", f"ride-{n}", replacement, town.clock())

    for n, trace in deaths(job, prepare):
        assert town.points(resident) == 250 * (n - 1) + (250 if trace else 625)
        job(town.engine, n)
        assert town.points(resident) == 250 * n
        assert town.value("SELECT count(*) FROM entries WHERE kind = 'reverse'") == n
    town.prove(tmp_path / "export")


def test_who_waits_for_a_budget_is_paid_once(town, deaths, tmp_path):
    town.budget("travel")
    (resident,) = town.enroll("rider-0")

    def prepare(n):
        town.send(f"b{n}", town.dated(n))
        town.fund("travel", 625, f"decision {n}")

    def job(engine, n):
        pay_waiting(engine, town.vault, town.registry, town.clock())

    for n, trace in deaths(job, prepare):
        assert town.points(resident) == 625 * (n - 1 + trace)
        assert town.value("SELECT count(*) FROM waiting") == 1 - trace
        job(town.engine, n)
        assert town.points(resident) == 625 * n
    town.prove(tmp_path / "export")


def test_an_appeal_that_nobody_answered_is_granted_and_marked_or_neither(town, deaths, tmp_path):
    (resident,) = town.enroll("rider-0")
    now = town.clock()
    with town.engine.begin() as tx:
        settings.put(tx, "appeal_month_points", 10_000_000, 0, now)

    def prepare(n):
        act = town.dated(n)
        case = Case("x", **{it: act[it] for it in ("scenario", "occurred_at", "quantities")})
        with town.engine.begin() as tx:
            file(tx, Bench(town.vault, town.registry, now), resident, "missing", case)

    def job(engine, n):
        grant_in_time(engine, town.vault, town.registry, now + timedelta(days=16))

    for n, trace in deaths(job, prepare):
        for query in (
            "SELECT count(*) FROM appeals WHERE state = 'granted_in_time'",
            "SELECT count(*) FROM messages",
            "SELECT count(*) FROM entries WHERE kind = 'adjust'",
        ):
            assert town.value(query) == n - 1 + trace
        job(town.engine, n)
        assert town.points(resident) == 625 * n
    town.prove(tmp_path / "export")


@pytest.fixture
def reporter(town):
    """Somebody who consents to bring steps and cartons of their own."""
    (resident,) = town.enroll("rider-0")
    own = {"werun": "travel.walk_steps", "self": "shopping.carton_reuse"}
    with town.engine.begin() as tx:
        versions = open_scenarios(town.registry.current(tx), town.clock())
        for source, scenario in own.items():
            texts = {scenario: text_digest(versions[scenario])}
            consents.give(tx, source, [bytes.fromhex(resident)], texts, town.clock())
    return resident


def test_what_is_new_in_a_day_is_credited_and_settled_or_neither(town, deaths, reporter, tmp_path):
    today = business_day(town.clock())

    def job(engine, n):
        parts = (engine, town.vault, town.registry, reporter)
        put_steps(*parts, {today: 1000 * n}, town.clock())

    for n, trace in deaths(job):
        settled = "SELECT coalesce(sum(settled), 0) FROM step_days"
        assert town.value(settled) == 1000 * (n - 1 + trace)
        assert _entries(town, "issue") == n - 1 + trace
        job(town.engine, n)
        assert (town.value(settled), _entries(town, "issue")) == (1000 * n, n)
    town.prove(tmp_path / "export")


def test_a_report_is_accepted_credited_and_told_of_or_none_of_it(town, deaths, reporter, tmp_path):
    ids = {}

    def prepare(n):
        town.clock.move(days=1)
        claim = Claim("shopping.carton_reuse", town.clock().isoformat(), {"count": "1"}, f"{n}")
        with town.engine.begin() as tx:
            catalogue, now = town.registry.current(tx), town.clock()
            ids[n] = report(tx, town.vault, catalogue, reporter, claim, None, now).id

    def job(engine, n):
        with engine.begin() as tx:
            catalogue, now = town.registry.current(tx), town.clock()
            accept_report(tx, town.vault, catalogue, ids[n], "rui", now)

    for n, trace in deaths(job, prepare):
        for query in (
            "SELECT count(*) FROM reports WHERE state = 'accepted'",
            "SELECT count(*) FROM messages",
            "SELECT count(*) FROM entries WHERE kind = 'issue'",
        ):
            assert town.value(query) == n - 1 + trace
        if trace:
            with pytest.raises(ReportError, match="decided"):
                job(town.engine, n)
        else:
            job(town.engine, n)
    town.prove(tmp_path / "export")


def test_a_redemption_and_an_erasure_happen_once_each(town, deaths, tmp_path):
    people = {}

    def prepare(n):
        town.send(f"b{n}", town.dated(n, subject=f"rider-{n}"))
        (people[n],) = town.enroll(f"rider-{n}")
        town.allow(600)

    def job(engine, n):
        till = town.till(engine)
        till.redeem(till.hold(people[n], 600, "1").id)
        till.hold(people[n], 25, "2")  # which the erasure releases
        erase(engine, town.vault, people[n], town.clock())

    for n, _ in deaths(job, prepare):
        token = people[n]
        stage = town.points(token), town.points(token, 2)
        if stage != (0, 0):
            assert stage in [(625, 0), (25, 600), (25, 0), (0, 25)]
            job(town.engine, n)
        assert town.points(token) == town.points(token, 2) == 0
        assert town.value("SELECT count(*) FROM residents WHERE erased_at IS NOT NULL") == n
        assert town.value("SELECT count(*) FROM openings") == 0
    assert _entries(town, "redeem") == _entries(town, "release") == len(people)
    town.prove(tmp_path / "export")


def test_an_approval_publishes_the_whole_draft_or_nothing_of_it(town, deaths, drafts, tmp_path):
    def job(engine, n):
        drafts.act(engine, n, tune.approve)

    published = town.value("SELECT count(*) FROM scenario_versions")
    for n, trace in deaths(job, drafts.begin):
        assert town.value("SELECT count(*) FROM scenario_versions") == published + 2 * trace
        assert _entries(town, "scenario.published") == published + 2 * trace
        assert _acts(town, "draft.approved") == n - 1 + trace
        assert drafts.state(n) == ("approved" if trace else "submitted")
        job(town.engine, n)  # sent again, it is answered, and done if it was not
        published += 2
        assert town.value("SELECT count(*) FROM scenario_versions") == published
        assert _acts(town, "draft.approved") == n
    town.prove(tmp_path / "export")


def test_a_withdrawal_takes_back_the_whole_draft_or_nothing_of_it(town, deaths, drafts, tmp_path):
    def prepare(n):
        drafts.begin(n)
        drafts.act(town.engine, n, tune.approve)

    def job(engine, n):
        drafts.act(engine, n, tune.withdraw, "doubt")

    for n, trace in deaths(job, prepare):
        withdrawn = 2 * (n - 1 + trace)
        assert town.value("SELECT count(*) FROM scenario_withdrawals") == withdrawn
        assert _entries(town, "scenario.withdrawn") == withdrawn
        assert _acts(town, "draft.withdrawn") == n - 1 + trace
        job(town.engine, n)
        assert town.value("SELECT count(*) FROM scenario_withdrawals") == 2 * n
    town.prove(tmp_path / "export")


def _entries(town, kind):
    return town.value("SELECT count(*) FROM entries WHERE kind = :kind", kind=kind)


def _acts(town, action):
    return town.value("SELECT count(*) FROM trail WHERE action = :action", action=action)


def test_a_request_is_done_and_answered_once_wherever_it_died(town, deaths, tmp_path):
    def ask(engine, n):
        def work(tx):
            entry, _ = add_points(tx, town.vault, "*", 5, f"decision 1-{n}", town.clock())
            act(tx, "ann", "budget.funded", "*", {"entry_id": entry.id}, town.clock())
            return Answer(200, entry.id.encode())

        request = Repeat("admin ann", f"funding-{n:08d}", b"\x01" * 32)
        return once(engine, town.vault, request, town.clock(), work)

    funded = town.value("SELECT count(*) FROM entries WHERE kind = 'budget.funded'")
    for n, trace in deaths(ask):
        for query, count in (
            ("SELECT count(*) FROM entries WHERE kind = 'budget.funded'", funded + n - 1 + trace),
            ("SELECT count(*) FROM trail", n - 1 + trace),
            ("SELECT count(*) FROM answers", n - 1 + trace),
        ):
            assert town.value(query) == count
        assert ask(town.engine, n).again == trace
        assert ask(town.engine, n).again
    town.prove(tmp_path / "export")
