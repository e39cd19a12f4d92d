"""The floor of a read: Flask, one pooled connection, one primary-key SELECT, JSON out."""

from __future__ import annotations

import os

from flask import Flask
from sqlalchemy import create_engine, text

app = Flask(__name__)
_engine = create_engine(os.environ["DATABASE_URL"])
_SELECT = text("SELECT joined_at FROM residents WHERE id = :id")


@app.get("/<resident>")
def read(resident: str) -> dict[str, str]:
    """One row by primary key."""
    with _engine.connect() as connection:
        joined_at = connection.execute(_SELECT, {"id": bytes.fromhex(resident)}).scalar_one()
    return {"joined_at": joined_at.isoformat()}
