"""The published scenario versions, kept as the bytes that were published: intake goes by them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, text

from scenarios import Catalogue, Version


def put(tx: Connection, versions: Iterable[Version], now: datetime) -> None:
    """Keep newly published versions."""
    for version in versions:
        tx.execute(
            text(
                "INSERT INTO scenario_versions"
                " (scenario, number, digest, effective_from, canonical, published_at)"
                " VALUES (:scenario, :number, :digest, :effective_from, :canonical, :now)"
            ),
            {
                "scenario": version.scenario,
                "number": version.number,
                "digest": version.digest,
                "effective_from": version.effective_from,
                "canonical": version.canonical(),
                "now": now,
            },
        )


def digests(tx: Connection) -> dict[tuple[str, int], str]:
    """The digest of every published version."""
    rows = tx.execute(text("SELECT scenario, number, digest FROM scenario_versions"))
    return {(row.scenario, row.number): row.digest for row in rows}


def canonicals(tx: Connection) -> list[bytes]:
    """The published bytes of every version, by scenario and number."""
    return list(
        tx.execute(
            text("SELECT canonical FROM scenario_versions ORDER BY scenario, number")
        ).scalars()
    )


class Registry:
    """The catalogue in force, read again whenever a version was published.

    Versions are only ever added, so their count tells whether the copy in memory is whole.
    """

    def __init__(self) -> None:
        self._count = -1
        self._catalogue: Catalogue | None = None

    def current(self, tx: Connection) -> Catalogue:
        """The catalogue of all published versions."""
        count = tx.execute(text("SELECT count(*) FROM scenario_versions")).scalar_one()
        if self._catalogue is None or count != self._count:
            self._catalogue = Catalogue(
                tuple(Version.from_canonical(data) for data in canonicals(tx))
            )
            self._count = count
        return self._catalogue
