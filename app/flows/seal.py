"""Seal: put what was appended into the tree and sign the new head. One sealer at a time.

The steps, by number:

1. lock the head; whoever does not get it has nothing to do;
2. compare with the copy of the last checkpoint outside the database: a database that is behind it
   was restored from a backup, and sealing on would sign a second history;
3. close the business day, if it has changed;
4. take the outbox in arrival order, give contiguous leaf indexes, grow the tiles, fold open sums;
5. sign, move the head, commit;
6. only then write the outside copy: were it first, a crash between would look like a restore.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.store import entries, log
from app.vault import Vault
from ledger import checkpoint
from ledger.buckets import day_number
from ledger.checkpoint import Checkpoint
from ledger.entries import instant
from ledger.errors import LedgerError
from ledger.merkle import consistency_proof, verify_consistency
from ledger.tiles import TileNodes
from ledger.transfers import close_day

LIMIT = 50_000  # entries a seal, about: bounds memory and the time the head is locked


_RESTORE = "Restore the newest backup, replaying the write-ahead log up to the kept checkpoint"


class SecondHistoryError(Exception):
    """The database is not what was sealed before; sealing on would sign a second history."""

    code = "SECOND_HISTORY"


class Sealer:
    """Seals the log of one database. `head_file` is the copy outside it."""

    def __init__(self, engine: Engine, vault: Vault, head_file: Path) -> None:
        self._engine = engine
        self._vault = vault
        self._head_file = head_file
        self._trusted, self._trusted_size = "", 0  # the outside copy as last compared here

    def seal(self, now: datetime, limit: int = LIMIT) -> int:
        """Seal about `limit` entries; return how many. Raises SecondHistoryError."""
        with self._engine.begin() as tx:
            head = log.lock_head(tx)  # step 1
            if head is None:
                return 0
            self._compare(tx, head)  # step 2
            today = day_number(now.astimezone(CITY_ZONE).date())
            closing = self._close(tx, head, today, now)  # step 3
            pending = closing + log.take_pending(tx, limit)  # step 4
            if not pending:
                if head.day != today:
                    log.set_head(tx, head.edge, today)
                return 0
            full, edge = head.edge.grow(b"".join(run.leaf_hashes for run in pending))
            runs = log.joined(pending)
            log.put_leaves(tx, head.size, runs)
            log.put_tiles(tx, full)
            log.fold_open(tx, runs)
            signed = Checkpoint(self._vault.ring.origin, edge.size, edge.root())  # step 5
            note = self._vault.ring.sign(signed)
            log.put_checkpoint(tx, edge.size, note, now)
            log.set_head(tx, edge, today)
        self._keep()  # step 6
        return edge.size - head.size

    def adopt(self) -> int:
        """Take the database's own last checkpoint as the outside copy, on an operator's word."""
        return self._keep()

    def _close(
        self, tx: Connection, head: log.Head, today: int, now: datetime
    ) -> list[log.Pending]:
        if head.day is None or head.day >= today or head.size == 0:
            return []
        entry = close_day(
            id=self._vault.entry_id("day", str(head.day)),
            at=instant(now),
            day=head.day,
            size=head.size,
            totals=log.open_totals(tx),
        )
        return [log.Pending(*entries.write_for_sealer(tx, entry))]

    def _compare(self, tx: Connection, head: log.Head) -> None:
        if not self._head_file.exists():
            if head.size:
                raise self._refusal(
                    f"{self._head_file} is missing but the log has entries",
                    "Put back a checkpoint kept outside the database, such as an auditor's",
                )
            return
        outside = self._head_file.read_text()
        if outside == self._trusted and self._trusted_size <= head.size:
            return
        try:
            kept = checkpoint.open(outside, self._vault.ring.verifiers, self._vault.ring.origin)
        except LedgerError as error:
            raise self._refusal(f"{self._head_file} does not verify: {error}") from error
        if kept.size > head.size:
            raise self._refusal(
                f"{kept.size} entries were sealed but the database has {head.size}:"
                " it was restored from an older backup"
            )
        if not _extends(tx, head, kept):
            raise self._refusal("the database's log does not extend the checkpoint kept outside it")
        self._trusted, self._trusted_size = outside, kept.size

    def _refusal(self, reason: str, remedy: str = _RESTORE) -> SecondHistoryError:
        return SecondHistoryError(
            f"refusing to seal: {reason}. {remedy}; only if entries are lost for good and that has"
            " been announced, run `puhui log adopt`"
        )

    def _keep(self) -> int:
        """Make the outside copy the newest checkpoint; the head is locked meanwhile, lest a slow
        sealer put its older one over a quick sealer's newer one."""
        with self._engine.begin() as tx:
            log.lock_head(tx, wait=True)
            note, size = log.latest_checkpoint(tx), log.head(tx).size
            if note is None:
                self._head_file.unlink(missing_ok=True)
                return 0
            self._head_file.parent.mkdir(parents=True, exist_ok=True)
            part = self._head_file.with_name(f"{self._head_file.name}.part")
            with part.open("w") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._head_file)
        self._trusted, self._trusted_size = note, size
        return size


def _extends(tx: Connection, head: log.Head, kept: Checkpoint) -> bool:
    """Whether the database's tree has the kept one as its beginning."""
    if kept.size == 0 or head.size == kept.size:
        return kept.size == 0 or head.edge.root() == kept.root
    nodes = TileNodes(head.size, lambda tile: log.read_tile(tx, tile))
    try:
        proof = consistency_proof(kept.size, head.size, nodes.node)
        verify_consistency(kept.size, head.size, proof, kept.root, head.edge.root())
    except LedgerError:
        return False
    return True
