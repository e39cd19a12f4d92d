"""Vouchers: issued once, used once, returned, voided and lapsed, whatever is sent twice or lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import orjson
import pytest
from sqlalchemy import text

from app.flows import archive
from app.flows.erase import erase
from app.flows.voucher import code as codes
from app.flows.voucher.issue import issue
from app.flows.voucher.lapse import Lapses
from app.store import orders, settings, statements

_numbers = count(1)


def number(what: str = "number") -> str:
    return f"{what}-{next(_numbers):08d}"


def refused(answer) -> tuple[int, str]:
    assert answer.status_code >= 400, answer.text
    return answer.status_code, answer.get_json()["code"]


def rows(city, query: str, **values):
    with city.engine.connect() as tx:
        return [tuple(row) for row in tx.execute(text(query), values)]


@pytest.fixture
def buy():
    """buy(who, reward, 2): an order, placed and confirmed; the ids of its vouchers."""

    def make(who, reward: str, quantity: int = 1) -> list[str]:
        placed = who.post("orders", {"reward": reward, "quantity": quantity})
        assert placed.status_code == 201, placed.text
        done = who.post(f"orders/{placed.get_json()['id']}/confirm")
        assert done.status_code == 200, done.text
        return done.get_json()["vouchers"]

    return make


@pytest.fixture
def li(buyer):
    return buyer(1000)


@pytest.fixture
def voucher(buy, li, on_offer) -> str:
    """One voucher of Li's, worth 100 points, good for 30 days more."""
    return buy(li, on_offer())[0]


@pytest.fixture
def lapses(city):
    """Runs what the worker does once a day."""
    worker = Lapses(city.engine, city.vault)

    def run() -> None:
        while worker.step(city.clock()):
            pass

    return run


@pytest.fixture
def days(city):
    """days(offline_days=5): the settings as an operator may set them."""

    def put(**values) -> None:
        with city.engine.begin() as tx:
            for name, value in values.items():
                assert settings.put(tx, name, value, 0, city.clock())

    return put


def scan(shop, code: str, till: str = "t1", out_use_no: str = ""):
    return shop.post(
        "uses", {"out_use_no": out_use_no or number("use"), "code": code, "till": till}
    )


def shown(who, voucher: str) -> str:
    made = who.post(f"vouchers/{voucher}/code", {})
    assert made.status_code == 200, made.text
    return made.get_json()["code"]


def void(shop, **named):
    document = {"out_void_no": number("void"), "reason": "customer changed their mind"} | named
    return shop.post("voids", document)


def state(who, voucher: str) -> str:
    return who.get(f"vouchers/{voucher}").get_json()["state"]


def test_a_resident_sees_the_voucher_its_code_and_what_happens_unused(li, voucher, on_offer, buy):
    (listed,) = li.get("vouchers").get_json()["items"]
    whole = li.get(f"vouchers/{voucher}").get_json()
    assert listed["id"] == voucher
    assert whole | listed == whole
    assert (whole["title_zh"], whole["text_zh"]) == ("面条一碗", "任选一碗，不含饮料。")
    assert (whole["points"], whole["state"], whole["merchant"]["code"]) == (
        "100",
        "issued",
        "noodles",
    )
    assert (whole["valid_until"], whole["unused"], whole["returns_on"]) == (
        "2026-12-22",
        "refund",
        "2026-12-26",
    )
    assert codes.reads(whole["code"].replace("-", ""))
    buy(li, on_offer("tea", unused="lapse"))
    newest, oldest = li.get("vouchers").get_json()["items"]
    assert {newest["returns_on"], oldest["returns_on"]} == {None, "2026-12-26"}


