"""What a resident reads of the ledger: balances, the statement, refusals, what is waiting."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from ledger.accounts import AccountKind, Asset
from ledger.entries import Entry, Kind


class Balance(NamedTuple):
    """One row of a resident's accounts, by the codes of ledger.accounts."""

    kind: int
    asset: int
    bucket: int
    amount: int


class Line(NamedTuple):
    """One entry of a statement."""

    arrival: int
    entry: Entry
    sealed: bool


class Refusal(NamedTuple):
    """One activity that was refused, and why."""

    recorded_at: datetime
    provider: str
    batch_id: str
    position: int
    activity_id: str
    code: str
    detail: str


# The one statement of the hottest read: the driver's own SQL, since compiling text() costs as much
# as running this.
_BALANCES = (
    "SELECT account_kind, asset, bucket, amount FROM balances"
    " WHERE account = %s AND account_kind <= 3 AND amount > 0 ORDER BY bucket"
)
_LINES = text("""
SELECT e.arrival, e.payload, l.leaf IS NOT NULL AS sealed
FROM (SELECT DISTINCT arrival FROM postings
      WHERE account = :resident AND account_kind <= 3 AND arrival < :before) p
JOIN entries e USING (arrival) LEFT JOIN leaves l USING (arrival)
WHERE (CAST(:kind AS text) IS NULL OR e.kind = :kind)
  AND (CAST(:needle AS bytea) IS NULL OR position(CAST(:needle AS bytea) IN e.payload) > 0)
ORDER BY e.arrival DESC LIMIT :limit""")
_REFUSALS = text("""
SELECT recorded_at, provider, batch_id, position, activity_id, code, detail FROM rejections
WHERE resident = :resident
  AND (recorded_at, provider, batch_id, position) < (:at, :provider, :batch_id, :position)
ORDER BY recorded_at DESC, provider DESC, batch_id DESC, position DESC LIMIT :limit""")


def balances(tx: Connection, resident: str) -> list[Balance]:
    """Everything a resident's own accounts hold, by rising bucket."""
    rows = tx.exec_driver_sql(_BALANCES, (bytes.fromhex(resident),))
    return [Balance(*row) for row in rows]


def lines(
    tx: Connection,
    resident: str,
    before: int,
    limit: int,
    kind: Kind | None = None,
    area: str | None = None,
) -> list[Line]:
    """A resident's entries before an arrival number, newest first.

    An area is found by the payload's canonical bytes, which name an issue's rule in one way only.
    """
    rows = tx.execute(
        _LINES,
        {
            "resident": bytes.fromhex(resident),
            "before": before,
            "limit": limit,
            "kind": kind,
            "needle": f'"rule":["{area}.'.encode() if area else None,
        },
    )
    return [Line(row.arrival, Entry.parse(row.payload), row.sealed) for row in rows]


def refusals(
    tx: Connection, resident: str, before: tuple[datetime, str, str, int], limit: int
) -> list[Refusal]:
    """A resident's refused activities, newest first, from a place on."""
    at, provider, batch_id, position = before
    rows = tx.execute(
        _REFUSALS,
        {
            "resident": bytes.fromhex(resident),
            "at": at,
            "provider": provider,
            "batch_id": batch_id,
            "position": position,
            "limit": limit,
        },
    )
    return [Refusal(*row) for row in rows]


def waiting(tx: Connection, resident: str) -> int:
    """Points earned that no budget could pay yet."""
    total = tx.execute(
        text("SELECT sum(points) FROM waiting WHERE resident = :resident"),
        {"resident": bytes.fromhex(resident)},
    ).scalar()
    return int(total or 0)


def wrapped_key(tx: Connection, resident: str) -> bytes | None:
    """The resident's wrapped key, for reading; None if there is no such living account."""
    return tx.execute(
        text("SELECT wrapped_key FROM residents WHERE id = :id AND erased_at IS NULL"),
        {"id": bytes.fromhex(resident)},
    ).scalar()


def greatest_savers(tx: Connection, limit: int) -> list[str]:
    """Residents who avoided most carbon, for those who want to try the service as somebody."""
    rows = tx.execute(
        text(
            "SELECT account FROM balances WHERE account_kind = :kind AND asset = :asset"
            " ORDER BY amount DESC, account LIMIT :limit"
        ),
        {"kind": AccountKind.RESIDENT.code, "asset": Asset.CO2E.code, "limit": limit},
    )
    return [account.hex() for account in rows.scalars()]
