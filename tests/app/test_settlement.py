"""Days are closed once, bills are settled once, and all of them equal the ledger, always."""

from __future__ import annotations

import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import count
from threading import Barrier, Event, Thread

import psycopg
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError

from app.cli import main
from app.cli.local import environment
from app.config import CITY_ZONE
from app.flows import redeem
from app.flows.bill.close import Closing, close_days, last_over
from app.flows.bill.reconcile import reconcile
from app.flows.charge.charge import Asked, charge
from app.flows.charge.refund import Asked as Return
from app.flows.charge.refund import refund
from app.flows.charge.reverse import reverse
from app.flows.check import check_database
from app.flows.erase import erase
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.pay_code import new_code
from app.flows.work import Worker
from app.store import bills, people, settlement
from app.store.bills import Line
from app.store.merchants import Contract, Partner

DAY = 20261122
_numbers = count()


def partner_of(shop):
    return Partner(shop.id, shop.code, "approved", None)


@pytest.fixture
def sell(city):
    """sell(buyer, shop, 30): a till takes 30 points; the charge's number."""

    def take(somebody, shop, points):
        number, now = f"sale-{next(_numbers):06d}", city.clock()
        with city.engine.begin() as tx:
            shown = new_code(tx, city.vault, somebody.id, None, now).code
        asked = Asked(partner_of(shop), number, shown, points, "t1", None)
        assert charge(city.engine, city.vault, asked, now).charge.state == "succeeded"
        return number

    return take


@pytest.fixture
def give_back(city):
    """give_back(shop, "sale-1", 10): points go back; whether they could."""

    def refunded(shop, number, points):
        said = Return(partner_of(shop), f"back-{next(_numbers):06d}", number, points, "x", None)
        made, _ = refund(city.engine, city.vault, said, city.clock())
        return made.state == "succeeded"

    return refunded


@pytest.fixture
def position(city):
    """Both books as they stand."""

    def read():
        with city.engine.connect() as tx:
            return settlement.position(tx)

    return read


@pytest.fixture
def close(city):
    """Let a night pass, and close."""

    def night(days=1):
        city.clock.move(days=days)
        return close_days(city.engine, city.vault, city.clock())

    return night


@pytest.fixture
def bill_of(city):
    """A shop's bill of a day."""

    def find(shop, day=DAY):
        with city.engine.connect() as tx:
            return settlement.find(tx, shop.id, day)

    return find


@pytest.fixture
def tamper(city):
    """Change something as the schema's owner, who can switch the triggers off."""

    def change(table, statement):
        url = city.owner_url.replace("+psycopg", "")
        with psycopg.connect(url) as owner:
            owner.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            owner.execute(statement)
            owner.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")

    return change


def faults(city):
    return [(one.where, one.what) for one in reconcile(city.engine)]


def test_over_a_month_of_anything_all_bills_equal_the_ledger(
    city, open_shop, buyer, sell, give_back, position, close, bill_of
):
    dice = random.Random(20261122)
    shops = [open_shop("noodles"), open_shop("tea"), open_shop("bus", points=50_000)]
    people_here = [buyer(5_000, bucket=20261130) for _ in range(3)] + [buyer(5_000)]
    sold = []
    for day in range(28):
        for _ in range(dice.randrange(7)):
            shop, points = dice.choice(shops), dice.randrange(1, 60)
            if sold and dice.random() < 0.35:
                at, number, left = sold.pop(dice.randrange(len(sold)))
                back = dice.randrange(1, left + 1)
                if dice.random() < 0.3:
                    reverse(city.engine, city.vault, partner_of(at), number, None, city.clock())
                elif give_back(at, number, back) and back < left:
                    sold.append((at, number, left - back))
            elif day < 7 or dice.random() < 0.5:
                number = sell(
                    dice.choice(people_here[-1:] if day > 7 else people_here), shop, points
                )
                sold.append((shop, number, points))
            now = position()
            assert now.difference_points == 0
        if day == 20:
            erase(city.engine, city.vault, people_here[0].id, city.clock())
        if dice.random() < 0.7:
            close(1)
        else:
            city.clock.move(days=1)
        if dice.random() < 0.3:
            city.sealer.seal(city.clock())
    close()
    now = position()
    assert now.difference_points == now.open_points == 0
    assert now.billed_points == now.ledger_points > 0
    assert faults(city) == []
    assert list(check_database(city.engine, city.vault)) == []
    for shop in shops:
        with city.engine.connect() as tx:
            billed = sum(one.points for one in settlement.between(tx, shop.id, 0, 99991231))
        assert shop.left() == (50_000 if shop.code == "bus" else 100_000) - billed


