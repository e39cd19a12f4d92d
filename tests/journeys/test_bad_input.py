"""Whatever is sent wrongly is refused in words, with a stable code, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.client import HTTPConnection
from socket import create_connection
from urllib.parse import quote

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from sqlalchemy import text

from app.cli.local import running
from app.clock import utc_now
from app.config import Mode
from app.errors import PROBLEMS
from app.flows.budget import fund_budget
from app.flows.tokens import issue_access_token
from app.store import providers

URL = "/api/v1/batches"
_SAFE = "/:@!$&'()*+,;=~-._"
HOME = "/api/v1/me/home"


@pytest.fixture(scope="module")
def bikes(still_town):
    fund_budget(still_town.engine, still_town.vault, "*", 10_000_000, "decision 1", utc_now())
    return still_town.provider("bikes")


@pytest.fixture(scope="module")
def rider(still_town, bikes):
    return still_town.resident(bikes, "rider-1")


@pytest.fixture
def unchanged(still_town):
    """Holds when no row was added anywhere; but a nonce is spent by any signature that holds."""

    def rows():
        with still_town.engine.connect() as tx:
            names = tx.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            ).scalars()
            return {
                name: tx.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
                for name in names
                if name != "nonces"
            }

    @contextmanager
    def held():
        before = rows()
        assert len(before) > 15
        yield
        assert rows() == before

    return held


def problem(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text[:300]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert PROBLEMS[code] == (status, answer.json()["title"])
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    return answer.json()


_number = iter(range(10**6))


def ride(**changes):
    return {
        "id": f"ride-{next(_number)}",
        "subject": "rider-1",
        "scenario": "travel.bike_shared",
        "occurred_at": "2026-01-02T08:00:00+08:00",
        "quantities": {"distance_km": "2.5"},
    } | changes


def envelope(*activities, **changes):
    return {"batch_id": f"b-{next(_number)}", "activities": list(activities)} | changes


# --- who sends it


def _changed(**changes):
    return lambda bikes, body: bikes.header("POST", URL, body, **changes)


SIGNATURES = {
    "none": (None, "SIGNATURE_MISSING"),
    "empty": (lambda *_: "", "SIGNATURE_MISSING"),
    "a token": (lambda *_: "Bearer abc", "SIGNATURE_MALFORMED"),
    "another scheme": (
        lambda b, body: b.header("POST", URL, body).replace("ED25519", "MD5"),
        "SIGNATURE_MALFORMED",
    ),
    "cut short": (lambda b, body: b.header("POST", URL, body)[:-9], "SIGNATURE_MALFORMED"),
    "not base64": (
        lambda b, body: b.header("POST", URL, body)[:-5] + '???"',
        "SIGNATURE_MALFORMED",
    ),
    "a short nonce": (_changed(nonce="n" * 15), "SIGNATURE_MALFORMED"),
    "a timestamp of words": (_changed(timestamp="soon"), "SIGNATURE_MALFORMED"),
    "stale": (lambda b, body: b.header("POST", URL, body, timestamp=int(time.time()) - 302),
              "TIMESTAMP_SKEW"),
    "early": (lambda b, body: b.header("POST", URL, body, timestamp=int(time.time()) + 302),
              "TIMESTAMP_SKEW"),
    "the year 33658": (_changed(timestamp=999_999_999_999), "TIMESTAMP_SKEW"),
    "another body": (lambda b, body: b.header("POST", URL, body + b" "), "SIGNATURE_INVALID"),
    "no body": (lambda b, body: b.header("POST", URL), "SIGNATURE_INVALID"),
    "another path": (
        lambda b, body: b.header("POST", "/api/v1/batches/", body), "SIGNATURE_INVALID"),
    "a query": (lambda b, body: b.header("POST", f"{URL}?a=1", body), "SIGNATURE_INVALID"),
    "another method": (lambda b, body: b.header("PUT", URL, body), "SIGNATURE_INVALID"),
    "another timestamp": (
        lambda b, body: (
            lambda now: b.header("POST", URL, body, timestamp=now).replace(str(now), str(now - 1))
        )(int(time.time())),
        "SIGNATURE_INVALID",
    ),
    "an unknown key": (
        lambda b, body: b.header("POST", URL, body).replace(b.key_id, "nobody-1"), "KEY_UNKNOWN"),
    "another's key": (
        lambda b, body: replace(b, key=Ed25519PrivateKey.generate()).header("POST", URL, body),
        "SIGNATURE_INVALID",
    ),
    "a signature of zeros": (
        lambda b, body: b.header("POST", URL, body).partition("signature=")[0]
        + f'signature="{"A" * 86}=="',
        "SIGNATURE_INVALID",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_that_is_not_right_says_which_check_failed(name, bikes, rider, unchanged):
    make, code = SIGNATURES[name]
    body = json.dumps(envelope(ride())).encode()
    header = {"Authorization": make(bikes, body)} if make else {}
    with unchanged():
        answer = bikes.http.post(
            URL, content=body, headers={"Content-Type": "application/json", **header}
        )
    shown = problem(answer, 401, code)
    assert "PUHUI-ED25519" in answer.headers["WWW-Authenticate"]
    assert "rider-1" not in json.dumps(shown)


def test_a_replayed_request_is_refused_and_its_batch_is_not_repeated(bikes, rider, unchanged):
    body = json.dumps(envelope(ride())).encode()
    headers = {"Authorization": bikes.header("POST", URL, body), "Content-Type": "application/json"}
    assert bikes.http.post(URL, content=body, headers=headers).status_code == 200
    with unchanged():
        problem(bikes.http.post(URL, content=body, headers=headers), 401, "NONCE_REPLAYED")


def test_a_revoked_key_lets_nobody_in(still_town, bikes, unchanged):
    former = still_town.provider("former")
    assert former.batch("b1", ride()).status_code == 200
    with still_town.engine.begin() as tx:
        providers.revoke_key(tx, former.key_id, utc_now())
    with unchanged():
        problem(former.batch("b2", ride()), 401, "KEY_REVOKED")


def test_any_id_that_is_taken_can_be_named_in_a_path(bikes, rider):
    """Reserved characters stand for themselves in the signed path, all others percent-encoded."""
    ids = [f"{chr(code)}.{chr(code)}-{next(_number)}" for code in range(33, 127)]
    ids += [f"a//b-{next(_number)}", f"..-{next(_number)}", f"%2F-{next(_number)}", "100%"]
    receipt = bikes.batch(f"b-{next(_number)}", *(ride(id=one) for one in ids)).json()
    assert receipt["counts"]["accepted"] == len(ids)
    answers = {}
    for one in ids:
        path = f"/api/v1/activities/{quote(one, safe=_SAFE)}/correction"
        connection = HTTPConnection(bikes.http.base_url.host, bikes.http.base_url.port)
        header = {"Authorization": bikes.header("PUT", path, b"null")}
        connection.request("PUT", path, b"null", header | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answers[one] = answer.status, answer.read()
        connection.close()
    assert {one: shown for one, shown in answers.items() if shown[0] != 200} == {}


# --- the envelope

ENVELOPES = {
    "not JSON": (b"{'a': 1}", 400, "JSON_MALFORMED"),
    "cut short": (b'{"batch_id":"b","activities":[{}', 400, "JSON_MALFORMED"),
    "nothing": (b"", 400, "JSON_MALFORMED"),
    "two values": (b"{} {}", 400, "JSON_MALFORMED"),
    "a byte order mark": (b'\xef\xbb\xbf{"batch_id":"b"}', 400, "JSON_MALFORMED"),
    "UTF-16": ('{"batch_id":"b","activities":[]}'.encode("utf-16"), 400, "JSON_MALFORMED"),
    "a comma too many": (b'{"batch_id":"b","activities":[],}', 400, "JSON_MALFORMED"),
    "a comment": (b'{"batch_id":"b"/**/}', 400, "JSON_MALFORMED"),
    "a name twice": (
        b'{"batch_id":"b","batch_id":"c","activities":[{}]}', 400, "JSON_MALFORMED"),
    "a name twice inside": (
        b'{"batch_id":"b","activities":[{"id":"a","id":"b"}]}', 400, "JSON_MALFORMED"),
    "nested deeply": (b'{"batch_id":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
                      400, "JSON_MALFORMED"),
    "nested objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "JSON_MALFORMED"),
    "half a pair": (b'{"batch_id":"b","activities":[{"id":"\\ud800"}]}', 400, "JSON_MALFORMED"),
    "the other half": (b'{"batch_id":"b","activities":[{"\\udc00":1}]}', 400, "JSON_MALFORMED"),
    "not UTF-8": (b'{"batch_id":"\xff","activities":[{}]}', 400, "JSON_MALFORMED"),
    "overlong UTF-8": (b'{"batch_id":"\xc0\x80","activities":[{}]}', 400, "JSON_MALFORMED"),
    "a bare NUL": (b'{"batch_id":"b\x00","activities":[{}]}', 400, "JSON_MALFORMED"),
    "an array": (b"[]", 422, ""),
    "a number": (b"12", 422, ""),
    "null": (b"null", 422, ""),
    "NaN": (b"NaN", 422, ""),
    "Infinity": (b"-Infinity", 422, ""),
    "a string": (b'"batch"', 422, ""),
    "an empty object": (b"{}", 422, "activities batch_id"),
    "no activities": (b'{"batch_id":"b","activities":[]}', 422, "activities"),
    "one too many": (
        json.dumps(envelope(*[{}] * 5001)).encode(), 422, "activities"),
    "activities as object": (b'{"batch_id":"b","activities":{"0":{}}}', 422, "activities"),
    "activities as text": (b'{"batch_id":"b","activities":"[]"}', 422, "activities"),
    "activities null": (b'{"batch_id":"b","activities":null}', 422, "activities"),
    "batch_id a number": (b'{"batch_id":1,"activities":[{}]}', 422, "batch_id"),
    "batch_id huge": (b'{"batch_id":' + b"9" * 9999 + b',"activities":[{}]}', 422, "batch_id"),
    "batch_id NaN": (b'{"batch_id":NaN,"activities":[{}]}', 422, "batch_id"),
    "batch_id null": (b'{"batch_id":null,"activities":[{}]}', 422, "batch_id"),
    "batch_id empty": (b'{"batch_id":"","activities":[{}]}', 422, "batch_id"),
    "batch_id long": (b'{"batch_id":"' + b"b" * 65 + b'","activities":[{}]}', 422, "batch_id"),
    "batch_id NUL": (b'{"batch_id":"b\\u0000","activities":[{}]}', 422, "batch_id"),
    "batch_id newline": (b'{"batch_id":"b\\n","activities":[{}]}', 422, "batch_id"),
    "batch_id path": (b'{"batch_id":"../b","activities":[{}]}', 422, "batch_id"),
    "batch_id Chinese": ('{"batch_id":"批次","activities":[{}]}'.encode(), 422, "batch_id"),
    "an unknown field": (b'{"batch_id":"b","activities":[{}],"debug":true}', 422, "debug"),
    "a very long field": (
        b'{"batch_id":"b","activities":[{}],"' + b"x" * 100_000 + b'":1}', 422, "x" * 100),
}  # fmt: skip


@pytest.mark.parametrize("name", ENVELOPES)
def test_a_malformed_envelope_names_its_fields_and_writes_nothing(name, bikes, unchanged):
    body, status, expected = ENVELOPES[name]
    with unchanged():
        answer = bikes.send("POST", URL, body)
    if status == 400:
        problem(answer, 400, expected)
    else:
        fields = {row["field"] for row in problem(answer, 422, "VALIDATION_FAILED")["errors"]}
        assert fields == set(expected.split(" "))
    assert len(answer.content) < 4000


def test_only_plain_json_of_a_bounded_size_is_read(bikes, unchanged):
    body = json.dumps(envelope(ride())).encode()
    with unchanged():
        for kind in ("text/plain", "application/xml", "", "application/json-seq", "json"):
            problem(bikes.send("POST", URL, body, {"Content-Type": kind}), 415, "CONTENT_TYPE")
        packed = gzip.compress(body)
        answer = bikes.send("POST", URL, packed, {"Content-Encoding": "gzip"})
        assert answer.headers["Accept-Encoding"] == "identity"
        problem(answer, 415, "CONTENT_TYPE")
        problem(bikes.send("POST", URL, packed), 400, "JSON_MALFORMED")
        large = b" " * (9 * 1024 * 1024) + body
        problem(bikes.send("POST", URL, large), 413, "BODY_TOO_LARGE")
        chunks = iter([large[: 5 * 1024 * 1024], large[5 * 1024 * 1024 :]])
        header = {"Authorization": bikes.header("POST", URL, large)}
        problem(bikes.http.post(URL, content=chunks, headers=header), 413, "BODY_TOO_LARGE")
    kind = {"Content-Type": "application/json; charset=utf-8"}
    assert bikes.send("POST", URL, body, kind).status_code == 200


def test_a_refusal_leaves_the_connection_open_for_the_next_request(bikes):
    address = bikes.http.base_url.host, bikes.http.base_url.port
    for path in (b"/nowhere", b"/api/v1/batches", b"/log/keys"):
        with create_connection(address, timeout=5) as sender, sender.makefile("rb") as answers:
            sender.sendall(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n" % path)
            time.sleep(0.05)  # the body comes when the refusal could have been sent
            sender.sendall(b"null")
            assert b" 40" in answers.readline()
            sender.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert b"HTTP/1.1 200" in answers.read()


def test_a_body_in_chunks_is_a_body(bikes, rider):
    body = json.dumps(envelope(ride())).encode()
    headers = {"Authorization": bikes.header("POST", URL, body), "Content-Type": "application/json"}
    parts = iter([body[:20], body[20:]])
    answer = bikes.http.post(URL, content=parts, headers=headers)
    assert answer.status_code == 200, answer.text


def test_the_same_batch_gets_the_same_bytes_and_other_content_under_its_id_a_conflict(
    bikes, rider, unchanged
):
    document = envelope(ride())
    first = bikes.post(document)
    with unchanged():
        assert bikes.post(document).content == first.content
        for other in (envelope(ride(), batch_id=document["batch_id"]), {**document}):
            body = json.dumps(other, indent=1).encode()
            problem(bikes.send("POST", URL, body), 409, "BATCH_ID_REUSED")
        assert bikes.send("GET", f"{URL}/{document['batch_id']}").content == first.content


# --- one activity among good ones


_HOME = {
    "city_average_kwh": "6", "own_average_kwh": "9", "actual_kwh": "5",
    "rooftop_pv": "no", "third_tier": "no",
}  # fmt: skip


def _quantity(value):
    return {"quantities": {"distance_km": value}}


LATER = (utc_now() + timedelta(days=1)).isoformat(timespec="seconds")  # than any run takes
ACTIVITIES = {
    "null": (None, "ACTIVITY_MALFORMED"),
    "a number": (7, "ACTIVITY_MALFORMED"),
    "text": ("ride", "ACTIVITY_MALFORMED"),
    "a list": ([], "ACTIVITY_MALFORMED"),
    "an empty object": ({"id": ...}, "ACTIVITY_MALFORMED"),
    "no subject": ({"subject": ...}, "ACTIVITY_MALFORMED"),
    "an unknown field": ({"carbon": "1"}, "ACTIVITY_MALFORMED"),
    "a field named NUL": ({"\x00": "1"}, "ACTIVITY_MALFORMED"),
    "id empty": ({"id": ""}, "ACTIVITY_ID_MALFORMED"),
    "id with a space": ({"id": "ride 1"}, "ACTIVITY_ID_MALFORMED"),
    "id too long": ({"id": "i" * 65}, "ACTIVITY_ID_MALFORMED"),
    "id a number": ({"id": 1}, "ACTIVITY_ID_MALFORMED"),
    "id null": ({"id": None}, "ACTIVITY_ID_MALFORMED"),
    "id with a newline": ({"id": "ride\n"}, "ACTIVITY_ID_MALFORMED"),
    "id Chinese": ({"id": "骑行"}, "ACTIVITY_ID_MALFORMED"),
    "id a list": ({"id": ["a"]}, "ACTIVITY_ID_MALFORMED"),
    "subject empty": ({"subject": ""}, "SUBJECT_MALFORMED"),
    "subject too long": ({"subject": "s" * 129}, "SUBJECT_MALFORMED"),
    "subject a number": ({"subject": 13_800_000_000}, "SUBJECT_MALFORMED"),
    "subject with NUL": ({"subject": "rider\x00-1"}, "SUBJECT_MALFORMED"),
    "subject with a bell": ({"subject": "rider\x07"}, "SUBJECT_MALFORMED"),
    "subject turned around": ({"subject": "rider\u202e1"}, "SUBJECT_MALFORMED"),
    "scenario unknown": ({"scenario": "travel.teleport"}, "UNKNOWN_SCENARIO"),
    "scenario empty": ({"scenario": ""}, "UNKNOWN_SCENARIO"),
    "scenario null": ({"scenario": None}, "UNKNOWN_SCENARIO"),
    "scenario a list": ({"scenario": ["travel.bike_shared"]}, "UNKNOWN_SCENARIO"),
    "scenario an object": ({"scenario": {}}, "UNKNOWN_SCENARIO"),
    "scenario a million letters": ({"scenario": "x" * 10**6}, "UNKNOWN_SCENARIO"),
    "scenario disabled": ({"scenario": "travel.metro_km"}, "SCENARIO_DISABLED"),
    "time to come": ({"occurred_at": LATER}, "IN_FUTURE"),
    "time before the scenario": ({"occurred_at": "2017-12-31T23:59:59+08:00"}, "BEFORE_SCENARIO"),
    "time before it in Shanghai": ({"occurred_at": "2017-12-31T15:59:59Z"}, "BEFORE_SCENARIO"),
    "time without offset": ({"occurred_at": "2026-01-02T08:00:00"}, "TIME_MALFORMED"),
    "time with a space": ({"occurred_at": "2026-01-02 08:00:00+08:00"}, "TIME_MALFORMED"),
    "a leap second": ({"occurred_at": "2016-12-31T23:59:60Z"}, "TIME_MALFORMED"),
    "a 30th of February": ({"occurred_at": "2026-02-30T08:00:00+08:00"}, "TIME_MALFORMED"),
    "hour 24": ({"occurred_at": "2026-01-02T24:00:00+08:00"}, "TIME_MALFORMED"),
    "the year 0": ({"occurred_at": "0000-01-01T00:00:00+08:00"}, "TIME_MALFORMED"),
    "the year 1 before it": ({"occurred_at": "0001-01-01T00:00:00+23:59"}, "TIME_MALFORMED"),
    "the year 9999 after it": ({"occurred_at": "9999-12-31T23:59:59-23:59"}, "TIME_MALFORMED"),
    "the year 10000": ({"occurred_at": "10000-01-01T00:00:00Z"}, "TIME_MALFORMED"),
    "an offset of 24 h": ({"occurred_at": "2026-01-02T08:00:00+24:00"}, "TIME_MALFORMED"),
    "time as a number": ({"occurred_at": 1_767_312_000}, "TIME_MALFORMED"),
    "time in other digits": ({"occurred_at": "２０２６-01-02T08:00:00Z"}, "TIME_MALFORMED"),
    "time null": ({"occurred_at": None}, "TIME_MALFORMED"),
    "too short": (_quantity("0.099"), "QUANTITY_TOO_SMALL"),
    "zero": (_quantity("0"), "QUANTITY_TOO_SMALL"),
    "too far": (_quantity("50.001"), "QUANTITY_TOO_LARGE"),
    "much too far": (_quantity("999999999"), "QUANTITY_TOO_LARGE"),
    "a number for text": (_quantity(2.5), "QUANTITY_MALFORMED"),
    "a whole number": (_quantity(2), "QUANTITY_MALFORMED"),
    "true": (_quantity(True), "QUANTITY_MALFORMED"),
    "the token NaN": (_quantity(float("nan")), "QUANTITY_MALFORMED"),
    "the token Infinity": (_quantity(float("inf")), "QUANTITY_MALFORMED"),
    "an integer without end": (_quantity(10**4000), "QUANTITY_MALFORMED"),
    "NaN": (_quantity("NaN"), "QUANTITY_MALFORMED"),
    "Infinity": (_quantity("Infinity"), "QUANTITY_MALFORMED"),
    "an exponent": (_quantity("1e400"), "QUANTITY_MALFORMED"),
    "a small exponent": (_quantity("1e0"), "QUANTITY_MALFORMED"),
    "twenty digits": (_quantity(99_999_999_999_999_999_999), "QUANTITY_MALFORMED"),
    "a deep list": (_quantity(json.loads("[" * 400 + "]" * 400)), "QUANTITY_MALFORMED"),
    "ten thousand digits": (_quantity("9" * 10_000), "QUANTITY_MALFORMED"),
    "too many decimals": (_quantity("2.5000"), "QUANTITY_MALFORMED"),
    "negative": (_quantity("-2.5"), "QUANTITY_MALFORMED"),
    "negative zero": (_quantity("-0"), "QUANTITY_MALFORMED"),
    "a plus": (_quantity("+2.5"), "QUANTITY_MALFORMED"),
    "a leading zero": (_quantity("02.5"), "QUANTITY_MALFORMED"),
    "a comma": (_quantity("2,5"), "QUANTITY_MALFORMED"),
    "no digit first": (_quantity(".5"), "QUANTITY_MALFORMED"),
    "no digit last": (_quantity("2."), "QUANTITY_MALFORMED"),
    "spaces": (_quantity(" 2.5"), "QUANTITY_MALFORMED"),
    "a newline": (_quantity("2.5\n"), "QUANTITY_MALFORMED"),
    "a NUL": (_quantity("2.5\x00"), "QUANTITY_MALFORMED"),
    "other digits": (_quantity("２.５"), "QUANTITY_MALFORMED"),
    "an underscore": (_quantity("1_0"), "QUANTITY_MALFORMED"),
    "a unit": (_quantity("2.5 km"), "QUANTITY_MALFORMED"),
    "empty": (_quantity(""), "QUANTITY_MALFORMED"),
    "a list of one": (_quantity(["2.5"]), "QUANTITY_MALFORMED"),
    "quantities a list": ({"quantities": ["2.5"]}, "QUANTITY_MALFORMED"),
    "quantities null": ({"quantities": None}, "QUANTITY_MALFORMED"),
    "quantities text": ({"quantities": "2.5"}, "QUANTITY_MALFORMED"),
    "no quantity": ({"quantities": {}}, "QUANTITY_MISSING"),
    "a null quantity": (_quantity(None), "QUANTITY_MISSING"),
    "another quantity": ({"quantities": {"steps": "100"}}, "QUANTITY_MISSING"),
    "one more quantity": (
        {"quantities": {"distance_km": "2.5", "bonus": "9"}}, "QUANTITY_UNKNOWN"),
    "a quantity named NUL": (
        {"quantities": {"distance_km": "2.5", "\x00": "9"}}, "QUANTITY_UNKNOWN"),
    "no class of this name": (
        {"scenario": "housing.appliance_recycle", "quantities": {"kind": "car", "count": "1"}},
        "QUANTITY_MALFORMED",
    ),
    "nothing saved": (
        {"scenario": "housing.elec_save",
         "quantities": _HOME | {"actual_kwh": "20"}},
        "NO_REDUCTION",
    ),
    "a home that the methodology leaves out": (
        {"scenario": "housing.elec_save", "quantities": _HOME | {"rooftop_pv": "yes"}},
        "NOT_ELIGIBLE",
    ),
    "a ride faster than a bike": (
        {"quantities": {"distance_km": "2.5", "duration_s": "60"}}, "IMPLAUSIBLE_SPEED"),
    "a place that is no county": ({"place": "长治"}, "PLACE_MALFORMED"),
}  # fmt: skip


def _spoilt(bad):
    if not isinstance(bad, dict):
        return bad
    return {name: value for name, value in ride(**bad).items() if value is not ...}


def test_a_bad_activity_is_one_rejection_with_its_reason_and_the_rest_stand(bikes, rider):
    names = list(ACTIVITIES)
    sent = [_spoilt(ACTIVITIES[name][0]) for name in names]
    good = [ride(occurred_at="2026-02-01T08:00:00+08:00") for _ in names]
    mixed = [one for pair in zip(sent, good, strict=True) for one in pair]
    answer = bikes.batch(f"b-{next(_number)}", *mixed)
    assert answer.status_code == 200
    receipt = answer.json()
    assert receipt["counts"] == {
        "accepted": len(good), "duplicate": 0, "unclaimed": 0, "rejected": len(names)
    }  # fmt: skip
    bad = dict(zip(names, receipt["outcomes"][::2], strict=True))
    assert {name: one.get("code") for name, one in bad.items()} == {
        name: code for name, (_, code) in ACTIVITIES.items()
    }
    for name, one in bad.items():
        assert one["outcome"] == "rejected", name
        assert one["code"] in PROBLEMS
        assert 10 < len(one["detail"]) < 400, name
    assert all(one["outcome"] == "accepted" for one in receipt["outcomes"][1::2])
    assert len(answer.content) < 60_000


def test_a_resident_reads_why_what_was_reported_of_them_was_refused(still_town, bikes):
    someone = still_town.resident(bikes, "someone")
    stranger = still_town.resident(bikes, "another")
    far = ride(subject="someone", **_quantity("51"))
    bikes.batch(f"b-{next(_number)}", far, ride(subject="nobody", **_quantity("51")))
    (refused,) = someone.get("rejections")["items"]
    assert (refused["activity_id"], refused["code"]) == (far["id"], "QUANTITY_TOO_LARGE")
    assert refused["title_zh"] == "数量高于该场景上限"
    assert stranger.get("rejections")["items"] == []


def test_an_id_stands_for_one_act_of_one_person(still_town, bikes, rider):
    still_town.resident(bikes, "rider-3")
    first = ride()
    others = (first, {**first, "subject": "rider-3"}, {**first, **_quantity("1")})
    for batch in (others, others[1:]):
        outcomes = bikes.batch(f"b-{next(_number)}", *batch).json()["outcomes"]
        assert [one.get("code") for one in outcomes[-2:]] == ["ACTIVITY_ID_REUSED"] * 2


def test_an_id_that_waits_for_its_person_stands_for_one_act_too(bikes):
    first = ride(subject="a stranger")
    others = first, {**first, "subject": "another stranger"}, {**first, **_quantity("1")}
    for batch in (others, others):
        outcomes = bikes.batch(f"b-{next(_number)}", *batch).json()["outcomes"]
        assert [one["outcome"] for one in outcomes] == ["unclaimed", "rejected", "rejected"]
        assert {one.get("code") for one in outcomes} == {None, "ACTIVITY_ID_REUSED"}


def test_a_correction_that_cannot_be_is_refused_and_changes_nothing(bikes, rider, unchanged):
    whole = ride()
    bikes.batch(f"b-{next(_number)}", whole)
    path = f"/api/v1/activities/{whole['id']}/correction"
    with unchanged():
        for bad, code in ACTIVITIES.values():
            document = _spoilt(bad)
            if isinstance(document, dict) and "id" not in (bad or {}):
                document = {**document, "id": whole["id"]}
            if document is not None:
                problem(bikes.correct(whole["id"], document), 422, code)
        problem(bikes.correct(whole["id"], ride()), 422, "ACTIVITY_ID_MISMATCH")
        nobody = {**whole, "subject": "nobody"}
        problem(bikes.correct(whole["id"], nobody), 422, "SUBJECT_UNKNOWN")
        problem(bikes.correct("never-sent", None), 404, "ACTIVITY_UNKNOWN")
        for odd in ("%00", "%0A", f"{whole['id']}%0A1", "%FF", "a%20b", "x" * 5000):
            assert bikes.correct(odd, None).status_code == 404
        for body in (b"", b"{", b"NaN", b"[]", b'"void"', b"false"):
            assert bikes.send("PUT", path, body).status_code in (400, 422)
        problem(bikes.send("PUT", path, b"null", {"Content-Type": "text/plain"}), 415,
                "CONTENT_TYPE")  # fmt: skip
    assert bikes.correct(whole["id"], whole).json()["outcome"] == "accepted"


def test_a_revision_cannot_be_named_as_if_it_were_an_activity(bikes, rider, unchanged):
    whole = ride()
    bikes.batch(f"b-{next(_number)}", whole)
    assert bikes.correct(whole["id"], {**whole, **_quantity("1")}).status_code == 200
    with unchanged():
        problem(bikes.correct(f"{whole['id']}%0A1", None), 404, "NOT_FOUND")


# --- residents


def _token(still_town, account, **changes):
    at = int(time.time())
    claims = {
        "iss": "puhui", "aud": "puhui-residents", "sub": account, "typ": "access",
        "iat": at, "exp": at + 1800,
    } | changes  # fmt: skip
    return jwt.encode(claims, still_town.vault.token, algorithm="HS256")


def test_only_a_token_of_ours_that_is_still_good_lets_a_resident_in(still_town, rider, unchanged):
    secret, account, http = still_town.vault.token, rider.account, still_town.http
    claims = jwt.decode(rider.token, options={"verify_signature": False})
    past = issue_access_token(secret, account, utc_now() - timedelta(minutes=31))
    ahead = issue_access_token(secret, account, utc_now() + timedelta(minutes=31))
    head, middle, tail = rider.token.split(".")
    rsa = generate_private_key(65537, 2048)
    refused = {
        "TOKEN_MISSING": [None],
        "TOKEN_EXPIRED": [f"Bearer {past}", f"Bearer {ahead}"],
        "TOKEN_INVALID": [
            "Bearer",
            f"Basic {rider.token}",
            rider.token,
            f"Bearer {rider.token}, Bearer {rider.token}",
            f"Bearer {head}.{middle}.",
            f"Bearer {head}.{middle}.{tail[:-6]}AAAAAA",
            f"Bearer {jwt.encode(claims, None, algorithm='none')}",
            f"Bearer {jwt.encode(claims, rsa, algorithm='RS256')}",
            f"Bearer {jwt.encode(claims, secret * 2, algorithm='HS512')}",
            f"Bearer {jwt.encode(claims, b'x' * 32, algorithm='HS256')}",
            f"Bearer {_token(still_town, account, exp=10**10)}",
            f"Bearer {_token(still_town, account, typ='refresh')}",
            f"Bearer {_token(still_town, account, aud='puhui-admins')}",
            f"Bearer {_token(still_town, 'admin')}",
            "Bearer " + "x" * 5000,
        ],
    }
    assert _get(http, f"Bearer {_token(still_town, account)}").status_code == 200
    with unchanged():
        for code, headers in refused.items():
            for header in headers:
                answer = _get(http, header)
                problem(answer, 401, code)
                assert answer.headers["WWW-Authenticate"] == "Bearer"


def _get(http, header, path=HOME):
    return http.get(path, headers={"Authorization": header} if header is not None else {})


def test_anothers_entry_is_as_good_as_none(still_town, bikes, rider):
    (mine,) = bikes.batch(f"b-{next(_number)}", ride()).json()["outcomes"]
    other = still_town.resident(bikes, "rider-2")
    assert rider.ask(f"entries/{mine['entry_id']}").status_code == 200
    for tail in ("", "/receipt", "/opening"):
        shown = problem(other.ask(f"entries/{mine['entry_id']}{tail}"), 404, "NOT_FOUND")
        none = problem(other.ask(f"entries/{'f' * 32}{tail}"), 404, "NOT_FOUND")
        assert {**shown, "request_id": ""} == {**none, "request_id": ""}
        for odd in ("x", "%00", "F" * 32, "%FF", mine["entry_id"] + "0", "..%2f" * 9):
            assert rider.ask(f"entries/{odd}{tail}").status_code == 404


PAGES = ["statement", "rejections"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("query", "code"),
    [
        *(
            (f"limit={value}", "VALIDATION_FAILED")
            for value in ("0", "51", "-1", "abc", "", "1.5", "1e1", "9" * 5000, "%00", "null", "２",
                          "1_0", "%EF%BC%95", "%2B5", "%205")
        ),
        *(
            (f"cursor={value}", "CURSOR_INVALID")
            for value in ("MQ==", "%00", "!!!!", "x", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
                          "4pyT", "_w", "MTc2NzMxMjAwMDAwMDAwMHx4", "%F0%9F%9A%B2")
        ),
        ("cursor=", "VALIDATION_FAILED"),
        (f"cursor={'A' * 401}", "VALIDATION_FAILED"),
        ("page=2", "VALIDATION_FAILED"),
        ("limit=5&x", "VALIDATION_FAILED"),
        ("limit[]=5", "VALIDATION_FAILED"),
    ],
)  # fmt: skip
def test_a_page_that_cannot_be_is_refused(rider, page, query, code):
    url = f"/api/v1/me/{page}?{query}"
    problem(_get(rider.http, f"Bearer {rider.token}", url), 422, code)


@pytest.mark.parametrize("query", ["kind=x", "kind=", "area=moon", "area=travel.", "kind=%00"])
def test_a_statement_is_filtered_by_what_there_is(rider, query):
    url = f"/api/v1/me/statement?{query}"
    problem(_get(rider.http, f"Bearer {rider.token}", url), 422, "VALIDATION_FAILED")


def test_production_has_no_sandbox_and_the_rest_works(still_town, bikes, rider):
    config = replace(still_town.config, mode=Mode.PRODUCTION)
    with running(config, worker=False) as url, httpx.Client(base_url=url, trust_env=False) as http:
        for method, path in (("POST", "login"), ("GET", "login"), ("GET", "residents")):
            answer = http.request(method, f"/api/v1/sandbox/{path}", json={})
            problem(answer, 404, "NOT_FOUND")
        assert "/sandbox/" not in http.get("/openapi.json").text
        assert replace(rider, http=http).ask("home").status_code == 200
        sender = replace(bikes, http=http)
        assert sender.batch(f"b-{next(_number)}", ride()).status_code == 200
