"""A small city for the ledger's tests: it makes histories, and the export of a history."""

import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ledger import transfers
from ledger.book import Book
from ledger.buckets import day_of
from ledger.checkpoint import Checkpoint
from ledger.encoding import commit, encode
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError
from ledger.keys import KeyRing, policy
from ledger.merkle import leaf_hash
from ledger.note import COSIGNATURE, Signer, cosign
from ledger.tiles import ENTRIES, WIDTH, Edge, Tile, encode_bundle
from ledger.transfers import Rule

SCENARIO = "travel.test_bike"
VERSION = encode({"mg_per_unit": 250_000, "scenario": SCENARIO, "version": 1})
RULE = Rule(SCENARIO, 1, sha256(VERSION).hexdigest())
BUDGET = "b" * 32
MERCHANT = "c" * 32


@dataclass
class Town:
    """Makes entries one after the other and keeps a book of those it took."""

    seed: int = 0
    book: Book = field(default_factory=Book)
    entries: list[Entry] = field(default_factory=list)
    openings: dict[int, dict[str, Any]] = field(default_factory=dict)
    trail: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, bytes] = field(default_factory=lambda: {f"{SCENARIO}/1": VERSION})
    rule: Rule = RULE

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.days = 0

    @property
    def at(self) -> str:
        year, day = divmod(self.days, 336)
        return f"{2026 + year}-{day // 28 + 1:02}-{day % 28 + 1:02}T01:02:03.004Z"

    def stamp(self) -> dict[str, str]:
        """The id and time of the next entry."""
        return {"id": self.random.randbytes(16).hex(), "at": self.at}

    def take(self, entry: Entry) -> Entry:
        """Append an entry the book must accept."""
        self.book.apply(entry)
        self.entries.append(entry)
        return entry

    def open(self, budget: int = 10**9) -> "Town":
        """Publish the rule and fund the budget."""
        self.take(
            transfers.publish_scenario(
                **self.stamp(), **self.rule._asdict(), effective_from="2026-01-01"
            )
        )
        fund = transfers.fund(**self.stamp(), budget=BUDGET, points=budget, reference="plan 1")
        self.take(fund)
        return self

    def amend(self) -> dict[str, Any]:
        """Publish a second version, in effect from the town's second day on; what it is."""
        data = encode({"mg_per_unit": 1, "scenario": SCENARIO, "version": 2})
        self.versions[f"{SCENARIO}/2"] = data
        known = {"scenario": SCENARIO, "version": 2, "digest": sha256(data).hexdigest()}
        known |= {"effective_from": "2026-01-02"}
        self.take(transfers.publish_scenario(**self.stamp(), **known))
        return known

    def issue(self, resident: str, units: int = 4, **more: Any) -> Entry:
        """An issue as the rule computes it, with its opening kept aside."""
        salt = self.random.randbytes(32)
        opening = encode({"scenario": self.rule.scenario, "units": str(units)})
        known = {
            "rule": self.rule,
            "commitment": commit(salt, opening),
            "reduction_mg": units * 250_000,
            "vintage": 2026,
            "points": units,
            "bucket": 20_270_000 + 100 * self.random.randint(1, 12) + 28,
            "budget": BUDGET,
            "debt": self.book.debt(resident),
        }
        entry = transfers.issue(**self.stamp(), resident=resident, **(known | more))
        self.openings[len(self.entries)] = {
            "account": f"resident:{resident}",
            "index": len(self.entries),
            "opening": opening.decode(),
            "salt": salt.hex(),
        }
        return entry

    def hold(self, resident: str, points: int) -> Entry:
        wallet = self.book.wallet(resident)
        stamp = self.stamp()
        today = day_of(stamp["at"])
        return transfers.hold(**stamp, resident=resident, points=points, wallet=wallet, today=today)

    def charge(self, resident: str, points: int, merchant: str = MERCHANT) -> Entry:
        wallet, today = self.book.wallet(resident), day_of(self.at)
        known = {"resident": resident, "wallet": wallet, "today": today, "merchant": merchant}
        return transfers.charge(**self.stamp(), points=points, **known)

    def refund(self, redeem: Entry, points: int) -> Entry:
        known = {
            "redeem": redeem,
            "points": points,
            "refunded": self.book.refunded.get(redeem.id, 0),
            "today": day_of(self.at),
            "erased": redeem.resident in self.book.erased,
        }
        return transfers.refund(**self.stamp(), **known)

    def allow(self, points: int, merchant: str = MERCHANT) -> Entry:
        """More (or less) that a merchant may redeem."""
        known = {"merchant": merchant, "points": points, "reference": "paid in"}
        return transfers.fund_merchant(**self.stamp(), **known)

    def reverse(self, entry: Entry) -> Entry:
        wallet = self.book.holdings(entry.resident)
        return transfers.reverse(**self.stamp(), entry=entry, wallet=wallet)

    def act(self, action: str) -> Entry:
        """An administrator's act, with its record kept aside."""
        salt = self.random.randbytes(32)
        record = encode({"action": action, "actor": "wang.fang"})
        self.trail.append(
            {"index": len(self.entries), "record": record.decode(), "salt": salt.hex()}
        )
        return transfers.record_action(
            **self.stamp(), action=action, commitment=commit(salt, record)
        )

    def close(self) -> Entry:
        return transfers.close_day(
            **self.stamp(),
            day=day_of(self.at),
            size=self.book.size,
            totals=self.book.totals(),
        )

    def live(self, steps: int, residents: int = 5) -> "Town":
        """Let a random history happen; what the book refuses does not."""
        people = [f"{number:032x}" for number in range(1, residents + 1)]
        before = len(self.entries)
        while len(self.entries) < before + steps:
            if self.random.random() < 0.05:
                self.days += self.random.randint(1, 40)
            try:
                self.take(self._something(self.random.choice(people)))
            except LedgerError:
                self.openings.pop(len(self.entries), None)
        return self

    def _something(self, resident: str) -> Entry:
        pick = self.random
        verb = pick.choices(range(14), (40, 15, 8, 10, 8, 6, 6, 4, 4, 2, 2, 5, 8, 2))[0]
        kind = {2: Kind.HOLD, 3: Kind.HOLD, 4: Kind.REDEEM}.get(verb, Kind.ISSUE)
        past = pick.choice([e for e in self.entries if e.kind is kind] or self.entries)
        units = pick.randint(1, 9)
        if verb == 0:
            return self.issue(resident, units)
        if verb == 1:
            return self.hold(resident, units)
        if verb in (2, 3, 4, 11, 12):
            return self._something_sold(verb, resident, past, units)
        if verb == 5:
            return self.reverse(past)
        if verb == 6:
            bucket = min(self.book.wallet(resident), default=20_270_128)
            held = self.book.wallet(resident).get(bucket, 1)
            today = day_of(self.at)
            return transfers.expire(
                **self.stamp(), resident=resident, bucket=bucket, points=held, today=today
            )
        if verb == 7:
            return self.issue(resident, units, points=0, awaiting=units)
        if verb == 8:
            return transfers.settle(
                **self.stamp(),
                resident=past.resident,
                points=past.detail.get("awaiting", 1),
                bucket=20_290_131,
                budget=BUDGET,
                settles=past.id,
                debt=self.book.debt(past.resident),
            )
        if verb == 9:
            points = pick.choice((-2, 3))
            bucket = min(self.book.wallet(resident), default=20_270_128)
            return transfers.adjust(
                **self.stamp(),
                resident=resident,
                budget=BUDGET,
                points=points,
                bucket=bucket,
                reason="a correction",
            )
        if verb == 10:
            return self.act("draft.approved")
        return self.close()

    def _something_sold(self, verb: int, resident: str, past: Entry, units: int) -> Entry:
        if verb == 2:
            return transfers.release(**self.stamp(), hold=past)
        if verb == 3:
            return transfers.redeem(**self.stamp(), hold=past, merchant=MERCHANT)
        if verb == 4:
            return self.refund(past, units)
        if verb == 11:
            return self.allow(self.random.choice((-9, 20, 60)))
        return self.charge(resident, units)


