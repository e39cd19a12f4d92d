"""The roll-up: a province looks at its cities' logs, and remembers what each of them signed.

Its folder is the province's own, kept like a key. ``cities`` has a line for each key of each city:
a label, the verifier key and the folder of the export. ``keys`` has the province's two private
keys: one that signs notes, one that cosigns checkpoints. What it writes, a folder a label: the
last ``checkpoint`` it took, with its cosignature (c2sp.org/tlog-cosignature), the ``state`` of the
audit so far, and, should a city ever sign two histories, the ``conflict`` that proves it; and over
all of them the ``table``, a signed note (c2sp.org/signed-note).

For each city, by number:

1. a key that the province knows signed its checkpoint;
2. the tree goes on from the one cosigned last: nothing was taken back, and there is no second one;
3. the audit holds of what came since then;
4. the province cosigns.

A city that fails is named in the table with what it fails, and holds up no other.
"""

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ledger import note
from ledger.accounts import AccountKind, Asset
from ledger.audit import Progress, audit
from ledger.checkpoint import Checkpoint
from ledger.checkpoint import open as open_checkpoint
from ledger.entries import instant
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.export import Export, Fault
from ledger.merkle import Frontier, consistency_proof, verify_consistency
from ledger.note import COSIGNATURE, ED25519, Signer, Verifier
from ledger.state import load
from ledger.text import base64
from ledger.tiles import TileNodes

HEADER = "puhui rollup v1"
CITIES, KEYS, TABLE = "cities", "keys", "table"

_is_label = re.compile(r"[a-z0-9-]{1,40}").fullmatch


class City(NamedTuple):
    """A city as the province knows it: its own label for it, the log's keys, the export."""

    label: str
    keys: tuple[Verifier, ...]
    export: Path


class Totals(NamedTuple):
    """What an audited log adds up to: milligrams of CO2e avoided; points that budgets were given,
    that residents hold, that were redeemed (refunds taken off), and that expired."""

    reduction_mg: int
    funded: int
    held: int
    redeemed: int
    expired: int


class Row(NamedTuple):
    """A city's line: its head and totals, or what does not hold (then ``head`` is None)."""

    label: str
    origin: str
    head: Checkpoint | None
    totals: Totals
    fault: str


class Province(NamedTuple):
    """The two private keys: ``signs`` the table, ``cosigns`` checkpoints."""

    signs: Signer
    cosigns: Signer