def test_a_line_under_way_is_waited_for_and_the_next_one_waits(city, shop, bill_of):
    """A till that began before the cut is on the old day's bill, one that begins during it on the
    new day's, and no line is ever added to a day that was cut."""
    clock = city.clock()
    night = datetime(2026, 11, 23, 0, 1, tzinfo=CITY_ZONE)

    def line(arrival):
        return Line(arrival, shop.id, "charge", f"n-{arrival}", "", "ab" * 16, 5, None, None)

    days, cut, ended = {}, Event(), Event()

    def closer():
        with city.engine.begin() as tx:
            bills.cut(tx, last_over(night))
            cut.set()
            ended.wait(5)

    def late(arrival):
        with city.engine.begin() as tx:
            days[arrival] = bills.add(tx, line(arrival), clock)

    with city.engine.begin() as tx:
        assert bills.add(tx, line(1), clock) == DAY
        closing = Thread(target=closer)
        closing.start()
        assert not cut.wait(0.2), "the cut waits for whoever is adding"
    assert cut.wait(5)
    tills = [Thread(target=late, args=(arrival,)) for arrival in (2, 3)]
    for one in tills:
        one.start()
    for one in tills:
        one.join(0.2)
    assert days == {}, "who adds now waits for the cut"
    ended.set()
    for one in (closing, *tills):
        one.join()
    assert days == {2: 20261123, 3: 20261123}
    with city.engine.begin() as tx:
        assert bills.add(tx, line(4), clock) == 20261123
    close_days(city.engine, city.vault, night)
    assert bill_of(shop).lines == 1


def test_days_closed_while_tills_charge_over_midnight_have_every_line_once(
    city, shop, buyer, position
):
    """Real threads: tills whose clocks differ and several closers, over five midnights."""
    buyers, engines = [buyer(9_000) for _ in range(4)], []
    start, done = Barrier(6), Event()
    noon = city.clock()

    def engine():
        engines.append(create_engine(city.config.database_url))
        return engines[-1]

    def till(number):
        own, made = engine(), 0
        start.wait()
        for at in range(60):
            now = noon + timedelta(hours=2 * at, minutes=random.Random(at).randrange(90))
            with own.begin() as tx:
                people.lock(tx, buyers[number].id)
                parts = buyers[number].id, 1 + at % 7, shop.id, f"s-{number}-{at}", now
                moved = redeem.charge(tx, city.vault, *parts)
                where = "charge", parts[3], "", moved.entry.id, parts[1], None, None
                bills.add(tx, Line(moved.arrival, shop.id, *where), now)
            made += 1
        return made

    def closer():
        own, rounds = engine(), 0
        closing = Closing(own, city.vault)
        start.wait()
        while not done.is_set():
            closing.step(noon + timedelta(hours=2 * rounds % 120, minutes=1))
            rounds += 1
        return rounds

    with ThreadPoolExecutor(6) as pool:
        closers = [pool.submit(closer) for _ in range(2)]
        tills = [pool.submit(till, number) for number in range(4)]
        assert [one.result() for one in tills] == [60] * 4
        done.set()
        assert all(one.result() > 2 for one in closers)
    for one in engines:
        one.dispose()
    city.clock.move(days=9)
    close_days(city.engine, city.vault, city.clock())
    with city.engine.connect() as tx:
        made = settlement.between(tx, shop.id, 0, 99991231)
    assert sum(one.lines for one in made) == 240
    assert position().difference_points == position().open_points == 0
    assert faults(city) == []


