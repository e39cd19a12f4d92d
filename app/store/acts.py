"""Physical acts under keyed fingerprints: how two providers' reports of one act are told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import Connection, text

from app.store.db import bytea_array, copy_in, fetch

_HELD = """
SELECT fingerprint, place FROM acts
WHERE fingerprint = ANY(%s::bytea[]) AND provider <> %s"""
_COLUMNS = {"fingerprint": "bytea", "arrival": "int8", "provider": "text", "place": "bytea"}


def held(
    tx: Connection, provider: str, fingerprints: Iterable[bytes]
) -> dict[bytes, list[bytes | None]]:
    """Which of these another provider's credited acts hold, with the places they were at."""
    found = fetch(tx, _HELD, [bytea_array(fingerprints), provider])
    places: dict[bytes, list[bytes | None]] = defaultdict(list)
    for fingerprint, place in found:
        places[fingerprint].append(place)
    return places


def put(tx: Connection, rows: Iterable[tuple[bytes, int, str, bytes | None]]) -> None:
    """Keep (fingerprint, arrival, provider, place) of acts that were credited."""
    copy_in(tx, "acts", _COLUMNS, rows)


def forget(tx: Connection, fingerprint: bytes, arrival: int) -> None:
    """Let go of an act whose credit was reversed."""
    tx.execute(
        text("DELETE FROM acts WHERE fingerprint = :fingerprint AND arrival = :arrival"),
        {"fingerprint": fingerprint, "arrival": arrival},
    )


def forget_before(tx: Connection, prefix: bytes) -> None:
    """Let go of all acts of earlier days; a fingerprint begins with its day."""
    tx.execute(text("DELETE FROM acts WHERE fingerprint < :prefix"), {"prefix": prefix})
