"""Binding through HTTP: codes, signed tokens, what waited, letting go, and disputes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text

from app.flows.consent import open_scenarios, text_digest
from app.flows.erase import erase
from app.flows.join import add_resident
from app.flows.publish import publish
from app.flows.tokens import issue_access_token
from app.store import people
from scenarios import Version, load

BIKES = "travel.bike_shared"
_keys = count()


@pytest.fixture
def person(city):
    """person() joins somebody new."""

    def join():
        with city.engine.begin() as tx:
            return add_resident(tx, city.vault, "140403", city.clock())

    return join


@pytest.fixture
def ask(client, city):
    """ask(resident, method, path, body, key) with a token of that resident's."""

    def send(resident, method, path, body=None, key=None):
        token = issue_access_token(city.vault.token, resident, city.clock())
        headers = {
            "Authorization": f"Bearer {token}",
            "Idempotency-Key": key or f"key-{next(_keys):08d}",
        }
        return client.open(f"/api/v1/me/{path}", method=method, json=body, headers=headers)

    return send


@pytest.fixture
def consent(ask, city):
    """consent(resident, scenario, given=False)"""

    def send(resident, scenario=BIKES, *, given=True, provider="bikes"):
        with city.engine.connect() as tx:
            version = open_scenarios(city.registry.current(tx), city.clock())[scenario]
        wish = {"provider": provider, "scenario": scenario, "given": given}
        if given:
            wish["text_digest"] = text_digest(version)
        return ask(resident, "PUT", "consents", {"consents": [wish]})

    return send


@pytest.fixture
def code(provider):
    """code("rider-1") is a fresh code of the provider's."""

    def make(subject="rider-1"):
        path = "/api/v1/binding-codes"
        body = b'{"subject": "%s"}' % subject.encode()
        headers = provider.headers("POST", path, body) | {
            "Content-Type": "application/json",
            "Idempotency-Key": f"key-{next(_keys):08d}",
        }
        made = provider.client.post(path, data=body, headers=headers)
        assert made.status_code == 200, made.text
        return made.json["code"]

    return make


@pytest.fixture
def bind(ask, code):
    """bind(resident, "rider-1"), or with a proof."""

    def send(resident, subject="rider-1", **proof):
        given = {"provider": "bikes"} | (proof or {"code": code(subject)})
        return ask(resident, "POST", "bindings", given)

    return send


@pytest.fixture
def points(ask):
    return lambda resident: int(ask(resident, "GET", "balances").json["points"])


@pytest.fixture
def rows(city):
    def read(query):
        with city.engine.connect() as tx:
            return [tuple(row) for row in tx.execute(text(query))]

    return read


def told(answer):
    return [one.get("code", one["outcome"]) for one in answer.json["outcomes"]]


def outcome(answer):
    (one,) = told(answer)
    return one


def test_a_code_binds_and_what_waited_is_credited_in_order_of_time(
    bind, person, consent, provider, ride, ask, points
):
    amy = person()
    assert consent(amy).status_code == 200
    late = ride(1, occurred_at="2026-11-20T09:00:00+08:00")
    early = ride(2, occurred_at="2026-11-19T09:00:00+08:00")
    assert outcome(provider.batch("b1", late)) == "unclaimed"
    assert outcome(provider.batch("b2", early)) == "unclaimed"
    made = bind(amy)
    assert (made.status_code, made.json["claimed"]) == (200, 2)
    items = ask(amy, "GET", "statement").json["items"]
    assert len(items) == 2
    assert points(amy) == 1250
    (shown,) = ask(amy, "GET", "bindings").json["items"]
    assert (shown["id"], shown["name"], shown["disputed"]) == (made.json["id"], "Bikes", False)
    assert outcome(provider.batch("b3", ride(3))) == "accepted"


def test_what_waits_and_is_not_consented_to_waits_until_it_is(
    bind, person, consent, provider, ride, rows, points, city
):
    amy = person()
    assert outcome(provider.batch("b1", ride(1))) == "unclaimed"
    assert bind(amy).json["claimed"] == 0
    assert rows("SELECT scenario FROM unclaimed") == [(BIKES,)]
    assert outcome(provider.batch("b2", ride(2))) == "CONSENT_MISSING"
    assert consent(amy).status_code == 200
    assert rows("SELECT * FROM unclaimed") == []
    assert points(amy) == 625


