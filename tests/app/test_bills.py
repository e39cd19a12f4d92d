"""What a merchant reads of its bills: days, months, files, and where its own books differ."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from base64 import b64encode
from hashlib import sha256
from itertools import count
from xml.etree import ElementTree

import pytest

from app.flows.bill import write
from app.flows.bill.close import close_days
from app.flows.bill.write import HEAD, TOTAL, Tally, csv_of, workbook, yuan
from app.flows.partner.contract import agree
from app.store.bills import Row
from app.store.merchants import Contract

SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
DAY, NEXT = "2026-11-22", "2026-11-23"
_numbers = count()


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


def sheets_of(body):
    """An XLSX file's sheets by name: rows of texts and numbers, read as XML."""
    with zipfile.ZipFile(io.BytesIO(body)) as book:
        names = [
            one.get("name")
            for one in ElementTree.fromstring(book.read("xl/workbook.xml")).iter(f"{SHEET}sheet")
        ]
        return {
            name: [
                [_cell(cell) for cell in row.iter(f"{SHEET}c")]
                for row in ElementTree.fromstring(
                    book.read(f"xl/worksheets/sheet{number}.xml")
                ).iter(f"{SHEET}row")
            ]
            for number, name in enumerate(names, 1)
        }


def _cell(cell):
    text = cell.find(f"{SHEET}is/{SHEET}t")
    if cell.get("t") == "inlineStr":
        return (text.text or "") if text is not None else ""
    assert cell.find(f"{SHEET}f") is None, "no cell is a formula"
    return float(cell.find(f"{SHEET}v").text)


def rows_of(body):
    """A CSV's rows, as any reader of CSV has them."""
    text = body.decode("utf-8-sig")
    assert body.startswith(b"\xef\xbb\xbf")
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    return list(csv.reader(io.StringIO(text, newline="")))


@pytest.fixture
def sell(shop, buyer):
    """sell(30): the shop's till t1 takes 30 points; the number it went by."""
    somebody = buyer(10_000)

    def charge(points, at=shop, till="t1"):
        number = f"sale-{next(_numbers):06d}"
        shown = somebody.post("pay-code", {}).get_json()["code"]
        document = {"out_request_no": number, "code": shown, "points": str(points), "till": till}
        answer = at.post("charges", document)
        assert answer.get_json()["state"] == "succeeded", answer.text
        return number

    return charge


@pytest.fixture
def give_back(shop):
    """give_back("sale-1", 10); the number it went by."""

    def refund(charge, points, at=shop):
        number = f"back-{next(_numbers):06d}"
        document = {"out_refund_no": number, "out_request_no": charge, "points": str(points)}
        answer = at.post("refunds", document | {"reason": "退货"})
        assert answer.get_json()["state"] == "succeeded", answer.text
        return number

    return refund


@pytest.fixture
def close(city):
    """Let the night pass and close what is over."""

    def night(days=1):
        city.clock.move(days=days)
        return close_days(city.engine, city.vault, city.clock())

    return night


@pytest.fixture
def day(sell, give_back, close):
    """A day that is closed: 30 and 20 points taken, 5 of them given back; their numbers."""
    first, second = sell(30), sell(20, till="t2")
    numbers = first, second, give_back(first, 5)
    assert close() == 20261122
    return numbers


def test_the_next_morning_there_is_a_bill_with_a_row_a_document_and_a_sum(shop, day):
    (listed,) = shop.get("bills").get_json()["items"]
    bill = shop.get(f"bills/{DAY}").get_json()
    assert listed.items() <= bill.items()
    assert (bill["date"], bill["state"], bill["lines"], bill["points"]) == (
        DAY,
        "closed",
        "3",
        "45",
    )
    assert bill["terms"] == {
        "contract": 1,
        "payer": "city",
        "mode": "postpaid",
        "fen_per_100_points": 100,
    }
    assert bill["amount_milli_fen"] == str(45 * 1000)
    assert bill["stores"] == [{"store": "s1", "name": "一店", "lines": "3", "points": "45"}]
    assert bill["kinds"] == [
        {"kind": "charge", "lines": "2", "points": "50"},
        {"kind": "refund", "lines": "1", "points": "-5"},
    ]
    assert bill["reference"] is bill["paid_at"] is None
    assert bill["closed_at"].startswith(NEXT)


