"""Charging at the till, through HTTP as tills and residents do it: every outcome, and every way to
find out which it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from secrets import token_bytes, token_hex
from threading import Barrier

import pytest
from sqlalchemy import text

from app.flows.charge import charge as charging
from app.flows.charge.timeout import time_out
from app.flows.check import check_database
from app.flows.erase import erase
from app.flows.partner.decide import decide
from app.flows.pay_code import new_code
from app.flows.tokens import issue_access_token
from app.flows.work import Worker
from app.store import budgets, entries, merchants, settings
from app.store.driver import Lean
from ledger.accounts import AccountKind
from ledger.entries import instant
from ledger.transfers import adjust

REDEEMED, HELD = AccountKind.REDEEMED.code, AccountKind.HELD.code
SOON, LATE = 20261130, 20271231
TABLES = ("entries", "postings", "balances", "bill_lines")
_numbers = count()


@pytest.fixture
def give(city):
    """give(resident, points, bucket): as if they had earned them."""

    def put(resident, points, bucket=LATE):
        with city.engine.begin() as tx:
            budget = budgets.scopes(tx)["*"]
            known = {"id": token_hex(16), "at": instant(city.clock()), "budget": budget}
            more = {"points": points, "bucket": bucket, "reason": "a test"}
            entries.append(tx, [adjust(**known, resident=resident, **more)])

    return put


@pytest.fixture
def purse(rider, give):
    """The rider, who has 100 points until the end of the month and 900 until next year's end."""
    give(rider, 100, SOON)
    give(rider, 900, LATE)
    return rider


@pytest.fixture
def mine(client, city, rider):
    """mine("POST", "charges/<id>/confirm") as the rider, or as somebody else."""

    def send(method, path, document=None, *, who=rider, key="", **query):
        headers = {
            "Authorization": f"Bearer {issue_access_token(city.vault.token, who, city.clock())}",
            "Idempotency-Key": key or f"request-{next(_numbers):08d}",
        }
        return client.open(
            f"/api/v1/me/{path}", method=method, json=document, query_string=query, headers=headers
        )

    return send


@pytest.fixture
def show(mine):
    """The code that the rider shows now."""

    def code(**who):
        answer = mine("POST", "pay-code", {}, **who)
        assert answer.status_code == 200, answer.text
        return answer.json["code"]

    return code


@pytest.fixture
def pay(shop, show, purse):
    """pay(points): a till of the shop charges the rider; or as `at` has it."""

    def charge(points, number="", code=None, at=None, **more):
        document = {
            "out_request_no": number or f"sale-{next(_numbers):08d}",
            "code": code or show(),
            "points": str(points) if type(points) is int else points,
            "till": "t1",
        }
        return (at or shop).post("charges", document | more)

    return charge


@pytest.fixture
def refund(shop):
    """refund("sale-1", 30): a till gives points back."""

    def give_back(charge, points, number="", at=None, **more):
        document = {
            "out_refund_no": number or f"back-{next(_numbers):08d}",
            "out_request_no": charge,
            "points": str(points),
            "reason": "brought back",
        }
        return (at or shop).post("refunds", document | more)

    return give_back


@pytest.fixture
def value(city):
    def read(query, **values):
        with city.engine.connect() as tx:
            return tx.execute(text(query), values).scalar_one()

    return read


@pytest.fixture
def ledger(value):
    """All that the ledger and the bills hold, as one hash."""

    def digest():
        parts = (f"(SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t)"
                 for name in TABLES)  # fmt: skip
        return value(f"SELECT concat_ws(' ', {', '.join(parts)})")

    return digest


@pytest.fixture
def points(me):
    """What the rider has: free, and held."""

    def read():
        found = me("balances").json
        return int(found["points"]), int(found["held_points"])

    return read


@pytest.fixture(autouse=True)
def sound(city, value):
    """Whatever a test did: the books balance, and bills are what was redeemed."""
    yield
    assert list(check_database(city.engine, city.vault)) == []
    redeemed = "SELECT coalesce(sum(amount), 0)::bigint FROM postings WHERE account_kind = :kind"
    kind = {"kind": REDEEMED}
    assert value("SELECT coalesce(sum(points), 0)::bigint FROM bill_lines") == value(
        redeemed, **kind
    )
    held = "SELECT coalesce(sum(amount), 0)::bigint FROM balances WHERE account_kind = :kind"
    pending = "SELECT coalesce(sum(points), 0)::bigint FROM charges WHERE state = 'pending'"
    assert value(held, kind=HELD) == value(pending)


