"""For merchants: their bills, day by day, as JSON, CSV and workbook; months; and differences."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import date
from tempfile import TemporaryFile
from typing import IO, Any

import orjson
from flask import Response, g
from sqlalchemy import Connection, Engine

from app.api import bill_forms as forms
from app.api.wire import Blueprint, answer, calendar_day
from app.auth import head_office, received
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows.bill.close import end_of
from app.flows.bill.difference import report_differences
from app.flows.bill.pay import BillError
from app.flows.bill.statement import days_of, statement, write_statement
from app.flows.bill.write import Tally, csv_of, workbook
from app.flows.once import Answer, KeyReusedError, Repeat, once
from app.store import bills, settlement
from app.store.db import one_statement, snapshot
from app.store.settlement import Bill, Terms
from app.wiring import wired
from ledger.buckets import day_number

_CSV = "text/csv; charset=utf-8"
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_PIECE = 65536
_BINARY = {"type": "string", "format": "binary"}

blp = Blueprint(
    "bills",
    __name__,
    url_prefix="/api/v1/merchant",
    description="商户账单：日账单、月结单、差异。Bills: each day, each month, and differences.",
)


@blp.serve("GET", "/bills", gives=forms.BillsSchema, guard=head_office, query=forms.MonthArgs)
def list_bills(args: dict[str, Any]) -> Response:
    """账单列表 · The bills of a month, this one if none is named; a day without documents has no
    bill."""
    month = args.get("month") or month_of(wired().clock().astimezone(CITY_ZONE).date())
    with one_statement(wired().engine) as tx:
        found = settlement.between(tx, g.merchant.id, *days_of(month))
    return answer({"items": [forms.bill_shown(one) for one in found]})


@blp.serve(
    "GET",
    "/bills/<day>",
    gives=forms.BillDaySchema,
    guard=head_office,
    query=forms.PreviewArgs,
)
def get_bill(args: dict[str, Any], day: str) -> Response:
    """日账单 · A day's bill with its sums by store and kind; a day not closed yet as a preview."""
    with snapshot(wired().engine) as tx:
        number, bill, terms = _found(tx, day, preview=args["preview"] == "true")
        sums = bills.sums(tx, g.merchant.id, number)
    if bill is not None:
        return answer({"state": "closed", **forms.bill_shown(bill), **forms.parts_shown(sums)})
    lines, points = sum(one.lines for one in sums), sum(one.points for one in sums)
    amount = points * terms.milli_fen_per_point
    open_bill = forms.sums_shown(number, terms, lines, points, amount)
    return answer({"state": "open", **open_bill, **forms.UNPAID, **forms.parts_shown(sums)})


@blp.serve(
    "GET",
    "/bills/<day>.csv",
    gives={"type": "string"},
    media="text/csv",
    guard=head_office,
    query=forms.PreviewArgs,
)
def get_bill_csv(args: dict[str, Any], day: str) -> Response:
    """日账单 CSV · The documents of a day, a row each, and their sum; UTF-8 with a byte order mark.

    The file of a closed day is always the same: X-Content-SHA256 (hex) and Content-Digest
    (RFC 9530) are its hash, and the bill's `csv_sha256`. Every text begins with a backtick.
    """
    here = wired()
    with snapshot(here.engine) as tx:
        number, bill, terms = _found(tx, day, preview=args["preview"] == "true")
    made = Response(_csv(here.engine, g.merchant.id, number, terms), content_type=_CSV)
    if bill is not None:
        digest = b64encode(bill.csv_sha256).decode()
        made.headers["X-Content-SHA256"] = bill.csv_sha256.hex()
        made.headers["Content-Digest"] = f"sha-256=:{digest}:"
    return _file(made, f"puhui-{g.merchant.code}-{day}.csv")


@blp.serve(
    "GET",
    "/bills/<day>.xlsx",
    gives=_BINARY,
    media=_XLSX,
    guard=head_office,
    query=forms.PreviewArgs,
)
def get_bill_xlsx(args: dict[str, Any], day: str) -> Response:
    """日账单 XLSX · The same as a workbook: by store and kind, with names, and the documents."""
    with snapshot(wired().engine) as tx:
        number, bill, terms = _found(tx, day, preview=args["preview"] == "true")
        table = forms.table(bills.sums(tx, g.merchant.id, number), terms)
        facts = forms.facts(g.merchant.code, number, bill, terms)
        rows = bills.rows(tx, g.merchant.id, number)

        def write(file: IO[bytes]) -> None:
            workbook(file, facts, table, rows, terms.milli_fen_per_point)

        return _workbook(write, f"puhui-{g.merchant.code}-{day}.xlsx")