def test_what_came_too_long_before_the_binding_is_told_and_not_credited(
    bind, person, consent, provider, ride, points, city, ask
):
    amy = person()
    published = next(one for one in load().versions(BIKES) if one.number == 1)
    first = str(city.clock().date() + timedelta(days=8))
    later = {"number": 2, "effective_from": first, "claim_days": 3}
    with city.engine.connect() as tx:
        whole = city.registry.current(tx).amended(
            [Version.parse(json.loads(published.canonical()) | later)]
        )
    publish(city.engine, city.vault, whole, city.clock())
    city.clock.move(days=10)
    acts = [ride(n, occurred_at=f"2026-11-30T0{n}:00:00+08:00") for n in (1, 2)]
    assert told(provider.batch("b1", *acts)) == ["unclaimed", "unclaimed"]
    city.clock.move(days=1)
    consent(amy)
    assert told(provider.batch("b2", ride(3, occurred_at="2026-11-30T09:00:00+08:00"))) == [
        "unclaimed"
    ]
    city.clock.move(days=1)
    assert bind(amy).json["claimed"] == 3
    assert points(amy) == 0
    refused = ask(amy, "GET", "rejections").json["items"]
    assert {one["code"] for one in refused} == {"TOO_LATE"}
    assert told(provider.batch("b3", ride(4, occurred_at="2026-12-01T09:00:00+08:00"))) == [
        "accepted"
    ]
    city.clock.move(days=30)
    corrected = ride(4, occurred_at="2026-12-01T09:30:00+08:00")
    answer = provider.send("PUT", "/api/v1/activities/ride-4/correction", corrected)
    assert answer.json["outcome"] == "accepted"  # it was reported in time


def test_a_code_works_once_and_is_forgiving_about_how_it_is_typed(bind, person, code, ask):
    amy, bob, made = person(), person(), code()
    typed = f"{made[:4]}-{made[4:]}".lower()
    first = bind(amy, code=typed)
    assert first.status_code == 200
    again = bind(amy, code=made)
    assert (again.status_code, again.json["id"]) == (200, first.json["id"])
    assert bind(bob, code=made).json["code"] == "CODE_UNKNOWN"
    assert len(ask(amy, "GET", "bindings").json["items"]) == 1


def test_a_code_ends_after_a_quarter_of_an_hour_and_is_of_one_provider(
    bind, person, code, city, ask
):
    amy, made = person(), code()
    refused = ask(amy, "POST", "bindings", {"provider": "trams", "code": made})
    assert refused.json["code"] == "CODE_UNKNOWN"
    city.clock.move(minutes=15)
    assert bind(amy, code=made).json["code"] == "CODE_UNKNOWN"
    assert bind(amy, code="00000000").status_code == 404


def test_identifier_and_code_are_nowhere_in_the_clear(bind, person, code, rows):
    made = code("card-4711-4711")
    bind(person(), code=made)
    for table in ("binding_codes", "bindings", "answers"):
        whole = str(rows(f"SELECT t::text FROM {table} t"))
        assert "card-4711" not in whole
        assert made not in whole


def test_two_who_bind_one_identifier_at_once_are_one_who_has_it(bind, person, code, rows):
    crowd = [person() for _ in range(4)]
    codes = [code() for _ in crowd]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda who, one: bind(who, code=one), crowd, codes))
    told = sorted(one.json.get("code", "bound") for one in answers)
    assert told == ["IDENTIFIER_BOUND"] * 3 + ["bound"]
    assert len(rows("SELECT * FROM bindings")) == 1


def test_letting_go_stops_intake_and_ends_consents_and_keeps_the_points(
    bind, person, consent, provider, ride, ask, points, rows
):
    amy = person()
    consent(amy)
    made = bind(amy)
    assert outcome(provider.batch("b1", ride(1))) == "accepted"
    path = f"bindings/{made.json['id']}/unbind"
    assert ask(amy, "POST", path).json["items"] == []
    assert ask(amy, "POST", path).status_code == 404
    assert outcome(provider.batch("b2", ride(2))) == "unclaimed"
    assert points(amy) == 625
    assert rows("SELECT withdrawn_at IS NULL FROM consents") == [(False,)]
    assert bind(amy).json["claimed"] == 0  # a new binding is consented to anew


def test_the_same_request_again_is_answered_and_not_done_again(ask, person, code, consent, rows):
    amy, body = person(), {"provider": "bikes", "code": code()}
    first = ask(amy, "POST", "bindings", body, key="a-request-number")
    again = ask(amy, "POST", "bindings", body, key="a-request-number")
    assert (first.json, again.headers["Idempotency-Replayed"]) == (again.json, "true")


