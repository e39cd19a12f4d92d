"""Providers' identifiers of residents, as keyed hashes: codes that bind them, and disputes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, text

_CODES_KEPT = timedelta(days=1)  # after they are void: a retry is told apart from a guess


class Binding(NamedTuple):
    """An identifier that is bound: its hash, the provider's code and name, and since when."""

    subject: bytes
    provider: str
    name: str
    bound_at: datetime

    @property
    def id(self) -> str:
        """32 hex digits by which its resident names it."""
        return self.subject[:16].hex()


class Dispute(NamedTuple):
    """Somebody proved that an identifier is theirs while another had it bound."""

    id: str
    subject: bytes
    provider: str
    claimant: str
    holder: str
    state: str
    opened_at: datetime
    closed_at: datetime | None


def of(tx: Connection, resident: str) -> list[Binding]:
    """What is bound to a resident, the oldest first."""
    rows = tx.execute(
        text(
            "SELECT b.subject, b.provider, p.name, b.bound_at FROM bindings b"
            " JOIN providers p ON p.code = b.provider WHERE b.resident = :id"
            " ORDER BY b.bound_at, b.subject"
        ),
        {"id": bytes.fromhex(resident)},
    )
    return [Binding(*row) for row in rows]


def unbind(tx: Connection, subject: bytes) -> None:
    """Untie an identifier from whoever has it; they are locked."""
    tx.execute(text("DELETE FROM bindings WHERE subject = :subject"), {"subject": subject})


def put_code(
    tx: Connection, code: bytes, provider: str, subject: bytes, now: datetime, until: datetime
) -> None:
    """Keep the hash of a code that proves who has this identifier."""
    tx.execute(
        text("DELETE FROM binding_codes WHERE expires_at < :before"),
        {"before": now - _CODES_KEPT},
    )
    tx.execute(
        text("INSERT INTO binding_codes VALUES (:code, :provider, :subject, :until)"),
        {"code": code, "provider": provider, "subject": subject, "until": until},
    )


def use_code(
    tx: Connection, code: bytes, provider: str, now: datetime
) -> tuple[bytes, bool] | None:
    """The identifier that a code in force proves, and whether it was used before. Now it is."""
    row = tx.execute(
        text(
            "SELECT subject, used_at IS NOT NULL FROM binding_codes"
            " WHERE code = :code AND provider = :provider AND expires_at > :now FOR UPDATE"
        ),
        {"code": code, "provider": provider, "now": now},
    ).first()
    if row is None:
        return None
    tx.execute(
        text("UPDATE binding_codes SET used_at = coalesce(used_at, :now) WHERE code = :code"),
        {"code": code, "now": now},
    )
    return row[0], row[1]


_DISPUTES = """
SELECT encode(id, 'hex'), subject, provider, encode(claimant, 'hex'), encode(holder, 'hex'),
  state, opened_at, closed_at FROM binding_disputes"""
_PAGE = text(f"""{_DISPUTES} WHERE state = :state AND (CAST(:after AS bytea) IS NULL
  OR (opened_at, id) > (SELECT opened_at, id FROM binding_disputes WHERE id = :after))
ORDER BY opened_at, id LIMIT :limit""")  # noqa: S608 (a constant)


def open_dispute(
    tx: Connection, dispute: str, binding: tuple[bytes, str], people: tuple[str, str], now: datetime
) -> None:
    """Open a dispute over (subject, provider) between (claimant, holder)."""
    tx.execute(
        text(
            "INSERT INTO binding_disputes"
            " (id, subject, provider, claimant, holder, state, opened_at)"
            " VALUES (:id, :subject, :provider, :claimant, :holder, 'open', :now)"
        ),
        {
            "id": bytes.fromhex(dispute),
            "subject": binding[0],
            "provider": binding[1],
            "claimant": bytes.fromhex(people[0]),
            "holder": bytes.fromhex(people[1]),
            "now": now,
        },
    )


def over(tx: Connection, subject: bytes) -> list[Dispute]:
    """The open disputes over an identifier, the oldest first."""
    rows = tx.execute(
        text(f"{_DISPUTES} WHERE subject = :subject AND state = 'open' ORDER BY opened_at, id"),
        {"subject": subject},
    )
    return [Dispute(*row) for row in rows]


def of_claimant(tx: Connection, resident: str) -> list[Dispute]:
    """The disputes that a resident opened, the newest first."""
    rows = tx.execute(
        text(f"{_DISPUTES} WHERE claimant = :id ORDER BY opened_at DESC, id"),
        {"id": bytes.fromhex(resident)},
    )
    return [Dispute(*row) for row in rows]


def find_dispute(tx: Connection, dispute: str) -> Dispute | None:
    """One dispute as it stands."""
    row = tx.execute(text(f"{_DISPUTES} WHERE id = :id"), {"id": bytes.fromhex(dispute)}).first()
    return Dispute(*row) if row else None


def set_holder(tx: Connection, dispute: str, holder: str) -> None:
    """Note who has now what another claims too."""
    tx.execute(
        text("UPDATE binding_disputes SET holder = :holder WHERE id = :id"),
        {"id": bytes.fromhex(dispute), "holder": bytes.fromhex(holder)},
    )


def close_dispute(tx: Connection, dispute: str, state: str, by: str, now: datetime) -> None:
    """Close a dispute as `moved` or `kept`."""
    tx.execute(
        text(
            "UPDATE binding_disputes SET state = :state, closed_at = :now, closed_by = :by"
            " WHERE id = :id"
        ),
        {"id": bytes.fromhex(dispute), "state": state, "by": by, "now": now},
    )


def disputes(tx: Connection, state: str, after: str, limit: int) -> list[Dispute]:
    """A page of disputes in a state, the oldest first, after the (opened_at, id) of `after`."""
    parameters = {"state": state, "after": bytes.fromhex(after) or None, "limit": limit}
    return [Dispute(*row) for row in tx.execute(_PAGE, parameters)]