def begin(folder: Path, name: str) -> tuple[str, ...]:
    """Make the province's keys; their verifier keys. Raises ``Fault`` if there are some."""
    made = [Signer.generate(name, kind) for kind in (ED25519, COSIGNATURE)]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(folder / KEYS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Fault(None, KEYS, "There are keys; they are never overwritten.") from error
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{one.skey}\n" for one in made)
    return tuple(one.verifier.vkey for one in made)


def province(folder: Path) -> Province:
    """The keys in a folder. Raises ``Fault``."""
    try:
        signs, cosigns = map(Signer.parse, _text(folder, KEYS).splitlines())
    except (Malformed, ValueError) as error:
        raise Fault(None, KEYS, "It is not two private keys, as --init writes them.") from error
    if (signs.kind, cosigns.kind) != (ED25519, COSIGNATURE):
        raise Fault(None, KEYS, "The first key signs, the second cosigns.")
    return Province(signs, cosigns)


def cities(folder: Path) -> list[City]:
    """The cities of a folder by their labels. Raises ``Fault`` for a line that cannot be read."""
    found: dict[str, City] = {}
    for number, line in enumerate(_text(folder, CITIES).splitlines(), 1):
        where = f"{CITIES} line {number}"
        label, _, rest = line.partition(" ")
        vkey, _, export = rest.partition(" ")
        if not _is_label(label) or not export:
            raise Fault(None, where, "It is not a label (a-z 0-9 -), a verifier key and a folder.")
        try:
            key = Verifier.parse(vkey)
        except Malformed as error:
            raise Fault(None, where, str(error)) from error
        known = found.get(label, City(label, (), folder / export))
        if known.export != folder / export or {one.name for one in known.keys} - {key.name}:
            raise Fault(None, where, f"{label} has another folder or log in a line above.")
        found[label] = known._replace(keys=(*known.keys, key))
    if not found:
        raise Fault(None, CITIES, "It names no city.")
    return [found[label] for label in sorted(found)]


def rollup(
    folder: Path,
    time: int,
    *,
    jobs: int = 1,
    progress: Progress = lambda what, done, size: None,
) -> list[Row]:
    """Look at every city at POSIX ``time`` and write what was found; a line for each.

    Raises ``Fault`` for what is wrong in the province's own folder; a city's faults are in its row.
    """
    ours = province(folder)
    rows = [_visit(one, folder / one.label, ours, time, jobs, progress) for one in cities(folder)]
    _write(folder / TABLE, note.sign(table(rows, time), (ours.signs,)))
    return rows


def table(rows: Sequence[Row], time: int) -> str:
    """The text that the province signs. Its second line is no size, lest it be read as a
    checkpoint."""
    lines = [HEADER, instant(datetime.fromtimestamp(time, UTC))]
    for row in rows:
        head = [str(row.head.size), base64(row.head.root)] if row.head else ["fault", row.fault]
        lines.append(" ".join([row.label, row.origin, *head, *map(str, row.totals)]))
    sums = (sum(each) for each in zip(*(row.totals for row in rows), strict=True))
    held = [row.head.size for row in rows if row.head]
    lines.append(" ".join(["total", str(len(held)), str(sum(held)), *map(str, sums)]))
    return "".join(f"{line}\n" for line in lines)


def _visit(city: City, own: Path, ours: Province, time: int, jobs: int, progress: Progress) -> Row:
    origin = city.keys[0].name
    own.mkdir(exist_ok=True)
    try:
        export = Export(city.export)
        signed = export.read("checkpoint")
        head = _head(signed, city.keys, origin)  # step 1
        last = _last(own, ours.cosigns.verifier)
        if last is not None:
            _check_goes_on(export, last, head, own, signed)  # step 2
        state = own / "state"
        report = audit(city.export, state=state, jobs=jobs, trusted=city.keys, progress=progress)
        if report.head != head:  # step 3
            raise Fault(None, "checkpoint", "It changed while it was looked at; run this again.")
        _write(own / "checkpoint", note.cosign(signed.decode(), ours.cosigns, time))  # step 4
        return Row(city.label, origin, head, _totals(state), "")
    except LedgerError as error:
        return Row(city.label, origin, None, Totals(0, 0, 0, 0, 0), str(error))


def _head(signed: bytes, keys: Iterable[Verifier], origin: str) -> Checkpoint:
    try:
        return open_checkpoint(signed, keys, origin)
    except LedgerError as error:
        what = f"{error} If the city has another key now, learn it from the city, not from here."
        raise Fault(None, "checkpoint", what) from error


def _last(own: Path, cosigner: Verifier) -> Checkpoint | None:
    """What was cosigned last; only our own signature makes it worth reading."""
    path = own / "checkpoint"
    if not path.exists():
        return None
    try:
        return Checkpoint.parse(note.open(path.read_bytes(), (cosigner,)).text)
    except (LedgerError, OSError) as error:
        raise Fault(None, str(path), f"It is not what the province cosigned: {error}") from error


def _check_goes_on(
    export: Export, last: Checkpoint, head: Checkpoint, own: Path, signed: bytes
) -> None:
    if head.size < last.size:
        what = (
            f"It has {head.size} entries, but the city had signed {last.size}: some are withheld."
        )
        raise Fault(None, "checkpoint", what)
    if last.size == 0:
        return
    nodes = TileNodes(head.size, export.tile)
    peaks, at = [], 0
    for level in reversed(range(last.size.bit_length())):
        if last.size >> level & 1:
            peaks.append(nodes.node(level, at >> level))
            at += 1 << level
    shown = Frontier(last.size, tuple(peaks)).root()
    try:  # tiles that are not those of the checkpoint say nothing of what the city signed
        proof = consistency_proof(last.size, head.size, nodes.node)
        verify_consistency(last.size, head.size, proof, shown, head.root)
    except Unverified as error:
        raise Fault(None, "tile", f"The tiles are not those of the checkpoint: {error}") from error
    if shown != last.root:
        _write(own / "conflict", signed.decode())
        what = (
            f"The city signed two histories: this one's first {last.size} entries are not those"
            " that it had signed before. Both checkpoints are kept."
        )
        raise Fault(None, "checkpoint", what)


def _totals(state: Path) -> Totals:
    known = load(state)
    known.ids.close()
    sums: dict[tuple[AccountKind, Asset], int] = {}
    for (account, asset), buckets in known.book.balances():
        place = account.kind, asset
        sums[place] = sums.get(place, 0) + sum(buckets.values())

    def points(kind: AccountKind) -> int:
        return sums.get((kind, Asset.POINT), 0)

    return Totals(
        reduction_mg=-sums.get((AccountKind.REDUCTION, Asset.CO2E), 0),
        funded=-points(AccountKind.ISSUANCE),
        held=points(AccountKind.RESIDENT) + points(AccountKind.HELD),
        redeemed=points(AccountKind.REDEEMED),
        expired=points(AccountKind.EXPIRED),
    )


def _text(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(None, name, f"The file cannot be read: {error}.") from error


def _write(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