@pytest.fixture
def make_town() -> Callable[..., Town]:
    """Makes a town with its rule published and its budget funded."""
    return lambda seed=0, **more: Town(seed, **more).open()


@pytest.fixture(scope="session")
def log_key() -> Signer:
    return Signer.generate("log.test.example/puhui")


@pytest.fixture(scope="session")
def witness_key() -> Signer:
    return Signer.generate("witness.test.example", COSIGNATURE)


@pytest.fixture
def write_export(tmp_path: Path, log_key: Signer, witness_key: Signer) -> Callable[..., Path]:
    """Writes the export of payloads, signed and cosigned, and gives its directory."""

    def write(
        payloads: list[bytes],
        openings: Iterable[Mapping[str, Any]] = (),
        versions: Mapping[str, bytes] = {f"{SCENARIO}/1": VERSION},
        name: str = "export",
        trail: Iterable[Mapping[str, Any]] = (),
        signers: tuple[Signer, ...] = (log_key,),
    ) -> Path:
        files: dict[str, bytes] = {}
        full, edge = Edge().grow(b"".join(map(leaf_hash, payloads)))
        files |= {tile.path: data for tile, data in (*full, *edge.tiles())}
        for first in range(0, len(payloads), WIDTH):
            bundle = payloads[first : first + WIDTH]
            place = Tile(ENTRIES, first // WIDTH, len(bundle))
            files[place.path] = encode_bundle(bundle)
        ring = KeyRing(signers)
        signed = ring.sign(Checkpoint(ring.origin, len(payloads), edge.root()))
        files["checkpoint"] = cosign(signed, witness_key, 1_790_000_000).encode()
        files["log.vkey"] = "".join(f"{v.vkey}\n" for v in ring.verifiers).encode()
        files["policy"] = policy(ring.verifiers, (witness_key.verifier,), 1).encode()
        files |= {f"scenarios/{path}.json": data for path, data in versions.items()}
        if openings:
            files["openings.jsonl"] = b"".join(encode(opening) + b"\n" for opening in openings)
        if trail:
            files["trail.jsonl"] = b"".join(encode(record) + b"\n" for record in trail)
        for path, data in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        return tmp_path / name

    return write


class Claim:
    """What the test's own rules make of an opening."""

    def __init__(self, units: int, grams: int) -> None:
        self.reduction_mg = units * grams
        self.points = units
        self.withheld = 0
        self.scenario = SCENARIO


class Replay:
    """The test's rules: points and mg by the unit; it wants claims undone at most once."""

    def __init__(
        self, versions: Iterable[bytes], withdrawn: Iterable[tuple[str, int]] = ()
    ) -> None:
        editions = [json.loads(version) for version in versions]
        gone = set(withdrawn)
        (self.rule,) = (e for e in editions if (e["scenario"], e["version"]) not in gone)
        self.claimed: list[tuple[str, bytes]] = []

    def claim(self, account: str, version: tuple[str, int], opening: bytes) -> Claim:
        assert version == (self.rule["scenario"], self.rule["version"])
        self.claimed.append((account, opening))
        return Claim(int(json.loads(opening)["units"]), self.rule["mg_per_unit"])

    def undo(self, account: str, opening: bytes) -> None:
        self.claimed.remove((account, opening))

    def forget(self, account: str) -> None:
        self.claimed = [one for one in self.claimed if one[0] != account]


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name under which the audit finds the test's own rules."""
    module = ModuleType("puhui_test_rules")
    module.Replay = Replay  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__
