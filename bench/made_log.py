"""A made-up log as an export on disk, of any size: nine issues in ten, charges and holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from ledger import plain, transfers
from ledger.book import Book
from ledger.checkpoint import Checkpoint
from ledger.encoding import encode
from ledger.entries import Entry
from ledger.keys import KeyRing, policy
from ledger.merkle import leaf_hash
from ledger.note import Signer
from ledger.plain import Terms
from ledger.tiles import ENTRIES, WIDTH, Edge, Tile, encode_bundle
from ledger.transfers import Rule

_AT = "2026-11-22T01:02:03.004Z"
_TODAY = 20_261_122
_SCENARIO = "travel.bike_shared"
_VERSION = encode({"scenario": _SCENARIO, "version": 1})
_RULE = Rule(_SCENARIO, 1, sha256(_VERSION).hexdigest())
_BUDGET, _MERCHANT = "b" * 32, "c" * 32
_TERMS = Terms(*_RULE, 2026, _BUDGET, 20_281_231)


def write_export(folder: Path, sizes: list[int], residents: int) -> Iterator[int]:
    """Write one log's export at these sizes, each over the one before; yield each when it stands.

    The same arguments write the same entries.
    """
    ring = KeyRing((Signer.generate("bench.example/log"),))
    _put(folder, "log.vkey", "".join(f"{v.vkey}\n" for v in ring.verifiers).encode())
    _put(folder, "policy", policy(ring.verifiers).encode())
    _put(folder, f"scenarios/{_SCENARIO}/1.json", _VERSION)
    entries, edge, bundle = _entries(residents), Edge(), []
    for size in sizes:
        while edge.size < size:
            width = min(WIDTH - len(bundle), size - edge.size)
            new = [next(entries) for _ in range(width)]
            bundle += new
            full, edge = edge.grow(b"".join(map(leaf_hash, new)))
            for tile, data in full:
                _put(folder, tile.path, data)
            place = Tile(ENTRIES, (edge.size - 1) // WIDTH, len(bundle))
            _put(folder, place.path, encode_bundle(bundle))
            bundle = bundle if len(bundle) < WIDTH else []
        for tile, data in edge.tiles():
            _put(folder, tile.path, data)
        head = Checkpoint(ring.origin, edge.size, edge.root())
        _put(folder, "checkpoint", ring.sign(head).encode())
        yield size


def _put(folder: Path, path: str, data: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)


def _entries(residents: int) -> Iterator[bytes]:
    book, draw = Book(), random.Random(1)
    people = [draw.randbytes(16).hex() for _ in range(residents)]
    commitment = "d" * 64
    known = {"at": _AT, "merchant": _MERCHANT}

    def stamp() -> dict[str, str]:
        return {"id": draw.randbytes(16).hex(), "at": _AT}

    def take(entry: Entry) -> bytes:
        book.apply(entry)
        del book.entries[entry.id]  # a model of the whole log would not fit
        return entry.payload()

    yield take(
        transfers.publish_scenario(**stamp(), **_RULE._asdict(), effective_from="2026-11-01")
    )
    yield take(transfers.fund(**stamp(), budget=_BUDGET, points=10**12, reference="x"))
    yield take(transfers.fund_merchant(**stamp(), merchant=_MERCHANT, points=10**12, reference="x"))
    while True:
        who, pick = draw.choice(people), draw.random()
        wallet = book.wallet(who)
        points = min(3, sum(wallet.values()))
        if pick > 0.1 or not points:
            more = {"id": draw.randbytes(16).hex(), "commitment": commitment}
            made = plain.write(
                _TERMS, **more, at=_AT, resident=who, reduction_mg=draw.randint(1, 10**6), points=5
            )
            book.credit(who, _TERMS, made.plain.reduction_mg, made.plain.points)
            yield made.payload()
            continue
        parts = {"resident": who, "points": points, "wallet": wallet, "today": _TODAY}
        if pick > 0.03:
            yield take(transfers.charge(**stamp(), **parts, merchant=_MERCHANT))
            continue
        hold = transfers.hold(**stamp(), **parts)
        yield take(hold)
        book.entries[hold.id] = hold
        yield take(transfers.redeem(id=draw.randbytes(16).hex(), hold=hold, **known))
        del book.entries[hold.id]
