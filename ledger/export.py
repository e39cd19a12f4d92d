"""An export on disk: where its files lie, and what can be checked of a part without the rest.

Layout: ``checkpoint``, ``tile/...`` and ``tile/entries/...`` (c2sp.org/tlog-tiles), ``log.vkey``
(verifier keys, one a line), ``policy`` (c2sp.org/tlog-policy), ``scenarios/<id>/<n>.json``,
perhaps ``openings.jsonl`` and ``trail.jsonl``. A file may lie there deflated, its name ending in
``.gz``, as detached bundles do. Reading it is one of the few places where this package touches
files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from ledger import keys, note, plain, spends
from ledger.accounts import ASSETS, account_of
from ledger.checkpoint import Checkpoint
from ledger.checkpoint import open as open_checkpoint
from ledger.entries import KINDS, Entry, Posting
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    consistency_proof,
    fold,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from ledger.note import Verifier
from ledger.plain import Grant
from ledger.spends import Spend
from ledger.tiles import ENTRIES, PACKED, WIDTH, Tile, TileNodes, decode_bundle, unpack


class Fault(LedgerError):  # noqa: N818  (as in errors)
    """The first thing that does not hold: at which leaf (None if at none), in which file, what."""

    code = "AUDIT_FAULT"

    def __init__(self, leaf: int | None, where: str, what: str) -> None:
        super().__init__(leaf, where, what)
        self.leaf, self.where, self.what = leaf, where, what

    def __str__(self) -> str:
        leaf = "" if self.leaf is None else f"leaf {self.leaf}: "
        return f"{leaf}{self.where}: {self.what}"


JsonEntry = dict[str, Any]  # an entry as JSON has it, its form having been checked

Read = Grant | Spend | JsonEntry
"""An entry as far as a bundle by itself shows that it is one."""

_posting = tuple.__new__  # the hot path: a named tuple is a tuple


def entry_of(value: JsonEntry) -> Entry:
    """The entry itself."""
    postings = [
        _posting(Posting, (account_of(name), ASSETS[asset], bucket, amount))
        for name, asset, bucket, amount in value["postings"]
    ]
    kind = KINDS[value["kind"]]
    return Entry.trusted(value["id"], kind, value["at"], tuple(postings), value["detail"])


class Row(NamedTuple):
    """A bundle's entries and leaf hashes as far as they hold, and what ends them."""

    entries: list[Read]
    hashes: bytes
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Export:
    """An export's directory. Every method raises ``Fault`` for what it finds missing or wrong."""

    directory: Path

    def read(self, path: str) -> bytes:
        """The bytes of one file, or what is in it if it lies there deflated."""
        plain = self.directory / path
        packed = plain.with_name(plain.name + PACKED)
        try:
            return plain.read_bytes()
        except OSError as error:
            if not packed.exists():
                raise Fault(None, path, f"The file cannot be read: {error.strerror}.") from error
        try:
            return unpack(packed.read_bytes())
        except (OSError, Malformed) as error:
            raise Fault(None, path + PACKED, f"It cannot be read: {error}") from error

    def lines(self, path: str) -> Iterator[tuple[str, bytes]]:
        """Each line of a file with the words that say where it stands."""
        try:
            with (self.directory / path).open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    where = f"{path} line {number}"
                    if line[-1:] != b"\n":
                        raise Fault(None, where, "The line does not end.")
                    yield where, line[:-1]
        except OSError as error:
            raise Fault(None, path, f"The file cannot be read: {error.strerror}.") from error

    def tile(self, tile: Tile) -> bytes:
        """The bytes of a tile or entry bundle."""
        return self.read(tile.path)

    def head(self) -> Checkpoint:
        """The checkpoint, signed as log.vkey and the policy ask for."""
        logs = self.log_keys()
        witnesses, quorum = self._policy(logs)
        signed = self.read("checkpoint")
        try:
            opened = note.open(signed, (*logs, *witnesses))
            if opened.unverified:
                raise Unverified("A signature is by a key neither log.vkey nor policy names.")
            signed_by = {(signature.name, signature.key_id) for signature in opened.verified}
            if len(signed_by & {(w.name, w.key_id) for w in witnesses}) < quorum:
                raise Unverified(f"Fewer than {quorum} witnesses of the policy cosigned it.")
            return open_checkpoint(signed, logs)
        except LedgerError as error:
            raise Fault(None, "checkpoint", str(error)) from error

    def check_signed(self, head: Checkpoint, keys: tuple[Verifier, ...]) -> None:
        """Check that one of these keys of the log signed the checkpoint, which is ``head``."""
        try:
            if open_checkpoint(self.read("checkpoint"), keys) != head:
                raise Malformed("The checkpoint changed while it was checked.")
        except LedgerError as error:
            raise Fault(None, "checkpoint", str(error)) from error

    def log_keys(self) -> tuple[Verifier, ...]:
        """The log's verifier keys as the export names them."""
        try:
            return verifiers(self.read("log.vkey"))
        except Malformed as error:
            raise Fault(None, "log.vkey", str(error)) from error

    def _policy(self, logs: tuple[Verifier, ...]) -> tuple[tuple[Verifier, ...], int]:
        data = self.read("policy")
        try:
            lines = [line.split(" ") for line in data.decode().splitlines()]
            witnesses = tuple(Verifier.parse(line[-1]) for line in lines if line[0] == "witness")
            quorum = next((int(line[2]) for line in lines if line[0] == "group"), 0)
            if keys.policy(logs, witnesses, quorum).encode() != data:
                raise Malformed("The policy is not that of the keys in log.vkey.")
        except (LedgerError, ValueError, IndexError) as error:
            raise Fault(None, "policy", str(error)) from error
        return witnesses, quorum

    def versions(self) -> dict[tuple[str, int], bytes]:
        """The canonical bytes of each scenario version, by scenario and number."""
        found = {}
        for path in sorted(self.directory.glob("scenarios/*/*.json")):
            name = path.relative_to(self.directory).as_posix()
            if not path.stem.isdecimal() or str(int(path.stem)) != path.stem:
                raise Fault(None, name, "A scenario version's file is named by its number.")
            found[path.parent.name, int(path.stem)] = self.read(name)
        return found

    def check_versions(self, published: dict[tuple[str, int], str]) -> None:
        """Check that the versions' files are those that were published, no more and no fewer."""
        versions = self.versions()
        for scenario, number in sorted(versions.keys() | published.keys()):
            where = f"scenarios/{scenario}/{number}.json"
            data = versions.get((scenario, number))
            digest = published.get((scenario, number))
            if data is None or digest is None:
                raise Fault(None, where, "The version is published or on file, but not both.")
            if sha256(data).hexdigest() != digest:
                raise Fault(None, where, "The file is not what was published: its digest differs.")

    def check_leaf(self, leaf: int, payload: bytes, head: Checkpoint) -> None:
        """Check that an entry is in the tree of the checkpoint, by the tiles."""
        try:
            proof = inclusion_proof(leaf, head.size, TileNodes(head.size, self.tile).node)
            verify_inclusion(leaf, head.size, leaf_hash(payload), proof, head.root)
        except LedgerError as error:
            raise Fault(leaf, bundle_path(leaf, head.size), str(error)) from error

    def check_extends(self, old: Checkpoint, head: Checkpoint) -> None:
        """Check by the tiles that the tree of an older checkpoint is the beginning of this one.

        Raises ``Malformed`` or ``Unverified``: the caller knows which file is to blame.
        """
        if old.origin != head.origin:
            raise Unverified(f"It is of {old.origin}, not of {head.origin}.")
        if old.size:
            nodes = TileNodes(head.size, self.tile)
            proof = consistency_proof(old.size, head.size, nodes.node)
            verify_consistency(old.size, head.size, proof, old.root, head.root)
        elif old.root != EMPTY_ROOT:
            raise Unverified("An empty tree has another root.")

    def row(self, index: int, width: int) -> Row:
        """Check one bundle by itself: against its tile, and each entry's own form."""
        bundle, tile = Tile(ENTRIES, index, width), Tile(0, index, width)
        first = index * WIDTH
        try:
            payloads = decode_bundle(self.tile(bundle), width)
        except Malformed as error:
            return Row([], b"", Fault(first, bundle.path, str(error)))
        except Fault as missing:
            return Row([], b"", Fault(first, missing.where, missing.what))
        hashes = b"".join(map(leaf_hash, payloads))
        fault = self._differs(hashes, tile)
        if fault and fault.leaf is not None:
            payloads = payloads[: fault.leaf - first]
        entries: list[Read] = []
        for payload in payloads:
            try:
                entries.append(
                    plain.read(payload) or spends.read(payload) or Entry.read(payload)[1]
                )
            except LedgerError as error:
                fault = Fault(first + len(entries), bundle.path, str(error))
                break
        return Row(entries, hashes, fault)

    def _differs(self, hashes: bytes, tile: Tile) -> Fault | None:
        first = tile.index * WIDTH
        try:
            stored = self.tile(tile)
        except Fault as missing:
            return Fault(first, missing.where, missing.what)
        if stored == hashes:
            return None
        places = range(0, len(hashes), HASH_BYTES)
        at = next((at for at in places if stored[at : at + 32] != hashes[at : at + 32]), 0)
        what = "The tile does not hold the hash of the entry."
        return Fault(first + at // HASH_BYTES, tile.path, what)


class Leaves:
    """Entries of an export by leaf index, read again from bundles that were checked before.

    It keeps its place in the last bundle: going up the leaves reads each bundle once.
    """

    def __init__(self, export: Export, size: int) -> None:
        self._export = export
        self._size = size
        self._index = -1
        self._bundle = b""
        self._at = self._start = 0  # an entry's number in the bundle, and where its length stands

    def entry(self, leaf: int) -> Entry:
        """The entry at a leaf index below the size."""
        index, at = divmod(leaf, WIDTH)
        if index != self._index:
            self._bundle = self._export.read(bundle_path(leaf, self._size))
            self._index, self._at, self._start = index, 0, 0
        elif at < self._at:
            self._at = self._start = 0
        for _ in range(at - self._at):
            self._start = self._end()
        self._at = at
        return Entry.parse(self._bundle[self._start + 2 : self._end()])

    def _end(self) -> int:
        start = self._start + 2
        return start + int.from_bytes(self._bundle[self._start : start])


def bundle_path(leaf: int, size: int) -> str:
    """The path of the bundle that holds a leaf."""
    index = leaf // WIDTH
    return Tile(ENTRIES, index, min(WIDTH, size - index * WIDTH)).path


def tile_hash(hashes: bytes) -> bytes:
    """The hash a full tile has in the level above."""
    for _ in range(8):
        hashes = fold(hashes)
    return hashes


def verifiers(data: bytes) -> tuple[Verifier, ...]:
    """The verifier keys of a file with one a line; raises ``Malformed``, also if there is none."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise Malformed("The keys are not UTF-8 text.") from error
    if len(lines) < 2 or lines.pop():
        raise Malformed("A file of verifier keys has one a line.")
    return tuple(map(Verifier.parse, lines))
