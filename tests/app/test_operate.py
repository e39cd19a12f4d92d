"""What an operator is told: one sentence and a code for the shell, never a traceback."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text

from app.cli import MODULES, local, main
from app.cli.local import environment
from app.flows.enroll import enroll


@pytest.fixture
def puhui(city, monkeypatch, capsys):
    """Run a command on the city's database: its exit code, and what it says."""
    for name, value in environment(city.config).items():
        monkeypatch.setenv(name, value)

    def run(*arguments, **changed):
        for name, value in changed.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["puhui", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    return run


@pytest.fixture
def pem(tmp_path):
    """A file with the public half of a key."""

    def write(key):
        path = tmp_path / "public.pem"
        kind = PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(Encoding.PEM, kind))
        return path

    return write


def _one(city, query):
    with city.engine.connect() as tx:
        return tx.execute(text(query)).scalar()


def test_every_command_is_found_in_its_module():
    files = (local.PROJECT / "app" / "cli").glob("*.py")
    having = {path.stem for path in files if "\nCOMMANDS = " in path.read_text()}
    assert having == set(MODULES)
    for module, names in MODULES.items():
        found = import_module(f"app.cli.{module}").COMMANDS
        assert tuple(command.name for command in found) == names


def test_a_provider_gets_keys_and_loses_them(puhui, pem, city):
    assert puhui("provider", "add", "bus-co", "长治公交")[0] == 0
    assert puhui("provider", "add", "bus-co", "again") == (
        1,
        "Error: provider bus-co exists already\n",
    )
    for key in (
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ):
        code, key_id = puhui("provider", "key", "bus-co", "--public", pem(key))
        assert code == 0
        assert key_id.startswith("bus-co-")
    assert puhui("provider", "revoke", key_id.strip())[0] == 0
    assert puhui("provider", "revoke", key_id.strip())[0] == 1
    assert _one(city, "SELECT count(*) FROM provider_keys WHERE revoked_at IS NULL") == 1
    lines = puhui("provider", "list")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["bus-co", "bus-co", "self", "werun"]
    assert [line.endswith("revoked") for line in lines[:2]] == [False, True]


def test_what_leaves_no_entry_of_its_own_is_in_the_trail(puhui, pem, city):
    puhui("provider", "add", "bus-co", "长治公交")
    key_id = puhui(
        "provider", "key", "bus-co", "--public", pem(ed25519.Ed25519PrivateKey.generate())
    )[1]
    puhui("provider", "revoke", key_id.strip())
    puhui("budget", "create", "travel", "绿色出行")
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT actor, action, target FROM trail ORDER BY arrival"))
        assert [tuple(row) for row in rows] == [
            ("cli", "provider.added", "bus-co"),
            ("cli", "provider.key_added", "bus-co"),
            ("cli", "provider.key_revoked", key_id.strip()),
            ("cli", "budget.created", "travel"),
        ]


def test_budgets_are_listed_with_what_is_left(puhui):
    assert puhui("budget", "create", "travel", "绿色出行")[0] == 0
    assert puhui("budget", "list") == (
        0,
        "*  general  10000000 left  0 waiting\ntravel  绿色出行  0 left  0 waiting\n",
    )


def test_keys_that_no_request_can_be_signed_with_are_refused(puhui, pem, tmp_path):
    puhui("provider", "add", "bus-co", "长治公交")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("no key")
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    for path in (pem(ec.generate_private_key(ec.SECP256R1())), pem(weak), nonsense):
        code, said = puhui("provider", "key", "bus-co", "--public", path)
        assert code == 1
        assert said.startswith("Error: this is no Ed25519 public key")


def test_a_key_for_nobody_leaves_no_file(puhui, tmp_path):
    code, said = puhui("provider", "key", "nobody", "--write", tmp_path / "nobody.pem")
    assert (code, said) == (1, "Error: there is no provider nobody; add it first\n")
    assert not (tmp_path / "nobody.pem").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["provider", "add", "Bus Co", "x"], 2, "CODE must be 2 to 31 of a-z 0-9 -"),
        (["provider", "key", "bus-co"], 2, "give either --public FILE or --write FILE"),
        (["budget", "create", "trafel", "x"], 2, "is no scenario's id, no area and not '*'"),
        (["budget", "fund", "travel", "5", "--reference", "x"], 1, "puhui: no budget has the"),
        (["erase", "somebody", "--yes"], 2, "RESIDENT must be 32 lower-case hex digits"),
        (["erase", "0" * 32, "--yes"], 1, "puhui: There is no such resident."),
        (["erase", "--yes"], 2, "name a RESIDENT, or say --again"),
        (["erase", "0" * 32, "--again", "--yes"], 2, "name a RESIDENT, or say --again"),
        (["erase", "0" * 32, "--export", ".", "--yes"], 2, "name a RESIDENT, or say --again"),
        (["export", "/dev/null/out"], 1, "puhui: nothing has been sealed yet"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(puhui, arguments, code, said):
    ended, told = puhui(*arguments)
    assert ended == code
    assert said in told
    assert "Traceback" not in told


def test_a_budget_is_for_the_rest_an_area_or_a_scenario(puhui, city):
    assert puhui("budget", "create", "travel", "交通")[0] == 0
    assert puhui("budget", "create", "travel.bike_shared", "单车")[0] == 0
    assert puhui("budget", "create", "*", "again")[0] == 1
    assert puhui("budget", "fund", "travel", "500", "--reference", "decision 7")[0] == 0
    assert _one(city, "SELECT sum(amount) FROM balances WHERE account_kind = 5") == 10_000_500


def test_a_database_that_is_away_or_empty_is_said_so(puhui, city):
    away = city.config.database_url.replace("host=", "host=/nowhere")
    production = {"PUHUI_MODE": "production"}
    code, said = puhui("publish", **production, DATABASE_URL=away)
    assert code == 1
    assert said.startswith("puhui: the database does not answer: ")
    empty = city.config.database_url.split("?")
    empty[0] = empty[0].rpartition("/")[0] + "/postgres"
    code, said = puhui("publish", **production, DATABASE_URL="?".join(empty))
    assert code == 1
    assert said.endswith("run `puhui migrate`\n")


def test_a_sealer_that_must_not_seal_says_how_to_recover(puhui, city):
    city.sealer.seal(city.clock())
    os.remove(city.config.head_file)
    code, said = puhui("log", "seal")
    assert code == 1
    assert said.startswith("puhui: refusing to seal: ")
    assert "`puhui log adopt`" in said


def test_erasing_a_person_is_in_the_log_and_nothing_names_them_any_more(puhui, city):
    parts = (city.engine, city.vault, city.registry, "bus-co", ["card-1"], "140403", city.clock())
    puhui("provider", "add", "bus-co", "长治公交")
    resident = enroll(*parts)["card-1"]
    code, said = puhui("erase", resident, "--yes")
    assert code == 0
    assert said.startswith("erased; entry ")
    assert _one(city, "SELECT count(*) FROM bindings") == 0
    assert _one(city, "SELECT count(*) FROM entries WHERE kind = 'subject.erased'") == 1
    assert puhui("erase", "--again", "--yes") == (0, "1 residents are erased, as the log says\n")
