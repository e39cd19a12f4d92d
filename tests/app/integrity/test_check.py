"""One byte changed anywhere is named: in the database by its self-check, in an export by the audit.

The bytes are changed as a superuser can, with the triggers that forbid it switched off.
"""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from app.cli.operate import check
from app.flows.correct import correct
from ledger.audit import audit
from ledger.export import Fault


@pytest.fixture
def busy(town):
    """A town with a full tile, sealed in three runs, pending entries, an open hold, debt, and
    somebody waiting."""
    town.budget("food")
    spender, saver = town.enroll("rider-0", "rider-1")
    now = town.clock()
    days = [f"2024-{n % 12 + 1:02}-{n // 12 + 1:02}T08:00:00Z" for n in range(260)]
    town.seal()
    town.send("b1", *(town.ride(n, occurred_at=day) for n, day in enumerate(days)))
    town.seal()
    town.send("b2", town.ride(900, scenario="food.no_cutlery", quantities={"count": "1"}))
    town.allow(200_000)
    held = town.till().hold(spender, 150_000, "1")
    town.till().redeem(held.id)
    for n in range(30):
        correct(*town.parts, "bikes", f"ride-{n}", None, now)
    town.seal()
    town.send("b3", town.ride(901, "rider-1"))
    town.till().hold(saver, 1, "2")
    assert town.points(spender, 3) > 0
    assert town.faults() == []
    return town


def flipped(column: str, at: int = 3) -> str:
    return f"{column} = set_byte({column}, {at}, get_byte({column}, {at}) # 1)"


CREDIT = "arrival = 80 AND account_kind = 1 AND asset = 1"
SPENDER = "account_kind = 1 AND asset = 1 AND amount > 1000000"
PENDING = "arrival = (SELECT min(arrival) FROM outbox)"
SECOND = "leaf = (SELECT leaf FROM runs ORDER BY leaf LIMIT 1 OFFSET 1)"
LAST_RUN = "leaf = (SELECT max(leaf) FROM runs)"
LAST = "size = (SELECT max(size) FROM checkpoints)"
RULE = "scenario = 'food.no_cutlery'"
# What is changed (deleted, if there is no change) in which row, and what the check first names.
CHANGES = [
    ("entries", flipped("payload", 40), "arrival = 80", "entries 80"),
    ("entries", flipped("payload", 40), PENDING, "entries"),
    ("entries", flipped("id"), "arrival = 80", "entries 80"),
    ("entries", "kind = 'hold'", "arrival = 80", "entries 80"),
    ("entries", "arrival = 1000000", "arrival = 80", "postings 1000000"),
    ("entries", "", "arrival = 80", "openings 80"),
    ("postings", "amount = amount # 1", CREDIT, "postings 80"),
    ("postings", flipped("account"), CREDIT, "postings 80"),
    ("postings", "account_kind = 3", CREDIT, "postings 80"),
    ("postings", "asset = 2", CREDIT, "postings 80"),
    ("postings", "bucket = bucket # 1", CREDIT, "postings 80"),
    ("postings", "arrival = 1000000", CREDIT, "postings 80"),
    ("postings", "", CREDIT, "postings 80"),
    ("runs", "arrival = 1000000", SECOND, "entries"),
    ("runs", "arrival = arrival - 1", SECOND, "entries"),
    ("runs", "leaf = 1000000", SECOND, "runs"),
    ("runs", "leaf = leaf - 1", SECOND, "runs"),
    ("runs", "count = count - 1", SECOND, "entries"),
    ("runs", "count = count + 1", SECOND, "runs"),
    ("runs", "count = count + 1", LAST_RUN, "entries"),
    ("runs", "", SECOND, "entries"),
    ("tiles", flipped("hashes", 1000), "n = 0", "tiles 0 0"),
    ("tiles", "n = 7", "n = 0", "tiles 0 0"),
    ("tiles", "", "n = 0", "tiles 0 0"),
    ("checkpoints", "note = overlay(note placing '1' from 40)", LAST, "checkpoints"),
    ("checkpoints", "size = size - 1", LAST, "checkpoints"),
    ("checkpoints", "", LAST, "log_head"),
    ("balances", "amount = amount + 1", SPENDER, "balances resident:"),
    ("balances", "bucket = bucket + 1", SPENDER, "balances resident:"),
    ("balances", "amount = amount + 1", "account_kind = 2 AND amount = 1", "balances held:"),
    ("balances", "", "account_kind = 3", "balances debt:"),
    ("balances", "amount = amount + 1", "account_kind = 4", "balances merchant:"),
    ("open_balances", "amount = amount + 1", "account_kind = 13", "open_balances redeemed:"),
    ("open_balances", "amount = -amount", "account_kind = 17", "open_balances settlement:"),
    ("openings", flipped("sealed"), "arrival = 80", "openings 80"),
    ("openings", "arrival = 1000000", "arrival = 80", "openings 80"),
    ("openings", "", "arrival = 80", "openings 80"),
    ("residents", flipped("wrapped_key"), "true", "openings"),
    ("outbox", flipped("leaf_hashes"), PENDING, "outbox"),
    ("outbox", "arrival = 1000000", PENDING, "entries"),
    ("outbox", "arrival = arrival - 1", PENDING, "entries"),
    ("outbox", "count = count + 1, leaf_hashes = leaf_hashes || sha256('')", PENDING, "outbox"),
    ("outbox", "", PENDING, "entries"),
    ("waiting", "points = points + 1", "true", "waiting"),
    ("waiting", flipped("resident"), "true", "waiting"),
    ("waiting", "", "true", "waiting"),
    ("log_head", "size = size + 1", "true", "log_head"),
    ("log_head", "edge[1] = set_byte(edge[1], 3, get_byte(edge[1], 3) # 1)", "true", "log_head"),
    ("scenario_versions", flipped("canonical", 9), RULE, "scenario_versions food.no_cutlery"),
    ("scenario_versions", flipped("canonical", 9), RULE, "scenario_versions food.no_cutlery"),
    ("scenario_versions", "digest = md5('')", RULE, "scenario_versions food.no_cutlery"),
    ("scenario_versions", "", RULE, "scenario_versions food.no_cutlery"),
]


