"""In by WeChat's code, on by a refresh token that rotates, out here and everywhere; the phone."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from secrets import token_hex

import jwt
import pytest
from sqlalchemy import text

from app.application import create_app
from app.flows import sign_in, tokens
from app.flows.erase import erase
from app.flows.sign_in import Guest
from app.flows.work import Worker
from app.store import logins, people
from app.vault import create_keys, open_vault, renew_token_key, unseal

LOGIN = "/api/v1/login"
REFRESH = "/api/v1/login/refresh"
HOME = "/api/v1/me/balances"


@pytest.fixture
def log_in(client, wechat):
    """Sends a code: log_in() is one of li's, newly made."""

    def send(code: str = ""):
        return client.post(LOGIN, json={"code": code or wechat.login_code("li")})

    return send


@pytest.fixture
def li(log_in, city) -> str:
    """A resident whom WeChat knows as li."""
    claims = tokens.read(city.vault.token, "join", log_in().json["join_token"])
    guest = Guest(bytes.fromhex(claims.subject), bytes.fromhex(claims.sid))
    resident, now = token_hex(16), city.clock()
    wrapped = city.vault.new_subject_key(resident)
    with city.engine.begin() as tx:
        people.join(tx, resident, wrapped, "140403", now)
        sign_in.admit(tx, city.vault, guest, resident, wrapped, now)
    return resident


@pytest.fixture
def refresh(client):
    """Sends a refresh token."""
    return lambda token: client.post(REFRESH, json={"refresh_token": token})


@pytest.fixture
def reads(client):
    """The status, or the code of the refusal, of a read with an access token."""

    def read(token: str) -> int | str:
        answer = client.get(HOME, headers=bearing(token))
        return answer.status_code if answer.status_code < 400 else answer.json["code"]

    return read


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def code(answer) -> str:
    if answer.status_code == 401:
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    return answer.json["code"]


def count(city, table: str) -> int:
    with city.engine.connect() as tx:
        return tx.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()


def test_who_has_not_joined_gets_a_join_token_that_opens_nothing_else(log_in, reads, city):
    answer = log_in()
    assert answer.status_code == 200
    assert answer.json["joined"] is False
    assert answer.json["expires_in"] == 900
    assert set(answer.json) == {"joined", "join_token", "expires_in"}
    assert reads(answer.json["join_token"]) == "TOKEN_INVALID"


def test_a_resident_gets_tokens_that_read(log_in, li, reads, client):
    made = log_in().json
    assert made["joined"] is True
    assert (made["expires_in"], made["refresh_expires_in"]) == (1800, 30 * 86_400)
    assert reads(made["access_token"]) == 200
    home = client.get("/api/v1/me/home", headers=bearing(made["access_token"]))
    assert home.json["resident"] == li


def test_the_double_tap_gets_the_same_answer_for_a_minute(log_in, li, wechat, city):
    code_ = wechat.login_code("li")
    first = log_in(code_)
    city.clock.move(seconds=60)
    assert log_in(code_).json == first.json
    assert wechat.asked["/sns/jscode2session"] == 2  # of which one was li's before
    city.clock.move(seconds=1)
    assert code(log_in(code_)) == "WECHAT_CODE_INVALID"


def test_taps_at_once_get_one_answer_and_make_one_sign_in(app, li, wechat, city, monkeypatch):
    slow = wechat.answer
    monkeypatch.setattr(wechat, "answer", lambda *a: time.sleep(0.2) or slow(*a))
    before, code_ = count(city, "refresh_tokens"), wechat.login_code("li")
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda _: app.test_client().post(LOGIN, json={"code": code_}).json, range(4))
        )
    assert answers == [answers[0]] * 4
    assert answers[0]["joined"]
    assert count(city, "refresh_tokens") == before + 1


def test_a_code_that_wechat_refuses_is_refused_and_may_be_mended(log_in, li, wechat, city):
    assert code(log_in("made-up")) == "WECHAT_CODE_INVALID"
    assert code(log_in(wechat.login_code("li", app_id="wx0000000000000001"))) == (
        "WECHAT_CODE_INVALID"
    )
    late = wechat.login_code("li")
    city.clock.move(minutes=6)
    assert code(log_in(late)) == "WECHAT_CODE_INVALID"
    wechat.blocked.add("li")
    blocked = log_in()
    assert (blocked.status_code, code(blocked)) == (403, "WECHAT_BLOCKED")