def test_two_closers_at_once_make_each_bill_once_and_tell_it_once(
    city, open_shop, buyer, sell, bill_of
):
    shops = [open_shop(f"shop-{number}", points=1_000) for number in range(4)]
    somebody = buyer()
    with city.engine.begin() as tx:
        for shop in shops:
            add_endpoint(tx, shop, city.clock())
            sell(somebody, shop, 7)
    city.clock.move(days=1)
    engines = [create_engine(city.config.database_url) for _ in range(4)]
    start = Barrier(len(engines))

    def run(engine):
        start.wait()
        return close_days(engine, city.vault, city.clock())

    with ThreadPoolExecutor(len(engines)) as pool:
        assert set(pool.map(run, engines)) == {DAY}
    for engine in engines:
        engine.dispose()
    assert [bill_of(shop).points for shop in shops] == [7] * 4
    with city.engine.connect() as tx:
        told = tx.execute(text("SELECT merchant, body FROM webhook_events")).all()
    assert sorted(one.merchant.hex() for one in told) == sorted(shop.id for shop in shops)
    assert all(bill_of(shops[0]).csv_sha256.hex() in one.body.decode() for one in told
               if one.merchant.hex() == shops[0].id)  # fmt: skip


def add_endpoint(tx, shop, now):
    """A proved endpoint, so that the merchant is told things."""
    tx.execute(
        text(
            "INSERT INTO webhook_endpoints"
            " (id, merchant, url, secret, kinds, state, made_at, verified_at)"
            " VALUES (:id, :id, 'https://example.org/', '', '{bill.ready}', 'active', :now, :now)"
        ),
        {"id": bytes.fromhex(shop.id), "now": now},
    )


def survives(url, vault, now, events):
    """Close in a child that kills itself at the given statement or commit; whether it lived."""
    child = os.fork()
    if child == 0:
        left = events

        def tick(*_):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        code = 1
        try:
            engine = create_engine(url)
            event.listen(engine, "before_cursor_execute", tick)
            event.listen(engine, "commit", tick)
            close_days(engine, vault, now)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "closing failed by itself"
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


def test_a_closer_killed_at_any_statement_is_taken_up_where_it_was(
    city, open_shop, buyer, sell, bill_of
):
    shops, somebody = [open_shop("noodles"), open_shop("tea")], buyer(9_000)
    deaths, cut_but_unbilled = 0, 0
    for events in count(1):
        for shop in shops:
            sell(somebody, shop, 3)
        day = int(city.clock().astimezone(CITY_ZONE).strftime("%Y%m%d"))
        city.clock.move(days=1)
        city.engine.dispose()  # the child must not share a connection
        alive = survives(city.config.database_url, city.vault, city.clock(), events)
        made = [bill_of(shop, day) is not None for shop in shops]
        with city.engine.connect() as tx:
            cut_but_unbilled += bills.closed(tx) == day and not all(made)
        if alive:
            assert made == [True, True]
            break
        deaths += 1
        for _ in range(2):  # the restart path is the normal path, and safe to repeat
            assert close_days(city.engine, city.vault, city.clock()) == day
        assert [bill_of(shop, day).points for shop in shops] == [3, 3]
    assert deaths > 12
    assert cut_but_unbilled > 5
    assert faults(city) == []


def test_days_without_a_worker_are_made_up_for_in_order(city, shop, buyer, sell, bill_of):
    somebody = buyer()
    for points in (1, 2, 3):
        sell(somebody, shop, points)
        city.clock.move(days=3)
    assert close_days(city.engine, city.vault, city.clock()) == 20261130
    assert [bill_of(shop, day).points for day in (DAY, 20261125, 20261128)] == [1, 2, 3]
    assert bill_of(shop, 20261123) is None
    with city.engine.connect() as tx:
        digest = sha256(shop.get("bills/2026-11-25.csv").data).digest()
        assert settlement.find(tx, shop.id, 20261125).csv_sha256 == digest


def test_a_day_is_cut_a_minute_after_its_midnight(city):
    midnight = datetime(2026, 11, 23, tzinfo=CITY_ZONE)
    assert last_over(midnight + timedelta(seconds=59)) == 20261121
    assert last_over(midnight + timedelta(seconds=60)) == DAY


