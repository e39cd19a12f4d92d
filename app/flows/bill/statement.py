"""Statement: a merchant's month by store, from the bills of its days."""

from __future__ import annotations

from typing import IO, Final, NamedTuple

import xlsxwriter
from sqlalchemy import Connection

from app.flows.bill.close import date_of
from app.flows.bill.write import TOTAL, WORKBOOK, put_lines, yuan
from app.store import settlement
from app.store.settlement import Bill, StoreMonth

_STORES: Final = (
    "门店 store",
    "名称 name",
    "单数 documents",
    "消费积分 redeemed",
    "退回积分 returned",
    "净积分 net",
    "应付(元) owed",
    "已付(元) paid",
)
_DAYS: Final = (
    "日期 date",
    "合同 contract",
    "单数 documents",
    "净积分 net",
    "应付(元) owed",
    "付款编号 reference",
    "CSV SHA-256",
)


class Statement(NamedTuple):
    """The bills of some days, and what they come to by store and in all."""

    bills: list[Bill]
    stores: list[StoreMonth]

    @property
    def total(self) -> StoreMonth:
        """All stores together."""
        sums = (sum(column) for column in zip(*(one[2:] for one in self.stores), strict=True))
        return StoreMonth._make(("", "", *sums)) if self.stores else StoreMonth("", "", *[0] * 5)


def statement(tx: Connection, merchant: str, month: int) -> Statement:
    """A merchant's month YYYYMM, as far as its days are closed. To be read in a snapshot."""
    first, last = days_of(month)
    return Statement(
        settlement.between(tx, merchant, first, last),
        settlement.by_store(tx, merchant, first, last),
    )


def days_of(month: int) -> tuple[int, int]:
    """The first number of a day that a month YYYYMM can have, and the last."""
    return month * 100 + 1, month * 100 + 31


def write_statement(file: IO[bytes], made: Statement, name: str, month: int) -> None:
    """Write an XLSX file: the month by store, and a row a bill. Amounts are texts, exact."""
    book = xlsxwriter.Workbook(file, WORKBOOK)
    head = (("商户 merchant", name), ("月份 month", f"{month // 100:04d}-{month % 100:02d}"), ())
    stores = [_store(one.store, one.name, one) for one in made.stores]
    total = _store(TOTAL, "", made.total)
    put_lines(book.add_worksheet("门店 stores"), (*head, _STORES, *stores, total))
    put_lines(book.add_worksheet("账单 bills"), (_DAYS, *map(_bill, made.bills)))
    book.close()


def _store(code: str, name: str, one: StoreMonth) -> tuple[str | int, ...]:
    net = one.redeemed_points - one.returned_points
    points = (one.lines, one.redeemed_points, one.returned_points, net)
    return (code, name, *points, yuan(one.milli_fen), yuan(one.paid_milli_fen))


def _bill(one: Bill) -> tuple[str | int, ...]:
    return (
        date_of(one.day).isoformat(),
        one.terms.contract,
        one.lines,
        one.points,
        yuan(one.milli_fen),
        one.reference or "",
        one.csv_sha256.hex(),
    )
