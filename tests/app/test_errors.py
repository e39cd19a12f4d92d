"""Every refusal is one kind of document, and nothing a sender can do is our fault."""

from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits.storage import RedisStorage
from sqlalchemy import text

from app.application import create_app
from app.config import Mode
from app.errors import PROBLEMS, ProblemSchema, field_errors
from app.limits import PUBLIC, Limits, Policy, TooManyRequestsError

LOGIN = "/api/v1/sandbox/login"


@pytest.fixture
def own(city):
    """An application that takes routes, as it served no request before."""
    made = create_app(city.config, city.clock)
    yield made
    with made.app_context():
        made.extensions["puhui"].engine.dispose()
    made.extensions["puhui"].redis.close()


def problem(answer, status: int, code: str):
    assert answer.status_code == status
    assert answer.mimetype == "application/problem+json"
    body = answer.json
    assert ProblemSchema().validate(body) == {}
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"/problems/{code}"
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


def test_the_frameworks_own_refusals_are_problems_too(client):
    problem(client.get("/nowhere"), 404, "NOT_FOUND")
    answer = client.delete("/health/live")
    problem(answer, 405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["Allow"]
    problem(client.post(LOGIN, data=b"{}", content_type="text/xml"), 415, "CONTENT_TYPE")
    huge = b" " * (8 * 1024 * 1024 + 1)
    answer = client.post(LOGIN, data=huge, content_type="application/json")
    problem(answer, 413, "BODY_TOO_LARGE")


def test_a_problem_type_can_be_looked_up(client):
    page = client.get("/problems/NONCE_REPLAYED")
    assert page.json["status"] == 401
    problem(client.get("/problems/NO_SUCH"), 404, "NOT_FOUND")


SOURCE = Path(__file__).resolve().parents[2] / "app"
ASKED = (
    "auth.py",
    "signature.py",
    "limits.py",
    "api/*.py",
    *(f"flows/{name}.py" for name in ("accept", "correct", "credit", "document", "prove")),
    *(
        f"flows/{name}.py"
        for name in ("administer", "login", "once", "changeset", "publish", "tune")
    ),
)  # what a request can come through
REASONS = {
    *("WAITING_FOR_BUDGET", "CAP_REACHED"),  # of an accepted activity, no refusals
    "PUBLISHED_VERSION_CHANGED",  # of a command, never of a request
}


def test_every_code_that_a_request_can_be_refused_with_stands_in_the_table():
    text = "".join(file.read_text() for glob in ASKED for file in SOURCE.glob(glob))
    codes = set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', text))
    assert len(codes) > 25
    assert codes - REASONS - PROBLEMS.keys() == set()


def test_every_code_has_a_status_and_a_chinese_title():
    for code, (status, title) in PROBLEMS.items():
        assert code == code.upper()
        assert 400 <= status < 600
        assert any("一" <= letter <= "鿿" for letter in title)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "JSON_MALFORMED"),
        (b"", 400, "JSON_MALFORMED"),
        (b'{"resident":"a","resident":"b"}', 400, "JSON_MALFORMED"),
        (b"[" * 50_000, 400, "JSON_MALFORMED"),
        (b'{"resident":"\xff"}', 400, "JSON_MALFORMED"),
        (b'{"resident":"\\ud800"}', 400, "JSON_MALFORMED"),
        (b"{}", 422, "VALIDATION_FAILED"),
        (b"[]", 422, "VALIDATION_FAILED"),
        (b"null", 422, "VALIDATION_FAILED"),
        (b"NaN", 422, "VALIDATION_FAILED"),
        (b'{"resident":12}', 422, "VALIDATION_FAILED"),
        (b'{"resident":"\\u0000"}', 422, "VALIDATION_FAILED"),
        (b'{"resident":"' + b"a" * 32 + b'\\n"}', 422, "VALIDATION_FAILED"),
    ],
)
def test_a_body_that_is_wrong_is_the_senders_fault(client, body, status, code):
    problem(client.post(LOGIN, data=body, content_type="application/json"), status, code)


def test_unknown_fields_are_refused_by_name(client):
    answer = client.post(LOGIN, json={"resident": "ab" * 16, "admin": True})
    fields = {row["field"] for row in problem(answer, 422, "VALIDATION_FAILED")["errors"]}
    assert fields == {"admin"}
    answer = client.get("/api/v1/log/consistency?old=1&new=1&x=2")
    fields = {row["field"] for row in problem(answer, 422, "VALIDATION_FAILED")["errors"]}
    assert fields == {"x"}


def test_nested_messages_become_paths():
    rows = list(field_errors({"activities": {3: {"id": ["is missing"]}}, "_schema": ["no"]}))
    assert rows == [
        {"field": "activities.3.id", "message": "is missing"},
        {"field": "", "message": "no"},
    ]


def test_a_text_that_no_column_can_hold_is_the_senders_fault(own, city):
    @own.get("/kept/<what>")
    def kept(what: str) -> str:
        with city.engine.connect() as tx:
            return tx.execute(text("SELECT CAST(:what AS text)"), {"what": what}).scalar_one()

    client = own.test_client()
    assert client.get("/kept/一%01").text == "一\x01"
    problem(client.get("/kept/%00"), 422, "VALIDATION_FAILED")


