"""An inbox that is read page by page, and pushes that reach WeChat at most once each."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import count
from secrets import token_hex

import pytest
from sqlalchemy import text

from app.api import messages as forms
from app.flows import sign_in, tokens
from app.flows.notify import notify
from app.flows.push import ATTEMPTS, STALE, Pusher, fitted
from app.flows.sign_in import Guest
from app.flows.tokens import issue_access_token
from app.store import messages, people, settings
from app.wechat import connect

TEMPLATE = "template-1"  # the one that the stand-in knows
SETTING = {"id": TEMPLATE, "fields": {"thing1": "text", "number2": "points", "time3": "at"}}


def code_of(answer):
    return answer.status_code, answer.get_json()["code"]


@pytest.fixture
def li(client, city, wechat) -> str:
    """A resident whom WeChat knows as li."""
    token = client.post("/api/v1/login", json={"code": wechat.login_code("li")}).json["join_token"]
    claims = tokens.read(city.vault.token, "join", token)
    guest = Guest(bytes.fromhex(claims.subject), bytes.fromhex(claims.sid))
    resident = token_hex(16)
    wrapped = city.vault.new_subject_key(resident)
    with city.engine.begin() as tx:
        people.join(tx, resident, wrapped, "140403", city.clock())
        sign_in.admit(tx, city.vault, guest, resident, wrapped, city.clock())
    return resident


@pytest.fixture
def ask(client, city, li):
    """Ask as li: ask("messages"), ask("subscriptions", {...}) posts."""
    numbers = count()

    def send(path, document=None, key="", **query):
        headers = {
            "Authorization": f"Bearer {issue_access_token(city.vault.token, li, city.clock())}",
            "Idempotency-Key": key or f"request-{next(numbers):06d}",
        }
        method = "GET" if document is None else "POST"
        return client.open(
            f"/api/v1/me/{path}", method=method, json=document, query_string=query, headers=headers
        )

    return send


@pytest.fixture
def tell(city, li):
    def put(key="1", kind="points.expiring"):
        params = {"points": "120", "date": "2026-11-30"}
        with city.engine.begin() as tx:
            assert notify(tx, city.vault, li, kind, key, params, city.clock())

    return put


@pytest.fixture
def template(city):
    with city.engine.begin() as tx:
        settings.put(tx, "template.points.expiring", SETTING, 0, city.clock())


@pytest.fixture
def tapped(ask, wechat, template):
    """Li taps, and the mini-program tells us."""

    def tap(times=1):
        for _ in range(times):
            wechat.tap("li", TEMPLATE)
        assert ask("subscriptions", {"template": TEMPLATE, "accepted": times}).status_code == 200

    return tap


@pytest.fixture
def pusher(city, wechat):
    line = connect(city.config, None)
    yield Pusher(city.engine, city.vault, line, city.clock)
    line.close()


def states(city):
    with city.engine.connect() as tx:
        return list(tx.execute(text("SELECT push FROM messages ORDER BY id")).scalars())


def quota(ask):
    (one,) = ask("subscriptions").get_json()["items"]
    return one["quota"]


def test_the_inbox_is_read_page_by_page_and_marked_up_to_what_was_seen(ask, tell):
    for n in range(5):
        tell(str(n))
    first = ask("messages", limit=2).get_json()
    assert forms.MessagesSchema().validate(first) == {}
    assert first["items"][0]["text"] == "您有 120 积分将于 2026-11-30 到期，请及时使用。"
    assert first["items"][0]["params"] == {"points": "120", "date": "2026-11-30"}
    assert (first["unread"], first["has_more"]) == ("5", True)
    second = ask("messages", limit=2, cursor=first["next_cursor"]).get_json()
    assert ask("messages/read", {"up_to": second["items"][0]["id"]}).get_json() == {"unread": "2"}
    shown = ask("messages").get_json()["items"]
    assert [one["read"] for one in shown] == [False, False, True, True, True]
    assert len({one["id"] for one in shown}) == 5
    unread = ask("messages", unread="true").get_json()["items"]
    assert [one["id"] for one in unread] == [one["id"] for one in first["items"]]


def test_another_persons_messages_are_neither_shown_nor_marked(client, city, ask, tell, rider, li):
    tell()
    headers = {
        "Authorization": f"Bearer {issue_access_token(city.vault.token, rider, city.clock())}"
    }
    assert client.get("/api/v1/me/messages", headers=headers).get_json()["items"] == []
    up_to = {"up_to": ask("messages").get_json()["items"][0]["id"]}
    client.post(
        "/api/v1/me/messages/read", json=up_to, headers=headers | {"Idempotency-Key": "a-key-of-8"}
    )
    assert ask("messages").get_json()["unread"] == "1"


@pytest.mark.parametrize("up_to", ["", "x", "-1", "٣", "1" * 19, 1, None])
def test_what_is_no_messages_id_marks_nothing(ask, up_to):
    assert code_of(ask("messages/read", {"up_to": up_to})) == (422, "VALIDATION_FAILED")


@pytest.mark.parametrize("cursor", ["MQ==", "LTE", "4pGg", "x"])
def test_a_cursor_of_no_list_is_refused(ask, cursor):
    assert code_of(ask("messages", cursor=cursor)) == (422, "CURSOR_INVALID")


def test_taps_are_counted_once_and_refusals_end_them(ask, template):
    (one,) = ask("subscriptions").get_json()["items"]
    assert one == {"template": TEMPLATE, "kinds": ["points.expiring"], "quota": 0}
    tap = {"template": TEMPLATE, "accepted": 2}
    for _ in range(2):
        made = ask("subscriptions", tap, key="the-same-tap")
        assert forms.SubscriptionsSchema().validate(made.get_json()) == {}
    assert quota(ask) == 2
    ask("subscriptions", tap)
    assert quota(ask) == 4
    refused = ask("subscriptions", {"template": TEMPLATE, "accepted": 0}).get_json()["items"][0]
    assert refused["quota"] == 0
    assert refused["refused_at"]
    assert "refused_at" not in ask("subscriptions", tap).get_json()["items"][0]
    for _ in range(10):
        ask("subscriptions", tap | {"accepted": 20})
    assert quota(ask) == 100


def test_only_templates_that_are_set_can_be_tapped(ask, template):
    other = {"template": "another-template", "accepted": 1}
    assert code_of(ask("subscriptions", other)) == (404, "NOT_FOUND")
    for taps in (-1, 21, "1", 1.0, None, True):
        answer = ask("subscriptions", {"template": TEMPLATE, "accepted": taps})
        assert code_of(answer) == (422, "VALIDATION_FAILED")


def test_one_tap_is_one_push_and_the_rest_stays_in_the_inbox(
    city, ask, tell, tapped, pusher, wechat
):
    tapped()
    for n in range(3):
        tell(str(n))
    assert states(city) == ["due", "due", "due"]
    assert pusher.step()
    (sent,) = wechat.sent
    assert sent["touser"] == wechat.openid("li")
    assert sent["data"] == {
        "thing1": {"value": "您有 120 积分将于 2026-11…"},
        "number2": {"value": "120"},
        "time3": {"value": "2026年11月22日 12:00"},
    }
    assert states(city) == ["sent", "none", "none"]
    assert quota(ask) == 0
    assert len(ask("messages").get_json()["items"]) == 3
    tell("later")
    pusher.step()
    assert states(city)[-1] == "none"
    assert len(wechat.sent) == 1


def test_without_a_template_or_a_tap_nothing_is_due(city, tell, ask, pusher, wechat):
    tell("no template")
    with city.engine.begin() as tx:
        settings.put(tx, "template.points.expiring", SETTING, 0, city.clock())
    tell("no tap")
    pusher.step()
    assert states(city) == ["none", "none"]
    assert wechat.asked["/cgi-bin/message/subscribe/send"] == 0


def test_two_workers_send_nothing_twice(city, tell, tapped, pusher, wechat):
    tapped(20)
    for n in range(20):
        tell(str(n))
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(lambda _: pusher.step(), range(3)))
    assert len(wechat.sent) == 20
    assert states(city) == ["sent"] * 20


def test_a_worker_that_dies_after_marking_sends_it_neither_then_nor_later(
    city, tell, tapped, pusher, wechat, monkeypatch
):
    tapped()
    tell()
    monkeypatch.setattr(Pusher, "_send", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pusher.step()
    monkeypatch.undo()
    city.clock.move(hours=1)
    pusher.step()
    assert wechat.sent == []
    assert states(city) == ["sent"]


def test_after_a_refusal_it_is_quiet_until_somebody_taps_again(
    city, ask, tell, tapped, pusher, wechat
):
    ask("subscriptions", {"template": TEMPLATE, "accepted": 3})  # WeChat knows of no tap
    tell("1")
    tell("2")
    pusher.step()
    city.clock.move(hours=12)
    pusher.step()
    assert states(city) == ["refused", "none"]
    assert wechat.asked["/cgi-bin/message/subscribe/send"] == 1
    assert quota(ask) == 0
    tapped()
    tell("3")
    pusher.step()
    assert states(city) == ["refused", "none", "sent"]


def test_a_busy_wechat_is_asked_again_later_and_not_for_ever(
    city, ask, tell, tapped, pusher, wechat
):
    tapped()
    tell()
    pauses = []
    for n in range(ATTEMPTS):
        wechat.busy = 0
        pusher.wechat._own.clear()
        _busy_on_send(wechat)
        assert pusher.step()
        assert quota(ask) == 1
        pauses.append(states(city)[0])
        city.clock.move(minutes=5**n - 1)
        assert pusher.step()  # not due yet
        city.clock.move(minutes=1)
    assert pauses == ["due", "due", "due", "failed"]
    wechat.busy = 0
    pusher.step()
    assert wechat.sent == []


def _busy_on_send(wechat):
    """Busy for both tries of a message, once the access token is fetched."""
    original = wechat._mood

    def mood():
        if wechat.asked["/cgi-bin/message/subscribe/send"] > mood.before:
            original()

    mood.before = wechat.asked["/cgi-bin/message/subscribe/send"]
    wechat._mood = mood
    wechat.busy = 2


def test_a_template_that_wechat_does_not_know_is_not_tried_again(
    city, ask, tell, tapped, pusher, wechat
):
    tapped()
    wechat.templates.clear()
    tell()
    assert pusher.step()
    assert states(city) == ["failed"]
    assert quota(ask) == 1


def test_a_wechat_that_is_away_is_left_alone_and_asked_later(
    city, ask, tell, tapped, pusher, wechat
):
    tapped(2)
    tell("1")
    tell("2")
    nowhere = connect(replace(city.config, wechat_base="http://127.0.0.1:1"), None)
    assert not replace(pusher, wechat=nowhere).step()
    nowhere.close()
    assert states(city) == ["due", "due"]
    assert quota(ask) == 2
    city.clock.move(minutes=2)
    assert pusher.step()
    assert states(city) == ["sent", "sent"]


def test_what_is_a_day_old_is_not_pushed_any_more(city, tell, tapped, pusher, wechat):
    tapped()
    tell()
    city.clock.now += STALE
    pusher.step()
    assert states(city) == ["none"]
    assert wechat.sent == []


def test_nothing_is_pushed_to_whoever_restricted_what_we_do_or_left(
    city, li, tell, tapped, pusher, wechat
):
    tapped(2)
    tell("1")
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = now()"))
    pusher.step()
    assert states(city) == ["none"]
    with city.engine.begin() as tx:
        tx.execute(text("UPDATE residents SET restricted_at = NULL"))
    tell("2")
    with city.engine.begin() as tx:
        people.forget(tx, li, city.clock())
    pusher.step()
    assert wechat.sent == []
    with city.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM subscriptions")).scalar_one() == 0


def test_the_pusher_runs_beside_the_worker_until_it_is_told_to_stop(
    city, tell, tapped, pusher, wechat
):
    tapped()
    tell()
    stop = threading.Event()
    thread = threading.Thread(target=pusher.run, args=(stop,))
    thread.start()
    for _ in range(100):
        if wechat.sent:
            break
        stop.wait(0.05)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert len(wechat.sent) == 1


def test_the_pusher_outlives_a_fault(city, tell, tapped, pusher, wechat, monkeypatch):
    tapped()
    tell()
    monkeypatch.setattr("app.flows.push._AWAY_S", 0.01)
    stop, faults = threading.Event(), iter([1, 1])
    original = Pusher.step

    def step(self):
        if next(faults, None):
            raise RuntimeError("a fault of ours")
        stop.set()
        return original(self)

    monkeypatch.setattr(Pusher, "step", step)
    pusher.run(stop)
    assert len(wechat.sent) == 1


@pytest.mark.parametrize(
    ("field", "value", "given"),
    [
        ("thing1", "积" * 20, "积" * 20),
        ("thing1", "积" * 21, "积" * 19 + "…"),
        ("thing12", "🚲" * 11, "🚲" * 9 + "…"),
        ("phrase2", "已获支持啦呀", "已获支持…"),
        ("thing1", "一\n二\u202e\u0000三", "一 二 三"),
        ("thing1", " \n ", "-"),
        ("character_string3", "a" * 40, "a" * 31 + "…"),
        ("number4", "120", "120"),
    ],
)
def test_a_value_is_cut_to_what_its_field_takes(field, value, given):
    assert fitted(field, value) == given


def test_a_push_is_due_again_after_longer_and_longer(city, tell, tapped):
    tapped()
    tell()
    with city.engine.begin() as tx:
        due = messages.take_due(tx, city.clock())
        assert due is not None
        messages.push(tx, due.message.id, "due", city.clock() + timedelta(minutes=1), 1)
        assert messages.take_due(tx, city.clock()) is None
