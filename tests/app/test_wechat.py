"""What we ask of WeChat, over real HTTP to its stand-in; and what comes sealed from it."""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from threading import Event

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from app.cli import stand_in
from app.config import Mode
from app.wechat import (
    Delivery,
    WeChatBlockedError,
    WeChatCodeError,
    WeChatDataError,
    WeChatError,
    connect,
    decrypt,
)

TOKEN = "/cgi-bin/stable_token"
LOGIN = "/sns/jscode2session"
NEWS = {"thing1": "积分将到期"}


@pytest.fixture
def shared(servers):
    with redis.Redis.from_url(servers.redis_url, protocol=3) as client:
        yield client


@pytest.fixture
def line(servers, wechat, shared):
    """Our line to WeChat, with the access token shared through Redis."""
    made = connect(servers, shared)
    yield made
    made.close()


@pytest.fixture
def alone(servers, wechat):
    """A line of a process that shares nothing."""
    made = connect(servers, None)
    yield made
    made.close()


def test_a_code_tells_who_logged_in_and_each_login_has_a_new_key(line, wechat):
    first = line.session(wechat.login_code("li"))
    second = line.session(wechat.login_code("li"))
    assert first.openid == second.openid == wechat.openid("li")
    assert first.session_key != second.session_key == wechat.session_key("li")
    assert len(b64decode(first.session_key)) == 16


def test_a_code_works_once_for_five_minutes_and_for_our_app_only(line, wechat, clock):
    used = wechat.login_code("li")
    line.session(used)
    old, other = wechat.login_code("li"), wechat.login_code("li", app_id="wx0000000000000001")
    clock.move(minutes=5, seconds=1)
    seen = []
    for code in (used, old, other, "made-up", wechat.phone_code("li")):
        with pytest.raises(WeChatCodeError) as refusal:
            line.session(code)
        seen.append(refusal.value.errcode)
    assert seen == [40029, 40029, 40029, 40029, 40029]
    fresh = wechat.login_code("li")
    line.session(fresh)
    with pytest.raises(WeChatCodeError) as refusal:
        line.session(fresh)
    assert refusal.value.errcode == 40163


@pytest.mark.parametrize("mood", ["busy", "limited"])
def test_a_busy_wechat_is_asked_once_more_and_no_more(line, wechat, mood):
    setattr(wechat, mood, 1)
    assert line.session(wechat.login_code("li")).openid
    assert wechat.asked[LOGIN] == 2
    setattr(wechat, mood, 2)
    with pytest.raises(WeChatError) as refusal:
        line.session(wechat.login_code("li"))
    assert refusal.value.code == "UNAVAILABLE"
    assert wechat.asked[LOGIN] == 4


def test_a_user_may_log_in_a_hundred_times_a_minute(line, wechat, clock):
    for _ in range(stand_in.LOGINS_A_MINUTE):
        wechat.answer(LOGIN, _login(wechat, "li"), b"")
    with pytest.raises(WeChatError) as refusal:
        line.session(wechat.login_code("li"))
    assert refusal.value.errcode in (45011, 40163)  # asked again, the code is used
    assert line.session(wechat.login_code("wang"))
    clock.move(minutes=1)
    assert line.session(wechat.login_code("li"))


def _login(wechat, user: str) -> dict[str, str]:
    return {
        "appid": wechat.app_id,
        "secret": wechat.secret,
        "js_code": wechat.login_code(user),
        "grant_type": "authorization_code",
    }


def test_a_blocked_user_is_told_apart(line, wechat):
    wechat.blocked.add("li")
    with pytest.raises(WeChatBlockedError):
        line.session(wechat.login_code("li"))


def test_a_wrong_secret_or_app_is_our_fault_and_not_the_codes(wechat, servers):
    for change in ({"wechat_secret": "guess"}, {"wechat_app_id": "wx0000000000000001"}):
        line = connect(replace(servers, **change), None)
        with pytest.raises(WeChatError) as refusal:
            line.session(wechat.login_code("li"))
        assert refusal.value.code == "UNAVAILABLE"
        line.close()