@pytest.mark.parametrize(
    "body",
    [
        {"provider": "bikes"},
        {"provider": "bikes", "code": "12345678", "token": "a.b.c"},
        {"provider": "BIKES", "code": "12345678"},
        {"provider": "bikes", "code": 12345678},
        {"provider": "bikes", "code": ""},
        {"provider": "bikes", "token": "a b"},
        {"provider": "bikes", "code": "12345678", "subject": "rider-1"},
    ],
)
def test_a_proof_of_another_form_is_refused(ask, person, body):
    assert ask(person(), "POST", "bindings", body).json["code"] == "VALIDATION_FAILED"


@pytest.fixture
def token(provider, ask, city):
    """token(resident, subject="rider-2", kid=..., key=...): one that the provider signed."""

    def sign(resident, key=None, kid="bikes-1", **changes):
        made = ask(resident, "POST", "binding-challenges", {"provider": "bikes"})
        said = {
            "provider": "bikes",
            "subject": "rider-1",
            "challenge": made.json["challenge"],
            "nonce": f"nonce-of-a-token-{next(_keys)}",
            "exp": int(city.clock().timestamp()) + 300,
        } | changes
        return jwt.encode(said, key or provider.key, algorithm="EdDSA", headers={"kid": kid})

    return sign


def test_a_token_that_the_provider_signed_binds(bind, person, token):
    amy = person()
    signed = token(amy)
    assert bind(amy, token=signed).status_code == 200
    assert bind(amy, token=signed).status_code == 200  # a lost answer


@pytest.mark.parametrize(
    "changes",
    [
        {"provider": "trams"},
        {"exp": 1},
        {"exp": "soon"},
        {"challenge": "1-" + "0" * 32},
        {"challenge": "99999999999-" + "0" * 32},
        {"challenge": 7},
        {"nonce": "short"},
        {"nonce": None},
        {"subject": ""},
        {"subject": 7},
        {"more": "than asked for"},
        {"kid": "nobody"},
        {"key": Ed25519PrivateKey.generate()},
    ],
)
def test_a_token_that_is_not_quite_right_binds_nothing(bind, person, token, rows, changes):
    amy = person()
    assert bind(amy, token=token(amy, **changes)).json["code"] == "BINDING_TOKEN_INVALID"
    assert rows("SELECT * FROM bindings") == []