def code_of(answer):
    return answer.status_code, answer.get_json().get("code")


def test_a_charge_takes_points_from_the_resident_and_the_allowance(shop, pay, points, value):
    answer = pay(130, "sale-one", staff="e-7")
    assert answer.status_code == 200, answer.text
    told = answer.json
    assert (told["state"], told["points"], told["refunded_points"]) == ("succeeded", "130", "0")
    assert (told["store"], told["till"], told["staff"]) == ("s1", "t1", "e-7")
    assert points() == (870, 0)
    assert shop.left() == 100_000 - 130
    line = "SELECT (kind, number, origin, points, encode(entry, 'hex'))::text FROM bill_lines"
    assert value(line) == f'(charge,sale-one,"",130,{told["entry_id"]})'
    assert shop.get("charges/sale-one").json == told


def test_a_plain_charge_needs_no_transaction_around_its_statements(pay, monkeypatch):
    monkeypatch.setattr(charging, "transact", None)
    assert pay(130).status_code == 200


def test_the_points_that_expire_first_are_spent_first(pay, me):
    pay(130)
    (bucket,) = me("balances").json["buckets"]
    assert (bucket["expires_on"], bucket["points"]) == ("2027-12-31", "870")


def test_the_same_request_again_has_the_same_answer(shop, pay, show, points):
    code = show()
    first = pay(130, "sale-one", code)
    assert first.status_code == 200
    again = pay(130, "sale-one", code)
    assert (again.status_code, again.json) == (200, first.json)
    assert points() == (870, 0)
    for other in ({"points": 131}, {"points": 130, "till": "t2"}, {"points": 130, "staff": "e-1"}):
        assert code_of(pay(number="sale-one", code=code, **other)) == (409, "REQUEST_NO_REUSED")
    assert code_of(pay(130, "sale-one")) == (409, "REQUEST_NO_REUSED")
    assert points() == (870, 0)


@pytest.fixture
def hindered(city, shop, open_shop, pay, show, rider, give):
    """Ways in which a charge cannot be: each makes it so, and charges once."""

    def used():
        code = show()
        assert pay(1, code=code).status_code == 200
        return pay(10, "sale-one", code)

    def expired():
        code = show()
        city.clock.move(seconds=90)
        return pay(10, "sale-one", code)

    def replaced():
        code = show()
        for _ in range(3):
            city.clock.move(seconds=1)
            show()
        return pay(10, "sale-one", code)

    def suspended():
        code = show()
        with city.engine.begin() as tx:
            tx.execute(text("UPDATE merchants SET state = 'suspended'"))
        return pay(10, "sale-one", code)

    def closed_store():
        with city.engine.begin() as tx:
            tx.execute(text("UPDATE stores SET open = false"))
        return pay(10, "sale-one")

    def for_voucher():
        with city.engine.begin() as tx:
            made = new_code(tx, city.vault, rider, None, city.clock(), token_bytes(16))
        return pay(10, "sale-one", made.code)

    def exhausted():
        return pay(10, "sale-one", at=open_shop("tea", points=9))

    def child():
        with city.engine.begin() as tx:
            tx.execute(text("UPDATE residents SET minor_until = '2030-01-01'"))
        assert pay(150).status_code == 200
        return pay(51, "sale-one")

    def own_staff():
        with city.engine.begin() as tx:
            settings.put(tx, "fraud.staff", {"mode": "refuse"}, 0, city.clock())
            tx.execute(
                text("INSERT INTO staff (merchant, number, role, resident)"
                     " VALUES (:merchant, 'e-1', 'cashier', :resident)"),
                {"merchant": bytes.fromhex(shop.id), "resident": bytes.fromhex(rider)},
            )  # fmt: skip
        return pay(10, "sale-one")

    return {
        "PAY_CODE_UNKNOWN": lambda: pay(10, "sale-one", "96000000000000000000"),
        "OTHER_CODE": lambda: pay(10, "sale-one", "134567890123456789"),
        "REPLACED": replaced,
        "PAY_CODE_USED": used,
        "PAY_CODE_EXPIRED": expired,
        "PAY_CODE_FOR_VOUCHER": for_voucher,
        "INSUFFICIENT_POINTS": lambda: pay(1001, "sale-one"),
        "ALLOWANCE_EXHAUSTED": exhausted,
        "MERCHANT_SUSPENDED": suspended,
        "TILL_UNKNOWN": lambda: pay(10, "sale-one", till="t9"),
        "STORE_CLOSED": closed_store,
        "TILL_NOT_YOURS": lambda: pay(10, "sale-one", at=shop.key_of("t2")),
        "MINOR_LIMIT": child,
        "OWN_STAFF": own_staff,
    }


