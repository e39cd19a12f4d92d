"""The detail of an entry: per kind a closed set of fields, and one meaning for each field."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

from ledger.accounts import ASSETS, KINDS, is_scenario, is_token
from ledger.buckets import is_day
from ledger.encoding import MAX_INT

MAX_TEXT = 400  # characters of a reason, a reference, a verifier key or a signature
MAX_VERSION = 1_000_000

_digest = re.compile(r"[0-9a-f]{64}").fullmatch


def is_id(value: Any) -> bool:
    """Whether a value is an entry's id: 32 lower-case hex digits."""
    return isinstance(value, str) and is_token(value) is not None


def is_digest(value: Any) -> bool:
    """Whether a value is SHA-256 in lower-case hex."""
    return isinstance(value, str) and _digest(value) is not None


def _is_amount(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_INT


def _is_version(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_VERSION


def _is_scenario(value: Any) -> bool:
    return isinstance(value, str) and is_scenario(value) is not None


def _is_rule(value: Any) -> bool:
    return (
        isinstance(value, list)
        and [type(part) for part in value] == [str, int, str]
        and _is_sound_rule(*value)
    )


@lru_cache(maxsize=4096)
def _is_sound_rule(scenario: str, version: int, digest: str) -> bool:
    return _is_scenario(scenario) and _is_version(version) and is_digest(digest)


def _is_text(value: Any) -> bool:
    # isprintable leaves out control characters and the lone surrogates JCS cannot carry
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable()


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _is_resident(value: Any) -> bool:
    return isinstance(value, str) and value[:9] == "resident:" and is_id(value[9:])


def _is_totals(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key in _TOTALS and type(total) is int and total and -MAX_INT <= total <= MAX_INT
        for key, total in value.items()
    )


_TOTALS = frozenset(
    f"{kind}:{asset}" for kind in KINDS.values() if not kind.guarded for asset in ASSETS
)


class _Form(NamedTuple):
    required: frozenset[str]
    optional: frozenset[str] = frozenset()


# A field means the same wherever it stands.
_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "account": _is_resident,
    "action": _is_text,
    "awaiting": _is_amount,
    "budget": is_id,
    "commitment": is_digest,
    "day": lambda value: type(value) is int and is_day(value),
    "digest": is_digest,
    "effective_from": _is_date,
    "hold": is_id,
    "merchant": is_id,
    "new": _is_text,
    "old": _is_text,
    "reason": _is_text,
    "redeem": is_id,
    "reference": _is_text,
    "reverses": is_id,
    "rule": _is_rule,
    "scenario": _is_scenario,
    "settles": is_id,
    "signature": _is_text,
    "size": lambda value: value == 0 or _is_amount(value),
    "totals": _is_totals,
    "version": _is_version,
    "withheld": _is_amount,
}

_SETTLEMENT = _Form(frozenset({"settles"}))
_FORMS: Mapping[str, _Form] = {
    "issue": _Form(
        frozenset({"commitment", "rule"}), frozenset({"awaiting", "budget", "withheld"})
    ),
    "hold": _Form(frozenset()),
    "release": _Form(frozenset({"hold"})),
    "redeem": _Form(frozenset({"merchant"}), frozenset({"hold"})),
    "refund": _Form(frozenset({"redeem"})),
    "reverse": _Form(frozenset({"reverses"})),
    "expire": _Form(frozenset()),
    "adjust": _Form(frozenset({"reason"})),
    "scenario.published": _Form(frozenset({"scenario", "version", "digest", "effective_from"})),
    "scenario.withdrawn": _Form(frozenset({"scenario", "version", "digest"})),
    "key.rotated": _Form(frozenset({"old", "new", "signature"})),
    "budget.funded": _Form(frozenset({"reference"})),
    "merchant.funded": _Form(frozenset({"reference"})),
    "admin.acted": _Form(frozenset({"action", "commitment"})),
    "subject.erased": _Form(frozenset({"account"})),
    "day.closed": _Form(frozenset({"day", "size", "totals"})),
}


def mistake(kind: str, detail: Any) -> str:
    """What is wrong with the detail of an entry of a kind, as the end of a sentence; "" if sound.

    An issue credits a reduction under a rule, or settles the points an earlier issue awaits;
    ``awaiting`` and the ``budget`` they wait for come together.
    """
    if not isinstance(detail, dict):
        return "is not an object"
    keys = detail.keys()
    form = _SETTLEMENT if kind == "issue" and "settles" in keys else _FORMS[kind]
    if not keys >= form.required:
        return f"lacks {min(form.required - keys)}"
    if len(keys) > len(form.required):
        if not keys <= form.required | form.optional:
            return "has a field its kind does not know"
        if ("awaiting" in keys) != ("budget" in keys):
            return "has one of awaiting and budget without the other"
    for name, value in detail.items():
        if not _FIELDS[name](value):
            return f"has a malformed {name}"
    return ""