@pytest.mark.parametrize("text", ["a", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_binds_nothing(bind, person, text, provider):
    assert bind(person(), token=text).json["code"] == "BINDING_TOKEN_INVALID"


def test_a_token_is_good_for_one_resident_and_ten_minutes(bind, person, token, city):
    amy, bob = person(), person()
    signed = token(amy)
    assert bind(bob, token=signed).json["code"] == "BINDING_TOKEN_INVALID"
    city.clock.move(minutes=10)
    assert bind(amy, token=signed).json["code"] == "BINDING_TOKEN_INVALID"


def test_a_token_signed_with_a_shared_secret_is_none(bind, person, ask, city, provider):
    amy = person()
    made = ask(amy, "POST", "binding-challenges", {"provider": "bikes"}).json["challenge"]
    said = {"provider": "bikes", "subject": "rider-1", "challenge": made,
            "nonce": "n" * 20, "exp": int(city.clock().timestamp()) + 300}  # fmt: skip
    forged = jwt.encode(said, "s" * 32, algorithm="HS256", headers={"kid": "bikes-1"})
    assert bind(amy, token=forged).json["code"] == "BINDING_TOKEN_INVALID"


@pytest.fixture
def disputed(bind, person, consent, code, ask, provider, ride):
    """Amy has rider-1 and a ride; Bob shows that it is his: (amy, bob, the dispute's id)."""
    amy, bob = person(), person()
    consent(amy)
    consent(bob)
    bind(amy)
    assert outcome(provider.batch("b1", ride(1))) == "accepted"
    proof = {"provider": "bikes", "code": code()}
    refused = ask(bob, "POST", "bindings", proof)
    assert (refused.status_code, refused.json["code"]) == (409, "IDENTIFIER_BOUND")
    made = ask(bob, "POST", "binding-disputes", proof)
    assert (made.status_code, made.json["state"]) == (200, "open")
    again = ask(bob, "POST", "binding-disputes", proof)
    assert again.json["id"] == made.json["id"]
    return amy, bob, made.json["id"]


def test_the_holder_is_told_of_a_dispute_and_may_let_go(disputed, ask, provider, ride, points):
    amy, bob, dispute = disputed
    (letter,) = ask(amy, "GET", "messages").json["items"]
    assert letter["kind"] == "binding.dispute"
    (held,) = ask(amy, "GET", "bindings").json["items"]
    assert held["disputed"] is True
    assert ask(amy, "POST", f"bindings/{held['id']}/unbind").json["items"] == []
    assert [one["id"] for one in ask(bob, "GET", "bindings").json["items"]] == [held["id"]]
    (mine,) = ask(bob, "GET", "binding-disputes").json["items"]
    assert (mine["id"], mine["state"]) == (dispute, "moved")
    assert outcome(provider.batch("b2", ride(2))) == "accepted"
    assert (points(amy), points(bob)) == (625, 625)  # what was credited stays


def test_an_operator_moves_what_is_disputed(disputed, desk, provider, ride, points, rows):
    amy, bob, dispute = disputed
    seat = desk("operator")
    (shown,) = seat.get("binding-disputes").json["items"]
    assert shown["id"] == dispute
    assert not {amy, bob} & set(shown.values())
    moved = seat.post(f"binding-disputes/{dispute}/move", {"reason": "the card was sold"})
    assert moved.json["state"] == "moved"
    assert outcome(provider.batch("b2", ride(2))) == "accepted"
    assert (points(amy), points(bob)) == (625, 625)
    again = seat.post(f"binding-disputes/{dispute}/keep", {"reason": "no"})
    assert (again.status_code, again.json["code"]) == (409, "DISPUTE_CLOSED")
    (act,) = rows("SELECT action, target, record FROM trail WHERE action LIKE 'binding%'")
    assert act[:2] == ("binding.moved", dispute)
    assert amy.encode() not in act[2]
    assert bob.encode() not in act[2]


def test_an_operator_leaves_it_where_it_is(disputed, desk, provider, ride, points):
    amy, bob, dispute = disputed
    kept = desk("operator").post(f"binding-disputes/{dispute}/keep", {"reason": "shown twice"})
    assert kept.json["state"] == "kept"
    provider.batch("b2", ride(2))
    assert (points(amy), points(bob)) == (1250, 0)
    assert desk("reviewer").get("binding-disputes").status_code == 403


def test_of_two_verdicts_at_once_one_counts(disputed, desk):
    _, _, dispute = disputed
    seats = [desk("operator", name=f"operator{n}") for n in range(2)]
    verdicts = ("move", "keep")
    with ThreadPoolExecutor(2) as pool:
        answers = list(
            pool.map(
                lambda seat, word: seat.post(f"binding-disputes/{dispute}/{word}", {"reason": "r"}),
                seats,
                verdicts,
            )
        )
    assert sorted(one.status_code for one in answers) == [200, 409]


def test_there_is_nothing_to_dispute_about_ones_own_or_nobodys(ask, person, code, bind):
    amy = person()
    proof = {"provider": "bikes", "code": code()}
    assert ask(amy, "POST", "binding-disputes", proof).json["code"] == "NOT_BOUND"
    bind(amy)
    assert ask(amy, "POST", "binding-disputes", proof).json["code"] == "NOT_BOUND"
    assert ask(amy, "POST", "bindings", proof).status_code == 200


def test_of_several_who_claim_the_first_gets_it_and_the_others_go_on(
    disputed, ask, person, code, rows, city
):
    amy, bob, _ = disputed
    eve = person()
    city.clock.move(seconds=1)
    proof = {"provider": "bikes", "code": code()}
    assert ask(eve, "POST", "binding-disputes", proof).status_code == 200
    (held,) = ask(amy, "GET", "bindings").json["items"]
    ask(amy, "POST", f"bindings/{held['id']}/unbind")
    (held,) = ask(bob, "GET", "bindings").json["items"]
    assert held["disputed"] is True
    open_now = rows("SELECT claimant, holder FROM binding_disputes WHERE state = 'open'")
    assert open_now == [(bytes.fromhex(eve), bytes.fromhex(bob))]


def test_who_is_erased_disputes_nothing_any_more(disputed, city, rows, ask, code):
    amy, bob, _ = disputed
    erase(city.engine, city.vault, amy, city.clock())
    assert rows("SELECT * FROM binding_disputes") == rows("SELECT * FROM bindings") == []
    proof = {"provider": "bikes", "code": code()}
    assert ask(bob, "POST", "bindings", proof).status_code == 200
    with city.engine.begin() as tx:
        assert people.lock(tx, amy) is None
