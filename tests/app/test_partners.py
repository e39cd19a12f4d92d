"""Partners: who becomes a merchant, on what terms, and how much may be redeemed there."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import timedelta
from secrets import token_hex

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from app import limits
from app.cli import main
from app.cli.local import environment
from app.flows.partner.alert import tell_low
from app.flows.partner.fund import grant
from app.flows.partner.licence import check_character, is_licence
from app.flows.public_key import key_id
from app.flows.tokens import issue_access_token
from app.flows.work import Worker
from app.limits import Policy
from app.store import merchants
from app.store.db import transact
from ledger.entries import Entry
from ledger.errors import Insufficient

REAL = ("91350100M000100Y43", "91110000600037341L", "91440300708461136T")
SAID = {
    "code": "tea",
    "name": "茶馆",
    "licence": REAL[0],
    "contact": {"person": "李某某", "phone": "0355-2010101", "email": "tea@example.com"},
}
POSTPAID = {
    "payer": "city",
    "mode": "postpaid",
    "fen_per_100_points": 100,
    "limit_points": "5000",
    "alert_points": "1000",
    "reference": "合同 2026-1",
}
PREPAID = POSTPAID | {"mode": "prepaid", "limit_points": "0", "payer": "merchant"}
PREPAID |= {"fen_per_100_points": 0}


def refusal(answer) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture(autouse=True)
def window(monkeypatch):
    """A window of its own for each test: all of them apply from one address."""
    monkeypatch.setattr(limits, "APPLICATION", Policy(f"application-{token_hex(4)}", 20))


@pytest.fixture
def olga(desk):
    return desk("operator", name="olga")


@pytest.fixture
def decide(olga):
    """decide("tea", "approve"): an operator's step, over what stands."""

    def take(code, verb, body=None):
        etag = olga.get(f"merchants/{code}").headers["ETag"]
        return olga.post(f"merchants/{code}/{verb}", body or {"reason": "checked"}, match=etag)

    return take


@pytest.fixture
def applicant(shop):
    """Somebody with a key who wants to be the merchant `tea`; nobody knows it yet."""
    key = Ed25519PrivateKey.generate()
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return replace(shop, key=key, key_id=key_id("tea", der), code="tea", id="")


def apply(applicant, **changes):
    kind = PublicFormat.SubjectPublicKeyInfo
    pem = applicant.key.public_key().public_bytes(Encoding.PEM, kind).decode()
    return applicant.post("applications", SAID | {"public_key": pem} | changes)


def trail(city) -> list[tuple[str, str]]:
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT action, target FROM trail ORDER BY arrival"))
        return [tuple(row) for row in rows]


def funded(city, code) -> list[tuple[str, int]]:
    """(reference, points) of every change of a merchant's allowance, out of the ledger."""
    with city.engine.connect() as tx:
        one = merchants.find(tx, code)
        rows = tx.execute(
            text(
                "SELECT e.payload FROM entries e JOIN postings p USING (arrival)"
                " WHERE p.account = :id AND p.account_kind = 4 AND e.kind = 'merchant.funded'"
                " ORDER BY e.arrival"
            ),
            {"id": bytes.fromhex(one.id)},
        ).scalars()
        found = [Entry.parse(payload) for payload in rows]
    return [
        (one.detail["reference"], line.amount)
        for one in found
        for line in one.postings
        if line.account.kind == "merchant"
    ]


def test_who_applies_signs_with_the_key_they_bring(applicant, city):
    made = apply(applicant)
    assert made.status_code == 201
    assert made.get_json()["state"] == "applied"
    profile = applicant.get("profile").get_json()
    assert profile == made.get_json()
    assert (profile["contract"], profile["allowance_points"]) == (None, "0")
    assert apply(applicant).get_json() == profile
    with city.engine.connect() as tx:
        row = tx.execute(text("SELECT contact FROM merchants WHERE code = 'tea'")).scalar()
    assert "李某某".encode() not in row