def test_lists_go_by_state_and_page_by_page(li, on_offer, buy, shop):
    ids = buy(li, on_offer(), 5)
    assert scan(shop, shown(li, ids[0])).status_code == 200
    assert [it["id"] for it in li.get("vouchers", state="used").get_json()["items"]] == [ids[0]]
    seen, cursor = [], {}
    while True:
        page = li.get("vouchers", state="issued", limit=3, **cursor).get_json()
        seen += [one["id"] for one in page["items"]]
        if not page["has_more"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(seen) == sorted(ids[1:])
    assert len(seen) == 4


def test_nobody_sees_or_shows_anothers_voucher(voucher, buyer):
    other = buyer(0)
    assert refused(other.get(f"vouchers/{voucher}")) == (404, "NOT_FOUND")
    assert refused(other.post(f"vouchers/{voucher}/code", {})) == (404, "NOT_FOUND")
    assert refused(other.get("vouchers/none")) == (404, "NOT_FOUND")
    assert other.get("vouchers").get_json()["items"] == []


def test_a_voucher_is_issued_once_however_often_its_order_is_confirmed(li, on_offer, city):
    placed = li.post("orders", {"reward": on_offer(), "quantity": 3}).get_json()["id"]
    path = f"orders/{placed}/confirm"
    first = [li.post(path).get_json()["vouchers"] for _ in range(3)]
    assert len(first[0]) == 3
    assert first[0] == first[1] == first[2]
    with city.engine.begin() as tx:
        again = issue(tx, city.vault, orders.find(tx, placed), city.clock())
    assert sorted(again) == sorted(first[0])
    assert rows(city, "SELECT count(*) FROM vouchers") == [(3,)]


def test_a_till_takes_a_dynamic_code_once(li, voucher, shop):
    code = shown(li, voucher)
    assert code.startswith("96")
    done = scan(shop, code, "t2", "use-00000001").get_json()
    assert (done["state"], done["voucher"], done["till"]) == ("succeeded", voucher, "t2")
    assert (done["points"], done["title"], done["returned"]) == ("100", "面条一碗", False)
    assert state(li, voucher) == "used"
    assert refused(scan(shop, code)) == (409, "PAY_CODE_USED")
    assert refused(li.post(f"vouchers/{voucher}/code", {})) == (409, "VOUCHER_USED")
    again = scan(shop, code, "t2", "use-00000001")
    assert again.get_json() == done == shop.get("uses/use-00000001").get_json()
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("spelling", [str, str.lower, lambda it: it.replace("-", " ")])
def test_a_printed_code_is_read_however_it_is_written(li, voucher, shop, spelling):
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    assert scan(shop, spelling(code)).get_json()["voucher"] == voucher


def test_a_misread_code_is_no_voucher_and_no_other(li, voucher, shop, city):
    code = li.get(f"vouchers/{voucher}").get_json()["code"].replace("-", "")
    wrong = [code[:5] + one + code[6:] for one in codes.ALPHABET if one != code[5]]
    assert not any(map(codes.reads, wrong))
    assert refused(scan(shop, wrong[0])) == (422, "VOUCHER_UNKNOWN")
    assert refused(scan(shop, codes.new_code())) == (422, "VOUCHER_UNKNOWN")
    paying = li.post("pay-code", {}).get_json()["code"]
    assert refused(scan(shop, paying)) == (422, "VOUCHER_UNKNOWN")
    assert refused(scan(shop, "96" + "1" * 17 + "0")) == (422, "VOUCHER_UNKNOWN")


def test_a_voucher_is_not_charged_from_the_wallet(li, voucher, shop):
    document = {"out_request_no": number(), "code": shown(li, voucher), "points": "10"}
    answer = shop.post("charges", document | {"till": "t1"})
    assert answer.status_code >= 400
    assert li.points() == (900, 0)


def test_a_dynamic_code_dies_with_its_minute_and_another_is_good(li, voucher, shop, city):
    code = shown(li, voucher)
    city.clock.move(seconds=91)
    assert refused(scan(shop, code)) == (422, "PAY_CODE_EXPIRED")
    assert scan(shop, shown(li, voucher)).status_code == 200


def test_of_two_tills_at_once_one_wins_and_the_other_is_told_where(li, voucher, shop, app, city):
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    start = Barrier(2)

    def take(till: str):
        own = type(shop)(app.test_client(), city, shop.key, shop.key_id, code=shop.code)
        own.numbers = count(int(till[1]) * 1000)
        start.wait()
        return scan(own, code, till, f"use-by-{till}")

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(take, ("t1", "t2")))
    (won,) = [one for one in answers if one.status_code == 200]
    (lost,) = [one for one in answers if one.status_code != 200]
    assert refused(lost) == (409, "VOUCHER_USED")
    assert f"at till {won.get_json()['till']} of store s1" in lost.get_json()["detail"]
    assert li.id not in lost.text
    failed = shop.get(f"uses/use-by-{'t1' if won.get_json()['till'] == 't2' else 't2'}").get_json()
    assert (failed["state"], failed["code"], failed["voucher"]) == (
        "failed",
        "VOUCHER_USED",
        voucher,
    )


