"""Bills on the wire: what is asked, and how a bill, its parts and a month are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

import marshmallow as ma

from app.api.wire import PageArgs, Pattern, calendar_day, stamp
from app.flows.bill.difference import CLAIMS, Answered, Claim, shown
from app.flows.bill.write import yuan
from app.store.bills import Sum
from app.store.settlement import Bill, StoreMonth, Terms

MONTH: Final = r"2[0-9]{3}-(0[1-9]|1[0-2])"
MAX_DIFFERENCES: Final = 100
UNPAID: Final = {"reference": None, "paid_at": None, "paid_date": None}
_KINDS: Final = ("charge", "refund", "reverse", "order", "void", "lapse")
_OUTCOMES: Final = ("matches", "differs", "unknown")


class Month(ma.fields.String):
    """A month written YYYY-MM, as the number YYYYMM."""

    def __init__(self, **more: Any) -> None:
        super().__init__(validate=Pattern(f"^{MONTH}$", error="must be a month YYYY-MM"), **more)

    def deserialize(self, *args: Any, **more: Any) -> Any:
        value = super().deserialize(*args, **more)
        return int(value.replace("-", "")) if isinstance(value, str) else value


class MonthArgs(ma.Schema):
    """Which month; this one if none is named."""

    month = Month()


class PreviewArgs(ma.Schema):
    """Whether a day that is not closed yet may be shown as it stands."""

    preview = ma.fields.String(load_default="false", validate=ma.validate.OneOf(["true", "false"]))


def printable(value: str) -> None:
    """Refuse what cannot be printed, as the ledger does."""
    if not value.isprintable():
        raise ma.ValidationError("must hold printable characters only")


def _no_numbers(value: str) -> None:
    if not value.isprintable() or re.search(r"[0-9]{11}", value):
        raise ma.ValidationError(
            "must be printable, and hold no run of 11 digits: name no person, and documents only"
            " in number"
        )


class DifferenceArgs(ma.Schema):
    """A document on which your books and the bill differ."""

    number = ma.fields.String(required=True, validate=Pattern("^[A-Za-z0-9_-]{1,64}$"))
    claim = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(CLAIMS),
        metadata={
            "description": "missing: the bill lacks it; extra: your books lack it; amount: your"
            " books say other points"
        },
    )
    points = ma.fields.String(
        validate=Pattern("^-?[1-9][0-9]{0,14}$", error="must be a whole number, as text"),
        metadata={"description": "by your books, negative if given back; not with extra"},
    )
    text = ma.fields.String(load_default="", validate=[ma.validate.Length(max=200), _no_numbers])

    @ma.validates_schema
    def _points_where_claimed(self, data: dict[str, Any], **_: Any) -> None:
        if ("points" in data) == (data.get("claim") == "extra"):
            raise ma.ValidationError(
                "is needed, unless claim is extra: then leave it out", "points"
            )


class DifferencesArgs(ma.Schema):
    """A report of differences, under a number of your own."""

    out_no = ma.fields.String(required=True, validate=Pattern("^[A-Za-z0-9_-]{8,64}$"))
    items = ma.fields.List(
        ma.fields.Nested(DifferenceArgs),
        required=True,
        validate=ma.validate.Length(1, MAX_DIFFERENCES),
    )


class BillTermsSchema(ma.Schema):
    """What is paid by: the contract's number, who pays for the points, and the price."""

    contract = ma.fields.Integer(required=True)
    payer = ma.fields.String(required=True, validate=ma.validate.OneOf(["city", "merchant"]))
    mode = ma.fields.String(required=True, validate=ma.validate.OneOf(["prepaid", "postpaid"]))
    fen_per_100_points = ma.fields.Integer(required=True)


class BillSumSchema(ma.Schema):
    """Documents summed up; points that were given back count negative."""

    lines = ma.fields.String(required=True)
    points = ma.fields.String(required=True)


