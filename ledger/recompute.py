"""Claims that were opened: each credited reduction and point recomputed by its rule.

The rules live in a package this one may not import, so a module is given by name; it has a
``Replay(versions, withdrawn)`` as ``Rules`` describes. Caps depend on what an account claimed
before, so a heap, which has all claims of its accounts, is replayed in leaf order by rules that
have seen no other.
"""

from collections.abc import Iterable, Mapping, Set
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


def recompute(
    directory: Path,
    heaps: Heaps,
    number: int,
    rules: str,
    withdrawn: Iterable[tuple[str, int]],
    reversals: Mapping[int, int],
    erased: Set[str],
) -> tuple[int, int, Fault | None]:
    """Recompute the claims of a heap: how many held, and the first fault.

    The second number counts those of residents who are not among the ``erased``; ``withdrawn``
    names the versions that never took effect, ``reversals`` maps the leaf of a reversed entry to
    the leaf of its reversal.
    """
    count = living = 0
    claims = heaps.take(number)
    try:
        replay = _load(rules, Export(directory), withdrawn)
        undone: list[tuple[int, Claim]] = []  # reversals to come, the earliest first
        for claim in claims:
            while undone and undone[0][0] < claim.leaf:
                _undo(replay, *heappop(undone))
            _check(replay, claim)
            if claim.leaf in reversals:
                heappush(undone, (reversals[claim.leaf], claim))
            count += 1
            living += claim.resident not in erased
        for leaf, claim in sorted(undone):
            _undo(replay, leaf, claim)
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


def _check(replay: Rules, claim: Claim) -> None:
    leaf, resident, opening, scenario, version, *amounts = claim
    try:
        worth = replay.claim(f"resident:{resident}", (scenario, version), opening.encode())
    except Exception as error:
        raise Fault(leaf, FILE, f"The rules refuse the claim: {error}") from error
    due = (worth.scenario, worth.reduction_mg, worth.points, worth.withheld)
    credited = (scenario, *amounts)
    if due != credited:
        what = "The rules give {} {} mg, {} points, {} withheld".format(*due)
        raise Fault(leaf, FILE, what + "; the entry has {} {}, {}, {}.".format(*credited))


def _undo(replay: Rules, leaf: int, claim: Claim) -> None:
    try:
        replay.undo(f"resident:{claim.resident}", claim.opening.encode())
    except Exception as error:
        raise Fault(leaf, FILE, f"The rules cannot undo the claim: {error}") from error