def test_our_own_fault_says_nothing_but_its_number(own, capsys):
    @own.get("/broken")
    def broken() -> str:
        raise RuntimeError("the password is swordfish")

    answer = own.test_client().get("/broken")
    problem(answer, 500, "INTERNAL")
    assert "swordfish" not in answer.text
    log = capsys.readouterr().err
    assert "swordfish" in log
    assert answer.json["request_id"] in log


def test_an_exception_that_merely_has_a_code_is_still_our_fault(own):
    class OddError(Exception):
        code = "e3q8"

    @own.get("/odd")
    def odd() -> str:
        raise OddError("internal")

    problem(own.test_client().get("/odd"), 500, "INTERNAL")


def test_a_database_that_is_away_is_a_503_that_may_be_repeated(config):
    nowhere = config.data_dir / "nowhere"
    url = f"postgresql+psycopg://puhui_app@/x?host={nowhere}"
    client = create_app(dataclasses.replace(config, database_url=url)).test_client()
    answer = client.get("/log/checkpoint")
    problem(answer, 503, "UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert client.get("/health/live").status_code == 200
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json["database"]) == (503, "unreachable")


def test_production_has_no_sandbox(config):
    client = create_app(dataclasses.replace(config, mode=Mode.PRODUCTION)).test_client()
    problem(client.post(LOGIN, json={"resident": "ab" * 16}), 404, "NOT_FOUND")
    problem(client.get("/api/v1/sandbox/residents"), 404, "NOT_FOUND")


def test_a_caller_past_the_limit_waits_and_others_do_not(app):
    counters: Limits = app.extensions["puhui.limits"]
    few = dataclasses.replace(PUBLIC, name="few", amount=2)
    name = "caller"
    assert [counters.hit(few, name).remaining for _ in range(2)] == [1, 0]
    with pytest.raises(TooManyRequestsError) as refusal:
        counters.hit(few, name)
    assert 0 < refusal.value.retry_after_s <= 60
    assert counters.hit(few, name + "b").remaining == 1


def test_who_asks_much_is_counted_ahead_and_no_less(app, monkeypatch):
    one, other = (Limits(app.extensions["puhui"].redis) for _ in range(2))
    many, caller = Policy("many", 20_000), "caller"
    trips = []
    count = RedisStorage.incr
    monkeypatch.setattr(RedisStorage, "incr", lambda *args: trips.append(1) or count(*args))
    assert [one.hit(many, caller).remaining for _ in range(100)] == [*range(19_999, 19_899, -1)]
    assert len(trips) < 20
    assert other.hit(many, caller).remaining <= 19_899
    monkeypatch.setattr(RedisStorage, "incr", lambda *_: many.amount + 1)
    with pytest.raises(TooManyRequestsError):
        other.hit(many, caller + "b")


def test_who_asks_as_much_in_each_second_is_counted_once_in_each(app, monkeypatch):
    counters, many = Limits(app.extensions["puhui"].redis), Policy("many", 20_000)
    clock, trips = [time.monotonic()], []
    count = RedisStorage.incr
    monkeypatch.setattr(RedisStorage, "incr", lambda *args: trips.append(args[3]) or count(*args))
    monkeypatch.setattr("app.limits.time.monotonic", lambda: clock[0])
    for _ in range(8):
        for _ in range(10):
            counters.hit(many, "steady")
        clock[0] += 1
    assert trips == [1, 2, 4, 8, *[10] * 7]
    clock[0] += 5
    counters.hit(many, "steady")
    assert trips[-1] == 1, "who asks seldom is counted one by one again"


def test_rate_fields_are_the_ietf_ones_and_retry_after_comes_only_with_a_refusal(own):
    @own.get("/spent")
    def spent() -> str:
        raise TooManyRequestsError(7)

    client = own.test_client()
    answer = client.get("/log/keys")
    assert answer.headers["RateLimit-Policy"] == f'"public";q={PUBLIC.amount};w=60'
    assert answer.headers["RateLimit"].startswith('"public";r=')
    assert "Retry-After" not in answer.headers
    refused = client.get("/spent")
    problem(refused, 429, "TOO_MANY_REQUESTS")
    assert refused.headers["Retry-After"] == "7"


def test_without_redis_requests_pass(config, city):
    away = dataclasses.replace(config, redis_url="unix:///nonexistent/redis.sock")
    client = create_app(away, city.clock).test_client()
    answers = [client.get("/log/keys") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    left = [int(answer.headers["RateLimit"].split("r=")[1]) for answer in answers]
    assert left == [PUBLIC.amount - 1, PUBLIC.amount - 2, PUBLIC.amount - 3]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    path=st.sampled_from(
        ["/log/tile/{}", "/api/v1/scenarios/{}/versions/1", "/api/v1/scenarios/x/versions/{}",
         "/api/v1/log/proof?entry={}", "/api/v1/log/consistency?old={}&new=1", "/problems/{}"]
    ),
    text=st.text(max_size=30) | st.integers(-(10**30), 10**30).map(str),
)  # fmt: skip
def test_no_address_makes_a_500(client, path, text):
    with client.get(path.format(text)) as answer:
        assert answer.status_code < 500
