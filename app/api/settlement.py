"""For operators: merchants' bills, which of them are settled, and the sum over all of them."""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api import bill_forms as forms
from app.api.bills import day_of, month_of
from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    answer_once,
    bad_cursor,
    calendar_day,
    cursor_of,
    line,
    page,
    place_of,
)
from app.auth import admin
from app.config import CITY_ZONE
from app.flows.bill.pay import pay
from app.flows.bill.statement import days_of
from app.store import settlement
from app.store.db import one_statement, snapshot
from app.store.settlement import Bill, MerchantSum, Position, Total, Wanted
from app.wiring import wired

_LAST = 99991231

blp = Blueprint(
    "settlement",
    __name__,
    url_prefix="/api/v1/admin",
    description="结算：各商户账单、付款登记、总账核对。Bills of all merchants, payments, the sum.",
)


class SettlementArgs(PageArgs):
    """Which month; this one if none is named."""

    month = forms.Month()


class BillPaySchema(ma.Schema):
    """By what a bill was settled: the number of a transfer or of a decision. Several bills may name
    the same one."""

    reference = ma.fields.String(required=True, validate=[line(100), forms.printable])


class MerchantBillSchema(forms.BillSchema):
    """A bill, and whose it is."""

    merchant = ma.fields.String(required=True)
    name = ma.fields.String(required=True)


class MerchantBillsSchema(ma.Schema):
    """A page of bills, the newest day first."""

    items = ma.fields.List(ma.fields.Nested(MerchantBillSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class SettlementTotalSchema(ma.Schema):
    """What bills come to."""

    bills = ma.fields.String(required=True)
    points = ma.fields.String(required=True)
    owed_milli_fen = ma.fields.String(required=True)
    paid_milli_fen = ma.fields.String(required=True)


class SettlementMerchantSchema(SettlementTotalSchema):
    """The same of one merchant."""

    merchant = ma.fields.String(required=True)
    name = ma.fields.String(required=True)


class SettlementCheckSchema(ma.Schema):
    """Both books, since ever: points on bills and on lines to be billed, and points redeemed by the
    ledger. `equal` is true, always; `closed_date` is the last day whose lines are all in."""

    closed_date = ma.fields.String(required=True)
    billed_points = ma.fields.String(required=True)
    open_points = ma.fields.String(required=True)
    ledger_points = ma.fields.String(required=True)
    difference_points = ma.fields.String(required=True)
    equal = ma.fields.Boolean(required=True)


class SettlementSchema(ma.Schema):
    """A month over all merchants, a page of them by code, and whether it equals the ledger."""

    month = ma.fields.String(required=True)
    total = ma.fields.Nested(SettlementTotalSchema, required=True)
    check = ma.fields.Nested(SettlementCheckSchema, required=True)
    items = ma.fields.List(ma.fields.Nested(SettlementMerchantSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


@blp.serve(
    "GET",
    "/bills",
    gives=MerchantBillsSchema,
    guard=admin("operator", "auditor"),
    query=forms.PagedBillsArgs,
)
def list_all_bills(args: dict[str, Any]) -> Response:
    """商户账单 · Bills of a month, the newest day first; of one merchant, or those not paid yet."""
    limit, paid = args["limit"], args.get("paid")
    wanted = Wanted(
        *days_of(_month(args)), args.get("merchant"), None if paid is None else paid == "true"
    )
    with one_statement(wired().engine) as tx:
        found = settlement.newest(tx, wanted, _place(args.get("cursor")), limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = last and cursor_of(f"{last.day} {last.code}")
    return answer(page([_bill(one) for one in found[:limit]], more))


@blp.serve(
    "POST",
    "/bills/<merchant>/<day>/pay",
    gives=MerchantBillSchema,
    guard=admin("operator"),
    body=BillPaySchema,
    repeat=True,
)
def post_pay(args: dict[str, Any], merchant: str, day: str) -> Response:
    """登记付款 · Note that a bill was settled; what was on credit may then be redeemed again."""
    here, who, number = wired(), g.admin.name, day_of(day)

    def work(tx: Connection) -> dict[str, Any]:
        now = here.clock()
        return _bill(pay(tx, here.vault, who, merchant, number, args["reference"], now))

    return answer_once(work)


@blp.serve(
    "GET",
    "/settlement",
    gives=SettlementSchema,
    guard=admin("operator", "auditor"),
    query=SettlementArgs,
)
def get_settlement(args: dict[str, Any]) -> Response:
    """结算总览 · A month over all merchants, and whether all bills ever equal the ledger."""
    limit, month = args["limit"], _month(args)
    first, last = days_of(month)
    with snapshot(wired().engine) as tx:
        total = settlement.total(tx, first, last)
        check = settlement.position(tx)
        after = place_of(args.get("cursor")) or ""
        found = settlement.by_merchant(tx, first, last, after, limit + 1)
    more = cursor_of(found[limit - 1].code) if len(found) > limit else None
    return answer(
        {
            "month": f"{month // 100:04d}-{month % 100:02d}",
            "total": _total(total),
            "check": _check(check),
            **page([_merchant(one) for one in found[:limit]], more),
        }
    )


def _month(args: dict[str, Any]) -> int:
    return args.get("month") or month_of(wired().clock().astimezone(CITY_ZONE).date())


def _place(cursor: str | None) -> tuple[int, str]:
    place = place_of(cursor)
    if place is None:
        return _LAST, ""
    found = re.fullmatch(r"([0-9]{8}) ([a-z0-9-]{1,31})", place)
    if not found:
        raise bad_cursor()
    return int(found[1]), found[2]


def _bill(one: Bill) -> dict[str, Any]:
    return {"merchant": one.code, "name": one.name, **forms.bill_shown(one)}


def _total(one: Total | MerchantSum) -> dict[str, str]:
    return {
        "bills": str(one.bills),
        "points": str(one.points),
        "owed_milli_fen": str(one.milli_fen),
        "paid_milli_fen": str(one.paid_milli_fen),
    }


def _merchant(one: MerchantSum) -> dict[str, str]:
    return {"merchant": one.code, "name": one.name, **_total(one)}


def _check(one: Position) -> dict[str, Any]:
    return {
        "closed_date": calendar_day(one.closed),
        "billed_points": str(one.billed_points),
        "open_points": str(one.open_points),
        "ledger_points": str(one.ledger_points),
        "difference_points": str(one.difference_points),
        "equal": one.difference_points == 0,
    }