def test_the_worker_closes_days(city, shop, buyer, sell, bill_of):
    worker = Worker(city.engine, city.vault, city.sealer, city.clock)
    sell(buyer(), shop, 9)
    worker.step()
    assert bill_of(shop) is None
    city.clock.move(days=1)
    for _ in range(4):
        worker.step()
    assert bill_of(shop).points == 9


def test_a_merchant_that_bears_its_points_is_owed_nothing(city, shop, buyer, sell, close, bill_of):
    with city.engine.begin() as tx:
        own = Contract(0, "merchant", "postpaid", 100, 100_000, 0, "own", city.clock())
        agree(tx, city.vault, "olga", shop.code, None, own, city.clock())
    sell(buyer(), shop, 9)
    close()
    assert (bill_of(shop).points, bill_of(shop).milli_fen) == (9, 0)


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def pay(desk):
    """pay("noodles", "2026-11-22", "transfer 1") as an operator who has just logged in."""

    def settle(code, day, reference):
        office = desk("operator", name=f"olga{next(_numbers)}")
        return office.post(f"bills/{code}/{day}/pay", {"reference": reference})

    return settle


def test_a_paid_bill_may_be_redeemed_again_and_is_paid_once(
    city, shop, buyer, sell, close, pay, desk
):
    sell(buyer(), shop, 30)
    close()
    assert shop.left() == 99_970
    answer = pay("noodles", "2026-11-22", "transfer 1")
    assert answer.status_code == 200
    assert answer.get_json()["reference"] == "transfer 1"
    assert shop.left() == 100_000
    assert pay("noodles", "2026-11-22", "transfer 1").status_code == 200
    assert code_of(pay("noodles", "2026-11-22", "transfer 2")) == (409, "BILL_PAID")
    assert code_of(pay("noodles", "2026-11-21", "transfer 2")) == (404, "BILL_UNKNOWN")
    assert code_of(pay("nobody", "2026-11-22", "transfer 2")) == (404, "BILL_UNKNOWN")
    for unsaid in ("", " ", "two\nlines"):
        assert code_of(pay("noodles", "2026-11-22", unsaid)) == (422, "VALIDATION_FAILED")
    assert shop.left() == 100_000
    assert shop.get("bills/2026-11-22").get_json()["reference"] == "transfer 1"
    acts = desk("auditor").get("trail", action="bill.paid").get_json()["items"]
    assert [(one["target"], one["detail"]["points"]) for one in acts] == [("noodles", "30")]


def test_what_a_prepaid_merchant_paid_in_is_not_given_twice(
    city, open_shop, buyer, sell, close, pay
):
    shop = open_shop("tea", points=100, prepaid=True)
    sell(buyer(), shop, 30)
    close()
    assert pay("tea", "2026-11-22", "transfer 1").status_code == 200
    assert shop.left() == 70


def test_terms_that_change_within_a_day_give_back_what_was_on_credit(
    city, open_shop, buyer, sell, close, pay
):
    shop, somebody = open_shop("tea", points=100, prepaid=True), buyer()
    sell(somebody, shop, 30)
    city.clock.move(hours=1)
    with city.engine.begin() as tx:
        credit = Contract(0, "city", "postpaid", 100, 50, 0, "credit", city.clock())
        agree(tx, city.vault, "olga", "tea", None, credit, city.clock())
    assert shop.left() == 70 + 50
    sell(somebody, shop, 20)
    close()
    assert pay("tea", "2026-11-22", "transfer 1").status_code == 200
    assert shop.left() == 70 + 50


def test_a_bill_of_more_refunds_takes_back_and_a_closed_merchant_gets_nothing(
    city, open_shop, buyer, sell, give_back, close, pay
):
    shop, somebody = open_shop("tea", points=100), buyer()
    number = sell(somebody, shop, 60)
    close()
    give_back(shop, number, 50)
    close()
    assert pay("tea", "2026-11-22", "first").status_code == 200
    assert shop.left() == 150
    assert pay("tea", "2026-11-23", "second").status_code == 200
    assert shop.left() == 100
    sell(somebody, shop, 10)
    close()
    with city.engine.begin() as tx:
        decide(tx, city.vault, "olga", "tea", None, "close", "over", city.clock())
    assert pay("tea", "2026-11-24", "last").status_code == 200
    assert shop.left() == 0