class BillOwedSchema(BillSumSchema):
    """The same with what is owed for it, in thousandths of a fen."""

    amount_milli_fen = ma.fields.String(required=True)


class BillSchema(BillOwedSchema):
    """A day's bill. `csv_sha256` is the hash of its CSV."""

    date = ma.fields.String(required=True)
    terms = ma.fields.Nested(BillTermsSchema, required=True)
    csv_sha256 = ma.fields.String(required=True, allow_none=True)
    closed_at = ma.fields.String(required=True, allow_none=True)
    closed_date = ma.fields.String(required=True, allow_none=True)
    reference = ma.fields.String(required=True, allow_none=True)
    paid_at = ma.fields.String(required=True, allow_none=True)
    paid_date = ma.fields.String(required=True, allow_none=True)


class BillsSchema(ma.Schema):
    """The bills of a month."""

    items = ma.fields.List(ma.fields.Nested(BillSchema), required=True)


class BillStoreSchema(BillSumSchema):
    """One store's part; `store` is empty for what belongs to none, such as orders."""

    store = ma.fields.String(required=True)
    name = ma.fields.String(required=True)


class BillKindSchema(BillSumSchema):
    """One kind's part."""

    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(_KINDS))


class BillDaySchema(BillSchema):
    """A day's bill, or how it stands while the day is open, with its parts."""

    state = ma.fields.String(required=True, validate=ma.validate.OneOf(["open", "closed"]))
    stores = ma.fields.List(ma.fields.Nested(BillStoreSchema), required=True)
    kinds = ma.fields.List(ma.fields.Nested(BillKindSchema), required=True)


class StatementSumSchema(ma.Schema):
    """What a month comes to: redeemed and returned points, their difference, and the money."""

    lines = ma.fields.String(required=True)
    redeemed_points = ma.fields.String(required=True)
    returned_points = ma.fields.String(required=True)
    net_points = ma.fields.String(required=True)
    owed_milli_fen = ma.fields.String(required=True)
    paid_milli_fen = ma.fields.String(required=True)


class StatementStoreSchema(StatementSumSchema):
    """The same of one store; `store` is empty for what belongs to none."""

    store = ma.fields.String(required=True)
    name = ma.fields.String(required=True)


class MerchantStatementSchema(ma.Schema):
    """A month by store, and its bills."""

    month = ma.fields.String(required=True)
    total = ma.fields.Nested(StatementSumSchema, required=True)
    stores = ma.fields.List(ma.fields.Nested(StatementStoreSchema), required=True)
    bills = ma.fields.List(ma.fields.Nested(BillSchema), required=True)


class BillDocumentSchema(ma.Schema):
    """A document that we have, and the day whose bill has it."""

    date = ma.fields.String(required=True)
    kind = ma.fields.String(required=True, validate=ma.validate.OneOf(_KINDS))
    points = ma.fields.String(required=True)


class BillDifferenceSchema(ma.Schema):
    """What became of a claim; unknown if nothing near that day has its number."""

    number = ma.fields.String(required=True)
    claim = ma.fields.String(required=True, validate=ma.validate.OneOf(CLAIMS))
    outcome = ma.fields.String(required=True, validate=ma.validate.OneOf(_OUTCOMES))
    ours = ma.fields.List(ma.fields.Nested(BillDocumentSchema), required=True)


class BillDifferencesSchema(ma.Schema):
    """Each claim's answer, in order, and the case that those opened which do not match."""

    out_no = ma.fields.String(required=True)
    date = ma.fields.String(required=True)
    items = ma.fields.List(ma.fields.Nested(BillDifferenceSchema), required=True)
    case_id = ma.fields.String(required=True, allow_none=True)


class PagedBillsArgs(PageArgs):
    """Which bills: of a month (this one if none is named), a merchant, paid or not."""

    month = Month()
    merchant = ma.fields.String(
        validate=ma.validate.Length(1, 31), metadata={"description": "a merchant's code"}
    )
    paid = ma.fields.String(validate=ma.validate.OneOf(["true", "false"]))


