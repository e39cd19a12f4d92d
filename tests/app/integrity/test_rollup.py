"""A province over two real cities on one PostgreSQL, one of which takes back what it signed."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from app.flows.publish import publish
from app.store import providers
from app.vault import create_keys, open_vault
from ledger import note
from ledger.__main__ import main
from ledger.checkpoint import open as open_checkpoint
from ledger.export import Fault
from ledger.rollup import begin, cities, province, rollup
from scenarios import load

NOON, NAME = 1_795_320_000, "province.example"


@pytest.fixture
def other(town, database, open_town, tmp_path):
    """A second city, with keys and a log of its own."""
    create_keys(tmp_path / "other-keys", "log.test.example/other")
    with database(tmp_path / "other") as config:
        (tmp_path / "other").mkdir()
        made = open_town(config)
        made.vault = open_vault(tmp_path / "other-keys")
        made.__post_init__()
        publish(made.engine, made.vault, load(), made.clock())
        made.fund("*", 1_000_000, "decision 1")
        with made.engine.begin() as tx:
            providers.add(tx, "bikes", "Bikes", made.clock())
        yield made
        made.engine.dispose()


@pytest.fixture
def above(town, other, tmp_path):
    """The province's folder, with both cities in it and exports of them."""
    folder = tmp_path / "province"
    begin(folder, NAME)
    lines = []
    for label, one in (("changzhi", town), ("jincheng", other)):
        one.people = one.enroll("rider-0")
        one.send("b1", *(one.dated(n) for n in range(len(label) * 30)))
        one.seal()
        one.export(tmp_path / label)
        lines.append(f"{label} {one.vault.ring.verifiers[0].vkey} {tmp_path / label}\n")
    (folder / "cities").write_text("".join(lines))
    return SimpleNamespace(folder=folder, look=lambda time=NOON: rollup(folder, time))


def grow(town, first):
    outcomes = town.send(f"b{first}", *(town.dated(first + n) for n in range(5)))
    assert {one["outcome"] for one in outcomes} == {"accepted"}
    town.seal()


def said(town):
    """What the database says of the totals in a city's row."""
    return (
        town.value("SELECT -sum(amount)::bigint FROM open_balances WHERE account_kind = 12"),
        town.value("SELECT -sum(amount)::bigint FROM open_balances WHERE account_kind = 11"),
        town.points(town.people[0]) + town.points(town.people[0], 2),
        *(0, 0),
    )