@pytest.mark.parametrize(
    "change", [{"wechat_base": "http://127.0.0.1:1"}, {"wechat_app_id": "", "wechat_secret": ""}]
)
def test_without_wechat_every_call_says_so(wechat, change, servers):
    line = connect(replace(servers, **change), None)
    for call in (
        lambda: line.session("code"),
        lambda: line.phone("code", "openid"),
        lambda: line.send_subscription("openid", "template-1", NEWS, "pages/home"),
        lambda: line.code_image("scene", "pages/home"),
    ):
        with pytest.raises(WeChatError) as refusal:
            call()
        assert type(refusal.value) is WeChatError
    line.close()


def test_the_phone_buttons_code_gives_the_number_to_its_own_user_once(line, wechat):
    code, me = wechat.phone_code("li", "13900139000"), wechat.openid("li")
    with pytest.raises(WeChatCodeError):
        line.phone(code, wechat.openid("wang"))
    assert line.phone(code, me) == "+8613900139000"
    for wrong in (code, wechat.login_code("li"), "made-up"):
        with pytest.raises(WeChatCodeError):
            line.phone(wrong, me)


def test_processes_share_one_access_token(line, wechat, shared, servers):
    other = connect(servers, shared)
    with ThreadPoolExecutor(4) as pool:
        numbers = list(
            pool.map(
                lambda n: (line, other)[n % 2].phone(
                    wechat.phone_code(f"u{n}"), wechat.openid(f"u{n}")
                ),
                range(8),
            )
        )
    assert numbers == ["+8613800138000"] * 8
    assert wechat.asked[TOKEN] == 1
    other.close()


def test_a_stale_access_token_is_replaced_in_the_same_call(line, alone, wechat, clock, servers):
    for one in (line, alone):
        one.phone(wechat.phone_code("li"), wechat.openid("li"))
    forced = {
        "appid": wechat.app_id,
        "secret": wechat.secret,
        "grant_type": "client_credential",
        "force_refresh": True,
    }
    httpx.post(servers.wechat_base + TOKEN, json=forced, trust_env=False)
    for one in (line, alone):
        assert one.phone(wechat.phone_code("li"), wechat.openid("li"))
    clock.move(hours=3)
    for one in (line, alone):
        assert one.phone(wechat.phone_code("li"), wechat.openid("li"))


def test_with_redis_away_a_process_asks_for_itself_and_remembers(wechat, servers):
    away = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    line = connect(servers, away)
    for _ in range(3):
        assert line.phone(wechat.phone_code("li"), wechat.openid("li"))
    assert wechat.asked[TOKEN] == 1
    line.close()


def test_one_tap_is_one_message_and_a_refusal_is_an_answer(line, wechat):
    send = line.send_subscription, (wechat.openid("li"), "template-1", NEWS, "pages/home")
    assert send[0](*send[1]) is Delivery.REFUSED
    wechat.tap("li", "template-1")
    assert [send[0](*send[1]) for _ in range(2)] == [Delivery.SENT, Delivery.REFUSED]
    (message,) = wechat.sent
    assert message["data"] == {"thing1": {"value": "积分将到期"}}
    assert message["page"] == "pages/home"


def test_a_message_that_can_never_be_sent_says_why(line, wechat):
    seen = []
    for template, data in (("template-9", NEWS), ("template-1", {"thing1": ""})):
        with pytest.raises(WeChatError) as refusal:
            line.send_subscription(wechat.openid("li"), template, data, "pages/home")
        seen.append(refusal.value.errcode)
    assert seen == [40037, 47003]


def test_a_code_image_is_a_picture_or_an_error(line, wechat):
    assert line.code_image("c=12345678", "pages/home").startswith(b"\x89PNG\r\n")
    with pytest.raises(WeChatError) as refusal:
        line.code_image("c" * 33, "pages/home")
    assert refusal.value.errcode == 40129