def test_a_number_names_one_request_and_failures_are_answers_too(li, voucher, shop):
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    first = scan(shop, codes.new_code(), out_use_no="use-lost-1")
    assert refused(first) == (422, "VOUCHER_UNKNOWN")
    told = shop.get("uses/use-lost-1").get_json()
    assert (told["state"], told["code"], told["title_zh"]) == (
        "failed",
        "VOUCHER_UNKNOWN",
        "卡券码无效，请重新出示",
    )
    assert refused(scan(shop, code, out_use_no="use-lost-1")) == (409, "REQUEST_NO_REUSED")
    named = void(shop, code=code, out_void_no="use-lost-1")
    assert refused(named) == (409, "REQUEST_NO_REUSED")
    assert refused(shop.get("uses/use-lost-2")) == (404, "NOT_FOUND")
    assert refused(shop.get("voids/use-lost-1")) == (404, "NOT_FOUND")
    assert refused(scan(shop, code, "t9")) == (404, "TILL_UNKNOWN")
    assert state(li, voucher) == "issued"


def test_another_merchants_voucher_is_not_taken(li, voucher, shop, open_shop):
    other = open_shop("tea")
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    assert refused(scan(other, code)) == (403, "VOUCHER_NOT_YOURS")
    assert refused(scan(other, shown(li, voucher))) == (403, "VOUCHER_NOT_YOURS")
    assert refused(void(other, voucher=voucher)) == (403, "VOUCHER_NOT_YOURS")
    used = scan(shop, code, out_use_no="use-noodles").get_json()
    assert refused(other.get("uses/use-noodles")) == (404, "NOT_FOUND")
    path = f"uses/{used['out_use_no']}/return"
    assert refused(other.post(path, {"out_return_no": number()})) == (404, "USE_UNKNOWN")


def test_a_return_undoes_a_use_once_and_the_voucher_is_used_again(li, voucher, shop):
    used = scan(shop, shown(li, voucher), out_use_no="use-number-1").get_json()
    path = "uses/use-number-1/return"
    done = shop.post(path, {"out_return_no": "return-1"}).get_json()
    assert (done["state"], done["out_use_no"], done["voucher_state"]) == (
        "succeeded",
        "use-number-1",
        "issued",
    )
    assert shop.post(path, {"out_return_no": "return-1"}).get_json() == done
    assert shop.get("returns/return-1").get_json() == done
    assert refused(shop.post(path, {"out_return_no": "return-2"})) == (409, "USE_RETURNED")
    assert shop.get("returns/return-2").get_json()["code"] == "USE_RETURNED"
    assert shop.get("uses/use-number-1").get_json() == used | {
        "returned": True,
        "voucher_state": "issued",
    }
    assert scan(shop, shown(li, voucher), out_use_no="use-number-2").status_code == 200
    assert refused(shop.post(path, {"out_return_no": "return-3"})) == (409, "USE_RETURNED")
    assert state(li, voucher) == "used"
    failed = scan(shop, codes.new_code(), out_use_no="use-number-3")
    assert failed.status_code == 422
    path = "uses/use-number-3/return"
    assert refused(shop.post(path, {"out_return_no": number()})) == (409, "USE_FAILED")


