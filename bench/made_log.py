"""A made-up log as an export on disk, of any size: nine issues in ten, charges and holds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import scenarios
from app.cli.sample_city import SampleCity
from ledger import plain, runs, transfers
from ledger.book import Book
from ledger.buckets import expiry_bucket
from ledger.checkpoint import Checkpoint
from ledger.encoding import commit, encode
from ledger.entries import Entry
from ledger.keys import KeyRing, policy
from ledger.merkle import leaf_hash
from ledger.note import Signer
from ledger.openings import FILE as OPENINGS
from ledger.plain import Terms
from ledger.tiles import ENTRIES, WIDTH, Edge, Tile, encode_bundle
from ledger.transfers import Rule
from scenarios import Replay, ScenarioError, Version

_AT = "2026-11-22T01:02:03.004Z"
_TODAY = 20_261_122
_FIRST = date(2026, 1, 1)
_SCENARIO = "travel.bike_shared"
_BUDGET, _MERCHANT = "b" * 32, "c" * 32


class _Act(NamedTuple):
    """An act to be credited; of the made-up ones nobody has the opening."""

    resident: str
    terms: Terms
    reduction_mg: int
    points: int
    withheld: int
    opening: bytes
    salt: bytes


def write_export(
    folder: Path, sizes: list[int], residents: int, *, openings: bool = False
) -> Iterator[int]:
    """Write one log's export at these sizes, each over the one before; yield each when it stands.

    With openings its acts are the sample city's, day after day, credited by the rules in force.
    The same arguments write the same entries.
    """
    ring = KeyRing((Signer.generate("bench.example/log"),))
    _put(folder, "log.vkey", "".join(f"{v.vkey}\n" for v in ring.verifiers).encode())
    _put(folder, "policy", policy(ring.verifiers).encode())
    catalogue = scenarios.load()
    versions = [one for name in catalogue.scenarios for one in catalogue.versions(name)]
    for one in versions:
        _put(folder, f"scenarios/{one.scenario}/{one.number}.json", one.canonical())
    draw = random.Random(1)
    people = [draw.randbytes(16).hex() for _ in range(residents)]
    acts = _city(people, versions) if openings else _made_up(people, versions)
    entries, edge, bundle = _entries(acts, versions), Edge(), []
    for size in sizes:
        opened = []
        while edge.size < size:
            width = min(WIDTH - len(bundle), size - edge.size)
            new = []
            for leaf in range(edge.size, edge.size + width):
                payload, act = next(entries)
                new.append(payload)
                if act and act.opening:
                    opened.append(_line(leaf, act))
            bundle += new
            full, edge = edge.grow(b"".join(map(leaf_hash, new)))
            for tile, data in full:
                _put(folder, tile.path, data)
            place = Tile(ENTRIES, (edge.size - 1) // WIDTH, len(bundle))
            _put(folder, place.path, encode_bundle(bundle))
            bundle = bundle if len(bundle) < WIDTH else []
            if openings:
                with (folder / OPENINGS).open("ab") as file:
                    file.writelines(opened)
                opened = []
        for tile, data in edge.tiles():
            _put(folder, tile.path, data)
        head = Checkpoint(ring.origin, edge.size, edge.root())
        _put(folder, "checkpoint", ring.sign(head).encode())
        yield size


def _put(folder: Path, path: str, data: bytes) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)


def _line(leaf: int, act: _Act) -> bytes:
    line = {
        "account": f"resident:{act.resident}",
        "index": leaf,
        "opening": act.opening.decode(),
        "salt": act.salt.hex(),
    }
    return encode(line) + b"\n"


def _terms(version: Version, vintage: int) -> Terms:
    rule = version.scenario, version.number, version.digest
    bucket = expiry_bucket(_FIRST, version.rate.validity_months)
    return Terms(*rule, vintage, _BUDGET, bucket)


def _made_up(people: list[str], versions: list[Version]) -> Iterator[_Act]:
    draw = random.Random(2)
    (version,) = (one for one in versions if one.scenario == _SCENARIO)
    terms = _terms(version, _FIRST.year)
    while True:
        yield _Act(draw.choice(people), terms, draw.randint(1, 10**6), 5, 0, b"", bytes(32))


def _city(people: list[str], versions: list[Version]) -> Iterator[_Act]:
    """What the rules credit of what the sample city does."""
    city = SampleCity(1, len(people), scenarios.load())
    crowd, draw = city.people(), random.Random(2)
    newest = {one.scenario: one for one in versions}
    for day in (_FIRST + timedelta(days=n) for n in count()):
        if day.day == 1:  # no cap or group looks further back, and what is claimed fills memory
            rules = Replay(one.canonical() for one in versions)
        for provider, reported in sorted(city.day(crowd, day).items()):
            for act in reported:
                version = newest[act["scenario"]]
                parts = act["id"], act["scenario"], act["occurred_at"], act["quantities"]
                opening = scenarios.opening(provider, *parts)
                try:
                    who = people[int(act["id"].split("-")[1])]
                    made = rules.claim(who, (version.scenario, version.number), opening)
                except ScenarioError:
                    continue
                terms = _terms(version, day.year)
                if not made.points:
                    terms = terms._replace(budget="", bucket=0)
                yield _Act(who, terms, *made[:3], opening, draw.randbytes(32))


def _entries(acts: Iterator[_Act], versions: list[Version]) -> Iterator[tuple[bytes, _Act | None]]:
    book, draw = Book(), random.Random(3)
    known = {"at": _AT, "merchant": _MERCHANT}

    def stamp() -> dict[str, str]:
        return {"id": draw.randbytes(16).hex(), "at": _AT}

    def take(entry: Entry) -> tuple[bytes, None]:
        book.apply(entry)
        del book.entries[entry.id]  # a model of the whole log would not fit
        return entry.payload(), None

    for one in versions:
        rule = Rule(one.scenario, one.number, one.digest)._asdict()
        first = one.effective_from.isoformat()
        yield take(transfers.publish_scenario(**stamp(), **rule, effective_from=first))
    yield take(transfers.fund(**stamp(), budget=_BUDGET, points=10**12, reference="x"))
    yield take(transfers.fund_merchant(**stamp(), merchant=_MERCHANT, points=10**12, reference="x"))
    for act in acts:
        made = plain.write(
            act.terms,
            **stamp(),
            resident=act.resident,
            commitment=commit(act.salt, act.opening),
            reduction_mg=act.reduction_mg,
            points=act.points,
            withheld=act.withheld,
        )
        if not runs.credit(book, act.resident, act.terms, act.reduction_mg, act.points):
            raise RuntimeError("a made-up act is not credited")
        yield made.payload(), act
        pick, wallet = draw.random(), book.wallet(act.resident)
        if pick > 0.1 or not wallet:
            continue
        points = min(3, sum(wallet.values()))
        parts = {"resident": act.resident, "points": points, "wallet": wallet, "today": _TODAY}
        if pick > 0.03:
            yield take(transfers.charge(**stamp(), **parts, merchant=_MERCHANT))
            continue
        hold = transfers.hold(**stamp(), **parts)
        yield take(hold)
        book.entries[hold.id] = hold
        yield take(transfers.redeem(id=draw.randbytes(16).hex(), hold=hold, **known))
        del book.entries[hold.id]