def test_the_csv_reads_anywhere_and_its_hash_is_the_bills(shop, day):
    bill = shop.get(f"bills/{DAY}").get_json()
    answer = shop.get(f"bills/{DAY}.csv")
    assert answer.content_type == "text/csv; charset=utf-8"
    digest = sha256(answer.data)
    assert answer.headers["X-Content-SHA256"] == digest.hexdigest() == bill["csv_sha256"]
    wanted = f"sha-256=:{b64encode(digest.digest()).decode()}:"
    assert answer.headers["Content-Digest"] == wanted
    assert answer.headers["Content-Disposition"] == f"attachment; filename=puhui-noodles-{DAY}.csv"
    head, *documents, total = rows_of(answer.data)
    assert tuple(head) == HEAD
    for row, number, kind, origin, till, points in zip(
        documents,
        day,
        ("charge", "charge", "refund"),
        ("", "", f"`{day[0]}"),
        ("`t1", "`t2", "`t1"),
        (30, 20, -5),
        strict=True,
    ):
        assert row[:6] == ["`2026-11-22 12:00:00", f"`{kind}", f"`{number}", origin, "`s1", till]
        assert re.fullmatch("`[0-9a-f]{32}", row[6])
        assert row[7:] == [str(points), yuan(points * 1000)]
    assert total == [f"`{TOTAL}", "`3", "", "", "", "", "", "45", "0.4500"]


def test_the_csv_of_a_closed_day_stays_the_same_bytes_whatever_happens(
    shop, day, sell, give_back, close, city
):
    before = shop.get(f"bills/{DAY}.csv").data
    shop.put("stores/s1", {"name": "改名", "district": "140403", "address": "x", "open": True})
    with city.engine.begin() as tx:
        dear = Contract(0, "city", "postpaid", 500, 200_000, 0, "dearer", city.clock())
        agree(tx, city.vault, "olga", shop.code, None, dear, city.clock())
    late = give_back(day[0], 7)
    sell(11)
    close()
    assert shop.get(f"bills/{DAY}.csv").data == before
    bill = shop.get(f"bills/{NEXT}").get_json()
    assert bill["terms"]["contract"] == 2
    assert (bill["points"], bill["amount_milli_fen"]) == ("4", str(4 * 5000))
    assert late in shop.get(f"bills/{NEXT}.csv").text


def test_the_workbook_has_the_same_documents_with_names(shop, day):
    answer = shop.get(f"bills/{DAY}.xlsx")
    assert "spreadsheetml" in answer.content_type
    book = sheets_of(answer.data)
    summary, documents = book["汇总 summary"], book["明细 documents"]
    assert ["商户 merchant", "noodles 面馆"] in summary
    assert ["s1", "一店", "charge", 2.0, 50.0, 0.5] in summary
    bare = [[cell.removeprefix("`") for cell in row] for row in rows_of(
        shop.get(f"bills/{DAY}.csv").data
    )]  # fmt: skip
    assert documents[0] == bare[0]
    for row, wanted in zip(documents[1:], bare[1:], strict=True):
        assert row[:7] == wanted[:7]
        assert row[7:] == [float(cell) for cell in wanted[7:]]


def test_a_day_that_is_not_closed_is_shown_as_a_preview_only(shop, sell, close):
    sell(30)
    assert code_of(shop.get(f"bills/{DAY}")) == (409, "BILL_NOT_CLOSED")
    assert code_of(shop.get(f"bills/{DAY}.csv")) == (409, "BILL_NOT_CLOSED")
    bill = shop.get(f"bills/{DAY}?preview=true").get_json()
    assert (bill["state"], bill["points"], bill["csv_sha256"]) == ("open", "30", None)
    assert bill["amount_milli_fen"] == "30000"
    preview = shop.get(f"bills/{DAY}.csv?preview=true")
    assert "X-Content-SHA256" not in preview.headers
    assert rows_of(preview.data)[-1][7] == "30"
    assert shop.get(f"bills/{DAY}.xlsx?preview=true").status_code == 200
    close()
    assert shop.get(f"bills/{DAY}?preview=true").get_json()["state"] == "closed"
    assert shop.get(f"bills/{DAY}.csv").data == preview.data


