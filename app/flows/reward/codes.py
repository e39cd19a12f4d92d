"""Codes that a merchant brings: a file of one a line, taken as a whole or not at all.

Sent again, a file adds nothing: its lines are known. Each new code is a piece more in stock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import Connection

from app.flows.reward.terms import RewardError
from app.flows.voucher.code import OWN, mark_own, seal_own
from app.store import reward_codes, rewards, stock
from app.store.reward_codes import Code
from app.vault import Vault

MOST_LINES: Final = 100_000
_PAY_CODE: Final = re.compile(r"96[0-9]{18}")
_CHUNK: Final = 5_000
_SHOWN: Final = 100


class CodesRefusedError(RewardError):
    """Lines that cannot be taken; `errors` names the first of them. Nothing was kept."""

    def __init__(self, faults: list[tuple[int, str]]) -> None:
        super().__init__(
            "CODES_REFUSED",
            f"{len(faults)} line(s) cannot be taken, so none was; mend them, send all again",
        )
        self.errors = [
            {"field": f"line {number}", "message": message}
            for number, message in sorted(faults)[:_SHOWN]
        ]


class Uploaded(NamedTuple):
    """What became of a file: lines that hold a code, new ones, and those known from before."""

    lines: int
    added: int
    known: int


def upload(tx: Connection, vault: Vault, merchant: str, code: str, file: bytes) -> Uploaded:
    """Add a file of codes to a reward's pool: UTF-8 with or without BOM, one code a line, empty
    lines left out. Raises RewardError NOT_FOUND, REWARD_STATE, STOCK_REFUSED, CodesRefusedError."""
    found = rewards.lock_own(tx, merchant, code)
    if found is None:
        raise RewardError("NOT_FOUND", "this merchant has no reward of this code")
    if found.state == "closed":
        raise RewardError("REWARD_STATE", "the reward is closed; make another one")
    if found.codes != "pool":
        raise RewardError("STOCK_REFUSED", "this reward has no pool; its codes are made here")
    lines = list(_lines(file))
    marked = _marked(vault, merchant, lines)
    added, faults = 0, []
    for at in range(0, len(lines), _CHUNK):
        chunk = range(at, min(at + _CHUNK, len(lines)))
        known = reward_codes.known(tx, [marked[n] for n in chunk])
        fresh = []
        for n in chunk:
            home = known.get(marked[n])
            if home is None:
                fresh.append(Code(marked[n], seal_own(vault, found.id, lines[n][1])))
            elif home != found.id:
                faults.append((lines[n][0], "is a code of another reward of yours"))
        if not faults:
            reward_codes.put(tx, found.id, fresh)
        added += len(fresh)
    if faults:
        raise CodesRefusedError(faults)
    if added:
        stock.add(tx, found.id, added)
    return Uploaded(len(lines), added, len(lines) - added)


def _lines(file: bytes) -> Iterator[tuple[int, str]]:
    """Each code with the number of its line, from 1."""
    try:
        text = file.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CodesRefusedError([(file.count(b"\n", 0, error.start) + 1, "is not UTF-8")]) from None
    count = 0
    for number, line in enumerate(text.split("\n"), 1):
        code = line.strip(" \t\r").strip('"')
        if code:
            count += 1
            if count > MOST_LINES:
                raise CodesRefusedError(
                    [(number, f"is more than the {MOST_LINES} a file may have")]
                )
            yield number, code


def _marked(vault: Vault, merchant: str, lines: list[tuple[int, str]]) -> list[bytes]:
    """The keyed hash of each code. Raises CodesRefusedError for what is none, or stands twice."""
    faults: list[tuple[int, str]] = []
    first: dict[bytes, int] = {}
    made = []
    for number, code in lines:
        digest = mark_own(vault, merchant, code)
        made.append(digest)
        before = first.setdefault(digest, number)
        if before != number:
            faults.append((number, f"is the same code as line {before}"))
        elif not OWN.fullmatch(code):
            faults.append((number, "must be a code of 4 to 40 of A-Z a-z 0-9 _ -"))
        elif _PAY_CODE.fullmatch(code):
            faults.append((number, "has the form of a resident's code, which no till could tell"))
    if not lines:
        faults.append((1, "holds no code"))
    if faults:
        raise CodesRefusedError(faults)
    return made