def test_a_tills_own_key_acts_for_that_till_only(li, voucher, shop):
    one, two = shop.key_of("t1"), shop.key_of("t2")
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    assert refused(scan(two, code, "t1")) == (403, "TILL_NOT_YOURS")
    assert scan(one, code, "t1", "use-by-one").status_code == 200
    path = "uses/use-by-one/return"
    assert refused(two.post(path, {"out_return_no": number()})) == (403, "TILL_NOT_YOURS")
    assert one.post(path, {"out_return_no": number()}).status_code == 200


def test_past_its_last_day_a_voucher_is_neither_used_nor_returned(li, voucher, shop, city):
    city.clock.move(days=30)
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    assert scan(shop, code, out_use_no="use-last-day").status_code == 200
    city.clock.move(hours=12)
    path = "uses/use-last-day/return"
    assert refused(shop.post(path, {"out_return_no": number()})) == (409, "VOUCHER_LAPSED")
    assert state(li, voucher) == "used"


def test_a_late_voucher_is_told_as_lapsed_before_the_worker_ends_it(li, voucher, shop, city):
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    city.clock.move(days=31)
    assert state(li, voucher) == "lapsed"
    assert [it["id"] for it in li.get("vouchers", state="lapsed").get_json()["items"]] == [voucher]
    assert li.get("vouchers", state="issued").get_json()["items"] == []
    assert refused(scan(shop, code)) == (409, "VOUCHER_LAPSED")
    assert refused(li.post(f"vouchers/{voucher}/code", {})) == (409, "VOUCHER_LAPSED")


def test_goods_are_picked_up_at_their_store_only(li, on_offer, buy, shop):
    place = {"name": "二店", "district": "140404", "address": "太行街2号"}
    assert shop.put("stores/s2", place).status_code == 200
    assert shop.put("tills/t9", {"store": "s2"}).status_code == 200
    (bag,) = buy(li, on_offer("bag", kind="goods", store="s1"))
    whole = li.get(f"vouchers/{bag}").get_json()
    assert (whole["store"]["code"], whole["store"]["address"]) == ("s1", "英雄路1号")
    assert refused(scan(shop, whole["code"], "t9")) == (409, "VOUCHER_ELSEWHERE")
    assert scan(shop, whole["code"], "t1").status_code == 200


def test_a_void_ends_a_voucher_and_gives_points_and_stock_back(li, on_offer, buy, shop, city):
    reward = on_offer(stock="2")
    one, two = buy(li, reward, 2)
    assert (li.points(), shop.left()) == ((800, 0), 99_800)
    done = void(shop, voucher=one, out_void_no="void-number-1").get_json()
    assert (done["state"], done["voucher"], done["voucher_state"]) == ("succeeded", one, "voided")
    assert (li.points(), shop.left()) == ((900, 0), 99_900)
    assert void(shop, voucher=one, out_void_no="void-number-1").get_json() == done
    assert shop.get("voids/void-number-1").get_json() == done
    assert refused(void(shop, voucher=one)) == (409, "VOUCHER_VOIDED")
    code = li.get(f"vouchers/{one}").get_json()["code"]
    assert refused(scan(shop, code)) == (409, "VOUCHER_VOIDED")
    assert li.points() == (900, 0)
    lines = rows(city, "SELECT kind, number, points FROM bill_lines ORDER BY arrival")
    assert [line[0::2] for line in lines] == [("order", 200), ("void", -100)]
    assert lines[1][1] == "void-number-1"
    (letter,) = li.get("messages").get_json()["items"]
    assert (letter["kind"], letter["params"]["points"]) == ("points.returned", "100")
    assert buy(li, reward) != [two], "a piece is there again"