def test_no_documents_no_bill_and_nobody_elses(shop, day, open_shop):
    for path in ("2026-11-21", "2026-12-01", "2026-11-21.csv", "2027-01-01.xlsx"):
        assert code_of(shop.get(f"bills/{path}")) == (404, "BILL_UNKNOWN")
    for path in ("2026-13-01", "20261122", "2026-11-22.pdf", "2026-W47-7.csv", "x"):
        assert code_of(shop.get(f"bills/{path}")) == (404, "NOT_FOUND")
    other = open_shop("tea")
    assert other.get("bills").get_json()["items"] == []
    assert code_of(other.get(f"bills/{DAY}.csv")) == (404, "BILL_UNKNOWN")
    assert shop.get("bills?month=2026-10").get_json()["items"] == []
    assert code_of(shop.get("bills?month=2026-13")) == (422, "VALIDATION_FAILED")


def test_a_tills_own_key_reads_no_bills(shop, day):
    assert code_of(shop.key_of("t1").get(f"bills/{DAY}")) == (403, "TILL_NOT_YOURS")


def test_a_month_is_summed_up_by_store(shop, day, sell, close, desk):
    sell(8)
    close()
    office = desk("operator")
    assert office.post(f"bills/noodles/{DAY}/pay", {"reference": "transfer 1"}).status_code == 200
    month = shop.get("statements/2026-11").get_json()
    figures = {
        "lines": "4",
        "redeemed_points": "58",
        "returned_points": "5",
        "net_points": "53",
        "owed_milli_fen": "53000",
        "paid_milli_fen": "45000",
    }
    assert month["total"] == figures
    assert month["stores"] == [{"store": "s1", "name": "一店", **figures}]
    assert [(one["date"], one["reference"]) for one in month["bills"]] == [
        (DAY, "transfer 1"),
        (NEXT, None),
    ]
    book = sheets_of(shop.get("statements/2026-11.xlsx").data)
    assert book["门店 stores"][-1] == [TOTAL, "", 4.0, 58.0, 5.0, 53.0, "0.5300", "0.4500"]
    assert [row[0] for row in book["账单 bills"][1:]] == [DAY, NEXT]
    nothing = shop.get("statements/2026-10").get_json()
    assert (nothing["total"]["lines"], nothing["stores"], nothing["bills"]) == ("0", [], [])
    assert code_of(shop.get("statements/2026-00")) == (404, "NOT_FOUND")


def test_an_order_is_on_the_bill_at_no_store(shop, buyer, on_offer, close):
    reward, somebody = on_offer(), buyer(1000)
    order = somebody.post("orders", {"reward": reward, "quantity": 1}).get_json()
    assert somebody.post(f"orders/{order['id']}/confirm").status_code == 200
    close()
    bill = shop.get(f"bills/{DAY}").get_json()
    assert [one["kind"] for one in bill["kinds"]] == ["order"]
    assert [one["store"] for one in bill["stores"]] == [""]
    assert rows_of(shop.get(f"bills/{DAY}.csv").data)[1][4:6] == ["", ""]


def test_nothing_that_a_merchant_names_becomes_a_formula_or_a_number():
    at = "2026-11-22 09:30:00"
    nasty = ("=1+1", "+86", "-5", "@SUM(A1)", '"a",b', "0012345678901234567890", "a\r\nb", "\t=1")
    rows = [Row(at, "charge", text, text, "s1", "", "e" * 32, 7) for text in nasty]
    body = b"".join(csv_of(rows, 1230, Tally()))
    documents = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")))[1:-1]
    assert [row[2] for row in documents] == [f"`{text}" for text in nasty]
    assert all(cell[:1] in ("`", "") for row in documents for cell in row[:7])
    assert documents[0][8] == "0.0861"
    made = io.BytesIO()
    workbook(made, [], [], rows, 1230)
    cells = [row[2] for row in sheets_of(made.getvalue())["明细 documents"][1:-1]]
    escaped = "a_x000D_\nb"  # how a workbook keeps a carriage return (ECMA-376 22.9.2.19)
    assert cells == [escaped if "\r" in text else text for text in nasty]


def test_amounts_are_exact():
    assert yuan(0) == "0.0000"
    assert yuan(10) == "0.0001"
    assert yuan(-1_234_567_890) == "-12345.6789"
    rows = [Row("2026-11-22 09:30:00", "charge", "n", "", "", "", "e" * 32, 1)] * 2001
    pieces = list(csv_of(rows, 10, Tally()))
    assert len(pieces) == 3
    assert pieces[-1].endswith(b",2001,0.2001\r\n")


