from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ledger import keys, transfers
from ledger.accounts import Account, AccountKind, Asset
from ledger.audit import audit
from ledger.book import Book
from ledger.encoding import commit, encode
from ledger.entries import Entry, Kind, Posting
from ledger.errors import LedgerError
from ledger.export import Fault
from ledger.note import Signer
from ledger.tiles import pack
from ledger.transfers import Rule, redeemed
from scenarios import Replay, load, opening

A, BUDGET = f"{1:032x}", "b" * 32
GONE, DEBTOR, RICH, SHOP = "8" * 32, "9" * 32, "7" * 32, "c" * 32
Write = Callable[..., Path]
MakeTown = Callable[..., Any]


def payloads(entries: list[Entry]) -> list[bytes]:
    return [entry.payload() for entry in entries]


def fault(directory: Path, **options: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        audit(directory, **options)
    return caught.value


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_honest_export_holds_and_is_counted(
    make_town: MakeTown, write_export: Write, log_key: Signer, jobs: int
) -> None:
    town = make_town(3).live(900)
    directory = write_export(payloads(town.entries))
    steps: list[int] = []
    report = audit(
        directory,
        jobs=jobs,
        trusted=(log_key.verifier,),
        progress=lambda what, done, size: steps.append(done),
    )
    assert report.head.size == len(town.entries) == steps[-1]
    assert report.kinds.total() == len(town.entries)
    assert report.kinds[Kind.HOLD] == sum(entry.kind is Kind.HOLD for entry in town.entries)
    assert report.balances == len(dict(town.book.balances()))
    assert (report.versions, report.recomputed, report.since) == (1, None, None)
    sold = sum(redeemed(entry) for entry in town.entries)
    allowance = town.book.balance(Account(AccountKind.MERCHANT, SHOP), Asset.POINT)
    assert report.merchants == {SHOP: (sold, allowance)}
    assert sold > 0


def test_bundles_may_lie_deflated_and_a_damaged_one_is_named(
    make_town: MakeTown, write_export: Write, log_key: Signer
) -> None:
    town = make_town(3).live(900)
    directory = write_export(payloads(town.entries))
    plain = audit(directory, trusted=(log_key.verifier,))
    bundles = [path for path in (directory / "tile/entries").rglob("*") if path.is_file()]
    for path in bundles:
        path.with_name(path.name + ".gz").write_bytes(pack(path.read_bytes()))
        path.unlink()
    assert audit(directory, trusted=(log_key.verifier,)) == plain
    second = directory / "tile/entries/001.gz"
    whole = second.read_bytes()
    for wrong in (whole[:-1], whole[:900] + bytes([whole[900] ^ 1]) + whole[901:], b""):
        second.write_bytes(wrong)
        found = fault(directory)
        assert (found.leaf, found.where) == (256, "tile/entries/001.gz")
    second.unlink()
    assert (fault(directory).leaf, fault(directory).where) == (256, "tile/entries/001")


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512])
def test_a_log_of_any_size_holds(make_town: MakeTown, write_export: Write, size: int) -> None:
    town = make_town(1).live(600)
    published = {} if size else {"versions": {}}
    directory = write_export(payloads(town.entries[:size]), **published)
    assert audit(directory).head.size == size


def test_a_key_of_ones_own_is_not_the_logs(make_town: MakeTown, write_export: Write) -> None:
    directory = write_export(payloads(make_town().entries))
    stranger = Signer.generate("log.test.example/puhui").verifier
    assert fault(directory, trusted=(stranger,)).where == "checkpoint"


def rotate(town: Any, old: Signer, new: Signer) -> None:
    detail = keys.rotation(old, new.verifier)
    town.take(transfers.rotate_key(**town.stamp(), detail=detail))


