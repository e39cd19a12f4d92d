"""Sealing against a floor that COPYs the same runs and tiles into empty tables, unhashed."""

from __future__ import annotations

import time

import orjson
import psycopg
from sqlalchemy import text

from app.flows.accept import Batch, accept
from app.flows.seal import LIMIT
from bench.stage import BATCH, Result, Stage, activities

_TABLES = {"runs": ["int8", "int8", "int4"], "tiles": ["int2", "int8", "bytea"]}


def measure(stage: Stage) -> list[Result]:
    """Entries sealed a second, with a full outbox."""
    provider = stage.providers[0]
    for n in range(LIMIT // BATCH):
        acts = activities(provider, 9_000_000 + n * BATCH, BATCH, seed=n)
        batch = Batch(provider.code, f"seal-{n}", orjson.dumps(acts), acts)
        accept(stage.engine, stage.vault, stage.registry, batch, stage.now())
    with stage.engine.begin() as tx:
        before = tx.execute(text("SELECT size FROM log_head")).scalar_one()
    started = time.perf_counter()
    count = stage.sealer.seal(stage.now())
    value = count / (time.perf_counter() - started)
    floor = _floor(stage, before, count)
    return [Result("seal", value, "entries/s", floor, value / floor)]


def _floor(stage: Stage, first: int, count: int) -> float:
    assert stage.config.owner_url
    with psycopg.connect(stage.config.owner_url.replace("+psycopg", "")) as connection:
        rows = {
            "runs": connection.execute(
                "SELECT leaf, arrival, count FROM runs WHERE leaf >= %s ORDER BY leaf", (first,)
            ).fetchall(),
            "tiles": connection.execute(
                "SELECT level, n, hashes FROM tiles WHERE level = 0 AND n >= %s", (first // 256,)
            ).fetchall(),
        }
        for table in _TABLES:
            connection.execute(
                f"CREATE TABLE floor_{table} (LIKE {table} INCLUDING CONSTRAINTS"
                " INCLUDING INDEXES INCLUDING STORAGE)"
            )
        connection.commit()
        started = time.perf_counter()
        for table, types in _TABLES.items():
            statement = f"COPY floor_{table} FROM STDIN (FORMAT BINARY)"
            with connection.cursor().copy(statement) as copy:
                copy.set_types(types)
                for row in rows[table]:
                    copy.write_row(row)
        connection.commit()
        return count / (time.perf_counter() - started)