def test_a_busy_wechat_is_a_503_and_the_same_code_works_a_moment_later(log_in, li, wechat):
    code_, wechat.busy = wechat.login_code("li"), 2
    answer = log_in(code_)
    assert (answer.status_code, code(answer)) == (503, "UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert log_in(code_).json["joined"]


def test_with_wechat_down_login_is_unavailable_and_reading_goes_on(city, li):
    app = create_app(replace(city.config, wechat_base="http://127.0.0.1:1"), city.clock)
    client = app.test_client()
    answer = client.post(LOGIN, json={"code": "a-code"})
    assert (answer.status_code, code(answer)) == (503, "UNAVAILABLE")
    assert answer.headers["Retry-After"]
    assert "a-code" not in answer.text
    token = tokens.issue_access_token(city.vault.token, li, city.clock())
    assert client.get(HOME, headers=bearing(token)).status_code == 200
    close(app)


def close(app) -> None:
    with app.app_context():
        app.extensions["puhui"].engine.dispose()
    app.extensions["puhui"].redis.close()


def test_a_request_that_died_while_it_asked_leaves_its_code_to_the_next(log_in, li, wechat, city):
    code_, now = wechat.login_code("li"), city.clock()
    mark = city.vault.mark(f"wechat code login {code_}", 32)
    with city.engine.begin() as tx:
        assert logins.claim(tx, mark, now, now)
    city.clock.move(seconds=21)
    assert log_in(code_).json["joined"]


@pytest.mark.parametrize("body", [{}, {"code": ""}, {"code": "x" * 129}, {"code": "码"}, [], 7])
def test_a_code_that_reads_as_none_is_refused_without_asking(client, wechat, body):
    assert client.post(LOGIN, json=body).status_code == 422
    assert not wechat.asked


def test_the_session_key_is_kept_sealed_and_is_always_the_newest(log_in, li, wechat, city):
    for _ in range(2):
        answer = log_in()
        key = wechat.session_key("li")
        with city.engine.connect() as tx:
            assert sign_in.session_key(tx, city.vault, li) == key
            assert sign_in.openid(tx, city.vault, li) == wechat.openid("li")
            rows = tx.execute(text("SELECT l::text || c::text FROM logins l, login_codes c")).all()
        stored = answer.text + str(rows)
        for secret in (key, key.encode().hex(), wechat.openid("li").encode().hex()):
            assert secret not in stored
    with city.engine.connect() as tx:
        assert sign_in.session_key(tx, city.vault, token_hex(16)) is None


def test_a_guest_who_joined_is_a_resident_and_their_join_token_is_spent(log_in, li, city):
    made = log_in().json
    claims = tokens.read(city.vault.token, "access", made["access_token"])
    assert claims.subject == li
    identity = city.vault.subject(
        "wechat openid", f"{city.config.wechat_app_id} {openid_of(city, li)}"
    )
    with city.engine.connect() as tx:
        assert sign_in.resident_of(tx, Guest(identity, bytes(32))) == li
        assert sign_in.resident_of(tx, Guest(bytes(32), bytes(32))) is None


def openid_of(city, resident: str) -> str:
    with city.engine.connect() as tx:
        return sign_in.openid(tx, city.vault, resident)


def test_a_refresh_token_works_once_and_its_successor_after_it(log_in, li, refresh, reads, city):
    old = log_in().json
    city.clock.move(minutes=31)
    assert reads(old["access_token"]) == "TOKEN_EXPIRED"
    new = refresh(old["refresh_token"])
    assert new.status_code == 200
    assert reads(new.json["access_token"]) == 200
    city.clock.move(days=29)
    assert refresh(new.json["refresh_token"]).status_code == 200


def test_a_lost_answer_is_given_again_within_a_minute(log_in, li, refresh, reads, city):
    old = log_in().json["refresh_token"]
    first = refresh(old).json
    city.clock.move(seconds=60)
    again = refresh(old).json
    assert again["refresh_token"] == first["refresh_token"]
    assert reads(again["access_token"]) == 200
    assert refresh(again["refresh_token"]).status_code == 200


@pytest.mark.parametrize("late", [True, False])
def test_a_refresh_token_used_by_two_ends_the_sign_in(log_in, li, refresh, reads, city, late):
    old, other = log_in().json, log_in().json
    new = refresh(old["refresh_token"]).json
    if late:
        city.clock.move(seconds=61)
    else:
        newest = refresh(new["refresh_token"]).json  # so the answer was not lost
        new = newest
    stolen = refresh(old["refresh_token"])
    assert (stolen.status_code, code(stolen)) == (401, "TOKEN_REUSED")
    assert code(refresh(new["refresh_token"])) == "TOKEN_REVOKED"
    time.sleep(1.05)  # what every process knows within two seconds
    assert reads(new["access_token"]) == "TOKEN_REVOKED"
    assert refresh(other["refresh_token"]).status_code == 200  # another phone goes on
    assert reads(other["access_token"]) == 200


def test_two_refreshes_at_once_get_one_successor(app, log_in, li, city):
    old = {"refresh_token": log_in().json["refresh_token"]}
    before = count(city, "refresh_tokens")
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: app.test_client().post(REFRESH, json=old).json, range(6)))
    assert len({one["refresh_token"] for one in made}) == 1
    assert count(city, "refresh_tokens") == before + 1