def test_a_trusted_key_is_followed_to_those_it_handed_over_to(
    make_town: MakeTown, write_export: Write, log_key: Signer
) -> None:
    first, second, third = (Signer.generate(log_key.name) for _ in range(3))
    town = make_town()
    rotate(town, first, second)
    old = write_export(payloads(town.entries), name="old", signers=(first, second)) / "checkpoint"
    rotate(town, second, third)
    new = write_export(payloads(town.entries), signers=(third,))
    for trusted in (first, second, third):
        assert audit(new, trusted=(trusted.verifier,)).head.size == len(town.entries)
    assert audit(new, trusted=(first.verifier,), since=old).since == 3
    assert fault(new, trusted=(log_key.verifier,)).where == "checkpoint"


def test_a_key_that_handed_over_is_not_taken_on_anothers_word(
    make_town: MakeTown, write_export: Write, log_key: Signer
) -> None:
    stranger, new = (Signer.generate(log_key.name) for _ in range(2))
    town = make_town()
    rotate(town, stranger, new)
    rotate(town, new, log_key)
    trusted = (stranger.verifier,)
    assert audit(write_export(payloads(town.entries)), trusted=trusted).head.size == 4
    town = make_town()
    rotate(town, new, log_key)  # nobody trusted handed over to this key ...
    rotate(town, stranger, new)  # ... at the time
    late = write_export(payloads(town.entries), name="late")
    assert fault(late, trusted=trusted).where == "checkpoint"


