"""The export beside what administrators do: their acts, and versions published at any moment."""

from __future__ import annotations

import json

import psycopg
import pytest
from click.testing import CliRunner

from app.cli.operate import export
from app.flows.check import check_database
from app.flows.export import export_log
from app.flows.publish import record, retract
from app.flows.trail import act
from app.store import catalogue
from ledger.audit import audit
from ledger.encoding import encode
from scenarios import Version, load


class Office:
    """An administrators' office: it acts, publishes, withdraws, and hands auditors exports."""

    def __init__(self, city, folder):
        self.city, self.folder = city, folder
        first = json.loads(load().versions("travel.bike_shared")[0].canonical())
        first |= {"number": 2, "effective_from": "2027-01-01"}
        self.next = Version.from_canonical(encode(first))

    def seal(self):
        return self.city.sealer.seal(self.city.clock())

    def export(self, **wanted):
        export_log(self.city.engine, self.city.vault, self.folder, **{"openings": True, **wanted})
        return audit(self.folder, trusted=self.city.vault.ring.verifiers)

    def act(self, action, **detail):
        with self.city.engine.begin() as tx:
            return act(tx, "wang.fang", action, "draft/1", detail, self.city.clock())

    def publish(self):
        with self.city.engine.begin() as tx:
            record(tx, self.city.vault, [self.next], self.city.clock())

    def withdraw(self):
        with self.city.engine.begin() as tx:
            retract(tx, self.city.vault, [self.next], self.city.clock())

    def faults(self):
        return [fault.where for fault in check_database(self.city.engine, self.city.vault)]


@pytest.fixture
def office(city, tmp_path):
    return Office(city, tmp_path / "export")


def test_the_trail_is_exported_on_request_and_every_act_holds(office):
    office.act("draft.opened", reason="系数更新")
    office.act("draft.approved", digests=["d" * 64, "e" * 64])
    office.seal()
    office.act("draft.withdrawn")  # not in the log yet
    assert office.export(acts=True).opened == 2
    lines = (office.folder / "trail.jsonl").read_text().splitlines()
    records = [json.loads(json.loads(line)["record"]) for line in lines]
    assert [one["action"] for one in records] == ["draft.opened", "draft.approved"]
    assert records[0]["detail"] == {"reason": "系数更新"}


def test_what_is_not_asked_for_again_does_not_stay_from_an_older_export(office):
    office.act("draft.opened")
    office.seal()
    office.export(acts=True)
    office.act("draft.discarded")
    office.seal()
    report = office.export(openings=False)
    assert (report.opened, report.recomputed) == (None, None)
    assert office.export(acts=True).opened == 2


def test_the_command_exports_the_trail(office, city):
    office.act("draft.opened")
    office.seal()
    run = CliRunner().invoke(export, [str(office.folder), "--trail"], obj=city.config)
    assert run.exit_code == 0, run.output
    assert audit(office.folder).opened == 1


def test_a_version_that_waits_to_be_sealed_is_in_the_next_export_only(office):
    office.seal()
    published = office.export().versions
    office.publish()
    assert office.export().versions == published
    office.seal()
    assert office.export().versions == published + 1


def test_a_version_that_was_withdrawn_is_exported_and_counted(office, provider, rider, ride):
    office.publish()
    office.withdraw()
    provider.batch("b1", ride(1))
    office.seal()
    report = office.export()
    assert (report.withdrawn, report.recomputed) == (1, 1)
    assert (office.folder / "scenarios/travel.bike_shared/2.json").exists()


def test_a_withdrawal_that_only_the_table_knows_is_named(office, city):
    office.publish()
    with city.engine.begin() as tx:
        catalogue.withdraw(tx, [("travel.bike_shared", 2)], city.clock())
    assert office.faults() == ["scenario_withdrawals travel.bike_shared 2"]


def test_a_withdrawal_that_only_the_log_knows_is_named(office, city):
    office.publish()
    office.withdraw()
    assert office.faults() == []
    with psycopg.connect(city.owner_url.replace("+psycopg", "")) as owner:
        owner.execute("ALTER TABLE scenario_withdrawals DISABLE TRIGGER append_only")
        owner.execute("DELETE FROM scenario_withdrawals")
    assert office.faults() == ["scenario_withdrawals travel.bike_shared 2"]