def test_a_void_takes_a_code_and_only_unused_vouchers(li, on_offer, buy, shop):
    one, two = buy(li, on_offer(), 2)
    code = li.get(f"vouchers/{one}").get_json()["code"]
    assert scan(shop, code).status_code == 200
    assert refused(void(shop, code=code)) == (409, "VOUCHER_USED")
    assert void(shop, code=shown(li, two)).get_json()["voucher"] == two
    both = void(shop, code=code, voucher=two)
    assert refused(both) == (422, "VALIDATION_FAILED")
    assert refused(void(shop)) == (422, "VALIDATION_FAILED")
    for unsaid in (" ", "two\nlines"):
        broken = void(shop, voucher=two, reason=unsaid)
        assert broken.get_json()["errors"][0]["field"] == "reason"
    assert refused(void(shop, voucher="0" * 32)) == (422, "VOUCHER_UNKNOWN")


def test_where_staff_is_named_only_a_manager_voids(voucher, shop):
    assert shop.put("staff/007", {"role": "cashier"}).status_code == 200
    assert shop.put("staff/001", {"role": "manager"}).status_code == 200
    for staff in ({}, {"staff": "007"}, {"staff": "404"}):
        assert refused(void(shop, voucher=voucher, **staff)) == (403, "MANAGER_NEEDED")
    assert void(shop, voucher=voucher, staff="001").get_json()["staff"] == "001"


def test_a_suspended_merchant_keeps_its_promises_and_a_closed_one_reads(
    li, on_offer, buy, shop, desk
):
    one, two, three = buy(li, on_offer(), 3)
    operator = desk("operator")

    def decide(step: str) -> None:
        etag = operator.get(f"merchants/{shop.code}").headers["ETag"]
        done = operator.post(f"merchants/{shop.code}/{step}", {"reason": "looked into"}, match=etag)
        assert done.status_code == 200, done.text

    decide("suspend")
    assert scan(shop, shown(li, one), out_use_no="use-number-1").status_code == 200
    path = "uses/use-number-1/return"
    assert shop.post(path, {"out_return_no": number()}).status_code == 200
    assert void(shop, voucher=two).status_code == 200
    decide("close")
    assert refused(scan(shop, shown(li, three))) == (403, "MERCHANT_CLOSED")
    assert refused(void(shop, voucher=three)) == (403, "MERCHANT_CLOSED")
    assert shop.get("uses/use-number-1").get_json()["returned"] is True


def test_codes_of_the_merchants_own_are_given_out_and_read(li, draft, desk, buy, shop, client):
    made = draft("pool", codes="pool", stock=None).get_json()
    path = "/api/v1/merchant/rewards/pool/codes"
    file = b"Own-A1\nOwn-B2\n"
    sent = client.post(
        path, data=file, content_type="text/csv", headers=shop.headers("POST", path, file)
    )
    assert sent.status_code == 200, sent.text
    etag = f'"{made["revision"]}"'
    assert desk("operator").post(f"rewards/{made['id']}/open", match=etag).status_code == 200
    one, two = buy(li, made["id"], 2)
    given = {it: li.get(f"vouchers/{it}").get_json()["code"] for it in (one, two)}
    assert sorted(given.values()) == ["Own-A1", "Own-B2"]
    assert refused(scan(shop, "own-a1")) == (422, "VOUCHER_UNKNOWN")
    assert scan(shop, given[one]).get_json()["voucher"] == one
    assert void(shop, code=given[two]).status_code == 200
    assert shop.get("rewards/pool").get_json()["remaining"] == "0", "its code was seen"


def test_a_merchants_own_code_is_none_that_a_phone_might_show():
    assert codes.OWN.fullmatch("9" * 20)
    assert codes.OWN.fullmatch("96" + "1" * 19)
    assert not codes.OWN.fullmatch("96" + "1" * 18)


def test_a_merchants_endpoints_are_told_of_each_use_once(li, voucher, shop, city):
    assert shop.post("webhooks", {"url": "https://pay.shop.example/"}).status_code < 300
    with city.engine.begin() as tx:  # proving one is tested with the webhooks
        tx.execute(text("UPDATE webhook_endpoints SET verified_at = made_at"))
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    for _ in range(2):
        assert scan(shop, code, out_use_no="use-number-1").status_code == 200
    assert scan(shop, code).status_code == 409
    (event,) = shop.get("events?kind=voucher.used").get_json()["items"]
    told = shop.get(f"events/{event['id']}").get_json()
    assert (voucher in str(told), li.id in str(told), code in str(told)) == (True, False, False)