def test_one_changed_value_in_any_table_is_named(busy):
    missed = []
    with busy.admin() as admin:
        admin.execute("SET session_replication_role = replica")
        for table, change, row, named in CHANGES:
            admin.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table}")
            verb = f"UPDATE {table} SET {change}" if change else f"DELETE FROM {table}"
            changed = admin.execute(f"{verb} WHERE {row}").rowcount
            faults = busy.faults()
            admin.execute(f"DELETE FROM {table}")
            admin.execute(f"INSERT INTO {table} SELECT * FROM kept")
            admin.execute("DROP TABLE kept")
            if not changed or not faults or not faults[0].where.startswith(named):
                missed.append((table, change, changed, faults[:2]))
    assert missed == []
    assert busy.faults() == []


def test_one_changed_byte_in_any_exported_file_is_named(busy, tmp_path):
    folder = tmp_path / "export"
    busy.prove(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 30
    for path in files:
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(Fault) as fault:
                audit(folder, trusted=busy.vault.ring.verifiers)
            assert names(fault.value, path.relative_to(folder).as_posix()), (path, fault.value)
        path.write_bytes(whole)
    audit(folder, trusted=busy.vault.ring.verifiers)


def names(fault, path):
    """A tile and its bundle are held against each other, the keys against checkpoint and policy."""
    related = {"log.vkey": ("policy", "checkpoint"), "policy": ("checkpoint",)}
    if path.startswith("tile/entries/"):
        related[path] = (path.replace("/entries/", "/0/"),)
    return fault.where.startswith((path, *related.get(path, ())))


def test_the_command_says_that_everything_holds_or_what_does_not(busy):
    run = CliRunner().invoke(check, obj=busy.config)
    assert (run.exit_code, run.output) == (0, "everything holds\n")
    with busy.admin() as admin:
        admin.execute("UPDATE balances SET amount = amount + 1 WHERE account_kind = 2")
    run = CliRunner().invoke(check, obj=busy.config)
    assert run.exit_code == 1
    assert run.output.startswith("balances held:")