MEANS = {"OTHER_CODE": "PAY_CODE_UNKNOWN", "REPLACED": "PAY_CODE_UNKNOWN",
         "STORE_CLOSED": "TILL_UNKNOWN"}  # fmt: skip


@pytest.mark.parametrize(
    "way",
    ["PAY_CODE_UNKNOWN", "OTHER_CODE", "REPLACED", "PAY_CODE_USED", "PAY_CODE_EXPIRED",
     "PAY_CODE_FOR_VOUCHER", "INSUFFICIENT_POINTS", "ALLOWANCE_EXHAUSTED", "MERCHANT_SUSPENDED",
     "TILL_UNKNOWN", "STORE_CLOSED", "TILL_NOT_YOURS", "MINOR_LIMIT", "OWN_STAFF"],
)  # fmt: skip
def test_a_refusal_is_kept_under_its_number(city, shop, hindered, ledger, way, value):
    refused = hindered[way]()
    code = MEANS.get(way, way)
    assert refused.get_json()["code"] == code
    assert 400 <= refused.status_code < 500
    before = ledger()
    merchant = value("SELECT merchant FROM charges WHERE number = 'sale-one'").hex()
    with city.engine.connect() as tx:
        kept = tx.execute(text("SELECT state, code FROM charges WHERE number = 'sale-one'")).all()
    assert [tuple(row) for row in kept] == [("failed", code)]
    if merchant == shop.id:
        told = shop.get("charges/sale-one").json
        assert (told["state"], told["code"], told["entry_id"]) == ("failed", code, None)
        done = shop.post("charges/sale-one/reverse", {}).json
        assert (done["state"], done["returned_points"]) == ("reversed", "0")
        assert done["charge"]["state"] == "failed"
    assert ledger() == before


def test_what_was_refused_is_refused_again_though_it_would_pass_now(pay, show, give, purse, points):
    code = show()
    assert code_of(pay(1001, "sale-one", code)) == (409, "INSUFFICIENT_POINTS")
    give(purse, 500)
    assert code_of(pay(1001, "sale-one", code)) == (409, "INSUFFICIENT_POINTS")
    assert points() == (1500, 0)
    assert pay(100, "sale-two", code).status_code == 200, "a code that paid nothing is not used up"


def test_a_fund_into_which_nothing_was_paid_covers_nothing(open_shop, pay, ledger):
    tea = open_shop("tea", prepaid=True, points=0)
    before = ledger()
    assert code_of(pay(1, "sale-one", at=tea)) == (409, "ALLOWANCE_EXHAUSTED")
    assert ledger() == before


def test_a_merchant_that_only_applied_charges_nobody(open_shop, pay):
    tea = open_shop("tea", approved=False)
    assert code_of(pay(1, "sale-one", at=tea)) == (403, "MERCHANT_NOT_APPROVED")
    assert code_of(tea.get("charges/sale-one")) == (404, "CHARGE_UNKNOWN")


def test_a_request_that_is_none_is_refused_and_not_kept(pay, value):
    for wrong in (
        *({"points": points} for points in ("0", "-5", 5.5, "5.0", "1" * 10)),
        *({"out_request_no": number} for number in ("short", "a number", "x" * 65)),
        *({"code": "96 00"}, {"till": "t 1"}, {"staff": ""}, {"note": "x"}),
    ):
        assert code_of(pay(**{"points": 10} | wrong)) == (422, "VALIDATION_FAILED"), wrong
    assert value("SELECT count(*) FROM charges") == 0


# above the limit a resident is asked


@pytest.fixture
def pending(city, pay, give, purse, mine):
    """A charge of 600 points that waits for the rider: its number and its id."""
    give(purse, 1000)
    answer = pay(600, "sale-one")
    assert (answer.status_code, answer.json["state"]) == (202, "pending")
    return answer.json["charge_id"]


