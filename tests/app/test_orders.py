"""Orders: points and stock are set aside together, and end up confirmed or back, never both."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from threading import Barrier
from xml.etree import ElementTree

import pytest
from sqlalchemy import text

from app.flows.check import check_database
from app.flows.erase import erase
from app.flows.notify import read_letter
from app.flows.order.hold import OrderError
from app.flows.order.refund import refund
from app.flows.order.timeout import release_due
from app.flows.partner.decide import decide
from app.store import guardians, messages, orders, people, settings
from ledger.accounts import AccountKind

DONATION = {
    "kind": "donation",
    "codes": "none",
    "project": "太行山绿化 <script>&",
    "stock": None,
    "unused": "lapse",
}


def code_of(answer):
    return answer.status_code, answer.get_json().get("code")


@pytest.fixture
def rows(city):
    """Rows of a query, as they stand."""

    def read(query, **values):
        with city.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(query), values)]

    return read


@pytest.fixture
def stock(rows):
    """(pieces left, pieces sold) of a reward."""

    def read(reward):
        query = "SELECT remaining, sold FROM reward_stock WHERE reward = :id"
        return rows(query, id=bytes.fromhex(reward))[0]

    return read


SUMS = f"""
SELECT (SELECT coalesce(sum(points), 0) FROM bill_lines),
  (SELECT coalesce(sum(amount), 0) FROM postings WHERE account_kind = {AccountKind.REDEEMED.code}),
  (SELECT coalesce(sum(points), 0) FROM orders WHERE state = 'held'),
  (SELECT coalesce(sum(amount), 0) FROM balances WHERE account_kind = {AccountKind.HELD.code})
