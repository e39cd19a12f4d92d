"""Openings: each credited reduction and point recomputed from what was committed to.

The rules live in a package this one may not import, so a module is given by name; it has a
``Replay(versions, withdrawn)`` as ``Rules`` describes. Caps depend on what an account claimed
before, so claims are fed in leaf order per account, and processes share the work by account.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from heapq import heappop, heappush
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from ledger.accounts import Asset
from ledger.details import is_digest
from ledger.encoding import commit, decode
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError, Malformed
from ledger.export import Export, Fault, Leaves
from ledger.transfers import granted

FILE = "openings.jsonl"
_account = re.compile(rb'\{"account":"resident:([0-9a-f]{8})').match


class Claim(Protocol):
    """What one opened activity is worth: mg, points due after caps, points lost to a cap."""

    @property
    def reduction_mg(self) -> int: ...
    @property
    def points(self) -> int: ...
    @property
    def withheld(self) -> int: ...
    @property
    def scenario(self) -> str: ...


class Rules(Protocol):
    """What a rules module's ``Replay`` does; it may raise whatever it likes.

    ``withdrawn`` names those of the versions that never took effect: scenario and number.
    """

    def __init__(
        self, versions: Iterable[bytes], withdrawn: Iterable[tuple[str, int]] = ()
    ) -> None: ...

    def claim(self, account: str, version: tuple[str, int], opening: bytes) -> Claim:
        """The worth of an opening under a version, in leaf order for each account."""

    def undo(self, account: str, opening: bytes) -> None:
        """Take a claim back, its entry having been reversed."""


def recompute(
    directory: Path,
    size: int,
    rules: str,
    withdrawn: Iterable[tuple[str, int]],
    reversals: Mapping[int, int],
    erased: Set[str],
    shard: int,
    shards: int,
) -> tuple[int, int, Fault | None]:
    """Recompute the openings of the accounts of one shard: how many held, and the first fault.

    The second number counts the openings of residents who are not among the ``erased``;
    ``withdrawn`` names the versions that never took effect, ``reversals`` maps the leaf of a
    reversed entry to the leaf of its reversal.
    """
    export = Export(directory)
    count = living = 0
    try:
        replay = _load(rules, export, withdrawn)
        for account in _claims(export, size, replay, reversals, shard, shards):
            count += 1
            living += account.removeprefix("resident:") not in erased
    except Fault as fault:
        return count, living, fault
    return count, living, None


def _load(rules: str, export: Export, withdrawn: Iterable[tuple[str, int]]) -> Rules:
    versions = list(export.versions().values())
    try:
        replay: Rules = import_module(rules).Replay(versions, withdrawn)
    except Exception as error:
        raise Fault(None, "scenarios", f"The rules of {rules} cannot be loaded: {error}") from error
    return replay


def _claims(
    export: Export,
    size: int,
    replay: Rules,
    reversals: Mapping[int, int],
    shard: int,
    shards: int,
) -> Iterator[str]:
    """Check claim after claim, and yield whose it is."""
    leaves = Leaves(export, size)
    undone: list[tuple[int, str, bytes]] = []  # reversals to come, the earliest first
    last = -1
    for where, line in _lines(export, shard, shards):
        index, account, salt, text = _read(where, line)
        if not last < index < size:
            raise Fault(index, where, "The openings are not in the order of the leaves.")
        last = index
        while undone and undone[0][0] < index:
            leaf, who, what = heappop(undone)
            _undo(replay, leaf, where, who, what)
        opening = text.encode()
        entry = leaves.entry(index)
        _check_opening(index, where, entry, account, commit(salt, opening))
        _check_claim(index, where, entry, account, opening, replay)
        if index in reversals:
            heappush(undone, (reversals[index], account, opening))
        yield account
    for leaf, account, opening in sorted(undone):
        _undo(replay, leaf, FILE, account, opening)


def _lines(export: Export, shard: int, shards: int) -> Iterator[tuple[str, bytes]]:
    for where, line in export.lines(FILE):
        account = _account(line)
        if not account:
            raise Fault(None, where, "The line does not begin with an account.")
        if int(account[1], 16) % shards == shard:
            yield where, line


def _read(where: str, line: bytes) -> tuple[int, str, bytes, str]:
    try:
        value = decode(line)
        if value.keys() != {"account", "index", "opening", "salt"}:
            raise Malformed("An opening has an account, an index, its text and a salt.")
        account, index, text, salt = (value[name] for name in sorted(value))
        if type(index) is not int or not isinstance(text, str) or not is_digest(salt):
            raise Malformed("The index is no integer, the text no string or the salt no hex.")
    except LedgerError as error:
        raise Fault(None, where, str(error)) from error
    return index, account, bytes.fromhex(salt), text


def _check_opening(index: int, where: str, entry: Entry, account: Any, commitment: str) -> None:
    if entry.kind is not Kind.ISSUE or account != f"resident:{entry.resident}":
        raise Fault(index, where, "The leaf is not an issue to this account.")
    if entry.detail.get("commitment") != commitment:
        raise Fault(index, where, "The opening is not what the entry committed to.")


def _check_claim(
    index: int, where: str, entry: Entry, account: str, opening: bytes, replay: Rules
) -> None:
    scenario, version, _ = entry.detail["rule"]
    try:
        claim = replay.claim(account, (scenario, version), opening)
    except Exception as error:
        raise Fault(index, where, f"The rules refuse the claim: {error}") from error
    due = (claim.scenario, claim.reduction_mg, claim.points, claim.withheld)
    points = granted(entry, Asset.POINT) + entry.detail.get("awaiting", 0)
    credited = (scenario, granted(entry, Asset.CO2E), points, entry.detail.get("withheld", 0))
    if due != credited:
        what = "The rules give {} {} mg, {} points, {} withheld".format(*due)
        raise Fault(index, where, what + "; the entry has {} {}, {}, {}.".format(*credited))


def _undo(replay: Rules, leaf: int, where: str, account: str, opening: bytes) -> None:
    try:
        replay.undo(account, opening)
    except Exception as error:
        raise Fault(leaf, where, f"The rules cannot undo the claim: {error}") from error
