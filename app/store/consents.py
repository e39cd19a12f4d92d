"""What residents let which provider report: a row a scenario, and all of a binding's at once.

Intake reads a binding's `consent_set`, the number of a set of scenarios. The rows are the record:
which text was agreed to, when, and when that ended.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array, text_array


class Consent(NamedTuple):
    """One that was given; `text_digest` is the SHA-256, in hex, of the text agreed to."""

    provider: str
    scenario: str
    text_digest: str
    given_at: datetime
    withdrawn_at: datetime | None


# Given again to the same text, a consent keeps the moment from which it holds.
_GIVE = text("""
INSERT INTO consents AS c (resident, provider, scenario, text_digest, given_at)
SELECT r.*, :provider, s.*, :now
FROM unnest(CAST(:residents AS bytea[])) AS r,
  unnest(CAST(:scenarios AS text[]), CAST(:digests AS text[])) AS s
ON CONFLICT (resident, provider, scenario) DO UPDATE
SET text_digest = excluded.text_digest, given_at = excluded.given_at, withdrawn_at = NULL
WHERE c.withdrawn_at IS NOT NULL OR c.text_digest <> excluded.text_digest""")
_WITHDRAW = text("""
UPDATE consents SET withdrawn_at = :now
WHERE resident = :resident AND provider = :provider AND withdrawn_at IS NULL
  AND (CAST(:scenarios AS text[]) IS NULL OR scenario = ANY(CAST(:scenarios AS text[])))""")
_OWN = """
SELECT r.resident, coalesce(array_agg(c.scenario ORDER BY c.scenario COLLATE "C")
  FILTER (WHERE c.scenario IS NOT NULL), '{}') AS scenarios
FROM unnest(CAST(:residents AS bytea[])) AS r (resident)
LEFT JOIN consents c ON c.resident = r.resident AND c.provider = :provider
  AND c.withdrawn_at IS NULL
GROUP BY r.resident"""
_SETS = text(f"""
INSERT INTO consent_sets (scenarios) SELECT DISTINCT own.scenarios FROM ({_OWN}) AS own
WHERE NOT EXISTS (SELECT FROM consent_sets s WHERE s.scenarios = own.scenarios)
ON CONFLICT DO NOTHING""")  # noqa: S608 (two constants)
_IN_FORCE = text(f"""
UPDATE bindings b SET consent_set = s.id
FROM ({_OWN}) AS own JOIN consent_sets s USING (scenarios)
WHERE b.resident = own.resident AND b.provider = :provider AND b.consent_set <> s.id""")  # noqa: S608


def give(
    tx: Connection,
    provider: str,
    residents: Sequence[bytes],
    texts: Mapping[str, str],
    now: datetime,
) -> None:
    """Note that each of these residents agrees to each of these texts: scenario -> digest."""
    parameters = {
        "provider": provider,
        "residents": bytea_array(residents),
        "scenarios": text_array(texts),
        "digests": text_array(texts.values()),
        "now": now,
    }
    tx.execute(_GIVE, parameters)
    put_in_force(tx, provider, residents)


def withdraw(
    tx: Connection,
    provider: str,
    resident: bytes,
    scenarios: Collection[str] | None,
    now: datetime,
) -> None:
    """End these consents of a resident who is locked; all to this provider for None."""
    parameters = {
        "provider": provider,
        "resident": resident,
        "scenarios": None if scenarios is None else text_array(scenarios),
        "now": now,
    }
    tx.execute(_WITHDRAW, parameters)
    put_in_force(tx, provider, [resident])


def put_in_force(tx: Connection, provider: str, residents: Sequence[bytes]) -> None:
    """Bring what intake reads in step with the rows."""
    parameters = {"provider": provider, "residents": bytea_array(residents)}
    tx.execute(_SETS, parameters)
    tx.execute(_IN_FORCE, parameters)


def of(tx: Connection, resident: bytes) -> list[Consent]:
    """All that a resident ever gave, by provider and scenario."""
    rows = tx.execute(
        text(
            "SELECT provider, scenario, text_digest, given_at, withdrawn_at FROM consents"
            " WHERE resident = :resident ORDER BY provider, scenario"
        ),
        {"resident": resident},
    )
    return [Consent(*row) for row in rows]