"""


@pytest.fixture(autouse=True)
def sound(city, rows):
    """Whatever a test did: bills are what was redeemed, orders what is held, and all adds up."""
    yield
    ((billed, redeemed, ordered, held),) = rows(SUMS)
    assert billed == redeemed
    assert ordered == held
    while city.sealer.seal(city.clock()):
        pass
    assert list(check_database(city.engine, city.vault)) == []


@pytest.fixture
def bring(city):
    """Bring the merchant to another state: bring("suspend")."""

    def step(verb, code="noodles"):
        with city.engine.begin() as tx:
            decide(tx, city.vault, "olga", code, None, verb, "looked into", city.clock())

    return step


@pytest.fixture
def time_out(city):
    return lambda: release_due(city.engine, city.vault, city.clock())


@pytest.fixture
def at_once(app):
    """at_once(call, buyers): call(buyer with a line of its own), all together; in their order."""

    def run(call, buyers):
        start = Barrier(len(buyers))

        def work(who):
            own = replace(who, client=app.test_client())
            start.wait()
            return call(own)

        with ThreadPoolExecutor(len(buyers)) as pool:
            return list(pool.map(work, buyers))

    return run


def place(who, reward, quantity=1, key=""):
    return who.post("orders", {"reward": reward, "quantity": quantity}, key)


@pytest.fixture
def held(on_offer, buyer):
    """A buyer of 1000 points with an order of two bowls that is held: (buyer, reward, order)."""
    reward, who = on_offer(), buyer()
    made = place(who, reward, 2)
    assert made.status_code == 201, made.get_json()
    return who, reward, made.get_json()["id"]


def test_an_order_holds_points_and_stock_and_is_confirmed_once(held, stock, shop, rows):
    who, reward, order = held
    assert who.points() == (800, 200)
    assert stock(reward) == (48, 2)
    read = who.get(f"orders/{order}").get_json()
    assert (read["state"], read["points"], read["entry_id"], read["vouchers"]) == (
        "held",
        "200",
        None,
        [],
    )
    done = who.post(f"orders/{order}/confirm", key="confirm-1")
    assert done.status_code == 200, done.get_json()
    made = done.get_json()
    assert (made["state"], len(made["vouchers"])) == ("confirmed", 2)
    assert who.points() == (800, 0)
    assert shop.left() == 100_000 - 200
    assert who.post(f"orders/{order}/confirm", key="confirm-1").get_json() == made
    assert who.post(f"orders/{order}/confirm").get_json() == made
    assert code_of(who.post(f"orders/{order}/cancel")) == (409, "ORDER_CONFIRMED")
    lines = rows("SELECT kind, number, points, encode(entry, 'hex') FROM bill_lines")
    assert lines == [("order", order, 200, made["entry_id"])]
    assert who.get(f"entries/{made['entry_id']}").status_code == 200


def test_a_cancelled_order_gives_all_back_and_stays_so(held, stock):
    who, reward, order = held
    first = who.post(f"orders/{order}/cancel")
    assert (first.get_json()["state"], first.get_json()["reason"]) == ("released", "cancelled")
    assert who.post(f"orders/{order}/cancel").get_json() == first.get_json()
    assert who.points() == (1000, 0)
    assert stock(reward) == (50, 0)
    assert code_of(who.post(f"orders/{order}/confirm")) == (409, "ORDER_RELEASED")


def test_what_is_held_too_long_goes_back(held, stock, city, time_out, clock):
    who, reward, order = held
    clock.move(minutes=14, seconds=59)
    assert time_out() == 0
    clock.move(seconds=1)
    assert code_of(who.post(f"orders/{order}/confirm")) == (409, "ORDER_RELEASED")
    assert time_out() == 1
    assert time_out() == 0
    read = who.get(f"orders/{order}").get_json()
    assert (read["state"], read["reason"]) == ("released", "timeout")
    assert who.points() == (1000, 0)
    assert stock(reward) == (50, 0)
    with city.engine.begin() as tx:
        settings.put(tx, "order_minutes", 60, 0, clock())
    place(who, reward)
    clock.move(minutes=59)
    assert time_out() == 0


def test_the_same_request_is_one_order(on_offer, buyer, stock):
    reward, who = on_offer(), buyer()
    first = place(who, reward, key="order-0001")
    assert place(who, reward, key="order-0001").get_json() == first.get_json()
    assert code_of(place(who, reward, 2, key="order-0001")) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert stock(reward) == (49, 1)
    assert who.points() == (900, 100)


# what is refused


def minor(city, who):
    with city.engine.begin() as tx:
        guardians.put_child(tx, who.id, who.id, date(2030, 1, 1))


REFUSED = {
    "REWARD_SOLD_OUT": {"stock": "1"},
    "PERSON_LIMIT": {"per_person": 1},
    "DAY_LIMIT": {"per_day": 1},
    "DISTRICT_NOT_SERVED": {"districts": ["140404"]},
    "AGE_TOO_YOUNG": {"from_14": True},
    "STANDING_TOO_LOW": {"min_reduction_mg": "1"},
    "INSUFFICIENT_POINTS": {"points": "501"},
    "REWARD_NOT_OPEN": {"opens_at": "2026-11-23T00:00:00+08:00"},
}


@pytest.mark.parametrize("code", REFUSED)
def test_each_term_that_is_not_met_has_a_code_of_its_own(code, on_offer, buyer, stock, city):
    reward, who = on_offer(**REFUSED[code]), buyer()
    minor(city, who)
    before = stock(reward)
    refused = place(who, reward, 2)
    assert refused.get_json()["code"] == code
    assert refused.get_json()["title"]
    assert who.points() == (1000, 0)
    assert stock(reward) == before
    assert who.get("orders").get_json()["items"] == []


def test_what_the_rewards_say_is_what_an_order_meets(on_offer, buyer, city):
    who = buyer()
    minor(city, who)
    for n, (code, terms) in enumerate(REFUSED.items()):
        reward = on_offer(f"r{n}", **{"points": "1000"} | terms)
        said = [one["code"] for one in who.get(f"rewards/{reward}").get_json()["why_not"]]
        assert said[:1] == [] or said[0] == code
        if said:
            assert place(who, reward).get_json()["code"] == said[0]


def test_a_limit_a_person_counts_what_they_have_and_not_what_went_back(on_offer, buyer):
    reward, who = on_offer(per_person=2), buyer()
    order = place(who, reward, 2).get_json()["id"]
    assert code_of(place(who, reward)) == (409, "PERSON_LIMIT")
    who.post(f"orders/{order}/cancel")
    order = place(who, reward, 2).get_json()["id"]
    who.post(f"orders/{order}/confirm")
    assert code_of(place(who, reward)) == (409, "PERSON_LIMIT")
    assert place(buyer(), reward).status_code == 201


def test_a_limit_a_day_begins_anew_each_day(on_offer, buyer, clock):
    reward, who = on_offer(per_day=2), buyer()
    order = place(who, reward, 2).get_json()["id"]
    assert code_of(place(buyer(), reward)) == (409, "DAY_LIMIT")
    who.post(f"orders/{order}/cancel")
    assert place(who, reward, 2).status_code == 201
    clock.move(hours=12)  # past midnight in Changzhi
    assert place(who, reward, 2).status_code == 201


def test_unknown_rewards_and_others_orders_are_not_found(held, buyer, draft):
    _, _, order = held
    other = buyer()
    for step in ("", "/certificate", "/certificate.svg"):
        assert code_of(other.get(f"orders/{order}{step}")) == (404, "NOT_FOUND")
    for step in ("confirm", "cancel"):
        assert code_of(other.post(f"orders/{order}/{step}")) == (404, "NOT_FOUND")
        assert code_of(other.post(f"orders/none/{step}")) == (404, "NOT_FOUND")
    unseen = draft("unseen").get_json()["id"]
    assert code_of(place(other, unseen)) == (404, "NOT_FOUND")
    assert code_of(place(other, "0" * 32)) == (404, "NOT_FOUND")
    assert place(other, unseen, 0).status_code == place(other, unseen, 101).status_code == 422


# the merchant meanwhile


def test_a_suspended_merchant_keeps_what_was_promised(held, bring):
    who, reward, order = held
    bring("suspend")
    assert code_of(place(who, reward)) == (403, "MERCHANT_SUSPENDED")
    assert who.post(f"orders/{order}/confirm").get_json()["state"] == "confirmed"


def test_orders_of_a_merchant_that_closes_go_back_and_say_so(held, bring, time_out, city):
    who, _, order = held
    bring("close")
    assert code_of(who.post(f"orders/{order}/confirm")) == (403, "MERCHANT_CLOSED")
    assert time_out() == 1
    read = who.get(f"orders/{order}").get_json()
    assert (read["state"], read["reason"]) == ("released", "closed")
    assert who.points() == (1000, 0)
    with city.engine.begin() as tx:
        own = city.vault.subject_key(who.id, people.lock(tx, who.id))
        (told,) = messages.page(tx, who.id, 2**62, 50)
    assert "200 积分已退回" in read_letter(own, told).text


def test_an_allowance_used_up_meanwhile_takes_nothing(open_shop, on_offer, buyer):
    poor = open_shop("poor", points=250)
    reward, first, second = on_offer("poor", shop=poor), buyer(), buyer()
    orders_ = [place(who, reward, 2).get_json()["id"] for who in (first, second)]
    assert first.post(f"orders/{orders_[0]}/confirm").status_code == 200
    refused = second.post(f"orders/{orders_[1]}/confirm")
    assert code_of(refused) == (409, "ALLOWANCE_EXHAUSTED")
    assert second.get(f"orders/{orders_[1]}").get_json()["state"] == "held"
    assert second.get(f"orders/{orders_[1]}").get_json()["vouchers"] == []
    assert second.post(f"orders/{orders_[1]}/cancel").get_json()["state"] == "released"
    assert second.points() == (1000, 0)


def test_a_rule_against_fraud_that_refuses_takes_nothing(on_offer, buyer, city, stock):
    reward, who = on_offer(), buyer()
    rule = {"mode": "refuse", "hour_count": 1, "day_count": 60, "day_points": 20000}
    with city.engine.begin() as tx:
        settings.put(tx, "fraud.resident", rule, 0, city.clock())
    assert place(who, reward).status_code == 201
    assert code_of(place(who, reward)) == (409, "VELOCITY_LIMIT")
    assert who.points() == (900, 100)
    assert stock(reward) == (49, 1)


# codes and certificates


@pytest.fixture
def pool(on_offer, draft, shop, client):
    """A reward with three codes of the merchant's own."""
    draft("pool", codes="pool", stock=None)
    path = "/api/v1/merchant/rewards/pool/codes"
    file = b"CODE-1\nCODE-2\nCODE-3"
    sent = client.post(
        path, data=file, content_type="text/csv", headers=shop.headers("POST", path, file)
    )
    assert sent.status_code == 200, sent.get_json()
    return on_offer("pool", codes="pool", stock=None)