def test_a_charge_above_the_limit_waits_for_the_resident(shop, pending, mine, points, value):
    assert points() == (1400, 600)
    assert shop.left() == 100_000
    assert shop.get("charges/sale-one").json["state"] == "pending"
    (own,) = mine("GET", "charges").json["items"]
    assert (own["id"], own["state"], own["merchant"]) == (pending, "pending", "noodles 面馆")
    (message,) = mine("GET", "messages").json["items"]
    assert (message["kind"], message["params"]["points"]) == ("charge.pending", "600")
    paid = mine("POST", f"charges/{pending}/confirm")
    assert (paid.status_code, paid.json["state"]) == (200, "succeeded")
    assert mine("POST", f"charges/{pending}/confirm").json == paid.json
    assert points() == (1400, 0)
    assert shop.left() == 100_000 - 600
    told = shop.get("charges/sale-one").json
    assert (told["state"], told["expires_at"]) == ("succeeded", None)
    assert value("SELECT points FROM bill_lines") == 600
    assert code_of(mine("POST", f"charges/{pending}/decline")) == (409, "CHARGE_CLOSED")


def test_nobody_is_asked_for_what_the_merchant_may_not_redeem(
    city, open_shop, pay, give, purse, mine, points
):
    give(purse, 1000)
    poor = open_shop("tea", points=599)
    before = points()
    refused = pay(600, "sale-one", at=poor)
    assert (refused.status_code, refused.json["code"]) == (409, "ALLOWANCE_EXHAUSTED")
    assert poor.get("charges/sale-one").json["state"] == "failed"
    assert (points(), mine("GET", "messages").json["items"]) == (before, [])


def test_what_a_resident_declines_is_not_paid(shop, pending, mine, points):
    for _ in range(2):
        assert mine("POST", f"charges/{pending}/decline").json["state"] == "failed"
    assert points() == (2000, 0)
    assert shop.get("charges/sale-one").json["code"] == "CONFIRMATION_DECLINED"
    assert code_of(mine("POST", f"charges/{pending}/confirm")) == (409, "CHARGE_CLOSED")


def test_a_minute_later_it_is_over(city, shop, pending, mine, points):
    city.clock.move(seconds=59)
    assert time_out(city.engine, city.vault, city.clock()) == 0
    city.clock.move(seconds=1)
    assert code_of(mine("POST", f"charges/{pending}/confirm")) == (409, "CHARGE_CLOSED")
    Worker(city.engine, city.vault, city.sealer, city.clock).step()
    assert points() == (2000, 0)
    assert shop.get("charges/sale-one").json["code"] == "CONFIRMATION_EXPIRED"
    assert time_out(city.engine, city.vault, city.clock()) == 0
    assert code_of(mine("POST", f"charges/{pending}/confirm")) == (409, "CHARGE_CLOSED")


def test_an_allowance_that_is_gone_by_then_ends_it(city, open_shop, pay, give, purse, mine, points):
    give(purse, 1000)
    tea = open_shop("tea", points=700)
    waiting = pay(600, "sale-one", at=tea).json["charge_id"]
    assert pay(200, at=tea).status_code == 200
    refused = mine("POST", f"charges/{waiting}/confirm")
    assert code_of(refused) == (409, "ALLOWANCE_EXHAUSTED")
    assert tea.get("charges/sale-one").json["code"] == "ALLOWANCE_EXHAUSTED"
    assert points() == (1800, 0)
    assert code_of(mine("POST", f"charges/{waiting}/confirm")) == (409, "CHARGE_CLOSED")


@pytest.mark.parametrize(
    ("verb", "answer"), [("suspend", (200, None)), ("close", (409, "ALLOWANCE_EXHAUSTED"))]
)
def test_what_was_asked_of_a_resident_stands_while_its_merchant_does(
    city, shop, pending, mine, points, verb, answer
):
    with city.engine.begin() as tx:
        decide(tx, city.vault, "olga", shop.code, None, verb, "a test", city.clock())
    assert code_of(mine("POST", f"charges/{pending}/confirm")) == answer
    assert points() == (1400 if verb == "suspend" else 2000, 0)


def test_one_who_leaves_pays_nothing_more(city, shop, pending, rider, value):
    erase(city.engine, city.vault, rider, city.clock())
    assert shop.get("charges/sale-one").json["code"] == "RESIDENT_LEFT"
    assert value("SELECT count(*) FROM charges WHERE resident IS NOT NULL") == 0