def test_what_every_city_signed_is_cosigned_and_summed_up(above, town, other, tmp_path):
    for time in (NOON, NOON + 60):
        rows = above.look(time)
        assert [row.fault for row in rows] == ["", ""]
        assert [tuple(row.totals) for row in rows] == [said(town), said(other)]
        ours = province(above.folder)
        for row, one in zip(rows, (town, other), strict=True):
            cosigned = (above.folder / row.label / "checkpoint").read_bytes()
            keys = (*one.vault.ring.verifiers, ours.cosigns.verifier)
            assert len(note.open(cosigned, keys).verified) == 2
            assert open_checkpoint(cosigned, one.vault.ring.verifiers) == row.head
        text = note.open((above.folder / "table").read_bytes(), (ours.signs.verifier,)).text
        total = text.splitlines()[-1].split()
        assert total[:3] == ["total", "2", str(sum(row.head.size for row in rows))]
        assert int(total[3]) == said(town)[0] + said(other)[0]
        till = town.till().hold(town.people[0], 100, str(time))
        assert till.resident
        grow(town, 300 + (time - NOON) // 12)
        town.export(tmp_path / "changzhi")


def test_a_city_that_forks_is_convicted_and_holds_up_no_other(above, town, copy_of, tmp_path):
    forked = copy_of(town)
    grow(town, 300)
    town.export(tmp_path / "changzhi")
    seen = above.look()[0].head
    grow(forked, 305)
    grow(forked, 310)
    shutil.rmtree(tmp_path / "changzhi")
    forked.export(tmp_path / "changzhi")
    for time in (NOON + 60, NOON + 120):
        bad, good = above.look(time)
        assert bad.head is None
        assert "signed two histories" in bad.fault
        assert f"first {seen.size} entries" in bad.fault
        assert good.fault == ""
    keys = town.vault.ring.verifiers
    one, two = (
        open_checkpoint((above.folder / "changzhi" / name).read_bytes(), keys)
        for name in ("checkpoint", "conflict")
    )
    assert one == seen
    assert two.size > one.size
    assert "changzhi log.test.example/puhui fault " in (above.folder / "table").read_text()


def test_a_city_of_the_same_size_and_other_entries_is_convicted(above, town, copy_of, tmp_path):
    forked = copy_of(town)
    grow(town, 300)
    town.export(tmp_path / "changzhi")
    above.look()
    grow(forked, 305)
    shutil.rmtree(tmp_path / "changzhi")
    forked.export(tmp_path / "changzhi")
    assert "signed two histories" in above.look()[0].fault


def test_a_city_that_shows_less_than_it_signed_is_named(above, town, copy_of, tmp_path):
    older = copy_of(town)
    grow(town, 300)
    town.export(tmp_path / "changzhi")
    above.look()
    shutil.rmtree(tmp_path / "changzhi")
    older.export(tmp_path / "changzhi")
    assert "some are withheld" in above.look()[0].fault
    assert not (above.folder / "changzhi/conflict").exists()


def test_another_key_is_not_taken_from_whoever_shows_it(above, other):
    text = (above.folder / "cities").read_text()
    known, foreign = (line.split()[1] for line in text.splitlines())
    (above.folder / "cities").write_text(text.replace(known, foreign))
    bad, good = above.look()
    assert "No key we hold signed" in bad.fault
    assert good.fault == ""


def test_what_is_missing_or_changed_in_an_export_is_named_and_convicts_nobody(
    above, town, tmp_path
):
    above.look()
    grow(town, 300)
    town.export(tmp_path / "changzhi")
    size = town.value("SELECT size FROM log_head")
    files = sorted((tmp_path / "changzhi/tile").glob(f"*/*.p/{size % 256}"))
    assert [path.parts[-3] for path in files] == ["0", "entries"]
    for path in files:
        whole = path.read_bytes()
        path.unlink()
        assert f"tile/{path.parts[-3]}/" in above.look()[0].fault
        for wrong in (whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], whole[:-1]):
            path.write_bytes(wrong)
            assert "tile" in above.look()[0].fault
        path.write_bytes(whole)
    assert not (above.folder / "changzhi/conflict").exists()
    assert above.look()[0].fault == ""


def test_what_the_province_kept_is_believed_for_its_own_signature_only(above, town):
    above.look()
    kept = above.folder / "changzhi/checkpoint"
    lines = kept.read_text().splitlines(keepends=True)
    kept.write_text("".join(lines[:-1]))
    assert "not what the province cosigned" in above.look()[0].fault
    kept.write_text("".join(lines))
    assert above.look()[0].fault == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "names no city"),
        ("Changzhi key folder", "not a label"),
        ("changzhi key", "not a label"),
        ("changzhi key folder", "A key is"),
    ],
)
def test_a_line_that_names_no_city_is_refused(tmp_path, line, why):
    (tmp_path / "cities").write_text(f"{line}\n" if line else "")
    with pytest.raises(Fault, match=why):
        cities(tmp_path)


def test_a_city_may_have_two_keys_and_one_log(above, town, tmp_path):
    path = above.folder / "cities"
    second = note.Signer.generate(town.vault.ring.origin).verifier.vkey
    path.write_text(path.read_text() + f"changzhi {second} {tmp_path / 'changzhi'}\n")
    assert [len(one.keys) for one in cities(above.folder)] == [2, 1]
    assert above.look()[0].fault == ""
    path.write_text(path.read_text() + f"changzhi {second} {tmp_path / 'elsewhere'}\n")
    with pytest.raises(Fault, match="another folder"):
        above.look()


def test_the_command_makes_keys_once_and_says_what_holds(above, tmp_path, capsys):
    assert main(["rollup", str(above.folder)]) == 0
    assert capsys.readouterr().out == (above.folder / "table").read_text()
    assert main(["rollup", str(above.folder), "--init", NAME]) == 1
    assert "never overwritten" in capsys.readouterr().out
    (tmp_path / "changzhi/checkpoint").unlink()
    assert main(["rollup", str(above.folder)]) == 1
    assert "changzhi log.test.example/puhui fault checkpoint: " in capsys.readouterr().out
    assert main(["rollup", str(tmp_path / "new"), "--init", NAME]) == 0
    assert [line.split("+")[0] for line in capsys.readouterr().out.splitlines()] == [NAME] * 2
    assert (tmp_path / "new/keys").stat().st_mode & 0o777 == 0o600
    assert main(["rollup", str(tmp_path / "new")]) == 1
    assert "cities: The file cannot be read" in capsys.readouterr().out