def test_what_is_to_be_taken_back_must_be_left(city, open_shop, buyer, sell, give_back, close, pay):
    shop, somebody = open_shop("tea", points=100), buyer()
    number = sell(somebody, shop, 60)
    close()
    give_back(shop, number, 50)
    close()
    sell(somebody, shop, 80)
    answer = pay("tea", "2026-11-23", "early")
    assert code_of(answer) == (409, "ALLOWANCE_IN_USE")
    assert pay("tea", "2026-11-22", "first").status_code == 200
    assert pay("tea", "2026-11-23", "early").status_code == 200
    assert shop.left() == 20


def test_operators_see_who_is_to_be_paid_and_that_it_equals_the_ledger(
    city, open_shop, buyer, sell, close, pay, desk
):
    somebody, codes = buyer(9_000), ("bus", "noodles", "tea")
    shops = [open_shop(code) for code in codes]
    for points in (10, 20):
        for shop in shops:
            sell(somebody, shop, points)
        close()
    sell(somebody, shops[0], 5)
    pay("tea", "2026-11-22", "transfer 1")
    office = desk("auditor")

    def walk(path, **query):
        found, cursor = [], {}
        while True:
            answer = office.get(path, limit=2, **query, **cursor).get_json()
            found += answer["items"]
            if not answer["has_more"]:
                return answer, found
            cursor = {"cursor": answer["next_cursor"]}

    _, listed = walk("bills")
    assert [(one["date"][-2:], one["merchant"]) for one in listed] == [
        (day, code) for day in ("23", "22") for code in codes
    ]
    _, unpaid = walk("bills", paid="false", month="2026-11")
    assert len(unpaid) == 5
    (paid,) = walk("bills", paid="true")[1]
    assert (paid["merchant"], paid["reference"]) == ("tea", "transfer 1")
    assert len(walk("bills", merchant="bus")[1]) == 2
    assert walk("bills", month="2026-10")[1] == []
    page, sums = walk("settlement")
    assert page["total"] == {
        "bills": "6",
        "points": "90",
        "owed_milli_fen": "90000",
        "paid_milli_fen": "10000",
    }
    assert [(one["merchant"], one["points"]) for one in sums] == [(code, "30") for code in codes]
    assert page["check"] == {
        "closed_date": "2026-11-23",
        "billed_points": "90",
        "open_points": "5",
        "ledger_points": "95",
        "difference_points": "0",
        "equal": True,
    }
    assert code_of(office.get("bills", cursor="x")) == (422, "CURSOR_INVALID")
    assert code_of(office.post("bills/tea/2026-11-22/pay", {"reference": "x"})) == (
        403,
        "ROLE_MISSING",
    )


