"""Seven checks on a provider's signature, and what a token must be."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.auth import read_access_token, verify_request
from app.flows.tokens import issue_access_token
from app.signature import AuthError, Received, canonical_request, parse_signature, sign
from app.store import providers

PATH = "/api/v1/activities/unclaimed"
ME = "ab" * 16


def der(key) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def code(answer) -> str:
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"]
    return answer.json["code"]


def test_the_signed_bytes_are_five_ended_lines():
    message = canonical_request("POST", "/a?b=1", "1700000000", "n" * 16, b'{"x":1}')
    assert message == b'POST\n/a?b=1\n1700000000\nnnnnnnnnnnnnnnnn\n{"x":1}\n'
    assert canonical_request("GET", "/", "0", "n", b"") == b"GET\n/\n0\nn\n\n"


def test_a_signed_request_is_let_in_with_its_query(provider):
    path = f"{PATH}?limit=5"
    assert provider.client.get(path, headers=provider.headers("GET", path)).status_code == 200
    assert code(provider.client.get(path, headers=provider.headers("GET", PATH))) == (
        "SIGNATURE_INVALID"
    )


def test_rsa_keys_sign_too_but_not_under_the_other_scheme(provider, city):
    key = generate_private_key(65537, 2048)
    with city.engine.begin() as tx:
        providers.add_key(tx, "bikes-rsa", "bikes", "rsa-sha256", der(key), city.clock())
    provider.key, provider.key_id = key, "bikes-rsa"
    header = provider.headers("GET", PATH)["Authorization"]
    renamed = {"Authorization": header.replace("PUHUI-RSA-SHA256", "PUHUI-ED25519")}
    assert code(provider.client.get(PATH, headers=renamed)) == "SIGNATURE_INVALID"
    assert provider.client.get(PATH, headers={"Authorization": header}).status_code == 200


def test_without_a_header_the_signature_is_missing(client, provider):
    assert code(client.get(PATH)) == "SIGNATURE_MISSING"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h: h.lower(),
        lambda h: h + ",x=1",
        lambda h: h.replace("PUHUI-ED25519", "PUHUI-MD5"),
        lambda h: h.replace('nonce="', 'nonce="?'),
        lambda h: h.replace('timestamp="', 'timestamp="-'),
        lambda h: h.replace('timestamp="', 'timestamp="' + "9" * 5000),
        lambda h: h.replace('signature="', 'signature="A'),
        lambda h: h.replace(",", ", "),
        lambda h: "Bearer x",
        lambda h: h.replace("bikes-1", "bikes\t1"),
    ],
)
def test_a_header_that_does_not_read_is_malformed(client, provider, spoil):
    header = spoil(provider.headers("GET", PATH)["Authorization"])
    assert code(client.get(PATH, headers={"Authorization": header})) == "SIGNATURE_MALFORMED"


def test_an_unknown_key_is_unknown(provider):
    provider.key_id = "nobody"
    assert code(provider.send("GET", PATH)) == "KEY_UNKNOWN"


def test_a_revoked_key_is_refused_and_a_second_one_goes_on(provider, city):
    second = Ed25519PrivateKey.generate()
    with city.engine.begin() as tx:
        providers.add_key(tx, "bikes-2", "bikes", "ed25519", der(second), city.clock())
        providers.revoke_key(tx, "bikes-1", city.clock() + timedelta(minutes=1))
    assert provider.send("GET", PATH).status_code == 200
    city.clock.move(minutes=1)
    assert code(provider.send("GET", PATH)) == "KEY_REVOKED"
    provider.key, provider.key_id = second, "bikes-2"
    assert provider.send("GET", PATH).status_code == 200


@pytest.mark.parametrize(("skew", "fine"), [(-301, False), (-300, True), (300, True), (301, False)])
def test_a_timestamp_may_be_five_minutes_off_and_no_more(provider, city, skew, fine):
    answer = provider.send("GET", PATH, timestamp=int(city.clock().timestamp()) + skew)
    assert answer.status_code == 200 if fine else code(answer) == "TIMESTAMP_SKEW"


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"path_query": "/b"},
        {"body": b"{} "},
        {"body": b""},
    ],
)
def test_a_signature_holds_for_one_method_path_and_body_only(provider, city, change):
    whole = {"method": "POST", "path_query": "/a", "body": b"{}"}
    now = int(city.clock().timestamp())
    header = sign(provider.key, provider.key_id, Received(**whole), now, "a-nonce-of-mine-1")

    def verify(received: Received) -> str:
        parts = (city.engine, city.clock(), header, received)
        return verify_request(*parts, providers.find_key).provider

    with pytest.raises(AuthError) as refusal:
        verify(Received(**(whole | change)))
    assert refusal.value.code == "SIGNATURE_INVALID"
    assert verify(Received(**whole)) == "bikes"


def test_one_key_does_not_sign_for_another(provider):
    provider.key = Ed25519PrivateKey.generate()
    assert code(provider.send("GET", PATH)) == "SIGNATURE_INVALID"


def test_a_nonce_is_good_once_within_ten_minutes(provider, city):
    headers = provider.headers("GET", PATH)
    assert provider.client.get(PATH, headers=headers).status_code == 200
    assert code(provider.client.get(PATH, headers=headers)) == "NONCE_REPLAYED"
    city.clock.move(seconds=299)
    assert code(provider.client.get(PATH, headers=headers)) == "NONCE_REPLAYED"
    city.clock.move(minutes=10)
    with city.engine.begin() as tx:
        assert providers.forget_nonces(tx, city.clock() - timedelta(minutes=10)) == 1
    assert code(provider.client.get(PATH, headers=headers)) == "TIMESTAMP_SKEW"


def test_a_signature_that_fails_spends_no_nonce(provider):
    good = provider.headers("GET", PATH, nonce="the-same-nonce-12")
    bad = provider.headers("GET", "/elsewhere", nonce="the-same-nonce-12")
    assert code(provider.client.get(PATH, headers=bad)) == "SIGNATURE_INVALID"
    assert provider.client.get(PATH, headers=good).status_code == 200


def test_of_many_copies_sent_at_once_one_is_let_in(provider, city):
    now, received = int(city.clock().timestamp()), Received("GET", PATH, b"")
    header = sign(provider.key, provider.key_id, received, now, "one-nonce-for-all")

    def attempt(_: int) -> str:
        try:
            parts = (city.engine, city.clock(), header, received)
            return verify_request(*parts, providers.find_key).provider
        except AuthError as refusal:
            return refusal.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert sorted(outcomes) == ["NONCE_REPLAYED"] * 15 + ["bikes"]


def test_the_signature_is_judged_before_the_body_is_read(client):
    answer = client.post("/api/v1/batches", data=b"{", content_type="text/plain")
    assert code(answer) == "SIGNATURE_MISSING"


def test_echo_shows_the_lines_without_the_body(provider):
    headers = provider.headers("POST", "/api/v1/echo-signature?a=%20b", b"secret")
    answer = provider.client.post("/api/v1/echo-signature?a=%20b", data=b"secret", headers=headers)
    assert answer.json["path_query"] == "/api/v1/echo-signature?a=%20b"
    assert answer.json["body_bytes"] == 6
    assert answer.json["method"] == "POST"
    assert "secret" not in answer.text


def test_parsing_gives_back_what_was_signed(provider):
    header = provider.headers("GET", PATH)["Authorization"]
    found = parse_signature(header)
    assert (found.algorithm, found.key_id, len(found.signature)) == ("ed25519", "bikes-1", 64)


def test_a_token_speaks_for_its_resident_for_thirty_minutes(city):
    vault, now = city.vault, city.clock()
    header = f"Bearer {issue_access_token(vault.token, ME, now)}"
    assert read_access_token(vault, header, now + timedelta(minutes=29)).subject == ME
    with pytest.raises(AuthError) as refusal:
        read_access_token(vault, header, now + timedelta(minutes=30))
    assert refusal.value.code == "TOKEN_EXPIRED"


GOOD = {"iss": "puhui", "aud": "puhui-residents", "sub": ME, "typ": "access"}


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in (*GOOD, "iat", "exp")),
        {"iss": "other"},
        {"aud": "puhui-admins"},
        {"typ": "refresh"},
        {"sub": "root"},
        {"exp": 10**11},
        {"iat": "1"},
        {"exp": True},
        {"sid": "x"},
        {"sid": 7},
    ],
)
def test_a_token_with_another_claim_is_no_token(city, change):
    at = int(city.clock().timestamp())
    claims = GOOD | {"iat": at, "exp": at + 1800} | change
    claims = {name: value for name, value in claims.items() if value is not None}
    token = jwt.encode(claims, city.vault.token, algorithm="HS256")
    with pytest.raises(AuthError) as refusal:
        read_access_token(city.vault, f"Bearer {token}", city.clock())
    assert refusal.value.code == "TOKEN_INVALID"


def test_only_our_algorithm_and_key_make_a_token(client, city):
    at = int(time.time())
    claims = GOOD | {"iat": at, "exp": at + 1800}
    for token in (
        jwt.encode(claims, None, algorithm="none"),
        jwt.encode(claims, city.vault.token + city.vault.token, algorithm="HS512"),
        jwt.encode(claims, b"x" * 32, algorithm="HS256"),
        "a.b.c",
        "",
    ):
        answer = client.get("/api/v1/me/home", headers={"Authorization": f"Bearer {token}"})
        assert code(answer) == "TOKEN_INVALID"
    assert code(client.get("/api/v1/me/home")) == "TOKEN_MISSING"


def test_the_sandbox_logs_a_living_resident_in(client, rider):
    answer = client.post("/api/v1/sandbox/login", json={"resident": rider})
    header = {"Authorization": f"Bearer {answer.json['access_token']}"}
    assert client.get("/api/v1/me/home", headers=header).json["resident"] == rider
    assert client.post("/api/v1/sandbox/login", json={"resident": ME}).status_code == 404