def test_codes_of_a_pool_go_out_once_each_until_there_are_none(pool, buyer, stock):
    first, second = buyer(), buyer()
    a = place(first, pool, 2).get_json()["id"]
    b = place(second, pool).get_json()["id"]
    assert code_of(place(second, pool)) == (409, "REWARD_SOLD_OUT")
    codes = []
    for who, order in ((first, a), (second, b)):
        done = who.post(f"orders/{order}/confirm").get_json()
        codes += [who.get(f"vouchers/{one}").get_json()["code"] for one in done["vouchers"]]
    assert sorted(codes) == ["CODE-1", "CODE-2", "CODE-3"]
    assert stock(pool) == (0, 3)


def test_a_donation_brings_a_certificate_that_shows_what_was_written(on_offer, buyer, stock):
    reward, who = on_offer("tree", **DONATION), buyer()
    assert stock(reward) == (None, 0)
    order = place(who, reward, 3).get_json()["id"]
    assert code_of(who.get(f"orders/{order}/certificate")) == (404, "NOT_FOUND")
    done = who.post(f"orders/{order}/confirm").get_json()
    assert done["vouchers"] == []
    shown = who.get(f"orders/{order}/certificate").get_json()
    assert (shown["points"], shown["project"]) == ("300", DONATION["project"])
    assert (shown["entry_id"], shown["donated_date"]) == (done["entry_id"], "2026-11-22")
    drawn = who.get(f"orders/{order}/certificate.svg")
    assert drawn.mimetype == "image/svg+xml"
    words = "".join(ElementTree.fromstring(drawn.data).itertext())
    for part in ("300 积分", DONATION["project"], order, done["entry_id"], "2026 年 11 月 22 日"):
        assert part in words
    assert stock(reward) == (None, 3)


