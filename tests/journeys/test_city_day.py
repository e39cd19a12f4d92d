"""A day in a city: providers report, residents read, strangers check, the money runs out once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import timedelta
from decimal import ROUND_FLOOR, Decimal
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app.clock import utc_now
from app.config import CITY_ZONE
from ledger import checkpoint
from ledger.merkle import verify_consistency
from ledger.note import Verifier
from ledger.text import unbase64
from ledger.tiles import Edge
from scenarios import load

PROJECT = Path(__file__).resolve().parents[2]
_RULES = load()
NEWEST = {name: _RULES.versions(name)[-1] for name in _RULES.scenarios}
_CASES = {  # the first worked example of each behaviour
    case["scenario"]: case["quantities"]
    for file in sorted((PROJECT / "tests/scenarios/cases").glob("*.toml"))
    for case in reversed(tomllib.loads(file.read_text(encoding="utf-8"))["case"])
}
_OPEN = [edition for edition in NEWEST.values() if edition.enabled]
_FIRST = {edition.group.name: edition.scenario for edition in reversed(_OPEN) if edition.group}
ALL = {  # one act of every behaviour that is open in the city, of those that exclude each other one
    edition.scenario: _CASES[edition.scenario]
    for edition in _OPEN
    if not edition.group or _FIRST[edition.group.name] == edition.scenario
} | {"travel.bike_shared": {"distance_km": "1.317"}}


def act(number, subject, scenario="travel.bike_shared", **changes):
    yesterday = (utc_now() - timedelta(days=1)).astimezone(CITY_ZONE)
    noon = yesterday.replace(hour=12, minute=0, second=0, microsecond=0)
    return {
        "id": f"{subject}-{number}",
        "subject": subject,
        "scenario": scenario,
        "occurred_at": noon.isoformat(),
        "quantities": ALL[scenario],
    } | changes


def by_hand(rule, quantities):
    """Milligrams of an act, from the published edition and the formula's printed meaning."""
    grams = {one["name"]: Decimal(one["value"]) for one in rule["coefficients"]}
    given = {
        one["role"]: quantities[one["name"]] for one in rule["inputs"] if one["name"] in quantities
    }
    if rule["formula"] == "saving":
        result = (Decimal(given["baseline"]) - Decimal(given["actual"])) * grams["factor"]
    elif rule["formula"] == "two_baselines":
        kwh = {role: Decimal(text) for role, text in given.items() if role != "exclusion"}
        above = kwh["actual"] > kwh["reference"]
        baseline = kwh["own_average"] if above else kwh["reference"]
        result = (baseline - kwh["actual"]) * grams["factor"]
    elif rule["formula"] == "difference":
        result = Decimal(given["quantity"]) * (grams["baseline"] - grams["project"])
    else:
        result = Decimal(given["quantity"]) * grams[given.get("class", "factor")]
    return int((result * 1000).to_integral_value(ROUND_FLOOR))


def head_of(town):
    keys = [Verifier.parse(line) for line in town.http.get("/log/keys").text.splitlines()]
    return checkpoint.open(town.http.get("/log/checkpoint").text, keys, town.config.log_origin)


def sealed(resident, eventually):
    """The resident's newest statement lines, once all of them are in the log."""

    def lines():
        items = resident.get("statement", limit=50)["items"]
        return items if all(one["sealed"] for one in items) else None

    return eventually(lines)


def python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=PROJECT, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


@pytest.fixture(scope="module")
def bureau(town, tmp_path_factory):
    """The city's platform, registered and paid for as an operator does it, by command."""
    pem = tmp_path_factory.mktemp("keys") / "bureau.pem"
    town.puhui("provider", "add", "bureau", "长治生活平台")
    key_id = town.puhui("provider", "key", "bureau", "--write", str(pem)).strip()
    town.puhui("budget", "fund", "*", "1000000", "--reference", "decision 1")
    return town.sender("bureau", key_id, load_pem_private_key(pem.read_bytes(), None))


