"""What an administrator does is told, sealed, and cannot be untold."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest
from click.testing import CliRunner
from sqlalchemy import text

from app.cli.admins import trail_group
from app.flows.budget import fund_budget
from app.flows.check import check_database
from app.flows.export import export_log
from app.flows.trail import act
from ledger.audit import audit
from ledger.encoding import commit
from ledger.entries import Entry, Kind
from ledger.errors import Malformed

FIRST = datetime(2026, 11, 20, 4, tzinfo=UTC)


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def alice(desk):
    return desk("auditor", name="alice")


@pytest.fixture
def olga(desk):
    return desk("operator", name="olga")


@pytest.fixture
def acted(city):
    """Five acts of two people on three days, sealed."""
    for day, actor, action in (
        (20, "ann", "draft.opened"),
        (20, "bob", "draft.opened"),
        (21, "ann", "draft.submitted"),
        (22, "bob", "draft.approved"),
        (22, "ann", "draft.opened"),
    ):
        with city.engine.begin() as tx:
            act(tx, actor, action, "草案 1", {"day": day}, FIRST.replace(day=day))
    city.sealer.seal(city.clock())


def faults(city):
    return [tuple(one) for one in check_database(city.engine, city.vault)]


def test_an_act_is_an_entry_that_commits_to_its_record(city):
    with city.engine.begin() as tx:
        entry_id = act(tx, "ann", "draft.opened", "d1", {"title": "骑行"}, FIRST)
    with city.engine.connect() as tx:
        row = tx.execute(
            text("SELECT payload, record, salt FROM entries JOIN trail USING (arrival)")
        ).one()
    entry = Entry.parse(row.payload)
    assert (entry.id, entry.kind) == (entry_id, Kind.ADMIN_ACTED)
    assert entry.detail == {
        "action": "draft.opened", "commitment": commit(row.salt, row.record)
    }  # fmt: skip
    assert json.loads(row.record) == {
        "action": "draft.opened",
        "actor": "ann",
        "at": "2026-11-20T04:00:00.000Z",
        "detail": {"title": "骑行"},
        "target": "d1",
    }
    assert b"ann" not in row.payload


@pytest.mark.parametrize("detail", [{"share": 0.5}, {"known": None}, {"long": "x" * 40_000}])
def test_a_record_without_a_canonical_form_or_too_long_is_refused(city, detail):
    with pytest.raises(Malformed), city.engine.begin() as tx:
        act(tx, "ann", "draft.opened", "d1", detail, FIRST)


def test_an_auditor_reads_the_newest_first_page_by_page(acted, alice):
    first = alice.get("trail", limit=3).get_json()
    rest = alice.get("trail", limit=3, cursor=first["next_cursor"]).get_json()
    items = first["items"] + rest["items"]
    assert [one["detail"]["day"] for one in items] == [22, 22, 21, 20, 20]
    assert rest["has_more"] is False
    assert items[0]["target"] == "草案 1"
    assert items[0]["acted_at"] == "2026-11-22T12:00:00+08:00"
    indexes = [int(one["index"]) for one in items]
    assert indexes == sorted(indexes, reverse=True)


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ({"actor": "ann"}, [22, 21, 20]),
        ({"action": "draft.opened"}, [22, 20, 20]),
        ({"actor": "ann", "action": "draft.opened"}, [22, 20]),
        ({"from": "2026-11-21"}, [22, 22, 21]),
        ({"to": "2026-11-21"}, [21, 20, 20]),
        ({"from": "2026-11-21", "to": "2026-11-21"}, [21]),
        ({"actor": "nobody"}, []),
    ],
)
def test_an_auditor_picks_by_actor_action_and_day(acted, alice, query, days):
    items = alice.get("trail", **query).get_json()["items"]
    assert [one["detail"]["day"] for one in items] == days


@pytest.mark.parametrize(
    "query", [{"from": "20261121"}, {"to": "2026-02-30"}, {"cursor": "abc"}, {"cursor": "MS0y"}]
)
def test_a_day_or_cursor_that_is_none_is_refused(alice, query):
    assert alice.get("trail", **query).status_code == 422


def test_an_act_that_is_not_sealed_yet_says_so(city, alice):
    with city.engine.begin() as tx:
        act(tx, "ann", "draft.opened", "d1", {}, city.clock())
    assert alice.get("trail").get_json()["items"][0]["index"] is None
    assert alice.get("trail/export").data == b""
    city.sealer.seal(city.clock())
    assert alice.get("trail").get_json()["items"][0]["index"] is not None
    assert alice.get("trail/export").data.count(b"\n") == 1


def test_what_is_exported_passes_the_audit_of_the_log_it_belongs_to(acted, alice, city, tmp_path):
    from_api = alice.get("trail/export")
    assert from_api.content_type == "application/jsonl"
    run = CliRunner().invoke(trail_group, ["export", str(tmp_path / "trail")], obj=city.config)
    assert run.output.startswith("5 acts written")
    assert (tmp_path / "trail").read_bytes() == from_api.data
    part = alice.get("trail/export", **{"from": "2026-11-22"}).data
    assert from_api.data.endswith(part)
    assert part.count(b"\n") == 2


def test_the_database_refuses_to_change_or_remove_an_act(acted, city):
    for role in ("puhui_app", "puhui_owner"):
        url = city.owner_url.replace("+psycopg", "").replace("puhui_owner@", f"{role}@")
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in (
                "UPDATE trail SET actor = 'eve'", "DELETE FROM trail", "TRUNCATE trail"
            ):  # fmt: skip
                with pytest.raises(
                    (psycopg.errors.InsufficientPrivilege, psycopg.errors.RestrictViolation)
                ):
                    connection.execute(statement)


CHANGES = [
    "UPDATE trail SET actor = 'eve' WHERE {}",
    "UPDATE trail SET action = 'draft.edited' WHERE {}",
    "UPDATE trail SET target = 'd2' WHERE {}",
    "UPDATE trail SET at = at + interval '1 second' WHERE {}",
    "UPDATE trail SET record = set_byte(record, 20, get_byte(record, 20) # 1) WHERE {}",
    "UPDATE trail SET record = convert_to(overlay(convert_from(record, 'UTF8') placing 'eve'"
    " from position('bob' in convert_from(record, 'UTF8'))), 'UTF8'), actor = 'eve' WHERE {}",
    "UPDATE trail SET salt = set_byte(salt, 3, get_byte(salt, 3) # 1) WHERE {}",
    "UPDATE trail SET arrival = 1000000 WHERE {}",
    "DELETE FROM trail WHERE {}",
]


def test_the_check_finds_an_act_that_was_changed_or_removed_all_the_same(acted, city, superuser):
    assert faults(city) == []
    superuser.execute("SET session_replication_role = replica")
    row = "action = 'draft.approved'"
    (arrival,) = superuser.execute(f"SELECT arrival FROM trail WHERE {row}").fetchone()
    for change in CHANGES:
        superuser.execute("CREATE TEMP TABLE kept AS SELECT * FROM trail")
        assert superuser.execute(change.format(row)).rowcount == 1
        found = faults(city)
        superuser.execute("DELETE FROM trail")
        superuser.execute("INSERT INTO trail SELECT * FROM kept")
        superuser.execute("DROP TABLE kept")
        assert found, change
        assert found[0][0] == f"trail {arrival}", change
    assert faults(city) == []


def test_an_operator_funds_a_budget_once_and_the_trail_says_so(olga, alice, client):
    def left():
        (budget,) = olga.get("budgets").get_json()["items"]
        return int(budget["left_points"])

    before = left()
    decision = {"points": "5000", "reference": "长财〔2026〕12号"}
    first = olga.post("budgets/*/fund", decision, key="funding-1")
    assert first.get_json()["again"] is False
    assert olga.post("budgets/*/fund", decision, key="funding-1").data == first.data
    again = olga.post("budgets/*/fund", decision).get_json()
    assert again == {"entry_id": first.get_json()["entry_id"], "again": True}
    assert left() == before + 5000
    assert olga.get("budgets").get_json() == client.get("/api/v1/budgets").get_json()
    told = alice.get("trail", actor="olga").get_json()["items"]
    assert [one["action"] for one in told] == ["budget.funded_before", "budget.funded"]
    assert told[1]["detail"] == {
        "entry_id": again["entry_id"], "points": 5000, "reference": "长财〔2026〕12号"
    }  # fmt: skip


def test_a_reference_counts_for_one_sum_and_a_budget_must_exist(olga, city):
    fund_budget(city.engine, city.vault, "*", 7, "decision 7", city.clock())
    other = olga.post("budgets/*/fund", {"points": "8", "reference": "decision 7"})
    assert code_of(other) == (409, "REFERENCE_REUSED")
    nowhere = olga.post("budgets/food/fund", {"points": "8", "reference": "decision 8"})
    assert code_of(nowhere) == (404, "BUDGET_UNKNOWN")


@pytest.mark.parametrize(
    "change",
    [
        {"points": "0"},
        {"points": "1e3"},
        {"points": 5},
        {"reference": ""},
        {"reference": "a\nb"},
        {"reference": "\u200e"},
    ],
)
def test_a_malformed_decision_is_refused(olga, change):
    decision = {"points": "5", "reference": "decision 9"} | change
    assert code_of(olga.post("budgets/*/fund", decision)) == (422, "VALIDATION_FAILED")


def test_shadow_rules_report_what_they_would_have_refused(city, olga):
    with city.engine.begin() as tx:
        for days_ago, acts in ((0, 2), (1, 3), (40, 5)):
            tx.execute(
                text(
                    "INSERT INTO shadow_refusals VALUES (CAST(:now AS timestamptz)"
                    " - :days * interval '1 day', 'bikes', 'travel.bike_shared', 1, 'speed',"
                    " :acts, 1000)"
                ),
                {"now": city.clock(), "days": days_ago, "acts": acts},
            )
    (month,) = olga.get("shadow").get_json()["items"]
    assert (month["rule"], month["acts"], month["reduction_mg"]) == ("speed", "5", "2000")
    (day,) = olga.get("shadow", **{"from": "2026-11-22"}).get_json()["items"]
    assert day["acts"] == "2"
    assert olga.get("shadow", to="2026-01-01").get_json() == {"items": []}


def test_the_trail_in_an_export_is_checked_with_the_log(acted, city, tmp_path):
    export_log(city.engine, city.vault, tmp_path / "x", openings=False, acts=True)
    audit(tmp_path / "x", trusted=city.vault.ring.verifiers)
