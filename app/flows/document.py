"""An activity as a provider reports it, before any rule has looked at it; and what we answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from app.vault import Vault

FIELDS = frozenset({"id", "subject", "scenario", "occurred_at", "quantities"})
OPTIONAL = frozenset({"place"})
_ID = re.compile(r"[!-~]{1,64}").fullmatch
_MAX_SUBJECT = 128
_tuple = tuple.__new__  # the hot path: a named tuple is a tuple
_PLACE = re.compile(r"[0-9]{6}").fullmatch


class DocumentError(Exception):
    """An activity document has not the form asked for; becomes a rejection with this code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Document(NamedTuple):
    """One reported activity of sound outer form. `subject` is the keyed hash of the identifier."""

    id: str
    subject: bytes
    scenario: str
    occurred_at: str
    quantities: Mapping[str, str]
    key: str  # idempotency key within the provider: the id, or the id and its revision
    place: str = ""  # GB/T 2260 code of the county, if given; hashed, and never in the opening

    @property
    def corrects(self) -> bool:
        """Whether it takes the place of what was reported before."""
        return self.key != self.id

    def opening(self, provider: str) -> bytes:
        """RFC 8785 bytes of what the ledger only commits to. Strings only, ASCII keys: for those
        sorted orjson writes the same bytes as the RFC (a test holds it to that)."""
        return orjson.dumps(
            {
                "activity": self.id,
                "occurred_at": self.occurred_at,
                "provider": provider,
                "quantities": self.quantities,
                "scenario": self.scenario,
            },
            option=orjson.OPT_SORT_KEYS,
        )


def read_document(vault: Vault, provider: str, raw: Any, revision: int = 0) -> Document:
    """Check the outer form of one activity. Raises DocumentError naming field, bound and remedy."""
    if not isinstance(raw, dict):
        raise DocumentError("ACTIVITY_MALFORMED", "an activity must be a JSON object")
    if raw.keys() != FIELDS and raw.keys() - OPTIONAL != FIELDS:
        missing, unknown = sorted(FIELDS - raw.keys()), sorted(raw.keys() - FIELDS - OPTIONAL)
        named = ", ".join(str(name)[:40] for name in missing or unknown)
        raise DocumentError(
            "ACTIVITY_MALFORMED",
            f"field {named} is {'missing' if missing else 'unknown'};"
            f" an activity has exactly {', '.join(sorted(FIELDS))}, and may have place",
        )
    identifier, subject = raw["id"], raw["subject"]
    if not isinstance(identifier, str) or not _ID(identifier):
        raise DocumentError(
            "ACTIVITY_ID_MALFORMED",
            "id must be a string of 1 to 64 printable ASCII characters without spaces",
        )
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
        raise DocumentError(
            "SUBJECT_MALFORMED", f"subject must be a string of 1 to {_MAX_SUBJECT} characters"
        )
    if not subject.isprintable():
        raise DocumentError("SUBJECT_MALFORMED", "subject must not hold control characters")
    place = raw.get("place", "")
    if place != "" and not (isinstance(place, str) and _PLACE(place)):
        raise DocumentError(
            "PLACE_MALFORMED",
            "place must be the six digits of the county where it began (GB/T 2260), or be left out",
        )
    key = f"{identifier}\n{revision}" if revision else identifier
    given = raw["scenario"], raw["occurred_at"], raw["quantities"]
    return _tuple(Document, (identifier, vault.subject(provider, subject), *given, key, place))


def outcome(identifier: Any, name: str, **rest: str) -> dict[str, Any]:
    """The answer for one activity."""
    shown = identifier[:64] if isinstance(identifier, str) and identifier.isprintable() else None
    return {"id": shown, "outcome": name, **rest}


def rejection(identifier: Any, code: str, detail: str) -> dict[str, Any]:
    """The answer for an activity that is refused."""
    return outcome(identifier, "rejected", code=code, detail=detail)