def test_unused_vouchers_lapse_and_give_back_what_was_promised(
    li, on_offer, buy, shop, city, lapses
):
    (back,) = buy(li, on_offer("back", unused="refund", valid_days=5))
    (gone,) = buy(li, on_offer("gone", unused="lapse", valid_days=5))
    assert scan(shop, shown(li, buy(li, on_offer("used", valid_days=5))[0])).status_code == 200
    city.clock.move(days=8)
    lapses()
    assert li.points() == (700, 0), "tills without network may still report"
    city.clock.move(days=1)
    lapses()
    lapses()
    assert (state(li, back), state(li, gone)) == ("lapsed", "lapsed")
    assert (li.points(), shop.left()) == ((800, 0), 99_800)
    lines = rows(city, "SELECT number, points FROM bill_lines WHERE kind = 'lapse'")
    assert lines == [(back, -100)]
    letters = li.get("messages").get_json()["items"]
    assert [it["kind"] for it in letters].count("points.returned") == 1
    assert refused(void(shop, voucher=back)) == (409, "VOUCHER_LAPSED")


def test_residents_are_reminded_once_three_days_before_the_end(
    li, voucher, buy, on_offer, city, lapses
):
    buy(li, on_offer("short", valid_days=2))
    city.clock.move(days=1)
    lapses()
    assert li.get("messages").get_json()["items"] == [], "who ordered it knows"
    city.clock.move(days=26)
    for _ in range(3):
        lapses()
        city.clock.move(days=1)
    letters = li.get("messages").get_json()["items"]
    (letter,) = [it for it in letters if it["kind"] == "voucher.ending"]
    assert letter["text"] == "您的「面条一碗」将于 2026-12-22 到期，逾期未用积分将自动退回。"


def test_after_an_erasure_the_code_still_works_and_a_void_pays_nobody(
    li, on_offer, buy, shop, city, lapses
):
    reward = on_offer(valid_days=5)
    one, two, three = buy(li, reward, 3)
    code = li.get(f"vouchers/{one}").get_json()["code"]
    dynamic = shown(li, two)
    erase(city.engine, city.vault, li.id, city.clock())
    assert rows(city, "SELECT resident, sealed FROM vouchers") == [(None, None)] * 3
    assert refused(scan(shop, dynamic)) == (422, "PAY_CODE_UNKNOWN")
    assert scan(shop, code).status_code == 200
    assert void(shop, voucher=two).status_code == 200
    city.clock.move(days=9)
    lapses()
    assert rows(city, "SELECT state FROM vouchers ORDER BY state") == [
        ("lapsed",),
        ("used",),
        ("voided",),
    ]
    assert three
    assert shop.left() == 100_000 - 300 + 200, "the merchant's bill is put right all the same"
    assert rows(city, "SELECT sum(points)::int FROM bill_lines") == [(100,)]


def test_no_code_lies_open_in_the_database(li, voucher, city):
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    (row,) = rows(city, "SELECT v::text FROM vouchers v")
    plain = (code, code.replace("-", ""))
    assert not any(it in row[0] or it.encode().hex() in row[0] for it in plain)


def test_an_archive_holds_the_voucher_opened_and_its_uses(li, voucher, shop, city):
    code = li.get(f"vouchers/{voucher}").get_json()["code"]
    assert scan(shop, code, out_use_no="use-number-1").status_code == 200
    with city.engine.connect() as tx:
        key = city.vault.subject_key(li.id, statements.wrapped_key(tx, li.id))
        catalogue = city.registry.current(tx)
        files = dict(archive.collect(tx, city.vault, catalogue, key, li.id, city.clock()))
    tables = orjson.loads(files["data.json"])["tables"]
    assert [(it["id"], it["sealed"]) for it in tables["vouchers"]] == [(voucher, code)]
    assert [it["number"] for it in tables["voucher_moves"]] == ["use-number-1"]