def test_any_byte_changed_in_any_file_is_named(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town(5).live(300)
    openings = [town.openings[at] for at in sorted(town.openings)]
    directory = write_export(payloads(town.entries), openings, trail=town.trail)
    report = audit(directory, rules=rules)
    assert (report.recomputed, report.opened) == (len(openings), len(town.trail))
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert len(files) == 11
    for path in files:
        data = path.read_bytes()
        name = path.relative_to(directory).as_posix()
        for at in {0, len(data) // 3, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            found = fault(directory, rules=rules)
            related = found.where.startswith(name) or found.leaf is not None
            assert related or name in {"log.vkey", "policy"}, (name, at, str(found))
            if name.startswith(("tile/entries/000", "tile/0/000")):
                assert found.leaf is not None
                assert found.leaf < 256
        path.write_bytes(data)
        path.unlink()
        if name not in {"openings.jsonl", "trail.jsonl"}:
            assert fault(directory, rules=rules).where
        path.write_bytes(data)


def test_the_first_wrong_leaf_is_the_one_named(make_town: MakeTown, write_export: Write) -> None:
    entries = payloads(make_town(2).live(600).entries)
    entries[300] = entries[300].replace(b'"v":1', b'"v":2')
    entries[500] = b"{}"
    found = fault(write_export(entries))
    assert (found.leaf, found.where) == (300, "tile/entries/001")


def shortened(entry: Entry) -> Entry:
    """The entry without its lines of the merchant's allowance."""
    return replace(entry, postings=entry.postings[:-2])


def unowned(refund: Entry) -> Entry:
    """The refund as if its resident had been erased."""
    wallet = AccountKind.RESIDENT
    lines = (
        p._replace(account=Account(AccountKind.EXPIRED)) if p.account.kind is wallet else p
        for p in refund.postings
    )
    return replace(refund, postings=tuple(lines))


def tamper(town: Any) -> dict[str, tuple[int, Entry]]:
    """Histories that break one rule each: the first wrong leaf, and the entry put there."""
    last = len(town.entries)
    issue = next(e for e in town.entries if e.kind is Kind.ISSUE and "rule" in e.detail)
    hold = next(e for e in town.entries if e.kind is Kind.HOLD and e.id not in town.book.held)
    reverse = next(e for e in town.entries if e.kind is Kind.REVERSE)
    close = town.close()
    stamp = town.stamp()
    big = town.issue(A, 10**10)
    rule = {**issue.detail, "rule": [issue.detail["rule"][0], 9, "e" * 64]}
    wallet = {20_991_231: 5}
    late = transfers.hold(**stamp, resident=A, points=5, wallet=wallet, today=20260101)
    overdraft = transfers.adjust(
        **stamp, resident=A, budget=BUDGET, points=-(10**6), bucket=20270128, reason="none"
    )
    sold = next(e for e in town.entries if e.kind is Kind.REDEEM and "hold" not in e.detail)
    allowed = town.book.balance(Account(AccountKind.MERCHANT, SHOP), Asset.POINT)
    charge = town.charge(RICH, 5, SHOP)
    back = town.refund(next(e for e in reversed(town.entries) if e.resident == RICH), 1)
    return {
        "a charge beyond the allowance": (last, town.charge(RICH, allowed + 1, SHOP)),
        "a charge at no merchant's cost": (last, shortened(charge)),
        "a charge at another merchant's cost": (
            last,
            replace(charge, detail={"merchant": "e" * 32}),
        ),
        "an allowance taken back twice": (last, town.allow(-allowed - 1, SHOP)),
        "a refund twice": (last, replace(back, detail={"redeem": sold.id})),
        "a refund that no merchant gets": (last, shortened(back)),
        "a refund to nobody of someone who lives": (last, unowned(back)),
        "an id twice": (last, issue),
        "an issue to someone erased": (last, town.issue(GONE)),
        "an issue out of another budget": (last, town.issue(A, budget="e" * 32)),
        "an issue that repays nothing": (last, town.issue(DEBTOR, debt={})),
        "a version published again": (last, replace(town.entries[0], id="e" * 32)),
        "an overdrawn budget": (last, big),
        "an overdrawn wallet": (last, overdraft),
        "a hold resolved twice": (last, transfers.release(**stamp, hold=hold)),
        "a hold of points that are not there": (last, late),
        "a second reversal": (last, replace(reverse, id="e" * 32)),
        "a rule never published": (last, replace(issue, id="e" * 32, detail=rule)),
        "false totals": (last, replace(close, detail={**close.detail, "totals": {}})),
        "a false size": (last, replace(close, detail={**close.detail, "size": last + 1})),
    }


def test_a_history_signed_by_the_log_itself_but_against_the_rules_is_named(
    make_town: MakeTown, write_export: Write
) -> None:
    town = make_town(11).live(300)
    town.take(transfers.erase_subject(**town.stamp(), resident=GONE))
    town.take(town.allow(100, SHOP))
    town.take(town.issue(RICH, 1000, bucket=20991231))
    town.take(town.charge(RICH, 5, SHOP))
    taken = town.take(town.issue(DEBTOR, 5, bucket=20991231))
    town.take(town.hold(DEBTOR, 5))
    town.take(town.reverse(taken))
    cases = tamper(town)
    for number, (what, (leaf, entry)) in enumerate(cases.items()):
        lie = write_export(payloads([*town.entries, entry]), name=f"lie{number}")
        found = fault(lie)
        assert found.leaf == leaf, what
        with pytest.raises(LedgerError):
            town.book.apply(entry)


@pytest.mark.parametrize("seed", range(4))
def test_the_audit_and_the_book_agree_on_histories_with_an_entry_missing(
    make_town: MakeTown, write_export: Write, seed: int
) -> None:
    town = make_town(seed).live(150)
    for drop in range(0, len(town.entries), 13):
        entries = town.entries[:drop] + town.entries[drop + 1 :]
        book, wrong = Book(), None
        for leaf, entry in enumerate(entries):
            try:
                book.apply(entry)
            except LedgerError:
                wrong = leaf
                break
        directory = write_export(payloads(entries), name=f"drop{drop}")
        if wrong is None and drop:
            assert audit(directory).balances == len(dict(book.balances()))
        else:
            assert fault(directory).leaf == wrong


def test_an_entry_that_does_not_balance_is_named(make_town: MakeTown, write_export: Write) -> None:
    entries = payloads(make_town().live(20).entries)
    entries[1] = entries[1].replace(b",1000000000]", b",1000000001]")
    found = fault(write_export(entries))
    assert found.leaf == 1
    assert "sum to" in found.what


def test_an_older_checkpoint_of_the_same_log_is_extended(
    make_town: MakeTown, write_export: Write
) -> None:
    entries = payloads(make_town(1).live(600).entries)
    new = write_export(entries)
    for size in (2, 256, 300, len(entries)):
        old = write_export(entries[:size], name=f"old{size}") / "checkpoint"
        assert audit(new, since=old).since == size
    other = payloads(make_town(2).live(300).entries)
    rewritten = write_export(other, name="other") / "checkpoint"
    assert fault(new, since=rewritten).where == str(rewritten)
    longer = write_export(entries, name="longer") / "checkpoint"
    short = write_export(entries[:400], name="short")
    assert fault(short, since=longer).where == str(longer)
    assert fault(new, since=Path("nowhere")).where == "nowhere"


def test_an_unpublished_or_missing_version_file_is_named(
    make_town: MakeTown, write_export: Write
) -> None:
    entries = payloads(make_town().entries)
    assert "scenarios/" in fault(write_export(entries, versions={})).where
    town = make_town()
    extra = {"travel.test_bike/1": b"{}"}
    assert "digest" in fault(write_export(payloads(town.entries), versions=extra)).what


def test_claims_are_recomputed_from_their_openings(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town(4).live(400)
    openings = [town.openings[at] for at in sorted(town.openings)]
    assert any(entry.kind is Kind.REVERSE for entry in town.entries)
    report = audit(write_export(payloads(town.entries), openings), rules=rules)
    assert report.recomputed == report.issues == len(openings)
    erased = write_export(payloads(town.entries), openings[5:], name="erased")
    report = audit(erased, rules=rules)
    assert (report.recomputed, report.issues) == (len(openings) - 5, len(openings))
    assert report.missing == 5


def test_missing_openings_are_told_apart_by_whether_an_erasure_says_why(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town()
    gone, *_ = people = [f"{number:032x}" for number in range(4)]
    for who in people * 2:
        town.take(town.issue(who, 3))
    town.take(transfers.erase_subject(**town.stamp(), resident=gone))
    kept = list(town.openings.values())
    for lost, recomputed, missing in [
        ([], 8, 0),
        ([0, 4], 6, 0),
        ([0, 4, 5], 5, 1),
        ([5, 7], 6, 2),
        ([0, 2, 3], 5, 2),
    ]:
        openings = [opening for at, opening in enumerate(kept) if at not in lost]
        report = audit(write_export(payloads(town.entries), openings), rules=rules)
        assert (report.issues, report.recomputed, report.missing) == (8, recomputed, missing)


def test_a_credit_the_rules_do_not_give_is_named(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town()
    town.take(town.issue(A, 3))
    town.take(town.issue(A, 3, points=4))
    openings = [town.openings[2], town.openings[3]]
    found = fault(write_export(payloads(town.entries), openings), rules=rules)
    assert found.leaf == 3
    assert "3 points" in found.what
    assert "750000, 4" in found.what


@pytest.mark.parametrize(
    "change",
    [
        {"salt": "0" * 64},
        {"salt": "0"},
        {"opening": "{}"},
        {"index": 3},
        {"index": 0},
        {"index": "2"},
        {"account": "resident:" + "f" * 32},
    ],
)
def test_an_opening_of_something_else_is_named(
    make_town: MakeTown, write_export: Write, rules: str, change: dict[str, Any]
) -> None:
    town = make_town()
    for _ in range(2):
        town.take(town.issue(A, 3))
    openings = [town.openings[2] | change, town.openings[3]]
    found = fault(write_export(payloads(town.entries), openings), rules=rules)
    assert "openings.jsonl line" in found.where


def test_only_an_issue_by_a_rule_has_an_opening(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town()
    issue = town.take(town.issue(A, 3, points=0, awaiting=3))
    town.take(town.issue(A, 3))
    town.take(town.hold(A, 2))
    settlement = {"points": 3, "bucket": 20_290_131, "budget": BUDGET, "settles": issue.id}
    town.take(transfers.settle(**town.stamp(), resident=A, **settlement))
    town.take(town.act("draft.approved"))
    kept = town.openings[2], town.openings[3]
    for leaf in range(4, 7):
        openings = [*kept, kept[1] | {"index": leaf}]
        found = fault(write_export(payloads(town.entries), openings, name=f"{leaf}"), rules=rules)
        assert (found.leaf, "not an issue" in found.what) == (leaf, True)


def test_a_withdrawn_version_stays_on_file_and_no_claim_is_recomputed_by_it(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town()
    known = town.amend()
    town.take(transfers.withdraw_scenario(**town.stamp(), **known))
    town.take(town.issue(A, 3))
    directory = write_export(payloads(town.entries), [town.openings[4]], town.versions)
    report = audit(directory, rules=rules)
    assert (report.versions, report.withdrawn, report.recomputed) == (2, 1, 1)
    lacking = write_export(payloads(town.entries), name="lacking")
    assert fault(lacking).where == "scenarios/travel.test_bike/2.json"
    known.pop("effective_from")
    town.entries[4] = town.issue(A, 3, rule=Rule(**known))
    found = fault(write_export(payloads(town.entries), versions=town.versions, name="cited"))
    assert (found.leaf, "withdrawn" in found.what) == (4, True)


def test_a_version_withdrawn_too_late_is_named(make_town: MakeTown, write_export: Write) -> None:
    town = make_town()
    known = town.amend()
    withdrawal = transfers.withdraw_scenario(**town.stamp(), **known)
    late = replace(withdrawal, at="2026-01-01T15:00:00.001Z")
    found = fault(write_export(payloads([*town.entries, late]), versions=town.versions))
    assert (found.leaf, "2026-01-02" in found.what) == (3, True)


def test_the_trail_opens_every_act_in_order_and_nothing_else(
    make_town: MakeTown, write_export: Write
) -> None:
    town = make_town()
    for action in ("draft.submitted", "draft.approved", "login.failed"):
        town.take(town.act(action))
    entries = payloads(town.entries)
    assert audit(write_export(entries, trail=town.trail)).opened == 3
    assert audit(write_export(entries, name="without")).opened is None
    first, second, third = town.trail
    other = encode({"action": "draft.approved", "actor": "li.na"}).decode()
    for number, (leaf, trail) in enumerate([
        (4, [first, second]),
        (2, [second, third]),
        (3, [first, third, second]),
        (2, [first, first, second, third]),
        (5, [first, second, third, third | {"index": 5}]),
        (1, [first | {"index": 1}, second, third]),
        (3, [first, second | {"index": 4}, third]),
        (3, [first, second | {"record": first["record"]}, third]),
        (3, [first, second | {"record": other}, third]),
        (3, [first, second | {"salt": "0" * 64}, third]),
        (3, [first, second | {"salt": "0"}, third]),
        (3, [first, second | {"index": "3"}, third]),
        (3, [first, second | {"name": "Zhang"}, third]),
        (3, [first, ["draft.approved"], third]),
    ]):  # fmt: skip
        found = fault(write_export(entries, trail=trail, name=f"lie{number}"))
        assert found.where.startswith("trail.jsonl"), number
        assert found.leaf == leaf, number


@pytest.mark.parametrize("record", [{"action": "draft.approved"}, ["act"], "act", {"actor": "x"}])
def test_an_act_whose_entry_says_something_else_than_its_record_is_named(
    make_town: MakeTown, write_export: Write, record: Any
) -> None:
    town = make_town()
    text, salt = encode(record), bytes(32)
    entry = transfers.record_action(**town.stamp(), action="act", commitment=commit(salt, text))
    town.take(entry)
    line = {"index": 2, "record": text.decode(), "salt": salt.hex()}
    found = fault(write_export(payloads(town.entries), trail=[line]))
    assert (found.leaf, found.where) == (2, "trail.jsonl line 1")


def test_openings_out_of_order_and_rules_that_are_not_there_are_named(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town()
    for _ in range(2):
        town.take(town.issue(A, 3))
    openings = [town.openings[3], town.openings[2]]
    directory = write_export(payloads(town.entries), openings)
    assert "order" in fault(directory, rules=rules).what
    directory = write_export(payloads(town.entries), openings[::-1])
    assert "no_such_rules" in fault(directory, rules="no_such_rules").what


def test_an_opening_that_another_rule_refuses_names_its_leaf(
    make_town: MakeTown, write_export: Write, rules: str
) -> None:
    town = make_town()
    issue = town.issue(A, 3)
    text = encode({"not": "units"})
    salt = bytes(32)
    issue = replace(issue, detail={**issue.detail, "commitment": commit(salt, text)})
    town.take(issue)
    kept = town.openings[2] | {"opening": text.decode(), "salt": salt.hex()}
    found = fault(write_export(payloads(town.entries), [kept]), rules=rules)
    assert found.leaf == 2
    assert "refuse" in found.what


def test_the_real_rules_recompute_in_other_processes(
    make_town: MakeTown, write_export: Write
) -> None:
    version = load().versions("travel.bike_shared")[-1]
    town = make_town(rule=Rule(version.scenario, version.number, version.digest))
    rules = Replay([version.canonical()])
    for number in range(8):
        who = f"{number % 4:032x}"
        when, amounts = f"2026-05-0{number + 1}T08:00:00+08:00", {"distance_km": "1.32"}
        text = opening("rides", f"ride-{number}", version.scenario, when, amounts)
        claim = rules.claim(f"resident:{who}", (version.scenario, version.number), text)
        salt = bytes([number] * 32)
        issue = town.issue(
            who,
            reduction_mg=claim.reduction_mg,
            points=claim.points + number // 7,
            withheld=claim.withheld,
            commitment=commit(salt, text),
        )
        town.openings[len(town.entries)] |= {"opening": text.decode(), "salt": salt.hex()}
        town.take(issue)
    versions = {f"{version.scenario}/{version.number}": version.canonical()}
    openings = [town.openings[leaf] for leaf in sorted(town.openings)]
    honest = write_export(payloads(town.entries[:-1]), openings[:-1], versions, name="honest")
    assert audit(honest, jobs=2).recomputed == 7
    generous = write_export(payloads(town.entries), openings, versions)
    assert fault(generous, jobs=2).leaf == 9


def test_what_is_guarded_is_guarded_at_every_prefix(
    make_town: MakeTown, write_export: Write
) -> None:
    town = make_town()
    fund = town.entries.pop(1)
    issue = town.issue(A, 3)
    found = fault(write_export(payloads([*town.entries, issue, fund])))
    assert found.leaf == 1
    assert "holds 0" in found.what


def test_a_posting_out_of_thin_air_is_no_entry(make_town: MakeTown) -> None:
    wallet = Posting(Account(AccountKind.RESIDENT, A), Asset.POINT, 20270331, 3)
    issuance = Posting(Account(AccountKind.ISSUANCE), Asset.POINT, 0, -3)
    for kind in Kind:
        with pytest.raises(LedgerError):
            Entry("e" * 32, kind, make_town().at, (wallet, issuance), {})


def test_ranges_find_their_openings_and_accounts_their_heaps(
    make_town: MakeTown, write_export: Write, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.audit.RANGE", 1)
    monkeypatch.setattr("ledger.openings.HEAP", 100)
    town = make_town(6).live(700)
    kept = [town.openings[at] for at in sorted(town.openings)]
    entries = payloads(town.entries)
    report = audit(write_export(entries, kept), rules=rules)
    assert (report.recomputed, report.missing) == (len(kept), 0)
    middle = len(kept) // 2
    for name, openings, what in [
        ("swapped", [kept[-1], *kept[1:-1], kept[0]], "order"),
        ("twice", [*kept[:middle], kept[middle], *kept[middle:]], "order"),
        ("late", [*kept[:3], *kept[4:], kept[3]], "order"),
        ("beyond", [*kept, kept[-1] | {"index": len(entries)}], "no leaf"),
    ]:
        assert what in fault(write_export(entries, openings, name=name), rules=rules).what
