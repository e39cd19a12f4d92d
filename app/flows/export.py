"""Export: the log as files that other people's tools read, streamed, at one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, Engine

from app.flows import trail
from app.flows.prove import checkpoint_size
from app.store import catalogue, log, people
from app.store.trail import Wanted
from app.vault import Vault, open_opening
from ledger.encoding import encode
from ledger.entries import Entry, Kind
from ledger.keys import policy
from ledger.tiles import ENTRIES, PACKED, WIDTH, Tile, encode_bundle, tiles
from scenarios import Version

_KEYS = 50_000  # residents whose keys are kept while their openings are written


class NothingSealedError(Exception):
    """There is no checkpoint yet, so there is nothing an auditor could check."""

    code = "NOTHING_SEALED"


def export_log(
    engine: Engine, vault: Vault, folder: Path, *, openings: bool, acts: bool = False
) -> int:
    """Write checkpoint, keys, policy, tiles, entry bundles, scenario versions and, on request,
    openings and administrators' acts; return the log's size. Raises NothingSealedError.

    An older export in the folder is brought up to date: full tiles never change, so those that
    are there stay; openings and acts that are not asked for again are removed."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as tx, tx.begin():
        note = log.latest_checkpoint(tx)
        if note is None:
            raise NothingSealedError("nothing has been sealed yet; run `puhui log seal`")
        size = checkpoint_size(note)
        for tile in tiles(size):
            _write(folder / tile.path, lambda tile=tile: log.read_tile(tx, tile))
        for first in range(0, size, WIDTH):
            width = min(WIDTH, size - first)
            path = folder / Tile(ENTRIES, first // WIDTH, width).path
            _write(path, lambda f=first, w=width: encode_bundle(log.payloads(tx, f, w)))
        for scenario, number, data in _versions(tx):
            path = folder / "scenarios" / scenario / f"{number}.json"
            _write(path, lambda data=data: data)
        _rewrite(folder / "openings.jsonl", _openings(tx, vault, size) if openings else None)
        _rewrite(folder / "trail.jsonl", trail.lines(tx, Wanted()) if acts else None)
        verifiers = vault.ring.verifiers
        (folder / "log.vkey").write_text("".join(f"{v.vkey}\n" for v in verifiers))
        (folder / "policy").write_text(policy(verifiers))
        (folder / "checkpoint").write_text(note)  # last: it vouches for all the others
    return size


def _write(path: Path, content: object) -> None:
    if path.exists() or path.with_name(path.name + PACKED).exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content())  # type: ignore[operator]
    part.replace(path)


def _rewrite(path: Path, lines: Iterator[bytes] | None) -> None:
    path.unlink(missing_ok=True)
    if lines is not None:
        with path.open("wb") as file:
            file.writelines(lines)


def _versions(tx: Connection) -> Iterator[tuple[str, int, bytes]]:
    """The versions the log knows: one that was just published may still wait to be sealed."""
    waiting = [Entry.parse(data).detail for data in log.pending(tx, Kind.SCENARIO_PUBLISHED)]
    unsealed = {(detail["scenario"], detail["version"]) for detail in waiting}
    for data in catalogue.canonicals(tx):
        version = Version.from_canonical(data)
        if (version.scenario, version.number) not in unsealed:
            yield version.scenario, version.number, data


def _openings(tx: Connection, vault: Vault, size: int) -> Iterator[bytes]:
    """One line an opening that still exists, in leaf order."""
    key_of = lru_cache(_KEYS)(vault.subject_key)
    for leaf, entry_id, resident, wrapped, sealed in people.openings(tx, size):
        salt, opening = open_opening(key_of(resident, wrapped), entry_id, sealed)
        line = {
            "account": f"resident:{resident}",
            "index": leaf,
            "opening": opening.decode(),
            "salt": salt.hex(),
        }
        yield encode(line) + b"\n"
