"""A city that kept a row for each leaf and each waiting entry goes on with a row for each run."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest
from sqlalchemy import create_engine, text

from app.config import CITY_ZONE
from app.flows.detach import detach
from app.store.db import migrate

# The tables as 0001 made them, with what the runs stand for. What later ones made goes.
_AS_AT_0015 = """
ALTER TABLE outbox RENAME TO run_outbox;
ALTER INDEX outbox_pkey RENAME TO run_outbox_pkey;
CREATE TABLE outbox (
  arrival bigint PRIMARY KEY,
  leaf_hash bytea NOT NULL CHECK (octet_length(leaf_hash) = 32)
);
INSERT INTO outbox SELECT arrival + n, substr(leaf_hashes, 32 * n + 1, 32)
FROM run_outbox CROSS JOIN generate_series(0, count - 1) n;
ALTER VIEW leaves RENAME TO run_leaves;
CREATE TABLE leaves (
  leaf bigint PRIMARY KEY CHECK (leaf >= 0),
  arrival bigint NOT NULL UNIQUE
);
INSERT INTO leaves SELECT * FROM run_leaves;
DROP VIEW run_leaves;
DROP TABLE run_outbox, runs;
DROP FUNCTION leaf_of, leaves_between, runs_between, newest;
ALTER TABLE rejections DROP COLUMN scenario;
ALTER TABLE challenge_members DROP COLUMN wanting;
DROP TABLE places;
UPDATE alembic_version SET version_num = '0015_stretches'"""
_LEAVES = "SELECT leaf, arrival FROM leaves ORDER BY leaf"
_WAITING = """
SELECT arrival + n, substr(leaf_hashes, 32 * n + 1, 32)
FROM outbox CROSS JOIN generate_series(0, count - 1) n ORDER BY 1"""


@pytest.fixture
def gapped(town, tmp_path):
    """Two bundles in files, numbers that nobody has, and entries that wait, with a gap too."""
    owner = create_engine(town.config.owner_url)

    def send(batch, *acts):
        town.send(batch, *acts)
        with owner.begin() as tx:
            tx.execute(text("SELECT nextval('arrivals')"))

    town.enroll("rider-0", "rider-1")
    send("b1", *(town.dated(n) for n in range(300)))
    send("b2", *(town.dated(n, subject="rider-1") for n in range(300, 600)))
    town.seal()
    town.clock.move(days=10)
    town.seal()
    first_of_december = datetime(2026, 12, 1, tzinfo=CITY_ZONE)
    detach(owner, town.vault, town.config.head_file, tmp_path / "old", first_of_december)
    for n in range(3):
        send(f"c{n}", town.dated(600 + 2 * n), town.dated(601 + 2 * n))
    yield town
    owner.dispose()


def test_an_older_city_is_carried_over(gapped, tmp_path):
    kept = [gapped.rows(query) for query in (_LEAVES, _WAITING)]
    assert [len(rows) for rows in kept[1:]] == [6]
    owner = create_engine(gapped.config.owner_url)
    with owner.begin() as tx:
        for statement in _AS_AT_0015.split(";"):
            tx.execute(text(statement))
    owner.dispose()
    migrate(gapped.config.owner_url)
    assert [gapped.rows(query) for query in (_LEAVES, _WAITING)] == kept
    assert gapped.value("SELECT count(*) FROM runs") == _runs(arrival for _, arrival in kept[0])
    assert gapped.value("SELECT count(*) FROM outbox") == 3
    assert gapped.faults() == []
    gapped.send("d", gapped.dated(700), gapped.dated(701))
    assert gapped.seal() == 8
    gapped.prove(tmp_path / "export")


def _runs(arrivals):
    return 1 + sum(other != one + 1 for one, other in pairwise(arrivals))