def test_nobody_answers_for_another(city, pending, mine, shop, give):
    other = token_hex(16)
    for verb in ("confirm", "decline"):
        answer = mine("POST", f"charges/{pending}/{verb}", who=other)
        assert code_of(answer) == (404, "CHARGE_UNKNOWN")
        assert code_of(mine("POST", f"charges/nonsense/{verb}")) == (404, "CHARGE_UNKNOWN")
    assert shop.get("charges/sale-one").json["state"] == "pending"


# reversing


def test_a_reversal_before_its_charge_keeps_it_from_coming(shop, pay, show, points, ledger):
    assert code_of(shop.get("charges/sale-one")) == (404, "CHARGE_UNKNOWN")
    before = ledger()
    for _ in range(2):
        done = shop.post("charges/sale-one/reverse", {}).json
        assert (done["state"], done["returned_points"], done["returned_to"]) == (
            "reversed", "0", None)  # fmt: skip
    assert shop.get("charges/sale-one").json["state"] == "reversed"
    code = show()
    for _ in range(2):
        assert code_of(pay(10, "sale-one", code)) == (409, "CHARGE_REVERSED")
    assert ledger() == before
    assert pay(10, "sale-two", code).status_code == 200


def test_a_reversal_gives_back_what_is_left(shop, pay, show, refund, points, value):
    code = show()
    pay(130, "sale-one", code)
    refund("sale-one", 30)
    for _ in range(2):
        done = shop.post("charges/sale-one/reverse", {}).json
        assert (done["returned_points"], done["returned_to"]) == ("100", "resident")
        assert (done["charge"]["state"], done["charge"]["refunded_points"]) == ("reversed", "130")
        assert points() == (1000, 0)
    assert shop.left() == 100_000
    assert code_of(pay(130, "sale-one", code)) == (409, "CHARGE_REVERSED")
    assert code_of(refund("sale-one", 1)) == (409, "CHARGE_NOT_PAID")
    lines = "SELECT string_agg(kind || points, ' ' ORDER BY arrival) FROM bill_lines"
    assert value(lines) == "charge130 refund-30 reverse-100"


def test_a_pending_charge_is_released(shop, pending, mine, points):
    done = shop.post("charges/sale-one/reverse", {}).json
    assert (done["returned_points"], done["charge"]["state"]) == ("0", "reversed")
    assert points() == (2000, 0)
    assert code_of(mine("POST", f"charges/{pending}/confirm")) == (409, "CHARGE_CLOSED")


def test_a_suspended_merchant_still_reverses_and_refunds(city, shop, pay, refund, points):
    pay(100, "sale-one")
    pay(100, "sale-two")
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE merchants SET state = 'suspended'"))
    assert shop.post("charges/sale-one/reverse", {}).json["returned_points"] == "100"
    assert refund("sale-two", 100).status_code == 200
    assert points() == (1000, 0)
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE merchants SET state = 'closed'"))
    assert code_of(shop.post("charges/sale-two/reverse", {})) == (403, "MERCHANT_CLOSED")
    assert shop.get("charges/sale-two").json["state"] == "succeeded"


def test_a_key_of_a_till_acts_for_its_own_charges_only(shop, pay, refund, points):
    one, two = shop.key_of("t1"), shop.key_of("t2")
    pay(100, "sale-one", at=one)
    assert code_of(two.post("charges/sale-one/reverse", {})) == (403, "TILL_NOT_YOURS")
    assert code_of(refund("sale-one", 5, at=two)) == (403, "TILL_NOT_YOURS")
    assert refund("sale-one", 5, at=one).status_code == 200
    assert one.post("charges/sale-one/reverse", {}).status_code == 200
    assert points() == (1000, 0)


@pytest.fixture
def staffed(city, shop):
    with city.engine.begin() as tx:
        for number, role in (("boss", "manager"), ("desk", "cashier")):
            tx.execute(
                text("INSERT INTO staff (merchant, number, role) VALUES (:id, :number, :role)"),
                {"id": bytes.fromhex(shop.id), "number": number, "role": role},
            )


def test_who_may_give_back_is_for_merchants_with_staff_to_say(staffed, city, shop, pay, refund):
    pay(100, "sale-one", staff="desk")
    for who in ({}, {"staff": "desk"}, {"staff": "nobody"}):
        assert code_of(refund("sale-one", 5, **who)) == (403, "MANAGER_NEEDED")
    assert refund("sale-one", 5, staff="boss").status_code == 200
    city.clock.move(days=1)
    for who in ({}, {"staff": "desk"}):
        answer = shop.post("charges/sale-one/reverse", who)
        assert code_of(answer) == (403, "MANAGER_NEEDED")
    done = shop.post("charges/sale-one/reverse", {"staff": "boss"}).json
    assert done["returned_points"] == "95"