@blp.serve("GET", "/statements/<month>", gives=forms.MerchantStatementSchema, guard=head_office)
def get_statement(month: str) -> Response:
    """月结单 · A month by store: redeemed, returned, owed, paid; as far as its days are closed."""
    number = _month(month)
    with snapshot(wired().engine) as tx:
        made = statement(tx, g.merchant.id, number)
    return answer(
        {
            "month": month,
            "total": forms.part_of_month(made.total),
            "stores": [forms.store_of_month(one) for one in made.stores],
            "bills": [forms.bill_shown(one) for one in made.bills],
        }
    )


@blp.serve(
    "GET",
    "/statements/<month>.xlsx",
    gives=_BINARY,
    media=_XLSX,
    guard=head_office,
)
def get_statement_xlsx(month: str) -> Response:
    """月结单 XLSX · The same as a workbook."""
    number = _month(month)
    with snapshot(wired().engine) as tx:
        made = statement(tx, g.merchant.id, number)
    name = made.bills[0].name if made.bills else g.merchant.code
    file_name = f"puhui-{g.merchant.code}-{month}.xlsx"
    return _workbook(lambda file: write_statement(file, made, name, number), file_name)


@blp.serve(
    "POST",
    "/bills/<day>/differences",
    gives=forms.BillDifferencesSchema,
    guard=head_office,
    body=forms.DifferencesArgs,
)
def post_differences(args: dict[str, Any], day: str) -> Response:
    """账单差异 · Say where your books differ from a bill: each document is compared at once, and
    what does not match opens a case. The same `out_no` again gets the same answer."""
    here, merchant, number = wired(), g.merchant.id, day_of(day)
    asked = received()
    digest = here.vault.mark(f"difference {asked.path_query}\0{asked.body.hex()}", 32)
    claims = [forms.claim_of(one) for one in args["items"]]

    def work(tx: Connection) -> Answer:
        now, out_no = here.clock(), args["out_no"]
        answered, case = report_differences(tx, merchant, number, out_no, claims, now)
        items = [forms.answered_shown(one) for one in answered]
        body = {"out_no": out_no, "date": calendar_day(number), "items": items, "case_id": case}
        return Answer(200, orjson.dumps(body))

    repeat = Repeat(g.caller, f"difference {args['out_no']}", digest)
    try:
        given = once(here.engine, here.vault, repeat, here.clock(), work)
    except KeyReusedError:
        detail = f"out_no {args['out_no']} named another report before; make a new one"
        raise Problem("REQUEST_NO_REUSED", detail) from None
    return answer(orjson.loads(given.body), given.status)


def month_of(day: date) -> int:
    """The month YYYYMM of a date."""
    return day.year * 100 + day.month


def _found(tx: Connection, day: str, *, preview: bool) -> tuple[int, Bill | None, Terms]:
    """A day, its bill (None: it is a preview of one), and the terms it goes by."""
    number, today = day_of(day), day_number(wired().clock().astimezone(CITY_ZONE).date())
    bill = settlement.find(tx, g.merchant.id, number)
    if bill is not None:
        return number, bill, bill.terms
    over = number <= bills.closed(tx)
    if number > today or (over and not bills.sums(tx, g.merchant.id, number)):
        raise BillError("BILL_UNKNOWN", f"you have no documents of {day}, and so no bill")
    if over or not preview:
        detail = f"the bill of {day} is made after midnight; until then ask with preview=true"
        raise BillError("BILL_NOT_CLOSED", detail)
    return number, None, settlement.terms(tx, g.merchant.id, end_of(number))


def day_of(text: str) -> int:
    """The day YYYYMMDD that an address names. Raises Problem NOT_FOUND."""
    try:
        found = date.fromisoformat(text) if re.fullmatch(r"2[0-9]{3}(-[0-9]{2}){2}", text) else None
    except ValueError:
        found = None
    if found is None:
        raise Problem("NOT_FOUND", "a day is written YYYY-MM-DD")
    return day_number(found)


def _month(text: str) -> int:
    if not re.fullmatch(forms.MONTH, text):
        raise Problem("NOT_FOUND", "a month is written YYYY-MM")
    return int(text[:4]) * 100 + int(text[5:])


def _csv(engine: Engine, merchant: str, day: int, terms: Terms) -> Iterator[bytes]:
    """The file, read while it is sent: in a transaction that ends with the answer."""
    with engine.connect() as tx:
        yield from csv_of(bills.rows(tx, merchant, day), terms.milli_fen_per_point, Tally())


def _workbook(write: Callable[[IO[bytes]], None], name: str) -> Response:
    file = TemporaryFile()  # noqa: SIM115 (the answer closes it)
    write(file)
    file.seek(0)
    made = Response(_pieces(file), content_type=_XLSX)
    made.call_on_close(file.close)  # also if nobody reads it to its end
    return _file(made, name)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _file(made: Response, name: str) -> Response:
    made.headers["Cache-Control"] = "no-store"
    made.headers["Content-Disposition"] = f"attachment; filename={name}"
    return made