def test_every_kind_of_act_becomes_the_grams_that_the_published_rule_says(
    town, bureau, eventually, tmp_path
):
    registry = town.http.get("/api/v1/scenarios").json()["items"]
    assert {one["id"]: one["enabled"] for one in registry} == {
        name: edition.enabled for name, edition in NEWEST.items()
    }
    resident = town.resident(bureau, "an")
    answer = bureau.batch("all", *(act(n, "an", name) for n, name in enumerate(ALL)))
    assert answer.status_code == 200
    receipt = answer.json()
    assert receipt["counts"] == {
        "accepted": len(ALL), "duplicate": 0, "unclaimed": 0, "rejected": 0
    }  # fmt: skip
    assert bureau.send("GET", "/api/v1/batches/all").content == answer.content

    expected = 0
    for (scenario, quantities), outcome in zip(ALL.items(), receipt["outcomes"], strict=True):
        full = resident.get(f"entries/{outcome['entry_id']}")
        reckoned = full["calculation"]
        edition = town.http.get(f"/api/v1/scenarios/{scenario}/versions/{reckoned['version']}")
        assert sha256(edition.content).hexdigest() == reckoned["digest"]
        mg = by_hand(edition.json(), quantities)
        assert (
            outcome["reduction_mg"] == full["reduction_mg"] == reckoned["reduction_mg"] == str(mg)
        )
        assert all(one["source"] for one in reckoned["coefficients"])
        points = mg * edition.json()["rate"]["points_per_kg"] // 1_000_000
        assert reckoned["points_before_caps"] == str(points)
        withheld = int(outcome.get("withheld_points", 0))
        assert int(outcome["points"]) + withheld == points
        assert outcome["points"] == full["points"]
        expected += mg

    home = resident.get("home")
    balances = resident.get("balances")
    assert home["balances"] == balances
    assert balances["reduction_mg"] == str(expected)
    assert balances["points"] == str(sum(int(one["points"]) for one in receipt["outcomes"]))
    assert sum(int(one["points"]) for one in balances["buckets"]) == int(balances["points"])
    assert home["waiting_points"] == "0"

    seen, cursor = [], None
    while True:
        page = resident.get("statement", limit=7, **({"cursor": cursor} if cursor else {}))
        seen += [one["entry_id"] for one in page["items"]]
        if not (cursor := page["next_cursor"]):
            break
    assert seen == [one["entry_id"] for one in receipt["outcomes"]][::-1]
    food = sum(name.startswith("food.") for name in ALL)
    assert len(resident.get("statement", area="food")["items"]) == food

    vkey, opening = tmp_path / "log.vkey", tmp_path / "opening.json"
    vkey.write_text(town.http.get("/log/keys").text)
    sealed(resident, eventually)
    for entry_id in (seen[0], seen[-1]):
        file = tmp_path / f"{entry_id}.tlog-proof"
        file.write_bytes(resident.ask(f"entries/{entry_id}/receipt").content)
        opening.write_bytes(resident.ask(f"entries/{entry_id}/opening").content)
        command = ("-m", "ledger", "receipt", file, "--vkey", vkey, "--opening", opening)
        done = python(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"Entry {entry_id}" in done.stdout
        assert "The opening is what the entry committed to." in done.stdout
        spoilt = bytearray(file.read_bytes())
        spoilt[-40] ^= 1
        file.write_bytes(spoilt)
        assert python(*command).returncode == 1


def test_strangers_rebuild_the_log_from_its_tiles_and_see_it_only_grow(town, bureau, eventually):
    old = eventually(lambda: head_of(town) if town.http.get("/log/checkpoint").is_success else None)
    town.resident(bureau, "bo")
    assert bureau.batch("bo", act(1, "bo")).json()["counts"]["accepted"] == 1
    new = eventually(lambda: head if (head := head_of(town)).size > old.size else None)
    edge = Edge.read(new.size, lambda tile: town.http.get(f"/log/{tile.path}").content)
    assert (edge.size, edge.root()) == (new.size, new.root)
    sizes = {"old": old.size, "new": new.size}
    hashes = town.http.get("/api/v1/log/consistency", params=sizes).json()["hashes"]
    verify_consistency(old.size, new.size, [unbase64(h) for h in hashes], old.root, new.root)
    assert int(town.http.get("/api/v1/figures").json()["log_size"]) >= new.size


def test_a_correction_takes_the_first_credit_back_and_both_are_on_the_statement(town, bureau):
    resident = town.resident(bureau, "chen")
    (first,) = bureau.batch("chen", act(1, "chen")).json()["outcomes"]
    shorter = act(1, "chen", quantities={"distance_km": "1"})
    corrected = bureau.correct("chen-1", shorter)
    assert corrected.status_code == 200, corrected.text
    assert bureau.correct("chen-1", shorter).json()["entry_id"] == corrected.json()["entry_id"]
    lines = resident.get("statement")["items"]
    assert [(one["kind"], one["reduction_mg"]) for one in lines] == [
        ("issue", "250000"),
        ("reverse", "-329250"),
        ("issue", "329250"),
    ]
    assert lines[1]["concerns_entry_id"] == first["entry_id"]
    assert bureau.correct("chen-1", None).json()["outcome"] == "reversed"
    assert resident.get("balances")["points"] == "0"
    assert resident.get("balances")["reduction_mg"] == "0"


def test_a_ride_that_was_somebody_elses_moves_to_them(town, bureau):
    wrong, right = town.resident(bureau, "chu"), town.resident(bureau, "chun")
    ride = act(1, "chu")
    bureau.batch("chu", ride)
    moved = bureau.correct("chu-1", {**ride, "subject": "chun"})
    assert (moved.status_code, moved.json()["outcome"]) == (200, "accepted")
    assert wrong.get("balances")["reduction_mg"] == "0"
    assert right.get("balances")["reduction_mg"] == "329250"


def test_what_was_reported_before_somebody_joined_is_credited_when_they_do(town, bureau):
    outcomes = bureau.batch("di", act(1, "di"), act(2, "di")).json()["outcomes"]
    assert [one["outcome"] for one in outcomes] == ["unclaimed", "unclaimed"]
    listed = bureau.send("GET", "/api/v1/activities/unclaimed").json()["items"]
    assert [one["activity_id"] for one in listed] == ["di-1", "di-2"]
    resident = town.resident(bureau, "di")
    assert resident.get("balances")["reduction_mg"] == str(2 * 329_250)
    assert bureau.send("GET", "/api/v1/activities/unclaimed").json()["items"] == []
    again = bureau.batch("di-again", act(1, "di")).json()["outcomes"]
    assert again[0]["outcome"] == "duplicate"


def test_when_the_budget_is_empty_points_wait_in_line_and_are_paid_in_order(
    town, bureau, eventually
):
    town.puhui("budget", "create", "tourism", "文旅积分")
    town.puhui("budget", "fund", "tourism", "200", "--reference", "decision 2")
    first, second, third = (town.resident(bureau, name) for name in ("e", "f", "g"))
    night = {"scenario": "tourism.no_linen", "quantities": {"nights": "1"}}  # 159 points
    stays = [act(1, name, **night) for name in ("e", "f", "g")]
    outcomes = bureau.batch("nights", *stays).json()["outcomes"]
    assert [one["points"] for one in outcomes] == ["159", "0", "0"]
    assert [one.get("reason") for one in outcomes] == [
        None, "WAITING_FOR_BUDGET", "WAITING_FOR_BUDGET"
    ]  # fmt: skip
    assert first.get("home")["waiting_points"] == "0"
    for resident in (second, third):
        home = resident.get("home")
        assert home["waiting_points"] == home["recent"][0]["waiting_points"] == "159"
        assert home["balances"]["points"] == "0"
        assert home["balances"]["reduction_mg"] == "159000"

    def budget():
        return next(
            one for one in town.http.get("/api/v1/budgets").json()["items"]
            if one["scope"] == "tourism"
        )  # fmt: skip

    assert (budget()["left_points"], budget()["waiting_points"]) == ("41", "318")
    town.puhui("budget", "fund", "tourism", "120", "--reference", "decision 3")
    town.puhui("budget", "fund", "tourism", "120", "--reference", "decision 3")  # counts once
    eventually(lambda: second.get("balances")["points"] == "159")
    assert third.get("balances")["points"] == "0"  # 2 points are left: not enough for all of it
    assert third.get("home")["waiting_points"] == "159"
    town.puhui("budget", "fund", "tourism", "157", "--reference", "decision 4")
    eventually(lambda: third.get("balances")["points"] == "159")
    assert (budget()["left_points"], budget()["waiting_points"]) == ("0", "0")
    paid = third.get("statement")["items"][0]
    assert paid["concerns_entry_id"] == outcomes[2]["entry_id"]
    assert third.get("home")["waiting_points"] == "0"


def test_an_auditor_with_the_export_finds_that_all_of_it_holds(town, bureau, tmp_path, eventually):
    resident = town.resident(bureau, "hu")
    bureau.batch("hu", *(act(n, "hu", name) for n, name in enumerate(ALL)))
    sealed(resident, eventually)
    vkey, out = tmp_path / "log.vkey", tmp_path / "export"
    vkey.write_text(town.http.get("/log/keys").text)
    town.puhui("export", str(out), "--openings")
    done = python("-m", "ledger", out, "--vkey", vkey)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("Everything holds.\n")
    (out / "openings.jsonl").write_bytes(
        (out / "openings.jsonl").read_bytes().replace(b"1.317", b"1.318")
    )
    assert python("-m", "ledger", out, "--vkey", vkey).returncode == 1