def test_nobody_registers_another_key_or_takes_another_code(applicant, shop):
    thief = replace(applicant, key=Ed25519PrivateKey.generate())
    kind = PublicFormat.SubjectPublicKeyInfo
    pem = applicant.key.public_key().public_bytes(Encoding.PEM, kind).decode()
    assert refusal(apply(thief, public_key=pem)) == (401, "SIGNATURE_INVALID")
    unnamed = replace(applicant, key_id="tea-1")
    answer = apply(unnamed)
    assert refusal(answer) == (401, "KEY_UNKNOWN")
    assert applicant.key_id in answer.get_json()["detail"]
    assert apply(applicant).status_code == 201
    assert refusal(apply(applicant, name="another")) == (409, "MERCHANT_EXISTS")
    der = applicant.key.public_key().public_bytes(Encoding.DER, kind)
    late = replace(applicant, key_id=key_id("noodles", der))
    assert refusal(apply(late, code="noodles")) == (409, "MERCHANT_EXISTS")
    assert shop.get("profile").status_code == 200


@pytest.mark.parametrize(
    "bad",
    [
        {"licence": "91350100M000100Y44"},
        {"licence": "91350100m000100y43"},
        {"code": "-tea"},
        {"name": "two\nlines"},
        {"contact": {"person": "a"}},
        {"public_key": "x" * 60},
        {"more": 1},
    ],
)
def test_an_application_is_whole(applicant, bad):
    answer = apply(applicant, **bad)
    assert refusal(answer) == (422, "VALIDATION_FAILED")
    assert answer.get_json()["errors"][0]["field"].startswith(next(iter(bad)))


def test_anybody_applies_only_so_often(applicant, monkeypatch):
    monkeypatch.setattr(limits, "APPLICATION", Policy(f"application-{token_hex(4)}", 2))
    assert apply(applicant).status_code == 201
    assert apply(applicant).status_code == 201
    assert refusal(apply(applicant)) == (429, "TOO_MANY_REQUESTS")


def test_real_licences_are_licences():
    assert all(is_licence(one) for one in REAL)


@given(st.text("0123456789ABCDEFGHJKLMNPQRTUWXY", min_size=17, max_size=17), st.data())
def test_one_wrong_or_two_swapped_characters_of_a_licence_are_found(body, data):
    whole = body + check_character(body)
    assert is_licence(whole)
    assert not is_licence(whole[:-1])
    at = data.draw(st.integers(0, 17))
    other = data.draw(st.sampled_from("0123456789ABCDEFGHJKLMNPQRTUWXY").filter(whole[at].__ne__))
    assert not is_licence(whole[:at] + other + whole[at + 1 :])
    swapped = whole[: at - 1] + whole[at] + whole[at - 1] + whole[at + 1 :]
    assert at == 0 or swapped == whole or not is_licence(swapped)


def test_a_merchant_goes_through_its_states_and_each_step_is_on_record(applicant, decide, city):
    apply(applicant)
    assert refusal(decide("tea", "approve")) == (409, "CONTRACT_MISSING")
    assert decide("tea", "contracts", POSTPAID).status_code == 201
    assert applicant.get("profile").get_json()["allowance_points"] == "0"
    for verb, state in (
        ("approve", "approved"),
        ("suspend", "suspended"),
        ("resume", "approved"),
        ("suspend", "suspended"),
        ("close", "closed"),
    ):
        assert decide("tea", verb).get_json()["state"] == state
        assert applicant.get("profile").get_json()["state"] == state
    assert funded(city, "tea") == [("contract 1", 5000), ("closed", -5000)]
    assert trail(city)[-6:] == [
        ("merchant.contract", "tea"), ("merchant.approved", "tea"), ("merchant.suspended", "tea"),
        ("merchant.resumed", "tea"), ("merchant.suspended", "tea"), ("merchant.closed", "tea"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "verbs"),
    [
        ("applied", {"approve", "close"}),
        ("approved", {"suspend", "close"}),
        ("suspended", {"resume", "close"}),
        ("closed", set()),
    ],
)
def test_no_other_step_is_taken(open_shop, decide, olga, state, verbs):
    open_shop("tea", approved=state != "applied")
    if state not in ("applied", "approved"):
        decide("tea", state.removesuffix("ed").replace("clos", "close"))
    assert olga.get("merchants/tea").get_json()["state"] == state
    for verb in {"approve", "suspend", "resume", "close"} - verbs:
        assert refusal(decide("tea", verb)) == (409, "MERCHANT_STATE"), verb
    if state == "closed":
        assert refusal(decide("tea", "contracts", POSTPAID)) == (409, "MERCHANT_STATE")


