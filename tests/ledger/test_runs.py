import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ledger import plain, runs, spends
from ledger.accounts import Account, AccountKind, Asset
from ledger.book import Book
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError
from ledger.plain import Terms
from ledger.transfers import erase_subject, redeem

A, BUDGET, SHOP, OTHER = "a" * 32, "b" * 32, "d" * 32, "e" * 32


def take(book: Book, entry: Entry) -> bool:
    """Take an entry without building it, if that may be done."""
    payload = entry.payload()
    grant, spend = plain.read(payload), spends.read(payload)
    taken = (grant and runs.credit(book, *grant[1:5])) or (spend and runs.spend(book, spend))
    if taken:
        book.entries[entry.id] = entry
    return bool(taken)


@pytest.mark.parametrize("seed", range(3))
def test_a_book_that_took_what_it_could_unbuilt_is_the_book_that_applied_it(
    make_town: Callable[..., Any], seed: int
) -> None:
    town = make_town(seed).live(400)
    book = Book()
    unbuilt: set[Kind] = set()
    for entry in town.entries:
        if take(book, entry):
            unbuilt.add(entry.kind)
        else:
            book.apply(entry)
    assert vars(book) == vars(town.book)
    assert unbuilt == {Kind.ISSUE, Kind.HOLD, Kind.RELEASE, Kind.REDEEM}


def paid(book: Book, issues: list[Entry]) -> bool:
    """Take issues as one run, if that may be done."""
    sums: defaultdict[Terms, list[int]] = defaultdict(lambda: [0, 0])
    grants = [grant for issue in issues if (grant := plain.read(issue.payload()))]
    assert len(grants) == len(issues)
    for grant in grants:
        sums[grant.terms][0] += grant.reduction_mg
        sums[grant.terms][1] += grant.points
    wanted = [(terms, mg, points) for terms, (mg, points) in sums.items()]
    if not runs.pay(book, wanted, [grant.resident for grant in grants]):
        return False
    for issue, grant in zip(issues, grants, strict=True):
        assert runs.grant(book, *grant[1:5])
        book.entries[issue.id] = issue
    return True


def test_issues_paid_in_one_go_are_those_taken_one_by_one(make_town: Callable[..., Any]) -> None:
    town, other = make_town(1), make_town(1)
    people = [f"{number:032x}" for number in range(3)]
    issues = [town.issue(who, units) for units in range(1, 6) for who in people]
    issues.append(town.issue(A, 4, points=0))
    assert paid(other.book, issues)
    for issue in issues:
        town.take(issue)
    assert vars(other.book) == vars(town.book)


def test_a_budget_that_has_not_enough_for_all_of_a_run_pays_none_of_it(
    make_town: Callable[..., Any],
) -> None:
    town = make_town(1)
    half = town.book.balance(Account(AccountKind.BUDGET, BUDGET), Asset.POINT) // 2
    issues = [town.issue(A, half), town.issue(A, half), town.issue(A, 1)]
    before = repr(vars(town.book))
    assert not paid(town.book, issues)
    assert repr(vars(town.book)) == before
    assert paid(town.book, issues[:2])


def resolved(town: Any, kept: Entry, **detail: str) -> Entry:
    """A hold redeemed; with a detail that says something else."""
    entry = redeem(**town.stamp(), hold=kept, merchant=SHOP)
    return replace(entry, detail={**entry.detail, **detail})


def moved(entry: Entry, by: int) -> Entry:
    """The entry out of other buckets."""
    lines = [line._replace(bucket=line.bucket and line.bucket + by) for line in entry.postings]
    return replace(entry, postings=tuple(lines))


def test_what_the_book_refuses_is_not_taken_unbuilt_either(make_town: Callable[..., Any]) -> None:
    town = make_town(1)
    kept = town.take(town.issue(A, 9))
    first = town.take(town.hold(A, 6))
    town.take(town.reverse(kept))
    gone, rich = f"{5:032x}", f"{6:032x}"
    town.take(town.issue(gone, 9))
    town.take(town.allow(5, SHOP))
    lost = town.charge(gone, 1, SHOP)
    town.take(erase_subject(**town.stamp(), resident=gone))
    town.take(town.issue(rich, 20))
    town.take(town.issue(rich, 20))
    second = town.take(town.hold(rich, 3))
    done = town.take(resolved(town, town.take(town.hold(rich, 2))))
    spent = town.charge(rich, 3, SHOP)
    other = town.rule._replace(digest="e" * 64)
    who = f"{random.Random(1).getrandbits(128):032x}"
    for lie in (
        town.issue(A, 4, debt={}),
        town.issue(gone, 4),
        town.issue(who, 10**9 + 1),
        town.issue(who, 4, budget=OTHER),
        town.issue(who, 4, rule=other),
        town.issue(who, 4, rule=town.rule._replace(version=2)),
        lost,
        town.charge(rich, 4, SHOP),
        town.charge(rich, 1, OTHER),
        moved(spent, -1),
        moved(spent, 10_000),
        resolved(town, second, hold=first.id),
        resolved(town, second, hold=done.id),
        resolved(town, second, hold=done.detail["hold"]),
        moved(resolved(town, second), 10_000),
        moved(town.hold(rich, 1), 10_000),
    ):
        before = repr(vars(town.book))
        payload = lie.payload()
        assert plain.read(payload) or spends.read(payload)
        assert not take(town.book, lie)
        assert repr(vars(town.book)) == before
        with pytest.raises(LedgerError):
            town.book.apply(lie)
    fine = town.issue(A, 4, points=0)
    assert not take(town.book, fine)  # a debt of points takes none of the reduction
    town.book.apply(fine)
    assert take(town.book, resolved(town, second))