def test_a_refresh_token_of_nobody_or_of_long_ago_opens_nothing(log_in, li, refresh, city):
    old = log_in().json
    assert code(refresh("A" * 43)) == "TOKEN_INVALID"
    assert code(refresh("short")) == "VALIDATION_FAILED"
    assert code(refresh(old["access_token"][:43])) in ("TOKEN_INVALID", "VALIDATION_FAILED")
    city.clock.move(days=30)
    expired = refresh(old["refresh_token"])
    assert (expired.status_code, code(expired)) == (401, "TOKEN_EXPIRED")


def test_a_refresh_token_is_stored_as_its_hash_only(log_in, li, refresh, city):
    token = refresh(log_in().json["refresh_token"]).json["refresh_token"]
    with city.engine.connect() as tx:
        rows = tx.execute(text("SELECT t::text FROM refresh_tokens t")).scalars().all()
    assert token not in str(rows)
    assert token.encode().hex() not in str(rows)


def test_signing_out_ends_this_sign_in_at_once_and_no_other(client, log_in, li, refresh, reads):
    here, there = log_in().json, log_in().json
    answer = client.post("/api/v1/me/sign-out", headers=bearing(here["access_token"]))
    assert answer.json == {"done": True}
    assert reads(here["access_token"]) == "TOKEN_REVOKED"
    assert code(refresh(here["refresh_token"])) == "TOKEN_REVOKED"
    assert reads(there["access_token"]) == 200
    assert refresh(there["refresh_token"]).status_code == 200


def test_signing_out_everywhere_ends_all_and_a_new_login_in_the_same_second_works(
    client, log_in, li, refresh, reads, city
):
    before = [log_in().json for _ in range(2)]
    city.clock.move(milliseconds=400)
    sandbox = tokens.issue_access_token(city.vault.token, li, city.clock())
    path = "/api/v1/me/sign-out-everywhere"
    assert client.post(path, headers=bearing(before[0]["access_token"])).status_code == 200
    for old in before:
        assert reads(old["access_token"]) == "TOKEN_REVOKED"
        assert code(refresh(old["refresh_token"])) == "TOKEN_REVOKED"
    assert reads(sandbox) == "TOKEN_REVOKED"
    new = log_in().json
    assert reads(new["access_token"]) == 200
    assert refresh(new["refresh_token"]).status_code == 200


def test_another_process_knows_of_a_sign_out_within_two_seconds(client, log_in, li, city):
    other = create_app(city.config, city.clock)
    token = log_in().json["access_token"]
    there = other.test_client()
    assert there.get(HOME, headers=bearing(token)).status_code == 200
    client.post("/api/v1/me/sign-out-everywhere", headers=bearing(token))
    time.sleep(1.9)
    assert code(there.get(HOME, headers=bearing(token))) == "TOKEN_REVOKED"
    close(other)


def test_the_tokens_of_an_erased_resident_are_dead_within_two_seconds(
    log_in, li, refresh, reads, city
):
    made = log_in().json
    sandbox = tokens.issue_access_token(city.vault.token, li, city.clock())
    assert reads(made["access_token"]) == reads(sandbox) == 200
    erase(city.engine, city.vault, li, city.clock())
    time.sleep(1.9)
    assert reads(made["access_token"]) == reads(sandbox) == "TOKEN_REVOKED"
    assert code(refresh(made["refresh_token"])) == "TOKEN_INVALID"
    for table in ("logins", "refresh_tokens", "phones"):
        assert count(city, table) == 0
    assert log_in().json["joined"] is False  # free to come again, as somebody new


def test_the_worker_forgets_what_can_matter_to_nobody(client, log_in, li, city):
    token = log_in().json["access_token"]
    client.post("/api/v1/me/sign-out-everywhere", headers=bearing(token))
    worker = Worker(city.engine, city.vault, city.sealer, city.clock)
    worker.step()
    assert count(city, "login_codes") == count(city, "sign_outs") == 1
    city.clock.move(hours=2)
    worker.step()
    assert count(city, "login_codes") == count(city, "sign_outs") == 0
    assert count(city, "refresh_tokens") == 2
    city.clock.move(days=30)
    worker.step()
    assert count(city, "refresh_tokens") == 0