def test_on_its_day_anybody_at_a_till_reverses(staffed, shop, pay):
    pay(100, "sale-one", staff="desk")
    assert shop.post("charges/sale-one/reverse", {}).json["returned_points"] == "100"


# refunding


def test_refunds_give_back_what_was_taken_and_no_more(shop, pay, refund, points, mine):
    pay(130, "sale-one")
    first = refund("sale-one", 30, "back-one")
    assert first.status_code == 200, first.text
    assert (first.json["returned_points"], first.json["returned_to"]) == ("30", "resident")
    assert refund("sale-one", 30, "back-one").json == first.json
    assert shop.get("refunds/back-one").json == first.json
    assert code_of(refund("sale-one", 31, "back-one")) == (409, "REQUEST_NO_REUSED")
    assert points() == (900, 0)
    assert refund("sale-one", 60).status_code == 200
    assert code_of(refund("sale-one", 41, "back-two")) == (409, "REFUND_EXCEEDS")
    assert shop.get("refunds/back-two").json["code"] == "REFUND_EXCEEDS"
    assert refund("sale-one", 40).status_code == 200
    assert code_of(refund("sale-one", 1)) == (409, "REFUND_EXCEEDS")
    assert code_of(refund("sale-one", 41, "back-two")) == (409, "REFUND_EXCEEDS")
    assert points() == (1000, 0)
    assert shop.left() == 100_000
    assert shop.get("charges/sale-one").json["refunded_points"] == "130"
    told = mine("GET", "messages").json["items"]
    assert [one["params"]["points"] for one in told] == ["40", "60", "30"]


def test_points_go_back_to_when_they_would_have_expired(city, pay, refund, me):
    pay(130, "sale-one")
    refund("sale-one", 130)
    buckets = {one["expires_on"]: one["points"] for one in me("balances").json["buckets"]}
    assert buckets == {"2026-11-30": "100", "2027-12-31": "900"}


def test_what_has_expired_meanwhile_is_good_for_thirty_days_more(city, pay, refund, me):
    pay(130, "sale-one")
    city.clock.move(days=15)
    refund("sale-one", 130)
    buckets = {one["expires_on"]: one["points"] for one in me("balances").json["buckets"]}
    assert buckets == {"2027-01-06": "100", "2027-12-31": "900"}


def test_after_an_erasure_the_merchants_side_is_put_right(city, shop, pay, refund, rider, value):
    pay(130, "sale-one")
    pay(70, "sale-two")
    erase(city.engine, city.vault, rider, city.clock())
    made = refund("sale-one", 30, "back-one")
    assert (made.status_code, made.json["returned_to"]) == (200, "nobody")
    assert shop.get("refunds/back-one").json == made.json
    assert refund("sale-one", 30, "back-one").json == made.json
    for _ in range(2):
        done = shop.post("charges/sale-two/reverse", {}).json
        assert (done["returned_points"], done["returned_to"]) == ("70", "nobody")
    assert shop.left() == 100_000 - 100
    assert value("SELECT sum(points)::int FROM bill_lines") == 100


@pytest.mark.parametrize("reason", ["", " ", " blank first", "two\nlines", "a\u202ebc", "x" * 101])
def test_the_reason_of_a_refund_is_one_line_that_can_be_read(shop, pay, refund, reason):
    pay(600, "sale-one")
    refused = refund("sale-one", 1, "back-one", reason=reason)
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "reason")
    assert shop.get("refunds/back-one").status_code == 404


@pytest.mark.parametrize(("make", "code"), [
    (lambda pay, shop: None, "CHARGE_UNKNOWN"),
    (lambda pay, shop: pay(5000, "sale-one"), "CHARGE_NOT_PAID"),
    (lambda pay, shop: pay(600, "sale-one"), "CHARGE_NOT_PAID"),
    (lambda pay, shop: shop.post("charges/sale-one/reverse", {}), "CHARGE_NOT_PAID"),
])  # fmt: skip
def test_what_was_not_paid_is_not_refunded(shop, pay, refund, ledger, make, code):
    make(pay, shop)
    before = ledger()
    refused = refund("sale-one", 1, "back-one")
    assert refused.get_json()["code"] == code
    told = shop.get("refunds/back-one").json
    assert (told["state"], told["code"], told["returned_points"]) == ("failed", code, "0")
    assert ledger() == before