def report(shop, *items, out_no="", day=DAY):
    out_no = out_no or f"diff-{next(_numbers):06d}"
    return shop.post(f"bills/{day}/differences", {"out_no": out_no, "items": list(items)})


def test_differences_are_compared_at_once_and_what_differs_becomes_a_case(shop, day, desk):
    first, second, refund = day
    answer = report(
        shop,
        {"number": first, "claim": "missing", "points": "30"},
        {"number": second, "claim": "amount", "points": "21"},
        {"number": refund, "claim": "extra", "text": "没有这笔退款"},
        {"number": "never-heard-of", "claim": "missing", "points": "9"},
        {"number": "never-heard-of", "claim": "extra"},
    ).get_json()
    outcomes = [one["outcome"] for one in answer["items"]]
    assert outcomes == ["matches", "differs", "differs", "unknown", "matches"]
    assert answer["items"][1]["ours"] == [{"date": DAY, "kind": "charge", "points": "20"}]
    assert answer["items"][3]["ours"] == []
    found = desk("reviewer").get(f"cases/{answer['case_id']}").get_json()
    assert (found["kind"], found["merchant"], found["times"]) == ("difference", "noodles", "1")
    assert [one["outcome"] for one in found["facts"]["items"]] == ["differs", "differs", "unknown"]
    (own,) = shop.get("cases").get_json()["items"]
    assert own["id"] == answer["case_id"]


def test_where_all_matches_there_is_no_case(shop, day):
    answer = report(shop, {"number": day[0], "claim": "amount", "points": "30"}).get_json()
    assert answer["case_id"] is None
    assert shop.get("cases").get_json()["items"] == []


def test_a_document_of_the_day_before_is_told_with_its_day(shop, day, sell, close):
    sell(1)
    close()
    lost = {"number": day[0], "claim": "missing", "points": "30"}
    (item,) = report(shop, lost, day=NEXT).get_json()["items"]
    assert item["outcome"] == "differs"
    assert item["ours"] == [{"date": DAY, "kind": "charge", "points": "30"}]


def test_a_report_sent_again_has_the_same_answer_and_its_number_names_no_other(shop, day, city):
    item = {"number": day[0], "claim": "amount", "points": "31"}
    first = report(shop, item, out_no="diff-again").get_json()
    assert report(shop, item, out_no="diff-again").get_json() == first
    other = report(shop, item | {"points": "32"}, out_no="diff-again")
    assert code_of(other) == (409, "REQUEST_NO_REUSED")
    (case,) = shop.get("cases").get_json()["items"]
    assert case["times"] == "1"


def test_no_difference_is_reported_of_a_day_that_is_open(shop, sell):
    item = {"number": sell(5), "claim": "extra"}
    assert code_of(report(shop, item)) == (409, "BILL_NOT_CLOSED")


@pytest.mark.parametrize(
    "item",
    [
        {"number": "sale-1", "claim": "missing"},
        {"number": "sale-1", "claim": "extra", "points": "5"},
        {"number": "sale-1", "claim": "wrong", "points": "5"},
        {"number": "sale-1", "claim": "amount", "points": "0"},
        {"number": "sale-1", "claim": "amount", "points": 5},
        {"number": "", "claim": "extra"},
        {"number": "sale-1", "claim": "extra", "text": "call 13900000000"},
        {"number": "sale-1", "claim": "extra", "more": "x"},
    ],
)
def test_a_difference_that_says_nothing_clear_is_refused(shop, day, item):
    assert code_of(report(shop, item)) == (422, "VALIDATION_FAILED")


def test_a_workbook_goes_on_in_another_sheet_when_one_is_full(monkeypatch):
    monkeypatch.setattr(write, "_SHEET_ROWS", 2)
    at, made = "2026-11-22 09:30:00", {}
    for size in (0, 2, 5):
        rows = [Row(at, "charge", f"n-{n}", "", "s1", "t1", "e" * 32, 1) for n in range(size)]
        file = io.BytesIO()
        workbook(file, [], [], rows, 1000)
        made[size] = [sheet[1:] for sheet in list(sheets_of(file.getvalue()).values())[1:]]
    assert [len(sheets) for sheets in made.values()] == [1, 1, 3]
    for size, sheets in made.items():
        numbers = [row[2] for sheet in sheets for row in sheet]
        assert numbers == [f"n-{n}" for n in range(size)] + [""]
        assert sheets[-1][-1][0] == TOTAL
        assert sheets[-1][-1][7] == size
