"""Spends: holds, what becomes of them, and charges, each read in one go like the plain issue.

They are what nearly all entries are that are no issues. As ``ledger.plain`` does, this takes what
``Entry.read`` would take too, in the form that the verbs write, and leaves the rest to it.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from ledger.accounts import AccountKind, Asset
from ledger.buckets import day_of, is_bucket
from ledger.entries import is_instant

Lines = tuple[tuple[int, int], ...]
"""Bucket and points, the earliest bucket first."""


class Spend(NamedTuple):
    """What a book needs of one: ``lines`` leave the wallet, or the ``hold`` if it has an id, and go
    to the ``merchant`` if it has a token; else a hold's go back, and a wallet's are set aside."""

    id: str
    resident: str
    kind: str
    day: int  # the business day of its time
    lines: Lines
    merchant: str
    hold: str


_WALLET, _POINT = AccountKind.RESIDENT, Asset.POINT

_HEX32 = "[0-9a-f]{32}"
_match = re.compile(
    r'\{"at":"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3])):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z",'
    rf'"detail":\{{(?:"hold":"({_HEX32})"(?:,(?="m)|(?=\}})))?(?:"merchant":"({_HEX32})")?\}},'
    rf'"id":"({_HEX32})","kind":"([a-z]+)","postings":\[(\["[a-z]+:({_HEX32})".*\])\],"v":1\}}'
).fullmatch
# Fewer digits than MAX_INT has: larger numbers are Entry.read's.
_lines = re.compile(r'"POINT",([1-9][0-9]{7}),-([1-9][0-9]{0,14})\]').findall
_TOO_MUCH = 10**15

# By kind and whether a hold and a merchant are named: the accounts that lose, and those that gain.
_MOVES = {
    ("hold", False, False): ("resident:{}", "held:{}"),
    ("release", True, False): ("held:{}", "resident:{}"),
    ("redeem", True, True): ("held:{}", "redeemed"),
    ("redeem", False, True): ("resident:{}", "redeemed"),
}


def read(payload: bytes) -> Spend | None:
    """The spend of a payload ``Entry.read`` would take too; None if it is anything else."""
    form = _match(payload.decode("latin-1"))  # one character a byte; the form is ASCII
    if form is None:
        return None
    hour, hold, merchant, entry_id, kind, postings, resident = form.groups()
    move = _MOVES.get((kind, hold is not None, merchant is not None))
    day = _day(hour)
    if not move or not day:
        return None
    source, target = move[0].format(resident), move[1].format(resident)
    lines = tuple([(int(bucket), int(points)) for bucket, points in _lines(postings)])
    text = [
        f'["{source}","POINT",{bucket},-{points}],["{target}","POINT",{bucket},{points}]'
        for bucket, points in lines
    ]
    total, before = 0, 0
    for bucket, points in lines:
        if bucket <= before or not is_bucket(_WALLET, _POINT, bucket):
            return None
        total, before = total + points, bucket
    if merchant:
        allowed = f'["merchant:{merchant}","POINT",0,-{total}],["settlement","POINT",0,{total}]'
        text.append(allowed)
    if not lines or total >= _TOO_MUCH or ",".join(text) != postings:
        return None
    return Spend(entry_id, resident, kind, day, lines, merchant or "", hold or "")


@lru_cache(maxsize=4096)
def _day(hour: str) -> int:
    at = f"{hour}:00:00.000Z"
    return day_of(at) if is_instant(at) else 0
