from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from ledger import keys, transfers
from ledger.accounts import Account, AccountKind, Asset
from ledger.book import Book
from ledger.buckets import day_of
from ledger.entries import Entry, Kind, Posting
from ledger.errors import Exhausted, Insufficient, LedgerError, Refused, Unverified
from ledger.note import Signer
from ledger.transfers import Rule

A, C = "a" * 32, "c" * 32
BUDGET, MERCHANT = "b" * 32, "d" * 32
PEOPLE = st.sampled_from([A, C])


def state(book: Book) -> dict[str, Any]:
    return deepcopy(vars(book))


def held(book: Book, kind: AccountKind, resident: str) -> int:
    return sum(dict(book.balances()).get((Account(kind, resident), Asset.POINT), {}).values())


def refuse(
    town: Any, entry: Entry, error: type[LedgerError] = Refused, match: str | None = None
) -> None:
    """The book refuses the entry and has not changed."""
    before = state(town.book)
    with pytest.raises(error, match=match):
        town.book.apply(entry)
    assert vars(town.book) == before


@pytest.fixture
def town(make_town: Callable[..., Any]) -> Any:
    return make_town()


def test_an_id_is_used_once(town: Any) -> None:
    entry = town.take(town.issue(A))
    refuse(town, entry, match="id")


def test_a_budget_is_never_overdrawn(make_town: Callable[..., Any]) -> None:
    town = make_town()
    held_now = town.book.balance(Account(AccountKind.BUDGET, BUDGET), Asset.POINT)
    refuse(town, town.issue(A, held_now + 1), Insufficient)


def test_an_issue_cites_a_version_that_was_published_just_so(town: Any) -> None:
    entry = town.issue(A)
    other = {**entry.detail, "rule": [*entry.detail["rule"][:2], "e" * 64]}
    refuse(town, replace(entry, detail=other), match="published")
    refuse(town, town.entries[0].__class__.parse(town.entries[0].payload()), match="id")
    again = replace(town.entries[0], id="f" * 32)
    refuse(town, again, match="published")


NEXT: dict[str, Any] = {"scenario": "travel.test_bike", "version": 2, "digest": "e" * 64}
FIRST_DAY = {"effective_from": "2026-01-02"}  # the town begins on the first, at nine


def test_a_version_is_withdrawn_once_before_its_first_day_and_never_published_again(
    town: Any,
) -> None:
    def withdraw(**change: Any) -> Entry:
        known = NEXT | {"effective_from": "2027-01-01"} | change
        return transfers.withdraw_scenario(**town.stamp(), **known)

    refuse(town, withdraw(), match="published")
    first = town.take(transfers.publish_scenario(**town.stamp(), **NEXT, **FIRST_DAY))
    refuse(town, withdraw(digest="d" * 64), match="published")
    refuse(town, replace(withdraw(), at="2026-01-01T15:00:00.001Z"), match="2026-01-02")
    refuse(town, withdraw(version=1, digest=town.rule.digest), match="2026-01-01")
    town.take(replace(withdraw(), at="2026-01-01T15:00:00.000Z"))
    refuse(town, withdraw(), match="withdrawn")
    refuse(town, replace(first, id="f" * 32), match="before")
    refuse(town, town.issue(A, rule=Rule(**NEXT)), match="withdrawn")
    again = NEXT | {"version": 3}
    town.take(transfers.publish_scenario(**town.stamp(), **again, **FIRST_DAY))
    town.take(town.issue(A, rule=Rule(**again)))


def test_a_hold_spends_the_earliest_live_points(town: Any) -> None:
    town.take(town.issue(A, 5, bucket=20270331))
    town.take(town.issue(A, 5, bucket=20270228))
    wrong = transfers.hold(
        **town.stamp(), resident=A, points=5, wallet={20270331: 5}, today=day_of(town.at)
    )
    refuse(town, wrong, match="20270228")
    town.take(town.hold(A, 7))
    assert town.book.wallet(A) == {20270331: 3}


def test_a_hold_of_expired_points_is_refused(town: Any) -> None:
    town.take(town.issue(A, 5, bucket=20270228))
    early = town.hold(A, 5)
    refuse(town, replace(early, at="2027-02-28T16:00:00.000Z"), Insufficient)


