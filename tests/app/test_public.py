"""The public log as other people's tools read it, the budgets, the city's figures."""

from __future__ import annotations

import pytest

from app.api.public import BudgetsSchema, ConsistencySchema, FiguresSchema
from ledger import checkpoint
from ledger.merkle import verify_consistency
from ledger.note import Verifier
from ledger.text import unbase64
from ledger.tiles import Edge


@pytest.fixture
def sealed(client, city):
    city.sealer.seal(city.clock())

    def read():
        keys = [Verifier.parse(line) for line in client.get("/log/keys").text.splitlines()]
        note = client.get("/log/checkpoint").text
        return checkpoint.open(note, keys, city.config.log_origin)

    return read


def test_the_checkpoint_verifies_with_the_published_keys_and_the_tiles_give_its_root(
    client, sealed
):
    head = sealed()
    tiles = {}

    def read_tile(tile):
        answer = client.get(f"/log/{tile.path}")
        assert answer.mimetype == "application/octet-stream"
        tiles[tile.path] = answer.headers["Cache-Control"]
        return answer.data

    edge = Edge.read(head.size, read_tile)
    assert edge.size == head.size > 0
    assert edge.root() == head.root
    assert not any("immutable" in kept for path, kept in tiles.items() if ".p/" in path)
    assert client.get("/log/checkpoint").headers["Cache-Control"] == "no-cache"


def test_before_the_first_seal_there_is_no_checkpoint(client):
    assert client.get("/log/checkpoint").status_code == 404


@pytest.mark.parametrize(
    "path", ["0/x001/000", "0/000", "entries/000.p/1", "0/1", "99/000.p/1", "0/000.p/256", "../x"]
)
def test_what_is_no_tile_of_the_log_is_not_found(client, sealed, path):
    answer = client.get(f"/log/tile/{path}")
    assert (answer.status_code, answer.json["code"]) == (404, "NOT_FOUND")


def test_consistency_holds_between_two_seals(client, sealed, city, provider, rider, ride):
    old = sealed()
    provider.batch("b1", ride(1))
    city.sealer.seal(city.clock())
    new = sealed()
    answer = client.get(f"/api/v1/log/consistency?old={old.size}&new={new.size}").json
    assert ConsistencySchema().validate(answer) == {}
    hashes = [unbase64(one) for one in answer["hashes"]]
    verify_consistency(old.size, new.size, hashes, old.root, new.root)
    beyond = client.get(f"/api/v1/log/consistency?old=1&new={new.size + 1}")
    assert (beyond.status_code, beyond.json["code"]) == (422, "RANGE_INVALID")


def test_the_policy_names_the_key(client):
    key = client.get("/log/keys").text.strip()
    assert f"log {key}" in client.get("/log/policy").text


def test_budgets_add_up(client, provider, rider, ride):
    provider.batch("b1", ride(1))
    body = client.get("/api/v1/budgets").json
    assert BudgetsSchema().validate(body) == {}
    (budget,) = body["items"]
    assert budget["funded_points"] == "10000000"
    assert budget["issued_points"] == "625"
    assert budget["left_points"] == str(10_000_000 - 625)
    assert budget["waiting_points"] == "0"


def test_an_unknown_entry_has_no_proof(client):
    answer = client.get(f"/api/v1/log/proof?entry={'ab' * 16}")
    assert (answer.status_code, answer.json["code"]) == (404, "ENTRY_UNKNOWN")


def test_the_figures_add_up_to_what_was_sealed(client, city, provider, rider, ride):
    empty = client.get("/api/v1/figures").json
    assert FiguresSchema().validate(empty) == {}
    assert (empty["log_size"], empty["sealed_at"], empty["reduction_mg"]) == ("0", None, "0")
    eaten = ride(2, scenario="food.clean_plate", quantities={"count": "1"})
    provider.batch("b1", ride(1), eaten)
    assert client.get("/api/v1/figures").json == empty  # nothing is told before it can be proved
    size = city.sealer.seal(city.clock())
    body = client.get("/api/v1/figures").json
    assert FiguresSchema().validate(body) == {}
    assert (body["log_size"], body["sealed_date"]) == (str(size), "2026-11-22")
    areas = {one["area"]: one["reduction_mg"] for one in body["areas"]}
    assert len(areas) == 7
    assert (areas["travel"], areas["food"], body["reduction_mg"]) == ("625000", "144000", "769000")
