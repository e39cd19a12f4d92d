"""The published scenario versions, kept as the bytes that were published: intake goes by them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from scenarios import Catalogue, Version


class Event(NamedTuple):
    """One change of the registry: editions that were published, or withdrawn, together.

    `editions` are (scenario, number, digest), sorted; `title` and `reason` are the draft's.
    """

    kind: str
    at: datetime
    effective_from: date
    draft: str | None
    title: str | None
    reason: str | None
    editions: list[tuple[str, int, str]]

    @property
    def place(self) -> tuple[datetime, str, date, str]:
        """Where it stands in the feed, which is sorted by this."""
        return self.at, self.kind, self.effective_from, self.draft or ""


def take_turn(tx: Connection) -> None:
    """Wait for anybody else who changes the registry now: what is published must fit together."""
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('scenario registry', 0))"))


def put(
    tx: Connection, versions: Iterable[Version], now: datetime, draft: str | None = None
) -> None:
    """Keep newly published versions, with the draft they come from."""
    for version in versions:
        tx.execute(
            text(
                "INSERT INTO scenario_versions"
                " (scenario, number, digest, effective_from, canonical, published_at, draft)"
                " VALUES (:scenario, :number, :digest, :effective_from, :canonical, :now, :draft)"
            ),
            {
                "scenario": version.scenario,
                "number": version.number,
                "digest": version.digest,
                "effective_from": version.effective_from,
                "canonical": version.canonical(),
                "now": now,
                "draft": bytes.fromhex(draft) if draft else None,
            },
        )


def withdraw(tx: Connection, versions: Iterable[tuple[str, int]], now: datetime) -> None:
    """Note that published versions will never be in force."""
    for scenario, number in versions:
        tx.execute(
            text("INSERT INTO scenario_withdrawals VALUES (:scenario, :number, :now)"),
            {"scenario": scenario, "number": number, "now": now},
        )


def digests(tx: Connection) -> dict[tuple[str, int], str]:
    """The digest of every published version."""
    rows = tx.execute(text("SELECT scenario, number, digest FROM scenario_versions"))
    return {(row.scenario, row.number): row.digest for row in rows}


def withdrawn(tx: Connection) -> set[tuple[str, int]]:
    """Every version that was withdrawn before its first day."""
    rows = tx.execute(text("SELECT scenario, number FROM scenario_withdrawals"))
    return {(row.scenario, row.number) for row in rows}


def of_draft(tx: Connection, draft: str) -> list[tuple[str, int]]:
    """The versions that were published out of a draft, sorted."""
    rows = tx.execute(
        text(
            "SELECT scenario, number FROM scenario_versions WHERE draft = :draft"
            " ORDER BY scenario, number"
        ),
        {"draft": bytes.fromhex(draft)},
    )
    return [(row.scenario, row.number) for row in rows]


def canonicals(tx: Connection) -> list[bytes]:
    """The published bytes of every version, by scenario and number."""
    return list(
        tx.execute(
            text("SELECT canonical FROM scenario_versions ORDER BY scenario, number")
        ).scalars()
    )


# The draft's id and the kind break ties, so that a page ends between two changes.
_EVENTS = text("""
SELECT e.kind, e.at, e.effective_from, encode(e.draft, 'hex') AS draft, d.title, d.reason,
  array_agg(ARRAY[e.scenario, e.number::text, e.digest] ORDER BY e.scenario, e.number) AS editions
FROM (
  SELECT 'published' AS kind, published_at AS at, effective_from, draft, scenario, number, digest
  FROM scenario_versions
  UNION ALL
  SELECT 'withdrawn', withdrawn_at, effective_from, draft, scenario, number, digest
  FROM scenario_withdrawals JOIN scenario_versions USING (scenario, number)
) e LEFT JOIN drafts d ON d.id = e.draft
WHERE CAST(:at AS timestamptz) IS NULL
  OR (e.at, e.kind, e.effective_from, coalesce(encode(e.draft, 'hex'), ''))
    < (:at, :kind, CAST(:first AS date), :draft)
GROUP BY e.kind, e.at, e.effective_from, e.draft, d.title, d.reason
ORDER BY e.at DESC, e.kind DESC, e.effective_from DESC, coalesce(encode(e.draft, 'hex'), '') DESC
LIMIT :limit""")


def events(
    tx: Connection, before: tuple[datetime, str, date, str] | None, limit: int
) -> list[Event]:
    """Changes of the registry, newest first, beginning after the place of an earlier one."""
    at, kind, first, draft = before or (None, None, None, None)
    rows = tx.execute(
        _EVENTS, {"at": at, "kind": kind, "first": first, "draft": draft, "limit": limit}
    )
    return [
        Event(
            row.kind,
            row.at,
            row.effective_from,
            row.draft,
            row.title,
            row.reason,
            [(scenario, int(number), digest) for scenario, number, digest in row.editions],
        )
        for row in rows
    ]


# One statement, so that versions and withdrawals are of the same moment.
_ALL = text("""
SELECT v.scenario, v.number, v.canonical, w.scenario IS NOT NULL AS withdrawn
FROM scenario_versions v LEFT JOIN scenario_withdrawals w USING (scenario, number)""")
_COUNT = text(
    "SELECT (SELECT count(*) FROM scenario_versions) + (SELECT count(*) FROM scenario_withdrawals)"
)


class Registry:
    """The catalogue in force, read again whenever a version was published or withdrawn.

    Rows of both are only ever added, so their count tells whether the copy in memory is whole.
    """

    def __init__(self) -> None:
        self._held: tuple[int, Catalogue] | None = None

    def current(self, tx: Connection) -> Catalogue:
        """The catalogue of all published versions, for transactions that publish none before."""
        count = tx.execute(_COUNT).scalar_one()
        held = self._held
        if held is None or held[0] != count:
            rows = tx.execute(_ALL).all()
            gone = [(row.scenario, row.number) for row in rows if row.withdrawn]
            catalogue = Catalogue((Version.from_canonical(row.canonical) for row in rows), gone)
            held = self._held = len(rows) + len(gone), catalogue
        return held[1]

    def edition(self, tx: Connection, scenario: str, number: int) -> Version:
        """A published edition. It never changes, so one that is in memory needs no asking."""
        held = self._held
        if held is not None and scenario in held[1].scenarios:
            editions = held[1].versions(scenario)
            if number <= len(editions):
                return editions[number - 1]
        return self.current(tx).versions(scenario)[number - 1]
