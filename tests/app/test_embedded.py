"""The embedded PostgreSQL."""

from __future__ import annotations

from sqlalchemy import create_engine, text

from app.config import Config


def test_the_settings_made_for_intake_are_in_force(servers: Config) -> None:
    assert servers.database_url
    made = {"wal_buffers": "64MB", "checkpoint_timeout": "15min", "jit": "off"}
    engine = create_engine(servers.database_url)
    with engine.connect() as tx:
        shown = {name: tx.execute(text(f"SHOW {name}")).scalar() for name in made}
    engine.dispose()
    assert shown == made
