"""Claims that were opened: each credited reduction and point recomputed by its rule.

The rules live in a package this one may not import, so a module is given by name; it has a
``Replay(versions, withdrawn)`` as ``Rules`` describes. Caps depend on what an account claimed
before, so a heap, which has all claims of its accounts, is replayed account by account, each in
leaf order.
"""

from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from heapq import heappop, heappush
from importlib import import_module
from pathlib import Path
from typing import Protocol

from ledger.export import Export, Fault
from ledger.openings import FILE, Claim, Heaps


class Worth(Protocol):
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

    def claim(self, account: str, version: tuple[str, int], opening: bytes) -> Worth:
        """The worth of an opening under a version, in leaf order for each account."""

    def undo(self, account: str, opening: bytes) -> None:
        """Take a claim back, its entry having been reversed."""

    def forget(self, account: str) -> None:
        """Let go of an account of which nothing follows."""


def recompute(
    directory: Path,
    heaps: Heaps,
    number: int,
    rules: str,
    withdrawn: Iterable[tuple[str, int]],
    reversals: Mapping[int, int],
    erased: Set[str],
) -> tuple[int, int, Fault | None]:
    """Recompute the claims of a heap: how many held, how many were not opened, the first fault.

    The second number leaves out those of residents who are among the ``erased``; ``withdrawn``
    names the versions that never took effect, ``reversals`` maps the leaf of a reversed entry to
    the leaf of its reversal.
    """
    try:
        versions = tuple(Export(directory).versions().values())
        replay = _load(rules, versions, tuple(withdrawn))
    except Fault as fault:
        return 0, 0, fault
    count = missing = 0
    faults: list[Fault] = []
    accounts = heaps.take(number)
    while accounts:
        resident, claims = accounts.popitem()
        opened = [claim for claim in claims if claim.scenario]
        count += len(opened)
        missing += len(claims) - len(opened) if resident not in erased else 0
        try:
            _replay(replay, f"resident:{resident}", opened, reversals)
        except Fault as fault:
            faults.append(fault)
    return count, missing, min(faults, key=lambda fault: fault.leaf or 0, default=None)


def _replay(replay: Rules, account: str, claims: list[Claim], reversals: Mapping[int, int]) -> None:
    """Replay an account's claims, and take back those that were reversed."""
    undone: list[tuple[int, Claim]] = []  # reversals to come, the earliest first
    try:
        for claim in claims:
            while undone and undone[0][0] < claim.leaf:
                _undo(replay, account, *heappop(undone))
            _check(replay, account, claim)
            if claim.leaf in reversals:
                heappush(undone, (reversals[claim.leaf], claim))
        for leaf, claim in sorted(undone):
            _undo(replay, account, leaf, claim)
    finally:
        replay.forget(account)


@lru_cache(maxsize=1)  # rules that forgot the accounts of a heap serve the next one
def _load(rules: str, versions: tuple[bytes, ...], withdrawn: tuple[tuple[str, int], ...]) -> Rules:
    try:
        replay: Rules = import_module(rules).Replay(versions, withdrawn)
    except Exception as error:
        raise Fault(None, "scenarios", f"The rules of {rules} cannot be loaded: {error}") from error
    return replay


def _check(replay: Rules, account: str, claim: Claim) -> None:
    leaf, _, opening, scenario, version, *amounts = claim
    try:
        worth = replay.claim(account, (scenario, version), opening)
    except Exception as error:
        raise Fault(leaf, FILE, f"The rules refuse the claim: {error}") from error
    due = (worth.scenario, worth.reduction_mg, worth.points, worth.withheld)
    credited = (scenario, *amounts)
    if due != credited:
        what = "The rules give {} {} mg, {} points, {} withheld".format(*due)
        raise Fault(leaf, FILE, what + "; the entry has {} {}, {}, {}.".format(*credited))


def _undo(replay: Rules, account: str, leaf: int, claim: Claim) -> None:
    try:
        replay.undo(account, claim.opening)
    except Exception as error:
        raise Fault(leaf, FILE, f"The rules cannot undo the claim: {error}") from error
