"""Reconcile: hold every line of every bill against the ledger's entry for it, and the sums too.

Reads all, streamed, in one snapshot; blocks nobody. The entries go in the log's order, so that the
first fault that is named is the first there is.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, Engine

from app.flows.bill.close import date_of, digest_of
from app.flows.check import Fault
from app.store import scan_bills, settlement
from app.store.db import snapshot
from app.store.scan_bills import Pair
from ledger.accounts import AccountKind
from ledger.entries import Entry
from ledger.errors import LedgerError


def reconcile(engine: Engine) -> Iterator[Fault]:
    """Everything that does not hold: entries without their line, lines without their entry, bills
    that are not their lines or whose file has changed, sums that are not the ledger's."""
    with snapshot(engine) as tx, tx.begin():
        yield from _check_entries(tx)
        for arrival, merchant in scan_bills.orphans(tx):
            what = f"a line of merchant {merchant}, and no redemption or refund of this arrival"
            yield Fault(f"bill_lines {arrival}", what)
        yield from _check_bills(tx)
        lines = scan_bills.points(tx)
        found = settlement.position(tx)
        if lines != found.ledger_points:
            what = f"{found.ledger_points} points redeemed, {lines} on lines"
            yield Fault("open_balances redeemed", what)
        if found.difference_points:
            what = f"{-found.difference_points} points are on no bill and no line to be billed"
            yield Fault("bills", what)


def _check_entries(tx: Connection) -> Iterator[Fault]:
    for pair in scan_bills.pairs(tx):
        where = f"entries {pair.arrival}" if pair.leaf is None else f"leaf {pair.leaf}"
        try:
            entry = Entry.parse(pair.payload)
        except LedgerError as error:
            yield Fault(where, f"the payload is no entry: {error}")
            continue
        if fault := _mistake(entry, pair):
            yield Fault(where, f"{entry.kind} {entry.id}: {fault}")


def _mistake(entry: Entry, pair: Pair) -> str:
    points = sum(
        line.amount for line in entry.postings if line.account.kind is AccountKind.REDEEMED
    )
    allowed = [
        (line.account.token, -line.amount)
        for line in entry.postings
        if line.account.kind is AccountKind.MERCHANT
    ]
    if pair.line is None:
        return f"{points} points, and no line on any bill"
    if pair.line[0] != entry.id:
        return f"its line names entry {pair.line[0]}"
    if allowed != [(pair.line[1], points)]:
        return f"the line is merchant {pair.line[1]}'s, the entry is not"
    if pair.line[2] != points:
        return f"{points} points, {pair.line[2]} on its line"
    return ""


def _check_bills(tx: Connection) -> Iterator[Fault]:
    for code, day, billed, lines in scan_bills.differences(tx):
        if billed is None:
            what = "it was not made yet; run `puhui bills close`, or look at the worker's log"
        else:
            what = f"{billed[0]} lines of {billed[1]} points on it; there are now {lines}"
        yield Fault(f"bill {code} {date_of(day)}", what)
    for bill in settlement.every(tx):
        sums, digest = digest_of(tx, bill.merchant, bill.day, bill.terms)
        if (sums[2], digest) != (bill.milli_fen, bill.csv_sha256):
            what = "its file or amount is no longer the one that was handed out"
            yield Fault(f"bill {bill.code} {date_of(bill.day)}", what)