def test_a_hold_is_resolved_once_in_full_and_only_if_it_exists(town: Any) -> None:
    town.take(town.issue(A, 9))
    hold = town.take(town.hold(A, 5))
    other = town.take(town.hold(A, 4))
    town.take(town.allow(9, MERCHANT))
    release = transfers.release(**town.stamp(), hold=hold)
    redeem = transfers.redeem(**town.stamp(), hold=hold, merchant=MERCHANT)
    refuse(town, replace(release, detail={"hold": other.id}), match="postings")
    refuse(town, replace(release, detail={"hold": "e" * 32}), match="No earlier")
    refuse(town, replace(release, detail={"hold": town.entries[2].id}), match="No earlier")
    town.take(redeem)
    refuse(town, release, match="before")
    refuse(town, replace(redeem, id="e" * 32), match="before")


ALLOWANCE = Account(AccountKind.MERCHANT, MERCHANT)


def test_a_merchant_redeems_what_it_is_allowed_and_a_refund_allows_it_again(town: Any) -> None:
    town.take(town.issue(A, 9))
    held = town.take(town.hold(A, 5))
    redeem = transfers.redeem(**town.stamp(), hold=held, merchant=MERCHANT)
    refuse(town, redeem, Exhausted)
    town.take(town.allow(6, MERCHANT))
    refuse(town, town.allow(-7, MERCHANT), Exhausted)
    town.take(redeem)
    refuse(town, town.charge(A, 2, MERCHANT), Exhausted)
    town.take(town.charge(A, 1, MERCHANT))
    town.take(town.refund(redeem, 3))
    town.take(town.charge(A, 2, MERCHANT))
    town.take(town.allow(-1, MERCHANT))
    assert town.book.balance(ALLOWANCE, Asset.POINT) == 0
    assert town.book.redeemed == {MERCHANT: 5}


def test_a_charge_spends_the_earliest_live_points(town: Any) -> None:
    town.take(town.allow(20, MERCHANT))
    town.take(town.issue(A, 5, bucket=20270331))
    town.take(town.issue(A, 5, bucket=20270228))
    known = {"resident": A, "points": 5, "today": day_of(town.at), "merchant": MERCHANT}
    wrong = transfers.charge(**town.stamp(), wallet={20270331: 5}, **known)
    refuse(town, wrong, match="20270228")
    good = town.charge(A, 7, MERCHANT)
    refuse(town, replace(good, detail={"merchant": "e" * 32}), match="merchant:e")
    refuse(town, replace(good, at="2027-02-28T16:00:00.000Z"), Insufficient)
    town.take(good)
    assert town.book.wallet(A) == {20270331: 3}


def test_a_redemption_that_leaves_the_allowance_alone_is_refused(town: Any) -> None:
    town.take(town.allow(20, MERCHANT))
    town.take(town.issue(A, 9))
    hold = town.take(town.hold(A, 5))
    redeem = transfers.redeem(**town.stamp(), hold=hold, merchant=MERCHANT)
    charge = town.charge(A, 4, MERCHANT)
    for entry in (redeem, charge):
        refuse(town, replace(entry, postings=entry.postings[:-2]), match="merchant:")
    town.take(redeem)
    refund = town.refund(redeem, 5)
    refuse(town, replace(refund, postings=refund.postings[:-2]), match="merchant:")


def test_refunds_never_exceed_the_redemption(town: Any) -> None:
    town.take(town.allow(20, MERCHANT))
    town.take(town.issue(A, 9))
    redeem = town.take(town.charge(A, 9, MERCHANT))
    for points in (4, 5):
        refund = town.take(town.refund(redeem, points))
    refuse(town, replace(refund, id="e" * 32), Insufficient)
    assert sum(town.book.wallet(A).values()) == 9


def test_a_refund_of_expired_points_has_thirty_days_and_no_more(town: Any) -> None:
    town.take(town.allow(20, MERCHANT))
    town.take(town.issue(A, 9, bucket=20260131))
    redeem = town.take(town.charge(A, 9, MERCHANT))
    early = town.refund(redeem, 4)
    town.days = 40
    assert day_of(town.at) == 20260213
    refuse(town, replace(early, at=town.at), match="20260315")
    town.take(town.refund(redeem, 4))
    assert town.book.wallet(A) == {20260315: 4}


def test_only_the_refund_of_someone_erased_goes_to_nobody(town: Any) -> None:
    town.take(town.allow(20, MERCHANT))
    town.take(town.issue(A, 9, bucket=20270228))
    redeem = town.take(town.charge(A, 9, MERCHANT))
    known = {"redeem": redeem, "points": 4, "refunded": 0, "today": day_of(town.at)}
    gone, alive = (
        transfers.refund(**town.stamp(), **known, erased=erased) for erased in (True, False)
    )
    refuse(town, gone, match="resident:")
    town.take(transfers.erase_subject(**town.stamp(), resident=A))
    refuse(town, alive, match="erased")
    town.take(gone)
    more = transfers.refund(**town.stamp(), **(known | {"points": 6}), erased=True)
    refuse(town, more, Insufficient)
    assert town.book.balance(Account(AccountKind.EXPIRED), Asset.POINT, 20270228) == 4
    assert town.book.balance(ALLOWANCE, Asset.POINT) == 15