def sums_shown(day: int, terms: Terms, lines: int, points: int, amount: int) -> dict[str, Any]:
    """What a bill says of a day that is open: all but its hash, which it gets when it closes."""
    return {
        "date": calendar_day(day),
        "terms": terms._asdict(),
        "lines": str(lines),
        "points": str(points),
        "amount_milli_fen": str(amount),
        "csv_sha256": None,
        "closed_at": None,
        "closed_date": None,
    }


def bill_shown(one: Bill) -> dict[str, Any]:
    """A bill as its merchant sees it."""
    paid = {} if one.paid_at is None else {"reference": one.reference, **stamp("paid", one.paid_at)}
    return {
        **sums_shown(one.day, one.terms, one.lines, one.points, one.milli_fen),
        "csv_sha256": one.csv_sha256.hex(),
        **stamp("closed", one.closed_at),
        **UNPAID,
        **paid,
    }


def parts_shown(sums: Sequence[Sum]) -> dict[str, Any]:
    """A day by store, and by kind."""
    names = {one.store: one.name for one in sums}
    return {
        "stores": [
            {"store": store, "name": name, **_sum(one for one in sums if one.store == store)}
            for store, name in names.items()
        ],
        "kinds": [
            {"kind": kind, **_sum(one for one in sums if one.kind == kind)}
            for kind in _KINDS
            if any(one.kind == kind for one in sums)
        ],
    }


def _sum(sums: Iterator[Sum]) -> dict[str, str]:
    own = list(sums)
    return {
        "lines": str(sum(one.lines for one in own)),
        "points": str(sum(one.points for one in own)),
    }


def facts(code: str, day: int, bill: Bill | None, terms: Terms) -> list[tuple[str, str]]:
    """The head of a day's workbook."""
    payer = "城市 city" if terms.payer == "city" else "商户 merchant"
    return [
        ("商户 merchant", bill.name if bill else code),
        ("商户代码 code", code),
        ("日期 date", calendar_day(day)),
        ("状态 state", "已关账 closed" if bill else "未关账，仅供预览 open, a preview"),
        ("合同 contract", str(terms.contract)),
        ("付款方 payer", payer),
        ("每百积分(分) fen per 100 points", str(terms.fen_per_100_points)),
        ("CSV SHA-256", bill.csv_sha256.hex() if bill else ""),
    ]


def table(sums: Sequence[Sum], terms: Terms) -> list[tuple[str | int | Decimal, ...]]:
    """A day's workbook by store and kind."""
    head = (
        "门店 store",
        "名称 name",
        "类型 kind",
        "单数 documents",
        "积分 points",
        "金额(元) amount",
    )
    rows = [(*one, Decimal(yuan(one.points * terms.milli_fen_per_point))) for one in sums]
    return [head, *rows]


def part_of_month(one: StoreMonth) -> dict[str, str]:
    """A month's figures."""
    return {
        "lines": str(one.lines),
        "redeemed_points": str(one.redeemed_points),
        "returned_points": str(one.returned_points),
        "net_points": str(one.redeemed_points - one.returned_points),
        "owed_milli_fen": str(one.milli_fen),
        "paid_milli_fen": str(one.paid_milli_fen),
    }


def store_of_month(one: StoreMonth) -> dict[str, str]:
    """The same, of a store."""
    return {"store": one.store, "name": one.name, **part_of_month(one)}


def claim_of(given: dict[str, Any]) -> Claim:
    """A difference as it was reported."""
    points = int(given["points"]) if "points" in given else None
    return Claim(given["number"], given["claim"], points, given["text"])


def answered_shown(one: Answered) -> dict[str, Any]:
    """What became of a difference."""
    ours = [shown(known) for known in one.ours]
    return {
        "number": one.claim.number,
        "claim": one.claim.claim,
        "outcome": one.outcome,
        "ours": ours,
    }
