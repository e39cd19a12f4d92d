"""Whatever a machine can think of sending is answered as documented, and never with a 500."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from itertools import count, cycle
from secrets import token_bytes, token_urlsafe
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import pytest
import redis
import requests
import schemathesis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.api.providers import ReceiptSchema
from app.clock import utc_now
from app.config import CITY_ZONE
from app.flows.bill.close import close_days
from app.flows.budget import fund_budget
from app.flows.charge.charge import Asked, charge
from app.flows.login import hash_token
from app.flows.order.confirm import confirm
from app.flows.order.place import place as set_aside
from app.flows.partner.apply import Application, apply
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.stores import put_store, put_till
from app.flows.pay_code import new_code
from app.flows.public_key import PublicKey, key_id
from app.flows.seal import Sealer
from app.flows.voucher.show import show
from app.store import admins, vouchers
from app.store.cases import Finding, open_case
from app.store.merchants import Contract, Partner
from app.store.settings import put as put_setting
from scenarios import load

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
SESSIONS = (  # who they let in is tested elsewhere; some would end the sessions used here
    "/login", "/login/refresh", "/admin/logout", "/admin/password", "/v1/join",
    "/me/sign-out", "/me/sign-out-everywhere", "/merchant/applications",
)  # fmt: skip
IN_STEPS = (  # what a request cannot do that knows nothing of the one before it
    "/admin/admins/{name}/roles", "/admin/drafts", "/admin/drafts/{draft}", "/{scenario}/{name}",
    "POST /api/v1/me/appeals", "/ask", "/grant", "/refuse", "/answer", "/admin/settings/{setting}",
    "/me/phone", "/me/privacy-notice", "/{archive_id}", "/download", "/{verdict}", "/me/bindings",
    "/me/binding-disputes", "/unbind", "/withdrawals", "/confirm",
    "/contracts", "/suspend", "/resume", "/funds", "/revoke", "/tills/{till}", "/link-code",
    "POST /api/v1/merchant/keys", "POST /api/v1/me/staff-link",
    "/submit", "/approve", "/reject", "/discard", "/withdraw", "/undo",
    "/me/steps", "POST /api/v1/me/reports", "/accept", "/refuse", "/photo",
    "PUT /api/v1/admin/challenges/{challenge_id}", "/open", "/close",
    "/bills/{merchant}/{day}/pay", "/bills/{day}/differences",
    "/me/friend-codes", "POST /api/v1/me/friends", "/remove",
    "PUT /api/v1/merchant/rewards/{code}", "/rewards/{code}/codes", "/pause", "/cancel",
    "/certificate", "/certificate.svg",
    "/vouchers/{voucher}/code", "POST /api/v1/merchant/uses", "/return", "/uses/offline",
    "POST /api/v1/merchant/voids",
    "POST /api/v1/merchant/charges", "POST /api/v1/merchant/refunds", "/decline",
    "/uphold", "/dismiss",
    "/webhooks/{webhook}/test", "/webhooks/{webhook}/replay", "/events/{event}/replay",
)  # fmt: skip
ENDS = ("/discard", "/suspend", "/close")  # asked last: others need what chance may end here
YESTERDAY = utc_now() - timedelta(days=1)
SPKI = PublicFormat.SubjectPublicKeyInfo
SAFE = "/:@!$&'()*+,;=~-._"  # what stands for itself in a signed path
RIDE = {
    "id": "ride-1",
    "subject": "rider-1",
    "scenario": "travel.bike_shared",
    "occurred_at": "2026-01-02T08:00:00+08:00",
    "quantities": {"distance_km": "2.5"},
}
QUICK = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
_numbers = count()


class Shop(NamedTuple):
    """A merchant: its account, and who signs for it."""

    id: str
    sender: Any


@pytest.fixture(scope="module")
def bikes(still_town):
    fund_budget(still_town.engine, still_town.vault, "*", 10_000_000, "decision 1", utc_now())
    return still_town.provider("bikes")


@pytest.fixture(scope="module")
def rider(still_town, bikes):
    return still_town.resident(bikes, "rider-1")


@pytest.fixture(scope="module")
def shop(still_town):
    """A merchant that may take points, with one store and one till; it signs."""
    key, now = Ed25519PrivateKey.generate(), utc_now()
    public = PublicKey("ed25519", key.public_key().public_bytes(Encoding.DER, SPKI))
    said = Application(
        "noodles", "面馆", "91140400MA0GXXXX3R", {"person": "王某", "phone": "13900000000"}
    )
    terms = Contract(0, "city", "postpaid", 100, 100_000, 0, "terms 1", now)
    with still_town.engine.begin() as tx:
        made = apply(tx, still_town.vault, said, public, now)
        place = {"name": "一店", "district": "140403", "address": "英雄路1号", "open": True}
        put_store(tx, made.id, "s1", place)
        put_till(tx, made.id, "t1", "s1", is_open=True)
        agree(tx, still_town.vault, "olga", made.code, None, terms, now)
        decide(tx, still_town.vault, "olga", made.code, None, "approve", "in order", now)
    return Shop(made.id, still_town.sender(made.code, key_id(made.code, public.der), key))


@pytest.fixture(scope="module")
def sessions(still_town):
    """Tokens of administrators with all roles, so many that none of them asks too often."""
    tokens = [token_urlsafe(32) for _ in range(10)]
    with still_town.engine.begin() as tx:
        for number, token in enumerate(["", *tokens]):
            who = admins.Admin(token_bytes(16), f"admin-{number}", admins.ROLES)
            admins.add(tx, who, "no password", b"no code", utc_now())
            admins.begin_session(tx, hash_token(token), who.id, utc_now())
    return cycle(tokens)


@pytest.fixture(scope="module")
def known(still_town, bikes, rider, shop, sessions):
    """A value for each parameter that names something that exists."""
    change = {
        "title": "骑行",
        "reason": "a test",
        "effective_from": (utc_now() + timedelta(days=60)).date().isoformat(),
        "scenarios": ["travel.bike_shared"],
    }
    made = {}
    for path, document in (("drafts", change), ("backtests", {"days": 1})):
        headers = {"Authorization": f"Bearer {next(sessions)}", "Idempotency-Key": f"known-{path}"}
        answer = still_town.http.post(f"/api/v1/admin/{path}", json=document, headers=headers)
        assert answer.status_code in (201, 202), answer.text
        made[path] = answer.json()["id"]
    made["challenges"] = open_challenge(still_town, sessions)
    headers = {"Authorization": f"Bearer {rider.token}", "Idempotency-Key": "known-appeal"}
    document = {"about": "correction", "text": "a test"}
    appeal = still_town.http.post("/api/v1/me/appeals", json=document, headers=headers).json()
    with still_town.engine.begin() as tx:
        template = {"id": "template-1", "fields": {"thing1": "text"}}
        put_setting(tx, "template.points.expiring", template, 0, utc_now())
    # the first may be corrected away by whoever knows its id; the others are there to be spent
    others = (
        {"id": f"own-{day}", "occurred_at": f"2026-01-{day}T08:00:00Z"} for day in range(10, 14)
    )
    credited, *_ = bikes.batch("a-batch", RIDE, *(RIDE | one for one in others)).json()["outcomes"]
    sell_yesterday(still_town, shop, rider.account)
    Sealer(still_town.engine, still_town.vault, still_town.config.head_file).seal(utc_now())
    return {
        "merchant": "noodles",
        "day": YESTERDAY.astimezone(CITY_ZONE).date().isoformat(),
        "entry_id": credited["entry_id"],
        "entry": credited["entry_id"],
        "activity_id": "ride-1",
        "batch_id": "a-batch",
        "scenario": "travel.bike_shared",
        "number": "1",
        "place": "0/000.p/2",
        "old": 1,
        "new": 2,
        "resident": rider.account,
        "code": "NOT_FOUND",
        "from": 1,
        "to": 1,
        "draft": made["drafts"],
        "backtest": made["backtests"],
        "appeal": appeal["id"],
        "setting": "appeal_days",
        "template": "template-1",
        "challenge_id": made["challenges"],
        "name": "admin-0",
        "month": "2026-01",
        "year": "2026",
        "scope": "*",
        "out_request_no": "sale-0000",
        "out_refund_no": give_back(shop),
        "case": doubted(still_town, shop),
        **endpoint_of(shop),
        **ordered(still_town, shop, rider, sessions),
        **taken(still_town, shop, rider),
    }


def taken(town, shop, rider):
    """Vouchers of an order: one that was used and returned, one voided, one as it was issued."""
    now, vault = utc_now(), town.vault
    reward = shop.sender.send("GET", "/api/v1/merchant/rewards/NOT_FOUND").json()["id"]
    with town.engine.begin() as tx:
        order = set_aside(tx, vault, rider.account, None, reward, 3, now).id
        confirm(tx, vault, rider.account, order, now)
        used, voided, issued = vouchers.of_order(tx, order)
        code = show(tx, vault, rider.account, used, None, now).code.code
    for path, document in (
        ("uses", {"out_use_no": "use-0000", "code": code, "till": "t1"}),
        ("uses/use-0000/return", {"out_return_no": "return-0000"}),
        ("voids", {"out_void_no": "void-0000", "voucher": voided, "reason": "a test"}),
    ):
        body = json.dumps(document).encode()
        answer = shop.sender.send("POST", f"/api/v1/merchant/{path}", body)
        assert answer.status_code == 200, answer.text
    numbers = {f"out_{name}_no": f"{name}-0000" for name in ("use", "return", "void")}
    return {"voucher": issued, **numbers}


def ordered(town, shop, rider, sessions):
    """A reward on offer under the code `NOT_FOUND`, and an order of it that is held."""
    terms = {
        "kind": "voucher", "title_zh": "面", "title_en": "n", "text_zh": "n", "points": "1",
        "stock": "500", "valid_days": 30, "unused": "refund",
        "opens_at": "2026-01-01T00:00:00Z", "closes_at": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    body = json.dumps(terms).encode()
    made = shop.sender.send("PUT", "/api/v1/merchant/rewards/NOT_FOUND", body).json()["id"]
    for token, path, document in (
        (next(sessions), f"/api/v1/admin/rewards/{made}/open", None),
        (rider.token, "/api/v1/me/orders", {"reward": made}),
    ):
        headers = {
            "Authorization": f"Bearer {token}",
            "Idempotency-Key": "known-order",
            "If-Match": '"1"',
        }
        answer = town.http.post(path, json=document, headers=headers)
        assert answer.status_code in (200, 201), answer.text
    return {"reward": made, "order": answer.json()["id"]}


def doubted(town, shop):
    """A case that a reviewer has to decide; its id."""
    found = Finding("fraud", "till", "a test", shop.id, {"charges": "31"})
    with town.engine.begin() as tx:
        return open_case(tx, found, utc_now())


def endpoint_of(shop):
    """A merchant's endpoint that is about to be proved, and the event that will do it."""
    path, url = "/api/v1/merchant/webhooks", "https://pay.shop.example/"
    webhook = shop.sender.send("POST", path, json.dumps({"url": url}).encode()).json()["id"]
    assert shop.sender.send("POST", f"{path}/{webhook}/verify").status_code == 202
    (event,) = shop.sender.send("GET", "/api/v1/merchant/events").json()["items"]
    return {"url": url, "webhook": webhook, "event": event["id"]}