def test_a_step_is_taken_over_what_was_seen_and_once(shop, olga):
    etag = olga.get("merchants/noodles").headers["ETag"]
    path, reason = "merchants/noodles/suspend", {"reason": "a check"}
    assert refusal(olga.post(path, reason)) == (428, "IF_MATCH_MISSING")
    first = olga.post(path, reason, match=etag, key="suspend-1")
    assert first.headers["ETag"] != etag
    again = olga.post(path, reason, match=etag, key="suspend-1")
    assert again.get_json() == first.get_json()
    late = olga.post("merchants/noodles/resume", reason, match=etag)
    assert refusal(late) == (412, "REVISION_STALE")
    assert refusal(olga.post("merchants/nobody/close", reason, match=etag)) == (404, "NOT_FOUND")


def test_later_terms_give_or_take_back_the_difference(applicant, decide, city):
    apply(applicant)
    decide("tea", "contracts", POSTPAID)
    decide("tea", "contracts", POSTPAID | {"limit_points": "4000"})
    decide("tea", "approve")
    made = decide("tea", "contracts", POSTPAID | {"limit_points": "9000"}).get_json()
    assert (made["allowance_points"], made["contract"]["number"]) == ("9000", 3)
    decide("tea", "contracts", POSTPAID | {"limit_points": "2500"})
    decide("tea", "contracts", POSTPAID | {"limit_points": "2500", "alert_points": "1"})
    made = decide("tea", "contracts", PREPAID).get_json()
    assert made["allowance_points"] == "0"
    assert [one["number"] for one in made["contracts"]] == [6, 5, 4, 3, 2, 1]
    assert funded(city, "tea") == [
        ("contract 2", 4000), ("contract 3", 5000), ("contract 4", -6500), ("contract 6", -2500),
    ]  # fmt: skip


def spend(city, code, points) -> None:
    """As if so many points had been redeemed: the allowance is less by them."""

    def take(tx):
        one = merchants.lock(tx, code)
        grant(tx, city.vault, one.id, -points, f"used {token_hex(4)}", city.clock())

    transact(city.engine, take)


def test_a_limit_is_not_lowered_below_what_was_redeemed_on_it(applicant, decide, city):
    apply(applicant)
    decide("tea", "contracts", POSTPAID)
    decide("tea", "approve")
    spend(city, "tea", 3000)
    lower = POSTPAID | {"limit_points": "2999"}
    answer = decide("tea", "contracts", lower)
    assert refusal(answer) == (409, "ALLOWANCE_IN_USE")
    assert "higher by 1" in answer.get_json()["detail"]
    assert decide("tea", "contracts", lower | {"limit_points": "3000"}).status_code == 201
    assert applicant.get("profile").get_json()["allowance_points"] == "0"


def test_an_allowance_is_never_below_nothing(shop, city):
    with pytest.raises(Insufficient):
        spend(city, "noodles", 100_001)
    assert shop.left() == 100_000


def test_a_prepaid_merchant_pays_in_and_each_payment_counts_once(open_shop, olga, city):
    shop = open_shop("tea", prepaid=True, points=700)
    paid = {"points": "300", "reference": "bank 17"}
    first = olga.post("merchants/tea/funds", paid).get_json()
    again = olga.post("merchants/tea/funds", paid).get_json()
    assert (first["again"], again["again"]) == (False, True)
    assert first["entry_id"] == again["entry_id"]
    other = olga.post("merchants/tea/funds", paid | {"points": "301"})
    assert refusal(other) == (409, "REFERENCE_REUSED")
    assert shop.left() == 1000
    assert funded(city, "tea") == [("paid first payment", 700), ("paid bank 17", 300)]
    # the same words in a contract's place are another reference
    assert olga.post("merchants/tea/funds", {"points": "1", "reference": "contract 1"}).status_code