def test_tokens_of_the_old_key_are_good_until_they_run_out_and_no_new_one_is(
    city, tmp_path, log_in, li
):
    old = log_in().json["access_token"]
    keys = tmp_path / "keys"
    create_keys(keys, city.config.log_origin)
    for path in city.config.keys_dir.iterdir():
        (keys / path.name).write_text(path.read_text())
    renew_token_key(keys)
    assert (keys / "token.key").stat().st_mode & 0o777 == 0o600
    changed_at = city.clock().timestamp() + 60
    os.utime(keys / "token.key", (changed_at, changed_at))
    assert open_vault(keys).old_token == (city.vault.token, int(changed_at))
    app = create_app(replace(city.config, keys_dir=keys), city.clock)
    client = app.test_client()
    city.clock.move(minutes=2)
    stolen = tokens.issue_access_token(city.vault.token, li, city.clock())
    new = client.post("/api/v1/sandbox/login", json={"resident": li}).json["access_token"]
    assert client.get(HOME, headers=bearing(old)).status_code == 200
    assert client.get(HOME, headers=bearing(new)).status_code == 200
    assert code(client.get(HOME, headers=bearing(stolen))) == "TOKEN_INVALID"
    city.clock.move(minutes=28)
    assert code(client.get(HOME, headers=bearing(old))) == "TOKEN_EXPIRED"
    close(app)


@pytest.mark.parametrize("off", [timedelta(days=1), timedelta(days=-1)])
def test_a_token_of_a_clock_that_is_a_day_off_has_expired(li, reads, city, off):
    token = tokens.issue_access_token(city.vault.token, li, city.clock() + off)
    assert reads(token) == "TOKEN_EXPIRED"


def test_a_forged_token_is_none_of_ours(li, reads, city):
    at = int(city.clock().timestamp())
    good = {"iss": "puhui", "aud": "puhui-residents", "sub": li, "typ": "access", "iat": at}
    good["exp"] = at + 1800
    for key, algorithm in ((b"x" * 32, "HS256"), (city.vault.token * 2, "HS512"), (None, "none")):
        assert reads(jwt.encode(good, key, algorithm=algorithm)) == "TOKEN_INVALID"
    lasting = good | {"exp": at + 86_400}
    assert reads(jwt.encode(lasting, city.vault.token, algorithm="HS256")) == "TOKEN_INVALID"


@pytest.fixture
def put_phone(client, log_in, li):
    """Sends a phone button's code as li."""
    header = bearing(log_in().json["access_token"])
    return lambda code_: client.put("/api/v1/me/phone", json={"code": code_}, headers=header)


def test_the_phone_is_kept_sealed_and_shown_by_its_ends(put_phone, li, wechat, city):
    tapped = wechat.phone_code("li", "13912345678")
    answers = [put_phone(tapped) for _ in range(2)]
    assert [one.json for one in answers] == [{"phone": "139****5678"}] * 2
    with city.engine.connect() as tx:
        key = city.vault.subject_key(li, logins.newest(tx, li).wrapped_key)
        sealed = tx.execute(text("SELECT sealed FROM phones")).scalar_one()
        row = tx.execute(text("SELECT p::text FROM phones p")).scalar_one()
    assert unseal(key, sealed, f"phone {li}".encode()) == b"+8613912345678"
    assert b"13912345678".hex() not in row


def test_a_phone_code_of_another_user_or_kind_is_refused(put_phone, wechat, city):
    for wrong in (wechat.phone_code("wang"), wechat.login_code("li"), "made-up"):
        assert code(put_phone(wrong)) == "WECHAT_CODE_INVALID"
    assert count(city, "phones") == 0


def test_a_number_is_whose_wechat_saw_it_last(put_phone, wechat, city, rider):
    with city.engine.begin() as tx:
        digest = city.vault.subject("phone number", "+8613912345678")
        logins.set_phone(tx, rider, digest, b"sealed", city.clock())
    assert put_phone(wechat.phone_code("li", "13912345678")).status_code == 200
    assert put_phone(wechat.phone_code("li", "13900000000")).status_code == 200
    assert count(city, "phones") == 1


def test_the_phone_is_forgotten_when_asked_as_often_as_asked(
    put_phone, client, log_in, wechat, city
):
    put_phone(wechat.phone_code("li"))
    header = bearing(log_in().json["access_token"])
    for _ in range(2):
        answer = client.post("/api/v1/me/phone/forget", headers=header)
        assert answer.json == {"phone": None}
        assert count(city, "phones") == 0


def test_who_never_came_by_wechat_cannot_give_a_phone(client, rider, wechat, city):
    token = tokens.issue_access_token(city.vault.token, rider, city.clock())
    body = {"code": wechat.phone_code("li")}
    answer = client.put("/api/v1/me/phone", json=body, headers=bearing(token))
    assert code(answer) == "WECHAT_CODE_INVALID"
