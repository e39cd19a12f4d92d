"""The book: entries replayed in leaf order, in memory, each held against all before it.

This is the model the database is tested against and the auditor runs. Most rules are one
sentence: the entry must be the very one its verb in ``ledger.transfers`` makes from the book as
it stands. A refused entry leaves the book as it was.
"""

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TypeVar

from ledger import keys, transfers
from ledger.accounts import Account, AccountKind, Asset
from ledger.buckets import day_of
from ledger.entries import Entry, Kind, Posting
from ledger.errors import Exhausted, Insufficient, Refused
from ledger.spends import Lines
from ledger.transfers import Rule, granted, redeemed

_DEBT, _HELD = AccountKind.DEBT, AccountKind.HELD
_MERCHANT, _WALLET = AccountKind.MERCHANT, AccountKind.RESIDENT
_CO2E, _POINT = Asset.CO2E, Asset.POINT
_GUARDED = frozenset(kind for kind in AccountKind if kind.guarded)
_YEARS = 9999  # a wallet's buckets up to here are years of CO2e, those beyond are days of points
_NOTHING: Mapping[int, int] = {}
_NO_DEBT: Mapping[Asset, int] = {}
_UNPUBLISHED = "{} version {} was not published like this, or was withdrawn."

_K = TypeVar("_K")