def test_only_a_donation_has_a_certificate(held):
    who, _, order = held
    who.post(f"orders/{order}/confirm")
    assert code_of(who.get(f"orders/{order}/certificate")) == (404, "NOT_FOUND")


def test_orders_are_listed_newest_first(on_offer, buyer, clock):
    reward, who, made = on_offer(), buyer(), []
    for _ in range(5):
        made.append(place(who, reward).get_json()["id"])
        clock.move(seconds=1)
    who.post(f"orders/{made[0]}/cancel")
    found, query = [], {"limit": 2}
    while True:
        answered = who.get("orders", **query).get_json()
        found += [one["id"] for one in answered["items"]]
        if not answered["has_more"]:
            break
        query["cursor"] = answered["next_cursor"]
    assert found == made[::-1]
    released = who.get("orders", state="released").get_json()["items"]
    assert [one["id"] for one in released] == made[:1]


# who leaves, and what goes back later


def test_who_leaves_gets_back_what_is_held_and_keeps_nothing(held, city, rows, stock, time_out):
    who, reward, order = held
    other = place(who, reward).get_json()["id"]
    who.post(f"orders/{other}/confirm")
    erase(city.engine, city.vault, who.id, city.clock())
    assert rows("SELECT DISTINCT resident FROM orders") == [(None,)]
    states = rows("SELECT encode(id, 'hex'), state, reason FROM orders")
    assert sorted(states) == sorted([(order, "released", "erased"), (other, "confirmed", "")])
    assert stock(reward) == (49, 1)
    assert time_out() == 0


@pytest.fixture
def give_back(city):
    """Give points of an order back, as a void of its voucher does."""

    def step(who, order, points, number, **more):
        with city.engine.begin() as tx:
            people.lock(tx, who.id)
            parts = (order, points, number, "void", city.clock())
            return refund(tx, city.vault, *parts, **more)

    return step


def test_a_refund_goes_back_to_its_buckets_its_bill_and_its_stock(
    held, give_back, stock, shop, rows, city
):
    who, reward, order = held
    with pytest.raises(OrderError, match="no confirmed order"):
        give_back(who, order, 100, "void-0")
    who.post(f"orders/{order}/confirm")
    give_back(who, order, 100, "void-1", restock=1)
    assert who.points() == (900, 0)
    assert stock(reward) == (49, 1)
    assert shop.left() == 100_000 - 100
    assert who.get(f"orders/{order}").get_json()["refunded_points"] == "100"
    with pytest.raises(OrderError, match="100 points are left"):
        give_back(who, order, 101, "void-2")
    erase(city.engine, city.vault, who.id, city.clock())
    give_back(who, order, 100, "void-3", restock=1)
    assert shop.left() == 100_000
    assert stock(reward) == (50, 0)
    lines = rows("SELECT kind, number, origin, points FROM bill_lines ORDER BY arrival")
    assert lines == [
        ("order", order, "", 200),
        ("void", "void-1", order, -100),
        ("void", "void-3", order, -100),
    ]