def test_an_entry_is_reversed_once_and_spent_points_become_debt_repaid_later(town: Any) -> None:
    town.take(town.allow(20, MERCHANT))
    issue = town.take(town.issue(A, 9))
    town.take(town.charge(A, 6, MERCHANT))
    lazy = transfers.reverse(**town.stamp(), entry=issue, wallet={(Asset.CO2E, 2026): 9 * 250_000})
    refuse(town, lazy, match="postings")
    town.take(town.reverse(issue))
    assert town.book.debt(A) == {Asset.POINT: 6}
    refuse(town, town.reverse(issue), match="before")
    refuse(town, town.issue(A, 4, debt={}), match="postings")
    town.take(town.issue(A, 4))
    assert (town.book.debt(A), town.book.wallet(A)) == ({Asset.POINT: 2}, {})
    town.take(town.issue(A, 4, bucket=20270331))
    assert (town.book.debt(A), town.book.wallet(A)) == ({}, {20270331: 2})
    refuse(town, town.issue(A, 4, debt={Asset.POINT: 1}), Insufficient)


def test_awaiting_points_are_settled_once_and_in_full(town: Any) -> None:
    issue = town.take(town.issue(A, 5, points=0, awaiting=5))
    known = {"resident": A, "bucket": 20270331, "budget": BUDGET, "settles": issue.id}
    refuse(town, transfers.settle(**town.stamp(), **known, points=4), match="await")
    refuse(town, transfers.settle(**town.stamp(), **(known | {"resident": C}), points=5))
    refuse(town, transfers.settle(**town.stamp(), **(known | {"budget": C}), points=5))
    settlement = town.take(transfers.settle(**town.stamp(), **known, points=5))
    refuse(town, transfers.settle(**town.stamp(), **known, points=5), match="before")
    refuse(town, town.reverse(issue), match="settlement first")
    town.take(town.reverse(settlement))
    town.take(town.reverse(issue))


def test_a_reversed_issue_is_not_settled(town: Any) -> None:
    issue = town.take(town.issue(A, 5, points=0, awaiting=5))
    town.take(town.reverse(issue))
    known = {"resident": A, "bucket": 20270331, "budget": BUDGET, "settles": issue.id}
    refuse(town, transfers.settle(**town.stamp(), **known, points=5), match="before")


def test_points_expire_by_the_day_of_the_entry(town: Any) -> None:
    town.take(town.issue(A, 5, bucket=20270228))
    known = {"id": "e" * 32, "resident": A, "bucket": 20270228, "points": 5, "today": 20270301}
    refuse(town, transfers.expire(**known, at="2027-02-28T15:59:59.999Z"), match="valid")
    town.take(transfers.expire(**known, at="2027-02-28T16:00:00.000Z"))
    assert town.book.wallet(A) == {}


def test_nothing_touches_an_erased_resident_and_nobody_is_erased_twice(town: Any) -> None:
    town.take(town.issue(A, 5))
    hold = town.take(town.hold(A, 5))
    erase = transfers.erase_subject(**town.stamp(), resident=A)
    refuse(town, erase, match="holds")
    town.take(transfers.release(**town.stamp(), hold=hold))
    town.take(erase)
    refuse(town, town.issue(A), match="erased")
    refuse(town, replace(erase, id="e" * 32), match="erased")
    town.take(town.issue(C))


def test_a_day_is_closed_with_the_sums_of_the_open_accounts(town: Any) -> None:
    town.take(town.issue(A, 5))
    town.take(town.allow(20, MERCHANT))
    town.take(town.charge(A, 3, MERCHANT))
    good = town.close()
    assert good.detail["totals"] == {
        "issuance:POINT": -(10**9),
        "reduction:CO2E": -1_250_000,
        "redeemed:POINT": 3,
        "settlement:POINT": -17,
    }
    for change in ({"size": 2}, {"totals": {}}, {"totals": {"reduction:CO2E": -1_250_000}}):
        refuse(town, replace(good, detail={**good.detail, **change}))
    town.take(good)
    refuse(town, replace(town.close(), id="e" * 32), match="closed")


