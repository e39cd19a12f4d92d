"""The floors: Flask, one pooled connection, one statement, JSON out.

Of a read: one primary-key SELECT. Of a write: one INSERT of what a charge leaves behind in all (its
entry, postings, row and bill line come to some 1,200 bytes), committed to disk as ours are.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask, request
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, text

from app.api.frame import METERS, Meters
from app.door import Door
from app.turns import Turns
from app.wiring import POOL

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024
_metrics = CollectorRegistry()
app.extensions[METERS] = Meters(_metrics)
_turns = Turns(Path(os.environ["PUHUI_DATA"]) / "turns")
# The same server as ours, to which no batch ever comes.
door = Door(app, _metrics, _turns, int(os.environ["PUHUI_THREADS"]), 0)
_engine = create_engine(os.environ["DATABASE_URL"], **POOL)
_INSERT = text("INSERT INTO bare_writes (number, body) VALUES (:number, :body)")
_ROW_BYTES = 1_200
_SELECT = text("SELECT joined_at FROM residents WHERE id = :id")


@app.get("/<resident>")
def read(resident: str) -> dict[str, str]:
    """One row by primary key."""
    with _engine.connect() as connection:
        joined_at = connection.execute(_SELECT, {"id": bytes.fromhex(resident)}).scalar_one()
    return {"joined_at": joined_at.isoformat()}


@app.post("/")
def write() -> dict[str, str]:
    """One row, once."""
    asked = request.get_json()
    row = {"number": asked["out_request_no"], "body": request.get_data().ljust(_ROW_BYTES)}
    with _engine.begin() as connection:
        connection.execute(_INSERT, row)
    return {"state": "succeeded"}