def test_a_pool_does_not_grow_by_a_code_that_went_out(pool, buyer, give_back, stock):
    who = buyer()
    order = place(who, pool).get_json()["id"]
    who.post(f"orders/{order}/confirm")
    give_back(who, order, 100, "void-1", restock=1)
    assert stock(pool) == (2, 1)


# many at once


def test_of_the_last_five_no_sixth_is_sold(on_offer, buyer, at_once, stock):
    reward = on_offer(stock="5")
    buyers = [buyer(100) for _ in range(32)]
    answers = at_once(lambda who: place(who, reward), buyers)
    assert sum(one.status_code == 201 for one in answers) == 5
    refused = {code_of(one) for one in answers if one.status_code != 201}
    assert refused == {(409, "REWARD_SOLD_OUT")}
    assert stock(reward) == (0, 5)
    assert sorted(who.points() for who in buyers) == [(0, 100)] * 5 + [(100, 0)] * 27


def test_a_limit_a_day_holds_for_many_at_once(on_offer, buyer, at_once, stock):
    reward = on_offer(per_day=3)
    answers = at_once(lambda who: place(who, reward), [buyer() for _ in range(12)])
    assert sum(one.status_code == 201 for one in answers) == 3
    assert stock(reward) == (47, 3)


def test_a_double_tap_meets_the_limit_of_a_person(on_offer, buyer, at_once):
    reward, who = on_offer(per_person=1), buyer()
    answers = at_once(lambda own: place(own, reward), [who] * 8)
    codes = sorted(map(code_of, answers), key=str)
    assert codes == [(201, None)] + [(409, "PERSON_LIMIT")] * 7
    assert who.points() == (900, 100)


def test_a_key_sent_many_times_at_once_is_one_order(on_offer, buyer, at_once, stock):
    reward, who = on_offer(), buyer()
    answers = at_once(lambda own: place(own, reward, key="order-0001"), [who] * 8)
    assert {code_of(one) for one in answers} <= {(201, None), (409, "REQUEST_RUNNING")}
    assert len({one.get_json()["id"] for one in answers if one.status_code == 201}) == 1
    assert stock(reward) == (49, 1)


def test_confirmed_and_cancelled_at_once_is_one_of_them(on_offer, buyer, at_once, rows, stock):
    reward, buyers = on_offer(), [buyer() for _ in range(4)]
    for who in buyers:
        order = place(who, reward).get_json()["id"]
        steps = iter(["confirm", "cancel"] * 4)
        answers = at_once(
            lambda own, o=order, s=steps: own.post(f"orders/{o}/{next(s)}"), [who] * 8
        )
        assert {one.status_code for one in answers} <= {200, 409}
        state = who.get(f"orders/{order}").get_json()["state"]
        assert state in ("confirmed", "released")
        assert who.points() == ((900, 0) if state == "confirmed" else (1000, 0))
    sold = rows("SELECT count(*) FROM orders WHERE state = 'confirmed'")[0][0]
    assert stock(reward) == (50 - sold, sold)
    assert rows("SELECT count(*) FROM vouchers") == [(sold,)]


def test_buyers_of_one_pool_share_no_code(pool, buyer, at_once, rows):
    def buy(who):
        order = place(who, pool).get_json()
        return who.post(f"orders/{order['id']}/confirm") if "id" in order else None

    done = [one for one in at_once(buy, [buyer() for _ in range(8)]) if one]
    assert [one.status_code for one in done] == [200] * 3
    assert rows("SELECT count(*), count(DISTINCT digest) FROM vouchers") == [(3, 3)]
    assert rows("SELECT count(*) FROM reward_codes WHERE taken") == [(3,)]


def test_workers_at_once_release_each_order_once(on_offer, buyer, city, clock, stock):
    reward, who = on_offer(), buyer()
    for _ in range(6):
        place(who, reward)
    clock.move(minutes=15)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: release_due(city.engine, city.vault, clock()), range(3)))
    assert stock(reward) == (50, 0)
    assert who.points() == (1000, 0)
    with city.engine.connect() as tx:
        assert orders.held(tx, who.id) == []