def test_a_key_is_rotated_by_the_old_keys_signature(town: Any) -> None:
    old, new = Signer.generate("log.example"), Signer.generate("log.example")
    detail = keys.rotation(old, new.verifier)
    forged = {**detail, "new": Signer.generate("log.example").verifier.vkey}
    refuse(town, transfers.rotate_key(**town.stamp(), detail=forged), Unverified)
    town.take(transfers.rotate_key(**town.stamp(), detail=detail))


def test_a_wallet_never_gives_more_than_it_holds(town: Any) -> None:
    town.take(town.issue(A, 5, bucket=20270228))
    known = {"resident": A, "budget": BUDGET, "bucket": 20270228, "reason": "count"}
    refuse(town, transfers.adjust(**town.stamp(), **known, points=-6), Insufficient)
    town.take(transfers.adjust(**town.stamp(), **known, points=-5))
    assert town.book.wallet(A) == {}


@pytest.mark.parametrize("seed", range(5))
def test_payloads_replay_to_the_same_balances(make_town: Callable[..., Any], seed: int) -> None:
    town = make_town(seed).live(300)
    again = Book()
    for entry in town.entries:
        again.apply(Entry.parse(entry.payload()))
    assert vars(again) == vars(town.book)


class City(RuleBasedStateMachine):
    """Whatever happens in a city, its promises hold after every step."""

    make_town: Callable[[], Any]

    def __init__(self) -> None:
        super().__init__()
        self.town = self.make_town()
        self.open: dict[str, tuple[str, int]] = {}
        self.allowed = 0  # to the merchant in all, less what was taken back
        self.spent: dict[str, int] = {}  # redemption -> its points, less those refunded
        self.editions: dict[int, date] = {}  # published in this machine, with their first days
        self.withdrawn: set[int] = set()

    def attempt(self, make: Callable[[], Entry]) -> Entry | None:
        before = state(self.town.book)
        try:
            return self.town.take(make())
        except LedgerError:
            assert vars(self.town.book) == before
            return None

    def past(self, data: st.DataObject, kind: Kind) -> Entry:
        found = [entry for entry in self.town.entries if entry.kind is kind]
        return data.draw(st.sampled_from(found or self.town.entries), label="past")

    @rule(who=PEOPLE, units=st.integers(1, 9), months=st.integers(0, 2))
    def issue(self, who: str, units: int, months: int) -> None:
        bucket = 20260128 + 100 * months
        self.attempt(lambda: self.town.issue(who, units, bucket=bucket))

    @rule(who=PEOPLE, points=st.integers(1, 12))
    def hold(self, who: str, points: int) -> None:
        entry = self.attempt(lambda: self.town.hold(who, points))
        if entry:
            self.open[entry.id] = who, points

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        hold = self.past(data, Kind.HOLD)
        if self.attempt(lambda: transfers.release(**self.town.stamp(), hold=hold)):
            del self.open[hold.id]

    @rule(points=st.sampled_from([5, 12, 30, -3, -10]))
    def allow(self, points: int) -> None:
        if self.attempt(lambda: self.town.allow(points, MERCHANT)):
            self.allowed += points

    @rule(data=st.data())
    def redeem(self, data: st.DataObject) -> None:
        hold = self.past(data, Kind.HOLD)
        known = {**self.town.stamp(), "merchant": MERCHANT}
        entry = self.attempt(lambda: transfers.redeem(**known, hold=hold))
        if entry:
            self.spent[entry.id] = self.open.pop(hold.id)[1]

    @rule(who=PEOPLE, points=st.integers(1, 9))
    def charge(self, who: str, points: int) -> None:
        entry = self.attempt(lambda: self.town.charge(who, points, MERCHANT))
        if entry:
            self.spent[entry.id] = points

    @rule(data=st.data(), points=st.integers(1, 9))
    def refund(self, data: st.DataObject, points: int) -> None:
        redeem = self.past(data, Kind.REDEEM)
        before = held(self.town.book, AccountKind.RESIDENT, redeem.resident)
        if self.attempt(lambda: self.town.refund(redeem, points)):
            self.spent[redeem.id] -= points
            back = held(self.town.book, AccountKind.RESIDENT, redeem.resident) - before
            assert back == (0 if redeem.resident in self.town.book.erased else points)

    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        entry = self.past(data, Kind.ISSUE)
        self.attempt(lambda: self.town.reverse(entry))

    @rule(who=PEOPLE, points=st.integers(1, 9))
    def expire(self, who: str, points: int) -> None:
        known = {"bucket": min(self.town.book.wallet(who), default=20260128)}
        known |= {"points": points, "today": day_of(self.town.at)}
        self.attempt(lambda: transfers.expire(**self.town.stamp(), resident=who, **known))

    @rule(version=st.integers(1, 4), ahead=st.integers(0, 9))
    def publish(self, version: int, ahead: int) -> None:
        known = NEXT | {"version": version}
        first_day = date.fromisoformat(self.town.at[:10]) + timedelta(ahead)
        entry = self.attempt(
            lambda: transfers.publish_scenario(
                **self.town.stamp(), **known, effective_from=str(first_day)
            )
        )
        if entry:
            assert version not in self.editions
            self.editions[version] = first_day

    @rule(version=st.integers(1, 4))
    def withdraw(self, version: int) -> None:
        known = NEXT | {"version": version, "effective_from": "2099-01-01"}
        if self.attempt(lambda: transfers.withdraw_scenario(**self.town.stamp(), **known)):
            assert self.editions[version] > date.fromisoformat(self.town.at[:10])
            self.withdrawn.add(version)

    @rule(version=st.integers(1, 4), who=PEOPLE)
    def cite(self, version: int, who: str) -> None:
        rule = Rule(**(NEXT | {"version": version}))
        if self.attempt(lambda: self.town.issue(who, rule=rule)):
            assert version in self.editions.keys() - self.withdrawn

    @rule(action=st.sampled_from(["draft.approved", "login.failed"]))
    def act(self, action: str) -> None:
        before = deepcopy(dict(self.town.book.balances()))
        known = {"action": action, "commitment": "c" * 64}
        assert self.attempt(lambda: transfers.record_action(**self.town.stamp(), **known))
        assert dict(self.town.book.balances()) == before

    @rule(days=st.integers(1, 40))
    def wait(self, days: int) -> None:
        self.town.days += days

    @rule()
    def close(self) -> None:
        self.attempt(self.town.close)

    @rule(who=PEOPLE, really=st.sampled_from([False] * 9 + [True]))
    def erase(self, who: str, really: bool) -> None:
        if really:
            self.attempt(lambda: transfers.erase_subject(**self.town.stamp(), resident=who))

    @invariant()
    def every_asset_sums_to_zero(self) -> None:
        sums: Counter[Asset] = Counter()
        for (_, asset), buckets in self.town.book.balances():
            sums[asset] += sum(buckets.values())
        assert not any(sums.values())

    @invariant()
    def nothing_guarded_is_negative(self) -> None:
        for (account, _), buckets in self.town.book.balances():
            assert not account.kind.guarded or min(buckets.values()) > 0

    @invariant()
    def what_is_held_is_what_open_holds_hold(self) -> None:
        for who in (A, C):
            points = sum(points for owner, points in self.open.values() if owner == who)
            assert held(self.town.book, AccountKind.HELD, who) == points

    @invariant()
    def what_is_redeemed_was_allowed(self) -> None:
        spent, book = sum(self.spent.values()), self.town.book
        assert min(self.spent.values(), default=0) >= 0
        assert book.redeemed.get(MERCHANT, 0) == spent
        redeemed = dict(book.balances()).get((Account(AccountKind.REDEEMED), Asset.POINT), {})
        assert sum(redeemed.values()) == spent
        assert book.balance(ALLOWANCE, Asset.POINT) == self.allowed - spent
        assert book.balance(Account(AccountKind.SETTLEMENT), Asset.POINT) == spent - self.allowed

    @invariant()
    def what_is_owed_is_the_debt(self) -> None:
        owed = self.town.book.balance(Account(AccountKind.OWED), Asset.POINT)
        assert -owed == sum(held(self.town.book, AccountKind.DEBT, who) for who in (A, C))

    def teardown(self) -> None:
        again = Book()
        for entry in self.town.entries:
            again.apply(Entry.parse(entry.payload()))
        assert vars(again) == vars(self.town.book)


def test_whatever_happens_the_promises_hold(make_town: Callable[..., Any]) -> None:
    city = type("City", (City,), {"make_town": staticmethod(make_town)})
    run_state_machine_as_test(
        city, settings=settings(max_examples=30, stateful_step_count=30, deadline=None)
    )


def test_a_posting_shape_of_another_kind_is_refused_even_if_it_balances(town: Any) -> None:
    town.take(town.issue(A, 5))
    budget, wallet = Account(AccountKind.BUDGET, BUDGET), Account(AccountKind.RESIDENT, A)
    postings = (
        Posting(budget, Asset.POINT, 0, -3),
        Posting(wallet, Asset.POINT, 20270331, 3),
    )
    for kind in Kind:
        if kind is not Kind.ADJUST:
            with pytest.raises(LedgerError):
                Entry("e" * 32, kind, town.at, postings, {})