def sell_yesterday(town, shop, resident):
    """The till takes a point that the resident has, and the day is closed."""
    asks = Partner(shop.id, "noodles", "approved", None)
    with town.engine.begin() as tx:
        shown = new_code(tx, town.vault, resident, None, YESTERDAY).code
    asked = Asked(asks, "sale-0000", shown, 1, "t1", None)
    assert charge(town.engine, town.vault, asked, YESTERDAY).charge.state == "succeeded"
    close_days(town.engine, town.vault, utc_now() + timedelta(minutes=1))


def give_back(shop):
    """The till gives that point back; the number of it."""
    refund = {"out_refund_no": "back-0000", "out_request_no": "sale-0000", "points": "1"}
    body = json.dumps({**refund, "reason": "a test"}).encode()
    assert shop.sender.send("POST", "/api/v1/merchant/refunds", body).status_code == 200
    return refund["out_refund_no"]


def open_challenge(town, sessions):
    """A challenge of this month that a resident can join; its id."""
    goal = {"of": "days", "at_least": 10}
    body = {"title_zh": "骑行", "title_en": "Rides", "goal": goal}
    body["month"] = utc_now().astimezone(CITY_ZONE).strftime("%Y-%m")
    path, made = "/api/v1/admin/challenges", {}
    for step, document in (("", body), ("/open", None)):
        headers = {
            "Authorization": f"Bearer {next(sessions)}",
            "Idempotency-Key": f"known-challenge{step[1:]}",
            "If-Match": '"1"',
        }
        answer = town.http.post(f"{path}{step}", json=document, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        made = answer.json()
        path = f"/api/v1/admin/challenges/{made['id']}"
    return made["id"]


class Allowed(requests.auth.AuthBase):
    """Signs as a provider or bears somebody's token, whichever the address asks for."""

    def __init__(self, provider, resident, shop, sessions):
        self.provider, self.resident, self.sessions = provider, resident, sessions
        self.shop = shop

    def __call__(self, sent):
        path, mark, query = sent.path_url.partition("?")
        signed = quote(unquote(path), safe=SAFE) + mark + query
        body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
        signer = self.shop.sender if path.startswith("/api/v1/merchant/") else self.provider
        header = signer.header(sent.method, signed, body)
        if path.startswith("/api/v1/me/"):
            header = f"Bearer {self.resident.token}"
        elif path.startswith("/api/v1/admin/"):
            header = f"Bearer {next(self.sessions)}"
        sent.headers["Authorization"] = header
        return sent


def forget_how_often(town, resident):
    """Open a new window for a resident, who asks more here than anybody may in a minute."""
    with redis.Redis.from_url(town.config.redis_url, protocol=3) as counters:
        for key in counters.scan_iter(f"*resident/{resident.account}*"):
            counters.delete(key)


def test_every_operation_answers_as_documented(still_town, bikes, rider, shop, sessions, known):
    schema = schemathesis.openapi.from_dict(still_town.http.get("/openapi.json").json())
    schema.config.update(base_url=str(still_town.http.base_url))
    allowed = Allowed(bikes, rider, shop, sessions)
    served = Counter()

    def ask_often(operation, reals, examples, enough=None):
        @settings(max_examples=examples, **QUICK)
        @given(case=operation.as_strategy(), real=reals)
        def ask(case, real):
            if served[operation.label] == enough:
                return
            for place in (case.path_parameters, case.query, case.body):
                if real and isinstance(place, dict):
                    place.update({name: known[name] for name in place.keys() & known.keys()})
            if real and case.headers and "Idempotency-Key" in case.headers:
                # a key that another operation was sent with is refused, as it should be
                case.headers["Idempotency-Key"] = f"real-{next(_numbers)}-{case.method.lower()}"
            answer = case.call_and_validate(auth=allowed, checks=CHECKS)
            assert answer.status_code not in (401, 403, 405, 429)
            served[operation.label] += answer.status_code < 300

        forget_how_often(still_town, rider)
        ask()

    found = [one.ok() for one in schema.get_all_operations()]
    for operation in sorted(found, key=lambda one: one.path.endswith(ENDS)):
        if not operation.path.endswith(SESSIONS):
            ask_often(operation, st.booleans(), 30)
            if not served[operation.label] and not operation.label.endswith(IN_STEPS):
                # chance may have named nothing that exists with all else in order
                ask_often(operation, st.just(True), 300, enough=1)
    assert len(served) > 50
    unserved = {name for name, answers in served.items() if not answers}
    assert {name for name in unserved if not name.endswith(IN_STEPS)} == set()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
NEARLY = st.fixed_dictionaries(
    {
        "id": st.integers(0, 30).map("act-{}".format) | ANY,
        "subject": st.sampled_from(["rider-1", "rider-2", "nobody"]) | ANY,
        "scenario": st.sampled_from([*load().scenarios]) | ANY,
        "occurred_at": st.datetimes().map(lambda at: f"{at.isoformat()}+08:00")
        | st.sampled_from(["2026-01-02T08:00:00Z", "2026-02-02T08:00:00.5+08:00"])
        | ANY,
        "quantities": st.dictionaries(
            st.sampled_from(["distance_km", "count", "mass_kg", "nights", "steps"]) | TEXTS,
            st.decimals(0, 100, places=2).map(str) | st.integers(0, 300).map(str) | ANY,
            max_size=2,
        )
        | ANY,
    }
)
GOOD = st.builds(
    lambda number, subject, day: (
        RIDE
        | {"id": f"act-{number}", "subject": subject, "occurred_at": f"2026-01-{day:02d}T08:00:00Z"}
    ),
    st.integers(0, 300),
    st.sampled_from(["rider-1", "rider-2", "nobody"]),
    st.integers(1, 28),
)
ACTIVITIES = st.lists(
    st.one_of(GOOD, GOOD, NEARLY, NEARLY, st.dictionaries(TEXTS, ANY), ANY),
    min_size=1,
    max_size=12,
)


def test_a_batch_of_anything_gets_an_outcome_for_each_and_they_add_up(still_town, bikes, rider):
    still_town.resident(bikes, "rider-2")
    seen = Counter()

    @settings(max_examples=250, **QUICK)
    @given(activities=ACTIVITIES)
    def report(activities):
        batch_id = f"any-{next(_numbers)}"
        body = json.dumps({"batch_id": batch_id, "activities": activities}).encode()
        answer = bikes.send("POST", "/api/v1/batches", body)
        assert answer.status_code == 200, answer.text
        receipt = answer.json()
        assert ReceiptSchema().validate(receipt) == {}
        outcomes = receipt["outcomes"]
        assert len(outcomes) == len(activities)
        counted = Counter(one["outcome"] for one in outcomes)
        assert {name: n for name, n in receipt["counts"].items() if n} == counted
        for sent, one in zip(activities, outcomes, strict=True):
            if one["outcome"] != "rejected":
                assert one["id"] == sent["id"]
        seen.update(counted)
        assert bikes.send("POST", "/api/v1/batches", body).content == answer.content

    report()
    assert all(seen[name] for name in ("accepted", "duplicate", "unclaimed", "rejected")), seen


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda body, at, byte: body[:at], id="cut"),
        pytest.param(lambda body, at, byte: body[:at] + bytes([byte]) + body[at + 1 :], id="flip"),
        pytest.param(lambda body, at, byte: body[:at] + bytes([byte]) + body[at:], id="insert"),
        pytest.param(lambda body, at, byte: body[:at] + body[at + 1 :], id="drop"),
    ],
)
def test_a_spoilt_body_is_answered_whatever_became_of_it(bikes, rider, spoil):
    @settings(max_examples=60, **QUICK)
    @given(at=st.integers(0, 200), byte=st.integers(0, 255))
    def send(at, byte):
        whole = {"batch_id": f"spoilt-{next(_numbers)}", "activities": [RIDE]}
        answer = bikes.send("POST", "/api/v1/batches", spoil(json.dumps(whole).encode(), at, byte))
        assert answer.status_code in (200, 400, 409, 422), answer.text

    send()
