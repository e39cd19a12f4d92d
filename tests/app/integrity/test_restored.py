"""A database that is not what was sealed before never signs a second history."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from app.cli.operate import log_group
from app.flows.seal import Sealer, SecondHistoryError


@pytest.fixture
def sealed(town):
    town.enroll("rider-0")
    town.send("b1", *(town.dated(n) for n in range(3)))
    town.seal()
    return town


def grow(town, name, count=2):
    """Send acts of their own and seal them."""
    first = sum(name.encode())
    town.send(name, *(town.dated(first + n) for n in range(count)))
    town.seal()


def refused(town, reason):
    """A fresh sealer of this town refuses for this reason and leaves no trace."""
    before = town.digest()
    sealer = Sealer(town.engine, town.vault, town.config.head_file)
    with pytest.raises(SecondHistoryError, match=reason) as refusal:
        sealer.seal(town.clock())
    assert "log adopt" in str(refusal.value)
    assert refusal.value.code == "SECOND_HISTORY"
    assert town.digest() == before


def test_a_restored_older_database_is_refused(sealed, copy_of):
    older = copy_of(sealed)
    grow(sealed, "b2")
    older.config.head_file.write_text(sealed.config.head_file.read_text())
    older.send("b3", older.dated(200))
    refused(older, "restored from an older backup")


def test_a_running_sealer_notices_too(sealed, copy_of):
    older = copy_of(sealed)
    grow(sealed, "b2")
    head = sealed.config.head_file
    moved = Sealer(older.engine, older.vault, head)
    with pytest.raises(SecondHistoryError):
        moved.seal(older.clock())


def test_a_database_that_grew_apart_is_refused_at_any_size(sealed, copy_of):
    shorter, same, longer = copy_of(sealed), copy_of(sealed), copy_of(sealed)
    grow(sealed, "b2", 2)
    grow(shorter, "b3", 1)
    grow(same, "b4", 2)
    grow(longer, "b5", 3)
    for other in (shorter, same, longer):
        other.config.head_file.write_text(sealed.config.head_file.read_text())
        other.send("b6", other.dated(210))
    refused(shorter, "restored from an older backup")
    refused(same, "does not extend")
    refused(longer, "does not extend")


def test_a_missing_or_foreign_outside_copy_is_refused(sealed):
    head = sealed.config.head_file
    kept = head.read_text()
    sealed.send("b2", sealed.dated(100))
    head.unlink()
    refused(sealed, "missing but the log has entries")
    head.write_text(kept.replace(kept.split("\n")[2][:4], "AAAA"))
    refused(sealed, "does not verify")
    head.write_text(kept)
    assert sealed.seal() == 1


def test_an_outside_copy_that_is_behind_is_caught_up_with(sealed, tmp_path):
    head = sealed.config.head_file
    kept = head.read_text()
    grow(sealed, "b2")
    head.write_text(kept)
    sealed.send("b3", sealed.dated(100))
    assert Sealer(sealed.engine, sealed.vault, head).seal(sealed.clock()) == 1
    sealed.prove(tmp_path / "export")


def test_after_an_announced_loss_the_operator_adopts_the_older_log(sealed, copy_of, tmp_path):
    older = copy_of(sealed)
    grow(sealed, "b2")
    older.config.head_file.write_text(sealed.config.head_file.read_text())
    run = CliRunner().invoke(log_group, ["adopt"], input="n\n", obj=older.config)
    assert run.exit_code == 1
    refused(older, "restored")
    run = CliRunner().invoke(log_group, ["adopt", "--yes"], obj=older.config)
    assert (run.exit_code, run.output.split()[-2:]) == (0, [run.output.split()[-2], "entries"])
    older.send("b3", older.dated(200))
    assert older.seal() == 1
    older.prove(tmp_path / "export")