class Book:
    """Balances and what earlier entries left open.

    ``entries`` holds every entry applied, by id; an auditor gives a mapping of its own that keeps
    less in memory. ``wallets`` has what each resident holds, by bucket: points by their last day,
    mg of CO2e by their year, which no day is; zeros are left out.
    """

    def __init__(self, entries: MutableMapping[str, Entry] | None = None) -> None:
        self.entries = {} if entries is None else entries
        self.size = 0
        self.wallets: dict[str, dict[int, int]] = {}
        self._others: dict[tuple[Account, Asset], dict[int, int]] = {}  # all other balances
        # (scenario, version) -> digest: those an issue may cite, and those it no longer may
        self.published: dict[tuple[str, int], str] = {}
        self.withdrawn: dict[tuple[str, int], str] = {}
        self.effective: dict[tuple[str, int], str] = {}  # (scenario, version) -> its first day
        # holds neither released nor redeemed: whose, and what; None if only the id is known
        self.held: dict[str, tuple[str, Lines] | None] = {}
        self.settled: dict[str, str] = {}  # issue -> the entry that paid what it awaited
        self.reversed: set[str] = set()
        self.refunded: dict[str, int] = {}  # redemption -> points given back
        self.redeemed: dict[str, int] = {}  # by merchant, points redeemed and not refunded
        self.erased: set[str] = set()  # tokens of residents
        self.closed = 0  # the last day closed
        self._open: set[tuple[Account, Asset]] = set()  # keys of balances no guard protects
        self.debts: dict[str, dict[Asset, int]] = {}  # by resident, what is owed

    def apply(self, entry: Entry) -> None:
        """Take one entry; raises ``Refused`` or ``Insufficient``, and then nothing has changed."""
        if entry.id in self.entries:
            raise Refused(f"The id {entry.id} was used before.")
        if entry.resident in self.erased:
            raise Refused(f"The resident {entry.resident} was erased.")
        check = _CHECKS.get(entry.kind)
        if check:
            check(self, entry)
        self._post(entry.postings)
        remember = _MEMORY.get(entry.kind)
        if remember:
            remember(self, entry)
        self.entries[entry.id] = entry
        self.size += 1

    def carry(self, account: Account, asset: Asset, bucket: int, amount: int) -> None:
        """Let an account hold so much more, or less: no guard is asked."""
        kind, token = account
        if kind is _WALLET:
            _add(self.wallets, token, bucket, amount)
            return
        total = _add(self._others, (account, asset), bucket, amount)
        if kind is _DEBT:
            self._owe(token, asset, total)
        elif kind not in _GUARDED:
            self._open.add((account, asset))

    def balance(self, account: Account, asset: Asset, bucket: int = 0) -> int:
        """What an account holds of an asset in a bucket."""
        if account.kind is _WALLET:
            return self.wallets.get(account.token, _NOTHING).get(bucket, 0)
        return self._others.get((account, asset), _NOTHING).get(bucket, 0)

    def balances(self) -> Iterator[tuple[tuple[Account, Asset], Mapping[int, int]]]:
        """What each account holds of each asset, by bucket, zeros left out."""
        for resident, held in self.wallets.items():
            points = self.wallet(resident)
            carbon = {year: mg for year, mg in held.items() if year not in points}
            for asset, buckets in ((_CO2E, carbon), (_POINT, points)):
                if buckets:
                    yield (Account(_WALLET, resident), asset), buckets
        yield from self._others.items()

    def wallet(self, resident: str) -> Mapping[int, int]:
        """The points a resident holds, by bucket."""
        held = self.wallets.get(resident, _NOTHING)
        return {day: points for day, points in held.items() if day > _YEARS}

    def holdings(self, resident: str) -> dict[tuple[Asset, int], int]:
        """All a resident holds, by asset and bucket."""
        held = self.wallets.get(resident, _NOTHING)
        return {(_POINT if at > _YEARS else _CO2E, at): amount for at, amount in held.items()}

    def debt(self, resident: str) -> Mapping[Asset, int]:
        """What a resident owes, assets of which nothing is owed left out."""
        return self.debts.get(resident, _NO_DEBT)

    def totals(self) -> dict[str, int]:
        """The sums of the open accounts as a day is closed with them: kind and asset to sum."""
        sums: dict[str, int] = {}
        for account, asset in self._open:
            name, buckets = f"{account.kind}:{asset}", self._others.get((account, asset), _NOTHING)
            sums[name] = sums.get(name, 0) + sum(buckets.values())
        return {name: total for name, total in sums.items() if total}

    def _post(self, postings: tuple[Posting, ...]) -> None:
        for account, asset, bucket, amount in postings:
            if amount < 0 and account.kind in _GUARDED:
                held = self.balance(account, asset, bucket)
                if held + amount < 0:
                    short = Exhausted if account.kind is _MERCHANT else Insufficient
                    raise short(
                        f"{account.name} holds {held} {asset} in bucket {bucket}, not {-amount}."
                    )
        for account, asset, bucket, amount in postings:
            self.carry(account, asset, bucket, amount)

    def _owe(self, resident: str, asset: Asset, total: int) -> None:
        owed = {**self.debt(resident), asset: total}
        self.debts[resident] = {asset: total for asset, total in owed.items() if total}
        if not self.debts[resident]:
            del self.debts[resident]

    def _sell(self, merchant: str, points: int) -> None:
        self.redeemed[merchant] = self.redeemed.get(merchant, 0) + points

    def _earlier(self, id: str, *kinds: Kind) -> Entry:
        entry = self.entries.get(id)
        if entry is None or entry.kind not in kinds:
            raise Refused(f"No earlier entry {id} is of kind {' or '.join(kinds)}.")
        return entry

    def _check_issue(self, entry: Entry) -> None:
        if "settles" in entry.detail:
            self._check_settlement(entry)
            return
        scenario, version, digest = entry.detail["rule"]
        if self.published.get((scenario, version)) != digest:
            raise Refused(_UNPUBLISHED.format(scenario, version))
        debt = self.debt(entry.resident)
        if not debt:
            return  # then the form of an issue leaves nothing open; _post refuses a repayment
        wanted = transfers.issue(
            id=entry.id,
            at=entry.at,
            resident=entry.resident,
            rule=Rule(scenario, version, digest),
            commitment=entry.detail["commitment"],
            reduction_mg=granted(entry, Asset.CO2E),
            vintage=_bucket(entry, Asset.CO2E),
            points=granted(entry, Asset.POINT),
            bucket=_bucket(entry, Asset.POINT),
            budget=_budget(entry),
            debt=debt,
        )
        _require_same(entry, wanted)

    def _check_settlement(self, entry: Entry) -> None:
        issue = self._earlier(entry.detail["settles"], Kind.ISSUE)
        if issue.detail.get("awaiting") != granted(entry, Asset.POINT):
            raise Refused(f"The issue {issue.id} does not await these points.")
        if issue.id in self.settled or issue.id in self.reversed:
            raise Refused(f"The issue {issue.id} was settled or reversed before.")
        wanted = transfers.settle(
            id=entry.id,
            at=entry.at,
            resident=issue.resident,
            points=issue.detail["awaiting"],
            bucket=_bucket(entry, Asset.POINT),
            budget=issue.detail["budget"],
            settles=issue.id,
            debt=self.debt(issue.resident),
        )
        _require_same(entry, wanted)

    def _check_hold(self, entry: Entry) -> None:
        wanted = transfers.hold(
            id=entry.id,
            at=entry.at,
            resident=entry.resident,
            points=granted(entry, Asset.POINT),
            wallet=self.wallet(entry.resident),
            today=day_of(entry.at),
        )
        _require_same(entry, wanted)

    def _check_redeem(self, entry: Entry) -> None:
        if "hold" in entry.detail:
            self._check_resolution(entry)
            return
        wanted = transfers.charge(
            id=entry.id,
            at=entry.at,
            resident=entry.resident,
            points=redeemed(entry),
            wallet=self.wallet(entry.resident),
            today=day_of(entry.at),
            merchant=entry.detail["merchant"],
        )
        _require_same(entry, wanted)

    def _check_resolution(self, entry: Entry) -> None:
        hold = self._earlier(entry.detail["hold"], Kind.HOLD)
        if hold.id not in self.held:
            raise Refused(f"The hold {hold.id} was released or redeemed before.")
        if entry.kind is Kind.RELEASE:
            wanted = transfers.release(id=entry.id, at=entry.at, hold=hold)
        else:
            merchant = entry.detail["merchant"]
            wanted = transfers.redeem(id=entry.id, at=entry.at, hold=hold, merchant=merchant)
        _require_same(entry, wanted)

    def _check_refund(self, entry: Entry) -> None:
        redeem = self._earlier(entry.detail["redeem"], Kind.REDEEM)
        wanted = transfers.refund(
            id=entry.id,
            at=entry.at,
            redeem=redeem,
            points=-redeemed(entry),
            refunded=self.refunded.get(redeem.id, 0),
            today=day_of(entry.at),
            erased=redeem.resident in self.erased,
        )
        _require_same(entry, wanted)

    def _check_reverse(self, entry: Entry) -> None:
        original = self._earlier(entry.detail["reverses"], Kind.ISSUE, Kind.ADJUST)
        if original.id in self.reversed:
            raise Refused(f"The entry {original.id} was reversed before.")
        settlement = self.settled.get(original.id)
        if settlement and settlement not in self.reversed:
            raise Refused(f"The issue {original.id} was settled; reverse the settlement first.")
        wallet = self.holdings(original.resident)
        wanted = transfers.reverse(id=entry.id, at=entry.at, entry=original, wallet=wallet)
        _require_same(entry, wanted)

    def _check_expire(self, entry: Entry) -> None:
        wanted = transfers.expire(
            id=entry.id,
            at=entry.at,
            resident=entry.resident,
            bucket=_bucket(entry, Asset.POINT),
            points=granted(entry, Asset.POINT),
            today=day_of(entry.at),
        )
        _require_same(entry, wanted)

    def _check_publication(self, entry: Entry) -> None:
        if _version(entry) in self.effective:
            raise Refused("{} version {} was published before.".format(*_version(entry)))

    def _check_withdrawal(self, entry: Entry) -> None:
        if self.published.get(_version(entry)) != entry.detail["digest"]:
            raise Refused(_UNPUBLISHED.format(*_version(entry)))
        first_day = self.effective[_version(entry)]
        transfers.withdraw_scenario(
            id=entry.id, at=entry.at, **entry.detail, effective_from=first_day
        )

    def _check_rotation(self, entry: Entry) -> None:
        keys.verify_rotation(entry.detail)

    def _check_erasure(self, entry: Entry) -> None:
        token = entry.detail["account"].partition(":")[2]
        if token in self.erased:
            raise Refused(f"The resident {token} was erased before.")
        if (Account(_HELD, token), Asset.POINT) in self._others:
            raise Refused(f"The resident {token} has open holds; resolve them first.")

    def _check_close(self, entry: Entry) -> None:
        detail = entry.detail
        if detail["size"] != self.size or detail["day"] <= self.closed:
            raise Refused(f"Day {detail['day']} is not closed over the {self.size} leaves before.")
        if detail["totals"] != self.totals():
            raise Refused(f"The totals of day {detail['day']} are not {self.totals()}.")

    def _remember_settlement(self, entry: Entry) -> None:
        if "settles" in entry.detail:
            self.settled[entry.detail["settles"]] = entry.id

    def _remember_hold(self, entry: Entry) -> None:
        lines = tuple([(line.bucket, line.amount) for line in entry.postings if line.amount > 0])
        self.held[entry.id] = entry.resident, lines

    def _remember_release(self, entry: Entry) -> None:
        del self.held[entry.detail["hold"]]

    def _remember_redeem(self, entry: Entry) -> None:
        if "hold" in entry.detail:  # a charge needs none
            del self.held[entry.detail["hold"]]
        self._sell(entry.detail["merchant"], redeemed(entry))

    def _remember_refund(self, entry: Entry) -> None:
        redeem, points = entry.detail["redeem"], redeemed(entry)
        self.refunded[redeem] = self.refunded.get(redeem, 0) - points
        self._sell(self.entries[redeem].detail["merchant"], points)

    def _remember_reverse(self, entry: Entry) -> None:
        self.reversed.add(entry.detail["reverses"])

    def _remember_publication(self, entry: Entry) -> None:
        self.published[_version(entry)] = entry.detail["digest"]
        self.effective[_version(entry)] = entry.detail["effective_from"]

    def _remember_withdrawal(self, entry: Entry) -> None:
        self.withdrawn[_version(entry)] = self.published.pop(_version(entry))

    def _remember_erasure(self, entry: Entry) -> None:
        self.erased.add(entry.detail["account"].partition(":")[2])

    def _remember_close(self, entry: Entry) -> None:
        self.closed = entry.detail["day"]


