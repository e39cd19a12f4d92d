"""The trail: what administrators did, each record held against the leaf that commits to it.

``trail.jsonl`` has a line of RFC 8785 JSON for each leaf of kind ``admin.acted``, in leaf order:
``{"index": leaf, "record": text, "salt": hex}``. The record is RFC 8785 JSON again; of its fields
the audit knows one: ``action`` is what the entry shows.
"""

from collections.abc import Sequence

from ledger.details import is_digest
from ledger.encoding import commit, decode
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.export import Export, Fault, Leaves

FILE = "trail.jsonl"
MAX_RECORD = 32_000  # bytes: a line holds the record as text, with every quote escaped


def check_trail(export: Export, size: int, acts: Sequence[int], since: int = 0) -> int:
    """Check that the file opens exactly these leaves, given in order; how many there are.

    Records of leaves below ``since`` were checked before.
    """
    leaves = Leaves(export, size)
    due = iter(acts)
    leaf = next(due, size)
    for where, line in export.lines(FILE):
        try:
            index, record, salt = _read(line)
            if index < since:
                continue
            if index != leaf:
                leaf = min(index, leaf)
                raise Unverified("A record is missing here, or the leaf is nobody's act.")
            detail = leaves.entry(leaf).detail
            if commit(salt, record) != detail["commitment"]:
                raise Unverified("The record is not what the entry committed to.")
            _check_record(record, detail["action"])
        except Fault:
            raise
        except LedgerError as error:
            raise Fault(leaf, where, str(error)) from error
        leaf = next(due, size)
    if leaf < size:
        raise Fault(leaf, FILE, "The record of this act is missing.")
    return len(acts)


def _check_record(record: bytes, action: str) -> None:
    match decode(record):
        case {"action": str(said)} if said == action:
            return
    raise Unverified("The record is of another action than the entry.")


def _read(line: bytes) -> tuple[int, bytes, bytes]:
    match decode(line):
        case {"index": int(index), "record": str(record), "salt": str(salt), **rest} if (
            not rest and is_digest(salt)
        ):
            return index, record.encode(), bytes.fromhex(salt)
    raise Malformed("A line has the index of a leaf, a record as text and a salt in hex.")
