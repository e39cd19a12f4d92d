"""The audit: everything an export promises, checked with no database.

1. The checkpoint's signatures, and the cosignatures its policy asks for.
2. Every bundle: its entries' hashes are the tile's, each entry has the form its kind allows.
3. Every entry, in leaf order, is one the ``Book`` takes; every tile follows from those below.
4. The root is the checkpoint's.
5. A key the caller trusts signed it, or one that such a key handed over to in this log.
6. The scenario files are those that were published.
7. An older checkpoint is of the same tree, if one is given.
8. With openings, each reduction and each point follows from its rule.
9. With a trail, each administrator's act is what its record says, and none is left out.

Step 2 is most of the work and runs in worker processes. Memory grows with residents and with
what was taken back (refunded, reversed, settled), not with entries: their ids go to disk.

With a state, what an earlier audit took is not looked at again: step 7 is then against the
state's own checkpoint, and comes first. Openings are for audits in full, since the caps on a
claim look back at all the claims before.
"""

import gc
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import starmap
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from ledger.accounts import AccountKind
from ledger.book import Book
from ledger.checkpoint import Checkpoint
from ledger.checkpoint import open as open_checkpoint
from ledger.errors import LedgerError
from ledger.export import Export, Fault
from ledger.note import Verifier
from ledger.openings import FILE as OPENINGS
from ledger.openings import Heaps
from ledger.recompute import recompute
from ledger.replay import Replay, check_range
from ledger.state import State, load, save
from ledger.tiles import WIDTH
from ledger.trail import FILE as TRAIL
from ledger.trail import check_trail

RANGE = 32  # bundles a worker checks at a time
AHEAD = 4  # ranges in flight for each worker

Progress = Callable[[str, int, int], None]
"""Told how many of how many entries, and then claims, are done."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and held: counts, and the sizes of the trees."""

    head: Checkpoint
    kinds: Counter[str]
    balances: int  # (account, asset) pairs that are not zero
    versions: int  # published in all
    withdrawn: int  # of these, the ones that never took effect
    issues: int  # entries that cite a rule
    recomputed: int | None  # of these, the ones opened and recomputed; None without openings
    missing: int  # of the others, those whose resident this log does not say was erased
    opened: int | None  # acts of administrators whose record was checked; None without a trail
    since: int | None  # size of the older checkpoint
    resumed: int | None  # entries the state vouches for; None without one to go on from
    digest: str | None  # of the state that was written
    merchants: dict[str, tuple[int, int]]  # points redeemed with each, and what is still allowed


def audit(
    directory: Path,
    *,
    since: Path | None = None,
    state: Path | None = None,
    rules: str = "scenarios",
    jobs: int = 1,
    trusted: tuple[Verifier, ...] = (),
    progress: Progress = lambda what, done, size: None,
) -> Report:
    """Check the export in a directory; raises ``Fault`` at the first thing that does not hold.

    ``since`` is the file of an older checkpoint, ``state`` one to go on from if it is there and
    to write when all held, ``rules`` the module that recomputes openings,
    ``jobs`` the number of worker processes (1: none), ``trusted`` the log's keys as the caller
    knows them: without any, the keys in the export only vouch for themselves.
    """
    export = Export(directory)
    head = export.head()
    before = _resume(export, head, state) if state and state.exists() else None
    resumed = before.head.size if before else None
    replay = Replay(export, head, before)
    with (
        TemporaryDirectory(prefix="puhui-audit-") as folder,  # the workers end before it does
        _workers(jobs) as workers,
        _uncollected(),
        closing(replay),
    ):
        opened = resumed is None and (directory / OPENINGS).exists()
        heaps = Heaps.of(Path(folder), head.size) if opened else None
        _replay(export, replay, workers, heaps, progress)
        replay.check_tree()
        keys = _followed(trusted or export.log_keys(), replay.rotations)
        export.check_signed(head, keys)
        book = replay.book
        export.check_versions(book.published | book.withdrawn)
        old = _check_since(export, head, since, keys) if since else None
        recomputed, missing = None, 0
        if heaps:
            replay.check_openings()
            recomputed, missing = _recompute(export, replay, workers, heaps, rules, progress)
        acts = None
        if (directory / TRAIL).exists():
            acts = check_trail(export, head.size, replay.acts, resumed or 0)
        digest = save(state, replay.state()) if state else None
    return Report(
        head=head,
        kinds=replay.kinds,
        balances=sum(1 for _ in book.balances()),
        versions=len(book.effective),
        withdrawn=len(book.withdrawn),
        issues=replay.issues,
        recomputed=recomputed,
        missing=missing,
        opened=acts,
        since=old,
        resumed=resumed,
        digest=digest,
        merchants=_merchants(book),
    )


