"""What a merchant's signature lets in: by any key of theirs, or only by the merchant's own."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text

from app.auth import verify_request
from app.flows.partner.standing import PartnerError, at_till
from app.flows.public_key import key_id
from app.signature import AuthError, Received
from app.store import merchants, providers
from app.store.db import one_statement
from app.store.driver import Lean
from app.store.merchants import Partner
from app.store.providers import KeyIdTakenError


def spki(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key) -> str:
    kind = PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(Encoding.PEM, kind).decode()


def refusal(answer) -> tuple[int, str]:
    return answer.status_code, answer.get_json()["code"]


def proof(code: str, key) -> str:
    named = key_id(code, spki(key)).encode()
    signed = (
        key.sign(named)
        if isinstance(key, Ed25519PrivateKey)
        else key.sign(named, PKCS1v15(), SHA256())
    )
    return b64encode(signed).decode()


def register(shop, key, **changes):
    body = {"public_key": pem(key), "proof": proof(shop.code, key)} | changes
    return shop.post("keys", body)


def test_a_merchant_signs_and_is_known_by_its_key(shop):
    profile = shop.get("profile").get_json()
    assert (profile["code"], profile["state"]) == ("noodles", "approved")
    assert profile["allowance_points"] == "100000"


def test_each_of_the_seven_checks_refuses(shop, client):
    now = int(shop.city.clock().timestamp())
    path = "/api/v1/merchant/profile"
    assert refusal(client.get(path)) == (401, "SIGNATURE_MISSING")
    bad = {"Authorization": "Bearer x"}
    assert refusal(client.get(path, headers=bad)) == (401, "SIGNATURE_MALFORMED")
    assert refusal(shop.send("GET", "profile", timestamp=now - 301)) == (401, "TIMESTAMP_SKEW")
    stranger = replace(shop, key_id="noodles-0000000000000000")
    assert refusal(stranger.get("profile")) == (401, "KEY_UNKNOWN")
    forger = replace(shop, key=Ed25519PrivateKey.generate())
    assert refusal(forger.get("profile")) == (401, "SIGNATURE_INVALID")
    assert shop.send("GET", "profile", nonce="the-same-nonce-12").status_code == 200
    again = shop.send("GET", "profile", nonce="the-same-nonce-12")
    assert refusal(again) == (401, "NONCE_REPLAYED")


def test_providers_and_merchants_do_not_sign_for_each_other(shop, provider):
    assert refusal(replace(shop, key=provider.key, key_id=provider.key_id).get("profile")) == (
        401,
        "KEY_UNKNOWN",
    )
    path = "/api/v1/activities/unclaimed"
    provider.key, provider.key_id = shop.key, shop.key_id
    assert refusal(provider.send("GET", path)) == (401, "KEY_UNKNOWN")


def test_an_id_is_one_keys_of_both(shop, provider, city):
    der = spki(Ed25519PrivateKey.generate())
    with city.engine.begin() as tx:
        with pytest.raises(KeyIdTakenError):
            providers.add_key(tx, shop.key_id, "bikes", "ed25519", der, city.clock())
        parts = (provider.key_id, shop.id, None, "ed25519", der, city.clock())
        assert not merchants.add_key(tx, *parts)


def test_two_statements_and_no_transaction_around_them_tell_who_signed(shop, city, monkeypatch):
    received = Received("GET", "/api/v1/merchant/profile", b"")
    now = city.clock()
    header = shop.headers("GET", received.path_query)["Authorization"]
    sent, rows = [], Lean.rows

    def note(driver, statement, given):
        sent.append((statement.split()[0], driver.autocommit))
        return rows(driver, statement, given)

    city.engine.connect().close()  # what a new connection asks first
    monkeypatch.setattr(Lean, "rows", note)
    verify_request(city.engine, now, header, received, merchants.find_key)
    assert sent == [("SELECT", True), ("INSERT", True)]


def test_of_a_key_seen_before_one_statement_tells_all(shop, city, monkeypatch):
    received, now = Received("GET", "/api/v1/merchant/profile", b""), city.clock()
    both = merchants.find_key, merchants.spend_key

    def ask(header):
        return verify_request(city.engine, now, header, received, *both).partner.code

    def signed():
        return shop.headers("GET", received.path_query)["Authorization"]

    ask(signed())
    sent, rows = [], Lean.rows

    def note(driver, statement, given):
        sent.append(driver.autocommit)
        return rows(driver, statement, given)

    monkeypatch.setattr(Lean, "rows", note)
    header = signed()
    assert ask(header) == shop.code
    assert sent == [True]
    with pytest.raises(AuthError) as replayed:
        ask(header)
    assert replayed.value.code == "NONCE_REPLAYED"
    with city.engine.begin() as tx:
        assert merchants.revoke_key(tx, shop.id, shop.key_id, now)
    with pytest.raises(AuthError) as revoked:
        ask(signed())
    assert revoked.value.code == "KEY_REVOKED"


def test_a_nonce_does_not_wait_for_the_disk_and_nothing_else_is_changed_by_that(city):
    with one_statement(city.engine) as alone:
        assert providers.spend_nonce(alone, "a-key", "a" * 16, city.clock())
        assert not providers.spend_nonce(alone, "a-key", "a" * 16, city.clock())
        assert alone.execute(text("SHOW synchronous_commit")).scalar() == "on"


def test_a_tills_key_acts_for_its_till_only(shop, city):
    till = shop.key_of("t1")
    assert till.get("profile").status_code == 200
    assert till.get("tills").status_code == 200
    for method, path, body in (
        ("PUT", "stores/s2", {"name": "b", "district": "140403", "address": "c"}),
        ("PUT", "tills/t9", {"store": "s1"}),
        ("PUT", "staff/e1", {"role": "owner"}),
        ("POST", "staff/e1/link-code", None),
        ("GET", "staff", None),
        ("GET", "keys", None),
        ("POST", "keys", {"public_key": "x" * 40, "proof": "eA=="}),
        ("POST", f"keys/{shop.key_id}/revoke", None),
    ):
        assert refusal(till.send(method, path, body)) == (403, "TILL_NOT_YOURS"), path
    with city.engine.connect() as tx:
        partner = merchants.find_key(tx, till.key_id).partner
        assert at_till(tx, partner, "t1").id == partner.till
        with pytest.raises(PartnerError) as other:
            at_till(tx, partner, "t2")
        assert other.value.code == "TILL_NOT_YOURS"
        own = merchants.find_key(tx, shop.key_id).partner
        assert at_till(tx, own, "t2").code == "t2"


def test_a_closed_till_or_store_is_none(shop, city):
    own = Partner(shop.id, "noodles", "approved", None)

    def there(code="t1") -> bool:
        with city.engine.connect() as tx:
            return merchants.till(tx, own.id, code) is not None

    with city.engine.connect() as tx, pytest.raises(PartnerError) as unknown:
        at_till(tx, own, "t9")
    assert unknown.value.code == "TILL_UNKNOWN"
    assert there()
    shop.put("tills/t1", {"store": "s1", "open": False})
    assert not there()
    shop.put("tills/t1", {"store": "s1"})
    place = {"name": "一店", "district": "140403", "address": "英雄路1号"}
    shop.put("stores/s1", {**place, "open": False})
    assert not there()
    shop.put("stores/s1", place)
    assert there()


def test_a_new_key_is_proved_and_two_are_in_force_at_once(shop):
    second, third = Ed25519PrivateKey.generate(), generate_private_key(65537, 2048)
    made = register(shop, second)
    assert made.status_code == 201
    assert register(shop, second).get_json() == made.get_json()
    assert refusal(register(shop, third)) == (409, "KEYS_FULL")
    assert register(shop, third, till="t1").status_code == 201
    old = replace(shop)
    shop.key, shop.key_id = second, made.get_json()["key_id"]
    for sender in (old, shop):
        assert sender.get("profile").status_code == 200
    revoked = shop.post(f"keys/{old.key_id}/revoke")
    assert revoked.get_json()["revoked_at"]
    assert refusal(old.get("profile")) == (401, "KEY_REVOKED")
    assert shop.post(f"keys/{old.key_id}/revoke").get_json() == revoked.get_json()
    assert refusal(shop.post(f"keys/{shop.key_id}/revoke")) == (409, "LAST_KEY")
    assert refusal(register(shop, old.key)) == (409, "KEY_EXISTS")
    assert refusal(shop.post("keys/nobodys/revoke")) == (404, "NOT_FOUND")
    rsa = replace(shop, key=third, key_id=key_id("noodles", spki(third)))
    assert rsa.get("profile").status_code == 200


def test_a_key_that_is_not_the_senders_is_not_registered(shop):
    mine, theirs = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    for wrong in (proof("noodles", mine), proof("tea", theirs), "AAA", "AAAA"):
        answer = register(shop, theirs, proof=wrong)
        assert refusal(answer) == (422, "VALIDATION_FAILED")
        assert answer.get_json()["errors"][0]["field"] == "proof"
    for bad in (pem(generate_private_key(65537, 1024)), "x" * 50, "-----BEGIN PUBLIC KEY-----" * 3):
        answer = register(shop, theirs, public_key=bad)
        assert answer.get_json()["errors"][0]["field"] == "public_key"
    assert refusal(register(shop, theirs, till="t9")) == (404, "TILL_UNKNOWN")


def test_a_change_of_state_is_in_force_at_the_next_request(shop, desk):
    olga = desk("operator")

    def bring(verb):
        etag = olga.get("merchants/noodles").headers["ETag"]
        assert (
            olga.post(f"merchants/noodles/{verb}", {"reason": "a check"}, match=etag).status_code
            == 200
        )

    place = {"name": "二店", "district": "140404", "address": "解放街2号"}
    bring("suspend")
    assert shop.get("profile").get_json()["state"] == "suspended"
    assert shop.put("stores/s2", place).status_code == 200
    bring("close")
    assert shop.get("profile").get_json()["state"] == "closed"
    assert refusal(shop.put("stores/s2", place)) == (403, "MERCHANT_CLOSED")
