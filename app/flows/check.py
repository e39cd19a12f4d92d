"""Check: the operator's audit of the live database, in one snapshot and with flat memory.

An export's audit covers what the log promises. This covers what only the database holds, most of
it derived from entries: postings, balances, folded sums, ids, openings, the line for a budget.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from app.store import catalogue, detached, log, scan, statements
from app.store import entries as ledger
from app.store.db import snapshot
from app.store.detached import DetachedUnreadableError, whole
from app.vault import Vault, VaultError, open_opening
from ledger import checkpoint
from ledger.encoding import commit, decode
from ledger.entries import Entry, Kind, instant
from ledger.errors import LedgerError
from ledger.merkle import HASH_BYTES, leaf_hash
from ledger.note import Verifier
from ledger.tiles import WIDTH, Edge, completed

_CHUNK = 16 * WIDTH


class Fault(NamedTuple):
    """Something that does not hold: the table and row, and what is wrong with it."""

    where: str
    what: str


def check_database(engine: Engine, vault: Vault) -> Iterator[Fault]:
    """Everything that does not hold, the entries first. Reads all; blocks nobody."""
    detached.look_again(engine)
    with snapshot(engine) as tx, tx.begin():
        published: dict[tuple[str, int], str] = {}
        withdrawn: set[tuple[str, int]] = set()
        unreadable = ""
        verifiers = set(vault.ring.verifiers)
        for stored in scan.entries(tx):
            where = f"entries {stored.arrival}"
            try:
                payload = whole(tx, stored.payload, stored.arrival)
                entry = Entry.parse(payload)
            except DetachedUnreadableError as error:
                if str(error) != unreadable:  # once for the entries of one file
                    yield Fault(where, str(error))
                unreadable = str(error)
                continue
            except LedgerError as error:
                yield Fault(where, f"the payload is no entry: {error}")
                continue
            yield from _check_entry(where, stored, entry, payload)
            yield from _check_opening(tx, vault, stored, entry)
            yield from _check_waiting(tx, vault, stored, entry)
            if entry.kind is Kind.SCENARIO_PUBLISHED:
                published[entry.detail["scenario"], entry.detail["version"]] = entry.detail[
                    "digest"
                ]
            elif entry.kind is Kind.SCENARIO_WITHDRAWN:
                withdrawn.add((entry.detail["scenario"], entry.detail["version"]))
            elif entry.kind is Kind.KEY_ROTATED:
                verifiers |= {Verifier.parse(entry.detail[name]) for name in ("old", "new")}
        yield from _check_sets(tx)
        if unreadable:
            return  # the rest is made of all entries
        yield from _check_versions(tx, published)
        for name in sorted(withdrawn ^ catalogue.withdrawn(tx)):
            where = "scenario_withdrawals {} {}".format(*name)
            yield Fault(where, "table and entries differ on whether it was withdrawn")
        yield from _check_trail(tx)
        yield from _check_tree(tx, vault.ring.origin, tuple(verifiers))


def _check_sets(tx: Connection) -> Iterator[Fault]:
    for table, arrival in scan.orphans(tx):
        yield Fault(f"{table} {arrival}", "there is no entry of this arrival")
    for table, key in scan.misplaced(tx):
        yield Fault(f"{table} {key}", "it does not follow the run before, or overlaps one")
    for table, account, asset, bucket, kept, posted in scan.differences(tx):
        yield Fault(f"{table} {account} {asset} {bucket}", f"{kept} kept, {posted} posted")


def _check_entry(where: str, stored: scan.Stored, entry: Entry, payload: bytes) -> Iterator[Fault]:
    if stored.id.hex() != entry.id or stored.kind != entry.kind:
        yield Fault(where, "its id or kind is not the payload's")
    posted = sorted(
        (line.account.key, line.account.kind.code, line.asset.code, line.bucket, line.amount)
        for line in entry.postings
    )
    if sorted(stored.lines) != posted:
        yield Fault(f"postings {stored.arrival}", "they are not the payload's")
    if (stored.leaf is None) == (stored.pending_hash is None):
        yield Fault(where, "it is not either sealed or pending")
    if stored.pending_hash not in (None, leaf_hash(payload)):
        yield Fault(f"outbox {stored.arrival}", "the leaf hash is not the payload's")


def _check_opening(
    tx: Connection, vault: Vault, stored: scan.Stored, entry: Entry
) -> Iterator[Fault]:
    commitment = entry.detail.get("commitment")
    where = f"openings {stored.arrival}"
    if stored.sealed_opening is None:
        if commitment and statements.wrapped_key(tx, entry.resident) is not None:
            yield Fault(where, "it is gone, but its resident was not erased")
        return
    try:
        key = vault.subject_key(entry.resident, stored.wrapped_key or b"")
        salt, opening = open_opening(key, entry.id, stored.sealed_opening)
    except VaultError as error:
        yield Fault(where, str(error))
        return
    if commit(salt, opening) != commitment:
        yield Fault(where, "it is not what the entry committed to")


def _check_waiting(
    tx: Connection, vault: Vault, stored: scan.Stored, entry: Entry
) -> Iterator[Fault]:
    awaiting = entry.detail.get("awaiting")
    if awaiting is None and stored.waiting is None:
        return
    due = None
    answers = [vault.entry_id(name, entry.id) for name in ("settle", "reverse")]
    if not ledger.known(tx, answers) and statements.wrapped_key(tx, entry.resident) is not None:
        tokens = (entry.id, entry.resident, entry.detail.get("budget", ""))
        due = (*map(bytes.fromhex, tokens), awaiting)
    if stored.waiting != due:
        yield Fault(f"waiting {stored.arrival}", "the line is not what the entry still awaits")


def _check_versions(tx: Connection, published: dict[tuple[str, int], str]) -> Iterator[Fault]:
    for canonical, (name, digest) in zip(
        catalogue.canonicals(tx), sorted(catalogue.digests(tx).items()), strict=True
    ):
        if not sha256(canonical).hexdigest() == digest == published.pop(name, None):
            yield Fault("scenario_versions {} {}".format(*name), "it is not what was published")
    for name in published:
        yield Fault("scenario_versions {} {}".format(*name), "it was published but is not kept")


def _check_trail(tx: Connection) -> Iterator[Fault]:
    for act in scan.acts(tx):
        where = f"trail {act.arrival}"
        if act.payload is None:
            yield Fault(where, "there is no entry of this act")
        elif act.at is None:
            yield Fault(where, "the record of this act is gone")
        elif not _is_recorded(act, act.payload, act.at):
            yield Fault(where, "it is not what the entry committed to")


def _is_recorded(act: scan.Acted, payload: bytes, at: datetime) -> bool:
    try:
        entry, record = Entry.parse(payload), decode(act.record)
    except LedgerError:
        return False
    if commit(act.salt, act.record) != entry.detail["commitment"]:
        return False
    shown = {"action": act.action, "actor": act.actor, "at": instant(at), "target": act.target}
    return bool(shown.items() <= record.items() and act.action == entry.detail["action"])


def _check_tree(tx: Connection, origin: str, verifiers: tuple[Verifier, ...]) -> Iterator[Fault]:
    """Grow the tree again, checkpoint by checkpoint, up to the first that does not hold."""
    if scan.misplaced(tx):
        return  # no tree can be grown of them
    head, edge = log.head(tx), Edge()
    for size, note in scan.checkpoints(tx):
        where = f"checkpoints {size}"
        try:
            signed = checkpoint.open(note, verifiers, origin)
        except LedgerError as error:
            yield Fault(where, str(error))
            return
        while (width := min(_CHUNK, size - edge.size, head.size - edge.size)) > 0:
            payloads = log.payloads(tx, edge.size, width)
            if len(payloads) < width:
                yield Fault(
                    f"leaves {edge.size}", f"{len(payloads)} of {width} are there from here"
                )
                return
            full, edge = edge.grow(b"".join(map(leaf_hash, payloads)))
            for tile, hashes in full:
                if stored := _first_difference(log.read_tile(tx, tile), hashes):
                    yield Fault(f"tiles {tile.level} {tile.index}", stored)
                    return
        if (signed.size, signed.root) != (size, edge.root()):
            yield Fault(where, "the tree of the entries has another size or root")
            return
    if (head.size, head.edge) != (edge.size, edge):
        yield Fault("log_head", "it is not the tree of the last checkpoint")
    if scan.tile_count(tx) != sum(1 for _ in completed(0, edge.size)):
        yield Fault("tiles", "there are more than the tree has")


def _first_difference(stored: bytes, made: bytes) -> str:
    for at in range(0, len(made), HASH_BYTES):
        if stored[at : at + HASH_BYTES] != made[at : at + HASH_BYTES]:
            return f"hash {at // HASH_BYTES} is not that of what lies below"
    return ""
