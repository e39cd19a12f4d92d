"""The hot path of a replay: what nearly all entries are, taken with no entry being built.

Each function takes something if nothing stands in its way. Where it says False, nothing has
changed, and ``Book.apply`` is the one to ask: it takes what is sound and says what is not. The
caller has seen to the ids, and keeps them.
"""

from collections.abc import Collection, Sequence

from ledger import buckets
from ledger.accounts import Account, AccountKind, Asset
from ledger.book import Book
from ledger.errors import Insufficient
from ledger.plain import Terms
from ledger.spends import Spend

_BUDGET, _REDUCTION, _WALLET = AccountKind.BUDGET, AccountKind.REDUCTION, AccountKind.RESIDENT
_HELD, _MERCHANT = AccountKind.HELD, AccountKind.MERCHANT
_CO2E, _POINT = Asset.CO2E, Asset.POINT
_REDEEMED, _SETTLEMENT = Account(AccountKind.REDEEMED), Account(AccountKind.SETTLEMENT)

Sum = tuple[Terms, int, int]
"""What plain issues under the same terms credit together: mg of CO2e, points."""


def pay(book: Book, sums: Sequence[Sum], residents: Collection[str]) -> bool:
    """Take what plain issues to these residents credit in all from where it comes from.

    Among them is nothing but spends. So a budget that has enough for all of them has enough for
    each, and who owes nothing and is not erased stays so. ``grant`` gives each of them its part.
    """
    wanted: dict[str, int] = {}
    for (scenario, version, digest, _, budget, _), _, points in sums:
        if book.published.get((scenario, version)) != digest:
            return False
        wanted[budget] = wanted.get(budget, 0) + points
    for budget, points in wanted.items():
        if points and book.balance(Account(_BUDGET, budget), _POINT) < points:
            return False
    if not (book.erased.isdisjoint(residents) and book.debts.keys().isdisjoint(residents)):
        return False
    for (scenario, _, _, vintage, budget, _), reduction_mg, points in sums:
        book.carry(Account(_REDUCTION, scenario), _CO2E, vintage, -reduction_mg)
        if points:
            book.carry(Account(_BUDGET, budget), _POINT, 0, -points)
    return True


def grant(book: Book, resident: str, terms: Terms, reduction_mg: int, points: int) -> bool:
    """Give a plain issue that was paid to its resident."""
    _, _, _, vintage, _, bucket = terms
    wallet = book.wallets.get(resident)
    if wallet is None:
        wallet = book.wallets[resident] = {}
    wallet[vintage] = wallet.get(vintage, 0) + reduction_mg
    if points:
        wallet[bucket] = wallet.get(bucket, 0) + points
    book.size += 1
    return True


def credit(book: Book, resident: str, terms: Terms, reduction_mg: int, points: int) -> bool:
    """Take one plain issue."""
    return pay(book, [(terms, reduction_mg, points)], (resident,)) and grant(
        book, resident, terms, reduction_mg, points
    )


def spend(book: Book, one: Spend) -> bool:
    """Take a hold, a charge, or what resolves a hold."""
    entry_id, resident, _, _, lines, merchant, hold = one
    points = sum([amount for _, amount in lines])
    wallet, held = Account(_WALLET, resident), Account(_HELD, resident)
    if resident in book.erased:
        return False
    if hold:
        if book.held.get(hold) != (resident, lines):
            return False
    elif not _spends(book, one, points):
        return False
    if merchant:
        allowance = Account(_MERCHANT, merchant)
        if book.balance(allowance, _POINT) < points:
            return False
        book.carry(allowance, _POINT, 0, -points)
        book.carry(_SETTLEMENT, _POINT, 0, points)
        book.redeemed[merchant] = book.redeemed.get(merchant, 0) + points
    source = held if hold else wallet
    target = _REDEEMED if merchant else wallet if hold else held
    for bucket, amount in lines:
        book.carry(source, _POINT, bucket, -amount)
        book.carry(target, _POINT, bucket, amount)
    if hold:
        del book.held[hold]
    elif not merchant:
        book.held[entry_id] = resident, lines
    book.size += 1
    return True


def _spends(book: Book, one: Spend, points: int) -> bool:
    try:
        return buckets.spend(book.wallet(one.resident), points, one.day) == one.lines
    except Insufficient:
        return False