def test_nobody_pays_in_on_credit_or_without_a_contract(shop, applicant, olga):
    apply(applicant)
    paid = {"points": "300", "reference": "bank 17"}
    assert refusal(olga.post("merchants/noodles/funds", paid)) == (409, "MERCHANT_STATE")
    assert refusal(olga.post("merchants/tea/funds", paid)) == (409, "CONTRACT_MISSING")
    assert refusal(olga.post("merchants/nobody/funds", paid)) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "bad",
    [
        {"limit_points": "0"},
        {"mode": "prepaid"},
        {"payer": "merchant"},
        {"limit_points": "-1"},
        {"limit_points": 5000},
        {"fen_per_100_points": -1},
        {"fen_per_100_points": "100"},
        {"payer": "resident"},
        {"reference": ""},
    ],
)
def test_terms_fit_together(applicant, decide, bad):
    apply(applicant)
    answer = decide("tea", "contracts", POSTPAID | bad)
    assert refusal(answer) == (422, "VALIDATION_FAILED")
    assert len(answer.get_json()["errors"]) == 1


def test_operators_find_merchants_and_read_whom_to_call(open_shop, applicant, olga, desk):
    apply(applicant)
    for code in ("bath", "cinema", "dairy"):
        open_shop(code, points=10)
    codes, cursor = [], None
    while True:
        more = {"cursor": cursor} if cursor else {}
        page = olga.get("merchants", limit=2, **more).get_json()
        codes += [one["code"] for one in page["items"]]
        cursor = page["next_cursor"]
        if not page["has_more"]:
            break
    assert codes == ["bath", "cinema", "dairy", "noodles", "tea"]
    found = olga.get("merchants", state="applied").get_json()["items"]
    assert [one["code"] for one in found] == ["tea"]
    found = olga.get("merchants", q="茶").get_json()["items"]
    assert [one["code"] for one in found] == ["tea"]
    assert refusal(olga.get("merchants", cursor="AAAA")) == (422, "CURSOR_INVALID")
    whole = desk("auditor").get("merchants/tea").get_json()
    assert whole["contact"] == SAID["contact"]
    assert [one["key_id"] for one in whole["keys"]] == [applicant.key_id]


def test_an_operator_takes_a_stolen_key_out_of_force(shop, olga, city):
    thief = shop.key_of(None)
    path = f"merchants/noodles/keys/{thief.key_id}/revoke"
    assert olga.post(path, {"reason": "stolen"}).status_code == 200
    assert refusal(thief.get("profile")) == (401, "KEY_REVOKED")
    assert trail(city)[-1] == ("merchant.key_revoked", "noodles")
    last = olga.post(f"merchants/noodles/keys/{shop.key_id}/revoke", {"reason": "stolen"})
    assert refusal(last) == (409, "LAST_KEY")


def test_stores_and_tills_are_kept_under_the_merchants_own_codes(shop, open_shop):
    place = {"name": "二店", "district": "140404", "address": "解放街2号"}
    made = shop.put("stores/S-2", place).get_json()
    assert made == {"code": "S-2", **place, "open": True}
    assert shop.put("stores/S-2", {**place, "name": "新店"}).get_json()["name"] == "新店"
    assert [one["code"] for one in shop.get("stores").get_json()["items"]] == ["S-2", "s1"]
    assert refusal(shop.put("tills/t3", {"store": "S-3"})) == (404, "STORE_UNKNOWN")
    shop.put("tills/t1", {"store": "S-2"})
    assert shop.get("tills").get_json()["items"] == [
        {"code": "t1", "store": "S-2", "open": True},
        {"code": "t2", "store": "s1", "open": True},
    ]
    assert refusal(shop.put("stores/S-2", {**place, "district": "110101"})) == (
        422,
        "VALIDATION_FAILED",
    )
    assert refusal(shop.put("stores/S%202", place)) == (422, "VALIDATION_FAILED")
    other = open_shop("tea")
    assert [one["code"] for one in other.get("stores").get_json()["items"]] == ["s1"]


@pytest.fixture
def li(client, city, rider):
    """li("GET", "staff-link"): the rider, in the mini-program."""

    def ask(method, path, body=None):
        token = issue_access_token(city.vault.token, rider, city.clock())
        headers = {"Authorization": f"Bearer {token}"}
        if method == "POST":
            headers["Idempotency-Key"] = f"key-{token_hex(8)}"
        return client.open(f"/api/v1/me/{path}", method=method, json=body, headers=headers)

    return ask