def _merchants(book: Book) -> dict[str, tuple[int, int]]:
    allowed = {
        account.token: buckets[0]
        for (account, _), buckets in book.balances()
        if account.kind is AccountKind.MERCHANT
    }
    return {
        merchant: (book.redeemed.get(merchant, 0), allowed.get(merchant, 0))
        for merchant in sorted(book.redeemed.keys() | allowed.keys())
    }


@dataclass(frozen=True, slots=True)
class _Workers:
    """Processes that take calls; with one job the call happens here."""

    count: int
    pool: ProcessPoolExecutor | None

    def each(self, call: Callable[..., _T], parts: Iterable[tuple[Any, ...]]) -> Iterator[_T]:
        """What the call makes of each of the parts, in their order."""
        if self.pool is None:
            yield from starmap(call, parts)
            return
        waiting: deque[Future[_T]] = deque()
        for part in parts:
            if len(waiting) == self.count * AHEAD:
                yield waiting.popleft().result()
            waiting.append(self.pool.submit(call, *part))
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _workers(jobs: int) -> Iterator[_Workers]:
    if jobs == 1:
        yield _Workers(1, None)
        return
    # spawn, since a fork of a process with threads may hang
    with ProcessPoolExecutor(jobs, get_context("spawn"), gc.disable) as pool:
        yield _Workers(jobs, pool)


@contextmanager
def _uncollected() -> Iterator[None]:
    # The book grows by millions of tuples and makes no cycles; collections would walk them all.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _replay(
    export: Export, replay: Replay, workers: _Workers, heaps: Heaps | None, progress: Progress
) -> None:
    size = replay.head.size
    try:
        for checked in _ranges(export, replay.begin, workers, size, heaps):
            replay.take(checked)
            progress("entries", replay.book.size, size)
    except Fault:
        replay.check_ids()  # an id used twice before this leaf is the first that does not hold
        raise
    replay.check_ids()


def _ranges(
    export: Export, begin: int, workers: _Workers, size: int, heaps: Heaps | None
) -> Iterator[bytes]:
    bundles = -(-size // WIDTH)
    ranges = ((n, min(n + RANGE, bundles)) for n in range(begin // WIDTH, bundles, RANGE))
    parts = ((export.directory, size, begin, *some, heaps) for some in ranges)
    return workers.each(check_range, parts)


def _followed(
    keys: tuple[Verifier, ...], rotations: list[tuple[Verifier, Verifier]]
) -> tuple[Verifier, ...]:
    known = list(keys)
    for old, new in rotations:
        if old in known and new not in known:
            known.append(new)
    return tuple(known)


def _resume(export: Export, head: Checkpoint, path: Path) -> State:
    state = load(path)
    try:
        export.check_extends(state.head, head)
    except LedgerError as error:
        state.ids.close()
        what = f"The export does not go on from {state.head.size} entries audited before: {error}"
        raise Fault(None, str(path), what) from error
    return state


def _check_since(export: Export, head: Checkpoint, since: Path, keys: tuple[Verifier, ...]) -> int:
    try:
        old = open_checkpoint(since.read_bytes(), keys, head.origin)
        export.check_extends(old, head)
    except OSError as error:
        raise Fault(None, str(since), f"The file cannot be read: {error.strerror}.") from error
    except LedgerError as error:
        raise Fault(None, str(since), f"It is not of the same log: {error}") from error
    return old.size


def _recompute(
    export: Export,
    replay: Replay,
    workers: _Workers,
    heaps: Heaps,
    rules: str,
    progress: Progress,
) -> tuple[int, int]:
    """How many openings held, and how many are missing without an erasure in this log."""
    erased = replay.book.erased
    done = missing = 0
    faults: list[Fault] = []
    gone, undone = _by_heap(heaps, erased), _by_heap(heaps, replay.reversals)
    rest = rules, tuple(replay.book.withdrawn)
    parts = (
        (
            *(export.directory, heaps, number, *rest),
            dict(leaves for who in undone[number] for leaves in replay.reversals[who].items()),
            frozenset(gone[number]),
        )
        for number in range(heaps.heaps)
    )
    for count, without, fault in workers.each(recompute, parts):
        done, missing = done + count, missing + without
        faults += [fault] if fault else []
        progress("claims", done, replay.issues)
    if faults:
        size = replay.book.size
        raise min(faults, key=lambda fault: size if fault.leaf is None else fault.leaf)
    return done, missing


def _by_heap(heaps: Heaps, residents: Iterable[str]) -> dict[int, list[str]]:
    found = defaultdict[int, list[str]](list)
    for resident in residents:
        found[heaps.number(resident)].append(resident)
    return found