def test_a_refund_that_never_came_is_unknown(shop):
    assert code_of(shop.get("refunds/back-one")) == (404, "REFUND_UNKNOWN")
    assert code_of(shop.get("charges/sale-one")) == (404, "CHARGE_UNKNOWN")
    assert code_of(shop.post("charges/short/reverse", {})) == (404, "CHARGE_UNKNOWN")


def test_another_merchant_sees_and_gives_back_nothing(open_shop, pay, refund, points):
    pay(100, "sale-one")
    tea = open_shop("tea")
    assert code_of(tea.get("charges/sale-one")) == (404, "CHARGE_UNKNOWN")
    assert code_of(refund("sale-one", 10, at=tea)) == (404, "CHARGE_UNKNOWN")
    assert tea.post("charges/sale-one/reverse", {}).json["returned_points"] == "0"
    assert points() == (900, 0)
    assert pay(5, "sale-two", at=tea).status_code == 200, "numbers are each merchant's own"


# what the resident sees


def test_a_resident_reads_what_was_paid_page_by_page(city, pay, give, purse, mine):
    give(purse, 1000)
    numbers = [f"sale-{n:08d}-x" for n in range(5)]
    pay(600, numbers[0])
    for number in numbers[1:]:
        city.clock.move(seconds=1)
        pay(10, number)
    seen, cursor = [], {}
    while True:
        found = mine("GET", "charges", limit=2, **cursor).json
        seen += found["items"]
        if not found["has_more"]:
            break
        cursor = {"cursor": found["next_cursor"]}
    assert [one["out_request_no"] for one in seen] == [numbers[0], *reversed(numbers[1:])]
    assert code_of(mine("GET", "charges", cursor="bm90IG91cnM")) == (422, "CURSOR_INVALID")


def test_the_statement_says_where_points_went(shop, pay, refund, mine, me, pending):
    pay(100, "sale-two")
    refund("sale-two", 40)
    mine("POST", f"charges/{pending}/confirm")
    found = [one for one in me("statement").json["items"] if one["kind"] != "adjust"]
    assert [one["kind"] for one in found] == ["redeem", "refund", "redeem", "hold"]
    assert {one["merchant"] for one in found} == {"noodles 面馆"}
    told = [one["out_request_no"] for one in found]
    assert told == ["sale-one", "sale-two", "sale-two", "sale-one"]
    assert me(f"entries/{found[0]['entry_id']}").json["merchant"] == "noodles 面馆"
    assert me("home").json["recent"][0]["merchant"] == "noodles 面馆"


# many at once


@pytest.fixture
def at_once(app, shop):
    """at_once(call, arguments): call(a till with a line of its own, argument), all together."""

    def run(call, arguments, threads=8):
        arguments = list(arguments)
        lanes = min(threads, len(arguments))
        start = Barrier(lanes)

        def work(lane):
            till = replace(shop, client=app.test_client())
            start.wait()
            return [call(till, one) for one in arguments[lane::lanes]]

        with ThreadPoolExecutor(lanes) as pool:
            return [answer for lane in pool.map(work, range(lanes)) for answer in lane]

    return run


def test_a_hundred_tills_spend_what_one_wallet_holds(city, at_once, pay, purse, points, shop):
    with city.engine.begin() as tx:  # as the app of a family on many phones, all at once
        codes = []
        for _ in range(100):
            made = new_code(tx, city.vault, purse, None, city.clock())
            codes.append(made.code)
            tx.execute(text("UPDATE pay_codes SET used_at = now() WHERE used_at IS NULL"))
        tx.execute(text("UPDATE pay_codes SET used_at = NULL"))
    answers = at_once(lambda till, code: pay(30, code=code, at=till), codes, threads=12)
    taken = [answer for answer in answers if answer.status_code == 200]
    assert len(taken) == 1000 // 30
    rest = {code_of(answer) for answer in answers if answer not in taken}
    assert rest == {(409, "INSUFFICIENT_POINTS")}
    assert points() == (1000 % 30, 0)
    assert shop.left() == 100_000 - 990


def test_one_code_at_many_tills_pays_once(at_once, pay, show, points):
    code = show()
    answers = at_once(lambda till, n: pay(30, f"sale-at-{n:04d}", code, at=till), range(16))
    assert sorted(map(code_of, answers)) == [(200, None)] + [(409, "PAY_CODE_USED")] * 15
    assert points() == (970, 0)