def test_an_employee_says_where_they_work_and_takes_it_back(shop, li, rider, city):
    def works() -> bool:
        with city.engine.connect() as tx:
            rows = tx.execute(text("SELECT resident FROM staff WHERE active")).scalars()
            return bytes.fromhex(rider) in rows

    assert refusal(shop.post("staff/e1/link-code")) == (404, "STAFF_UNKNOWN")
    shop.put("staff/e1", {"role": "cashier"})
    first = shop.post("staff/e1/link-code").get_json()["code"]
    code = shop.post("staff/e1/link-code").get_json()["code"]
    assert refusal(li("POST", "staff-link", {"code": first})) == (404, "CODE_UNKNOWN")
    assert not works()
    typed = f"{code[:4]}-{code[4:]}".lower()
    post = {"merchant": "noodles", "name": "noodles 面馆", "number": "e1", "role": "cashier"}
    assert li("POST", "staff-link", {"code": typed}).get_json() == {"items": [post]}
    assert refusal(li("POST", "staff-link", {"code": code})) == (404, "CODE_UNKNOWN")
    assert works()
    (employee,) = shop.get("staff").get_json()["items"]
    assert employee == {"number": "e1", "role": "cashier", "active": True, "linked": True}
    assert rider not in json.dumps(employee)
    assert li("POST", "staff-link/leave", {"merchant": "noodles"}).get_json() == {"items": []}
    assert not works()


def test_a_link_code_lives_half_an_hour_and_who_left_is_linked_to_nobody(shop, li, city):
    shop.put("staff/e1", {"role": "cashier"})
    code = shop.post("staff/e1/link-code").get_json()["code"]
    city.clock.move(minutes=30)
    assert refusal(li("POST", "staff-link", {"code": code})) == (404, "CODE_UNKNOWN")
    code = shop.post("staff/e1/link-code").get_json()["code"]
    city.clock.move(minutes=29)
    assert li("POST", "staff-link", {"code": code}).status_code == 200
    shop.put("staff/e1", {"role": "cashier", "active": False})
    assert li("GET", "staff-link").get_json() == {"items": []}
    shop.put("staff/e1", {"role": "cashier"})
    assert li("GET", "staff-link").get_json() == {"items": []}
    assert not shop.get("staff").get_json()["items"][0]["linked"]


def test_once_staff_is_named_only_managers_and_owners_give_back(shop, city):
    def may(number) -> bool:
        with city.engine.connect() as tx:
            return merchants.may_refund(tx, shop.id, number)

    assert may(None)
    assert may("anybody")
    shop.put("staff/e1", {"role": "cashier"})
    assert not any(map(may, (None, "anybody", "e1")))
    shop.put("staff/e2", {"role": "manager"})
    shop.put("staff/e3", {"role": "owner"})
    assert [may(number) for number in (None, "e1", "e2", "e3")] == [False, False, True, True]
    shop.put("staff/e2", {"role": "manager", "active": False})
    assert not may("e2")


def test_residents_see_where_to_spend(shop, open_shop, client, decide):
    open_shop("tea", approved=False)
    bath = open_shop("bath")
    for number in range(3):
        place = {"name": f"{number}店", "district": "140404", "address": "解放街"}
        bath.put(f"stores/b{number}", place)
    bath.put("stores/b2", {**place, "open": False})

    def seen(**query) -> list[str]:
        answer = client.get("/api/v1/merchants", query_string=query)
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        return [f"{one['merchant']} {one['code']}" for one in answer.get_json()["items"]]

    assert seen() == ["bath b0", "bath b1", "bath s1", "noodles s1"]
    assert seen(district="140404") == ["bath b0", "bath b1"]
    first = client.get("/api/v1/merchants?limit=3").get_json()
    assert first["has_more"]
    assert seen(limit=3, cursor=first["next_cursor"]) == ["noodles s1"]
    decide("bath", "suspend")
    assert seen() == ["noodles s1"]
    bad = client.get("/api/v1/merchants?cursor=AAAA")
    assert refusal(bad) == (422, "CURSOR_INVALID")


def events(city) -> list[dict]:
    with city.engine.connect() as tx:
        rows = tx.execute(
            text("SELECT body FROM webhook_events WHERE kind = 'allowance.low' ORDER BY at, id")
        )
        return [json.loads(bytes(body)) for (body,) in rows]