def test_no_secret_reaches_a_log_an_error_or_a_representation(line, wechat, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    code, key = wechat.login_code("li"), ""
    key = line.session(code).session_key
    line.phone(wechat.phone_code("li"), wechat.openid("li"))
    wechat.busy = 2
    with pytest.raises(WeChatError) as refusal:
        line.session(wechat.login_code("li"))
    said = caplog.text + capfd.readouterr().err + str(refusal.value) + repr(line)
    for secret in (wechat.secret, code, key, "access_token="):
        assert secret not in said


STEPS = {date(2026, 11, 21): 8000, date(2026, 11, 22): 1200}


def test_steps_open_with_the_key_of_their_login(wechat, clock):
    blob = wechat.steps("li", STEPS)
    found = decrypt(wechat.app_id, wechat.session_key("li"), *blob.values(), clock())
    assert [day["step"] for day in found["stepInfoList"]] == [8000, 1200]
    assert found["stepInfoList"][0]["timestamp"] == 1795190400  # midnight in Shanghai


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: {**w.steps("li", STEPS, app_id="wx0000000000000001")},
        lambda w: {**w.steps("li", STEPS, age_s=301)},
        lambda w: {**w.steps("li", STEPS, age_s=-301)},
        lambda w: {**w.steps("li", STEPS, age_s=86_400)},
        lambda w: {**w.steps("li", STEPS, key=b64encode(b"k" * 16).decode())},
        lambda w: {**w.steps("li", STEPS), "iv": b64encode(b"i" * 15).decode()},
        lambda w: {**w.steps("li", STEPS), "iv": b64encode(b"i" * 16).decode()},
        lambda w: {**w.steps("li", STEPS), "iv": "?"},
        lambda w: {**w.steps("li", STEPS), "encrypted_data": ""},
        lambda w: {**w.steps("li", STEPS), "encrypted_data": "步数"},
        lambda w: {**w.steps("li", STEPS), "encrypted_data": b64encode(b"x" * 33).decode()},
        lambda w: {**w.steps("li", STEPS), "encrypted_data": b64encode(bytes(64)).decode()},
        lambda w: {**w.blob("li", {"pad": "x" * 70_000})},
    ],
)
def test_whatever_is_wrong_with_sealed_data_the_answer_is_one(wechat, spoil, clock):
    with pytest.raises(WeChatDataError) as refusal:
        decrypt(wechat.app_id, wechat.session_key("li"), *spoil(wechat).values(), clock())
    with pytest.raises(WeChatDataError) as other:
        decrypt("", "", "", "", clock())
    assert str(refusal.value) == str(other.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("plain", [b"[]", b"{}", b"7", b'{"watermark":7}', b"{", b"\xff"])
def test_what_opens_to_no_watermark_is_refused(wechat, plain, monkeypatch, clock):
    monkeypatch.setattr(stand_in.orjson, "dumps", lambda _: plain)
    blob = wechat.blob("li", {})
    monkeypatch.undo()
    with pytest.raises(WeChatDataError):
        decrypt(wechat.app_id, wechat.session_key("li"), *blob.values(), clock())


def test_a_wechat_that_hangs_is_not_waited_for_long(wechat, monkeypatch, servers):
    monkeypatch.setattr("app.wechat._TIMEOUT", httpx.Timeout(0.2))
    answer, refused = wechat.answer, Event()
    monkeypatch.setattr(wechat, "answer", lambda *a: (refused.wait(10), answer(*a))[1])
    line = connect(servers, None)
    with pytest.raises(WeChatError):
        line.session(wechat.login_code("li"))
    refused.set()
    line.close()


def test_a_wechat_that_hangs_holds_two_threads_and_the_others_are_told_at_once(
    servers, wechat, monkeypatch
):
    monkeypatch.setattr("app.wechat._TIMEOUT", httpx.Timeout(30))
    answer, codes = wechat.answer, [wechat.login_code(f"u{n}") for n in range(6)]
    refused, told = [], Event()
    monkeypatch.setattr(wechat, "answer", lambda *a: (told.wait(10), answer(*a))[1])
    line = connect(servers, None)

    def ask(code: str) -> bool:
        try:
            return bool(line.session(code))
        except WeChatError:
            refused.append(code)
            if len(refused) == 4:
                told.set()
            return False

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, codes)).count(True) == 2
    assert told.is_set()
    line.close()


def test_the_demo_runs_beside_a_stand_in_and_a_real_city_beside_none(wechat, servers):
    bare = replace(servers, wechat_app_id="", wechat_secret="")
    with stand_in.beside(bare) as config:
        answer = httpx.post(
            f"{config.wechat_base}/stand-in/codes", json={"user": "li"}, trust_env=False
        )
        line = connect(config, None)
        assert line.session(answer.json()["code"]).openid
        line.close()
    with stand_in.beside(servers) as config:
        assert config == servers
    production = replace(bare, mode=Mode.PRODUCTION)
    with stand_in.beside(production) as config:
        assert config == production