def test_one_number_at_many_tills_pays_once(at_once, pay, show, points):
    code = show()
    answers = at_once(lambda till, n: pay(30, "sale-one", code, at=till), range(16))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert points() == (970, 0)


def test_charges_and_reversals_that_cross_leave_nothing(city, at_once, pay, show, points, shop):
    codes = {}
    for n in range(12):
        codes[n] = show()
        with city.engine.begin() as tx:
            tx.execute(text("UPDATE pay_codes SET used_at = now() WHERE used_at IS NULL"))
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE pay_codes SET used_at = NULL"))

    def work(till, job):
        verb, n = job
        if verb == "charge":
            return pay(30, f"sale-at-{n:04d}", codes[n], at=till)
        return till.post(f"charges/sale-at-{n:04d}/reverse", {})

    jobs = [(verb, n) for n in range(12) for verb in ("charge", "reverse")]
    answers = at_once(work, jobs)
    assert {code_of(one) for one in answers} <= {(200, None), (409, "CHARGE_REVERSED")}
    states = {shop.get(f"charges/sale-at-{n:04d}").json["state"] for n in range(12)}
    assert states == {"reversed"}
    assert points() == (1000, 0)
    assert shop.left() == 100_000


def test_refunds_and_reversals_at_once_give_back_what_was_paid(at_once, pay, refund, points, shop):
    pay(100, "sale-one")

    def work(till, n):
        if n % 4 == 3:
            return till.post("charges/sale-one/reverse", {})
        return refund("sale-one", 30, f"back-at-{n // 2:04d}", at=till)

    answers = at_once(work, range(16))
    assert {one.status_code for one in answers} <= {200, 409}
    assert points() == (1000, 0)
    assert shop.left() == 100_000
    assert shop.get("charges/sale-one").json["refunded_points"] == "100"


def test_a_confirmation_and_a_reversal_at_once_agree(at_once, pending, mine, points, shop):
    def work(till, verb):
        if verb == "reverse":
            return till.post("charges/sale-one/reverse", {})
        return mine("POST", f"charges/{pending}/{verb}")

    at_once(work, ["confirm", "reverse", "decline"] * 3, threads=9)
    assert shop.get("charges/sale-one").json["state"] in ("reversed", "failed")
    assert points() == (2000, 0)
    assert shop.left() == 100_000


def test_what_a_key_seen_before_signs_is_two_statements_and_every_check(
    pay, shop, show, points, city, monkeypatch
):
    assert pay(10).status_code == 200
    sent, rows = [], Lean.rows

    def note(driver, statement, given):
        sent.append(driver.autocommit)
        return rows(driver, statement, given)

    def charge(number, nonce):
        body = {"out_request_no": number, "code": code, "points": "10", "till": "t1"}
        return shop.send("POST", "charges", body, nonce=nonce)

    code = show()
    monkeypatch.setattr(Lean, "rows", note)
    assert charge("sale-once", "a-nonce-that-is-one").status_code == 200
    assert sent == [True, True]
    code = show()
    for number in ("sale-once", "sale-other"):
        again = charge(number, "a-nonce-that-is-one")
        assert code_of(again) == (401, "NONCE_REPLAYED")
    assert points() == (980, 0)
    with city.engine.begin() as tx:
        assert merchants.revoke_key(tx, shop.id, shop.key_id, city.clock())
    for nonce, counted in (("a-nonce-that-is-new", True), ("a-nonce-newer-than-it", False)):
        revoked = charge("sale-other", nonce)
        assert code_of(revoked) == (401, "KEY_REVOKED")
        assert ("RateLimit" in revoked.headers) is counted, "once, before the process knew"
    assert points() == (980, 0)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ("UPDATE merchants SET state = 'suspended'", (403, "MERCHANT_SUSPENDED")),
        ("UPDATE merchants SET state = 'closed'", (403, "MERCHANT_CLOSED")),
        ("UPDATE merchants SET sandbox = true", (200, None)),
    ],
)
def test_what_became_of_a_merchant_whose_key_was_seen_counts_at_once(
    pay, shop, city, change, refusal
):
    assert pay(10).status_code == 200
    with city.engine.begin() as tx:
        tx.execute(text(change))
    assert code_of(pay(10)) == refusal
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE merchants SET state = 'approved', sandbox = false"))
    assert pay(10).status_code == 200
