"""The floors: Flask, one pooled connection, one statement, JSON out.

Of a read: one primary-key SELECT. Of a write, committed to disk as ours are: the rows that a charge
writes, with nothing looked up, checked or signed (`/same-rows`); and, as the least that a write can
be, one row of as many bytes as all of these (`/row`).
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256
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
_ROW = text("INSERT INTO bare_writes (number, body) VALUES (:number, :body)")
_ROW_BYTES = 1_200
_PAYLOAD_BYTES = 353  # of a redemption
_CHARGE = text("""
WITH entry AS (
  INSERT INTO bare_entries (arrival, id, kind, payload)
  VALUES (nextval('bare_arrivals'), :entry, 'redeem', :payload) RETURNING arrival
), waits AS (
  INSERT INTO bare_outbox (arrival, count, leaf_hashes) SELECT arrival, 1, :hash FROM entry
), lines AS (
  INSERT INTO bare_postings (arrival, amount, account, bucket, account_kind, asset)
  SELECT arrival, amount, account, bucket, kind, asset FROM entry CROSS JOIN (VALUES
    (-:points, CAST(:resident AS bytea), CAST(:bucket AS integer), 1, 2),
    (:points, CAST(:none AS bytea), :bucket, 13, 2),
    (-:points, :merchant, 0, 4, 2), (:points, :none, 0, 17, 2)
  ) AS l (amount, account, bucket, kind, asset)
), wallet AS (
  UPDATE bare_balances SET amount = amount - :points
  WHERE account = :resident AND account_kind = 1 AND asset = 2 AND bucket = :bucket
), allowance AS (
  UPDATE bare_balances SET amount = amount - :points
  WHERE account = :merchant AND account_kind = 4 AND asset = 2 AND bucket = 0
), shown AS (
  UPDATE bare_pay_codes SET used_at = :now WHERE code = :code
), signed AS (
  INSERT INTO bare_nonces (key_id, nonce, seen_at) VALUES (:key_id, :nonce, :now)
), charge AS (
  INSERT INTO bare_charges
    (merchant, number, id, digest, resident, store, till, points, state, entry, at, closed_at)
  VALUES (:merchant, :number, :id, :hash, :resident, :id, :id, :points, 'succeeded', :entry, :now,
    :now)
)
INSERT INTO bare_bill_lines
  (arrival, merchant, day, kind, number, entry, points, store, till, at)
SELECT arrival, :merchant, 20261122, 'charge', :number, :entry, :points, :id, :id, :now FROM entry
""")
_SELECT = text("SELECT joined_at FROM residents WHERE id = :id")


@app.get("/<resident>")
def read(resident: str) -> dict[str, str]:
    """One row by primary key."""
    with _engine.connect() as connection:
        joined_at = connection.execute(_SELECT, {"id": bytes.fromhex(resident)}).scalar_one()
    return {"joined_at": joined_at.isoformat()}


@app.post("/same-rows")
def same_rows() -> dict[str, str]:
    """The rows of a charge of whom `code` names in place of a code, at whom `till` names."""
    asked, drawn = request.get_json(), os.urandom(48)
    resident = bytes.fromhex(asked["code"])
    given = {
        "entry": drawn[:16],
        "payload": request.get_data().ljust(_PAYLOAD_BYTES),
        "hash": drawn[16:],
        "points": int(asked["points"]),
        "resident": resident,
        "none": bytes(16),
        "merchant": bytes.fromhex(asked["till"]),
        "bucket": asked["bucket"],
        "code": sha256(resident).digest(),
        "key_id": asked["till"],
        "nonce": drawn.hex(),
        "number": asked["out_request_no"],
        "id": drawn[32:],
        "now": datetime.now(UTC),
    }
    with _engine.begin() as connection:
        connection.execute(_CHARGE, given)
    return {"state": "succeeded"}


@app.post("/row")
def row() -> dict[str, str]:
    """One row, once."""
    asked = request.get_json()
    given = {"number": asked["out_request_no"], "body": request.get_data().ljust(_ROW_BYTES)}
    with _engine.begin() as connection:
        connection.execute(_ROW, given)
    return {"state": "succeeded"}