_CHECKS: Mapping[Kind, Callable[[Book, Entry], None]] = {
    Kind.ISSUE: Book._check_issue,
    Kind.HOLD: Book._check_hold,
    Kind.RELEASE: Book._check_resolution,
    Kind.REDEEM: Book._check_redeem,
    Kind.REFUND: Book._check_refund,
    Kind.REVERSE: Book._check_reverse,
    Kind.EXPIRE: Book._check_expire,
    Kind.SCENARIO_PUBLISHED: Book._check_publication,
    Kind.SCENARIO_WITHDRAWN: Book._check_withdrawal,
    Kind.KEY_ROTATED: Book._check_rotation,
    Kind.SUBJECT_ERASED: Book._check_erasure,
    Kind.DAY_CLOSED: Book._check_close,
}
_MEMORY: Mapping[Kind, Callable[[Book, Entry], None]] = {
    Kind.ISSUE: Book._remember_settlement,
    Kind.HOLD: Book._remember_hold,
    Kind.RELEASE: Book._remember_release,
    Kind.REDEEM: Book._remember_redeem,
    Kind.REFUND: Book._remember_refund,
    Kind.REVERSE: Book._remember_reverse,
    Kind.SCENARIO_PUBLISHED: Book._remember_publication,
    Kind.SCENARIO_WITHDRAWN: Book._remember_withdrawal,
    Kind.SUBJECT_ERASED: Book._remember_erasure,
    Kind.DAY_CLOSED: Book._remember_close,
}


def _add(holdings: dict[_K, dict[int, int]], key: _K, bucket: int, amount: int) -> int:
    buckets = holdings.get(key)
    if buckets is None:
        buckets = holdings[key] = {}
    total = buckets.get(bucket, 0) + amount
    if total:
        buckets[bucket] = total
    else:
        del buckets[bucket]
        if not buckets:
            del holdings[key]
    return total


def _require_same(entry: Entry, wanted: Entry) -> None:
    if entry.postings != wanted.postings:
        expected = ", ".join(f"{p.account.name} {p.bucket} {p.amount}" for p in wanted.postings)
        raise Refused(f"The postings are not what the book asks for: {expected}.")


def _bucket(entry: Entry, asset: Asset) -> int:
    buckets = [p.bucket for p in entry.postings if p.asset is asset and p.account.kind is _WALLET]
    return buckets[0] if buckets else 0


def _budget(entry: Entry) -> str:
    budgets = [p.account.token for p in entry.postings if p.account.kind is AccountKind.BUDGET]
    return budgets[0] if budgets else ""


def _version(entry: Entry) -> tuple[str, int]:
    return entry.detail["scenario"], entry.detail["version"]