def test_a_low_allowance_is_told_once_each_time_it_falls(open_shop, city, client, olga):
    shop = open_shop("tea", points=2000)
    with city.engine.begin() as tx:
        tx.execute(
            text(
                "INSERT INTO webhook_endpoints (id, merchant, url, secret, kinds, state, made_at,"
                " verified_at) VALUES (:id, :merchant, 'https://tea.example/', '',"
                " '{allowance.low}', 'active', :now, :now)"
            ),
            {"id": bytes(16), "merchant": bytes.fromhex(shop.id), "now": city.clock()},
        )
    worker = Worker(city.engine, city.vault, city.sealer, city.clock)

    def look() -> int:
        city.clock.move(minutes=1)
        worker.step()
        return len(events(city))

    assert look() == 0
    spend(city, "tea", 1000)
    assert look() == 0
    spend(city, "tea", 1)
    assert [look(), look()] == [1, 1]
    assert events(city)[0]["data"] == {"allowance_points": "999", "alert_points": "1000"}
    assert "low_at" in shop.get("profile").get_json()
    (low,) = [one["code"] for one in olga.get("merchants").get_json()["items"] if "low_at" in one]
    assert low == "tea"
    assert "puhui_merchants_low 1.0" in client.get("/metrics").text
    spend(city, "tea", -500)
    assert look() == 1
    assert "low_at" not in shop.get("profile").get_json()
    spend(city, "tea", 600)
    assert [look(), look()] == [2, 2]
    assert tell_low(city.engine, city.vault, city.clock() + timedelta(days=1)) == 0


@pytest.fixture
def puhui(city, monkeypatch, capsys):
    """Run a command on the city's database: its exit code, and what it says."""
    for name, value in environment(city.config).items():
        monkeypatch.setenv(name, value)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["puhui", "merchant", *map(str, arguments)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    return run


def test_an_operator_keeps_a_merchant_from_the_command_line(puhui, tmp_path, city):
    pem = tmp_path / "tea.pem"
    paper = ("--licence", REAL[1], "--person", "李某某", "--phone", "0355-2010101")
    code, named = puhui("add", "tea", "茶馆", *paper, "--write", pem)
    assert (code, named[:4]) == (0, "tea-")
    code, said = puhui("add", "tea", "茶馆", *paper, "--write", tmp_path / "other.pem")
    assert (code, said) == (1, "puhui: there is a merchant tea; take another code\n")
    assert not (tmp_path / "other.pem").exists()
    terms = ("--payer", "city", "--fen", 100, "--alert", 10, "--reference", "合同 1")
    assert puhui("contract", "tea", "--mode", "postpaid", *terms)[0] == 2
    assert puhui("contract", "tea", "--mode", "prepaid", *terms)[0] == 0
    assert puhui("decide", "tea", "approve", "--reason", "in order")[1] == "tea is approved\n"
    assert puhui("fund", "tea", 500, "--reference", "bank 1")[0] == 0
    store = ("--store", "s1", "--name", "一店", "--district", "140403", "--address", "英雄路")
    assert puhui("till", "tea", "t1", "--store", "s1")[0] == 1
    assert puhui("till", "tea", "t1", *store)[0] == 0
    assert puhui("till", "tea", "t2", "--store", "s1")[0] == 0
    code, of_till = puhui("key", "tea", "--till", "t1", "--write", tmp_path / "t1.pem")
    assert code == 0
    assert puhui("revoke", "tea", of_till.strip())[0] == 0
    assert puhui("revoke", "tea", named.strip())[0] == 1
    day = city.clock().strftime("%Y-%m-%d")
    lines = puhui("show", "tea")[1].replace(day, "DAY").splitlines()
    assert lines[:5] == [
        "tea  茶馆  approved  500 left",
        "contract 1  prepaid, city pays, 100 fen for 100 points, limit 0, alert 10",
        "store s1  一店",
        "till t1  in s1",
        "till t2  in s1",
    ]
    assert len(lines) == 7
    assert puhui("show")[1] == "tea  茶馆  approved  500 left\n"
    assert [action for action, _ in trail(city)] == [
        "merchant.added", "merchant.contract", "merchant.approved", "merchant.funded",
        "merchant.till", "merchant.till", "merchant.key_added", "merchant.key_revoked",
    ]  # fmt: skip