TAMPERED = {
    "a line's points": ("bill_lines", "SET points = points + 1", "leaf"),
    "a line's merchant": ("bill_lines", f"SET merchant = '\\x{'ee' * 16}'", "leaf"),
    "a line's entry": ("bill_lines", f"SET entry = '\\x{'ee' * 16}'", "leaf"),
    "a line's number": ("bill_lines", "SET number = 'other'", "bill noodles 2026-11-22"),
    "a line's day": ("bill_lines", "SET day = 20261120", "bill noodles 2026-11-20"),
    "a bill's points": ("bills", "SET points = points - 1", "bill noodles 2026-11-22"),
    "a bill's amount": ("bills", "SET milli_fen = 1", "bill noodles 2026-11-22"),
    "a bill's hash": ("bills", "SET csv_sha256 = sha256('')", "bill noodles 2026-11-22"),
    "the ledger's sum": ("open_balances", "SET amount = amount + 1", "open_balances redeemed"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_reconciling_names_what_was_tampered_with(
    city, shop, buyer, sell, close, tamper, position, what
):
    for points in (5, 6):
        sell(buyer(), shop, points)
    close()
    city.sealer.seal(city.clock())
    assert faults(city) == []
    table, change, where = TAMPERED[what]
    which = {
        "bill_lines": "WHERE arrival = (SELECT max(arrival) FROM bill_lines)",
        "bills": "",
        "open_balances": "WHERE account_kind = 13",
    }[table]
    tamper(table, f"UPDATE {table} {change} {which}")
    (first, what), *_ = faults(city)
    assert first.startswith(where), (first, what)
    if where == "leaf":
        with city.engine.connect() as tx:
            leaf = "SELECT max(leaf) FROM leaves JOIN entries USING (arrival) WHERE kind = 'redeem'"
            assert first == f"leaf {tx.execute(text(leaf)).scalar()}"


def test_reconciling_names_what_is_gone_and_what_was_never_redeemed(
    city, shop, buyer, sell, close, tamper, position
):
    sell(buyer(), shop, 5)
    line = "DELETE FROM bill_lines"
    tamper("bill_lines", line)
    assert position().difference_points == -5
    assert [where.split()[0] for where, _ in faults(city)] == ["entries", "open_balances", "bills"]
    with city.engine.begin() as tx:
        forged = Line(1, shop.id, "charge", "forged-0001", "", "ab" * 16, 5, None, None)
        bills.add(tx, forged, city.clock())
    assert position().difference_points == 0, "the sums agree; only line by line it shows"
    assert [where for where, _ in faults(city)][1] == "bill_lines 1"
    assert len(faults(city)) == 2
    close()
    tamper("bills", "DELETE FROM bills")
    assert ("bill noodles 2026-11-22", "it was not made yet; run `puhui bills close`, or look at"
            " the worker's log") in faults(city)  # fmt: skip


def test_bills_and_lines_refuse_every_change(city, shop, buyer, sell, close):
    sell(buyer(), shop, 5)
    close()
    for statement in (
        "UPDATE bill_lines SET points = 1",
        "DELETE FROM bills",
        "UPDATE bills SET points = 1",
        "TRUNCATE bill_payments",
    ):
        with pytest.raises(DBAPIError), city.engine.begin() as tx:
            tx.execute(text(statement))


def test_metrics_tell_a_difference_and_days_left_open(city, client, shop, buyer, sell, tamper):
    def read(name):
        lines = client.get("/metrics").get_data(as_text=True).splitlines()
        return next(float(one.split()[1]) for one in lines if one.startswith(f"puhui_{name} "))

    sell(buyer(), shop, 5)
    close_days(city.engine, city.vault, city.clock())
    assert (read("bills_difference_points"), read("bills_days_behind")) == (0, 0)
    city.clock.move(days=3)
    assert read("bills_days_behind") == 3
    tamper("bill_lines", "UPDATE bill_lines SET points = 7")
    assert read("bills_difference_points") == 2


@pytest.fixture
def puhui(city, monkeypatch, capsys):
    """Run a command on the city's database: its exit code, and what it says."""
    for name, value in environment(city.config).items():
        monkeypatch.setenv(name, value)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["puhui", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_an_operator_closes_writes_and_reconciles_by_hand(
    city, shop, buyer, sell, close, tamper, puhui, tmp_path
):
    sell(buyer(), shop, 5)
    close()
    code, said = puhui("bills", "close")
    assert code == 0
    assert "closed up to " in said
    file = tmp_path / "bill.csv"
    code, said = puhui("bills", "write", "noodles", "2026-11-22", file)
    assert code == 0
    assert said == f"1 documents, SHA-256 {sha256(file.read_bytes()).hexdigest()}\n"
    assert file.read_bytes() == shop.get("bills/2026-11-22.csv").data
    assert puhui("bills", "write", "noodles", "2026-11-22", file)[0] == 1, "nothing is overwritten"
    assert puhui("bills", "write", "noodles", "2026-11-20", tmp_path / "none")[0] == 1
    assert puhui("bills", "reconcile") == (
        0,
        "everything holds: 5 points redeemed, and as many on bills and open lines\n",
    )
    tamper("bills", "UPDATE bills SET points = 4")
    code, said = puhui("bills", "reconcile")
    assert code == 1
    assert "bill noodles 2026-11-22: 1 lines of 4 points on it" in said
