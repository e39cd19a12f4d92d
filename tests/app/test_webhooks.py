"""Merchants' own servers are told what happened: once proved, signed, at least once, and logged."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from standardwebhooks import Webhook, WebhookVerificationError

from app.api.webhook_desks import WatchedEndpointsSchema
from app.cli.local import running
from app.flows import redeem
from app.flows.webhook.deliver import AT_ONCE, LADDER, Courier, asked_pause
from app.flows.webhook.emit import emit
from app.flows.webhook.post import Poster
from app.flows.webhook.spread import forget
from app.store import bills, deliveries, people

_numbers = count()


@pytest.fixture
def config(config):
    """A sandbox whose webhooks may go to this machine."""
    return replace(config, webhook_loopback=True)


@pytest.fixture
def courier(city) -> Courier:
    return Courier(city.engine, city.vault, city.clock, Poster(5), loopback=True)


@dataclass
class Told:
    """A merchant with an endpoint that it proved."""

    shop: Any
    receiver: Any
    id: str
    secret: str

    def say(self, key: str = "", kind: str = "bill.ready", **data: str) -> None:
        city = self.shop.city
        key = key or f"key-{next(_numbers)}"
        with city.engine.begin() as tx:
            emit(tx, city.vault, self.shop.id, kind, key, data, city.clock())

    def read(self) -> dict[str, Any]:
        return self.shop.get(f"webhooks/{self.id}").get_json()

    def events(self, **query: str) -> list[dict[str, Any]]:
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return self.shop.get(f"events?{asked}" if asked else "events").get_json()["items"]

    def last(self, kind: str = "bill.ready") -> dict[str, Any]:
        """The newest event of a kind, with its attempts."""
        return self.shop.get(f"events/{self.events(kind=kind)[0]['id']}").get_json()

    def verified(self, index: int = -1, secret: str = "") -> Any:
        _, headers, body = self.receiver.got[index]
        return Webhook(secret or self.secret).verify(body, headers)


@pytest.fixture
def prove(courier):
    """Registers and proves an endpoint: prove(shop, receiver, kinds=[...])."""

    def make(shop, receiver, **more) -> Told:
        made = shop.post("webhooks", {"url": receiver.url, **more})
        assert made.status_code == 201, made.get_json()
        one = made.get_json()
        assert shop.post(f"webhooks/{one['id']}/verify").status_code == 202
        courier.step()
        return Told(shop, receiver, one["id"], one["secret"])

    return make


@pytest.fixture
def told(shop, receiver, prove) -> Told:
    made = prove(shop, receiver)
    assert made.read()["state"] == "active"
    receiver.got.clear()
    return made


# ---- proof


def test_an_endpoint_is_told_nothing_before_it_is_proved(shop, receiver, courier):
    made = shop.post("webhooks", {"url": receiver.url})
    one = made.get_json()
    assert (made.status_code, one["state"], one["kinds"]) == (201, "pending", [])
    told = Told(shop, receiver, one["id"], one["secret"])
    told.say()
    courier.step()
    assert receiver.got == []
    assert told.events() == []
    shop.post(f"webhooks/{one['id']}/verify")
    assert courier.step() == 1
    assert told.verified()["type"] == "endpoint.verification"
    read = told.read()
    assert (read["state"], read["reason"]) == ("active", "")
    assert "secret" not in read
    told.say("first", day="2026-11-21")
    courier.step()
    assert told.verified()["data"] == {"day": "2026-11-21"}


NO_PROOFS = [
    (lambda handler, body: (200, {}, b"ok"), "CHALLENGE_WRONG"),
    (lambda handler, body: (200, {}, body), "CHALLENGE_WRONG"),
    (lambda handler, body: (200, {}, b""), "CHALLENGE_WRONG"),
    (lambda handler, body: (200, {}, b"a" * 100_000), "CHALLENGE_WRONG"),
    (lambda handler, body: (200, {}, b'{"challenge": ["x"]}'), "CHALLENGE_WRONG"),
    (lambda handler, body: (200, {}, b"\xff\xfe"), "CHALLENGE_WRONG"),
    (lambda handler, body: (404, {}, b""), "HTTP_404"),
    (lambda handler, body: (302, {"Location": "http://127.0.0.1:1/"}, b""), "HTTP_302"),
    (lambda handler, body: (410, {}, b""), "HTTP_410"),
    (lambda handler, body: handler.wfile.write(b"nonsense\r\n\r\n") and None, "BROKEN_ANSWER"),
]


def test_whoever_does_not_answer_with_the_challenge_is_told_nothing(shop, receiver, prove, courier):
    for number, (answer, reason) in enumerate(NO_PROOFS, 1):
        receiver.answer = answer
        told = prove(shop, receiver)
        read = told.read()
        assert (read["state"], read["reason"]) == ("pending", reason)
        assert len(receiver.got) == number
        courier.clock.move(days=1)
        assert courier.step() == 0
    receiver.answer = None
    shop.post(f"webhooks/{told.id}/verify")
    courier.step()
    assert told.read()["state"] == "active"


def test_the_challenge_may_stand_in_json(shop, receiver, prove):
    def answer(handler, body):
        challenge = receiver.bodies()[-1]["data"]["challenge"]
        return 200, {}, b'{"challenge": "%s"}' % challenge.encode()

    receiver.answer = answer
    assert prove(shop, receiver).read()["state"] == "active"


def test_a_proof_that_is_under_way_is_not_asked_for_again(shop, receiver, courier):
    one = shop.post("webhooks", {"url": receiver.url}).get_json()
    for _ in range(5):
        assert shop.post(f"webhooks/{one['id']}/verify").status_code == 202
    assert courier.step() == 1
    shop.post(f"webhooks/{one['id']}/verify")
    assert courier.step() == 0


def test_disabling_in_the_middle_of_a_proof_wins(shop, receiver, prove, told, courier):
    shop.post(f"webhooks/{told.id}/disable")

    def answer(handler, body):
        shop.post(f"webhooks/{told.id}/disable")
        return 200, {}, receiver.bodies()[-1]["data"]["challenge"].encode()

    receiver.answer = answer
    shop.post(f"webhooks/{told.id}/enable")
    courier.step()
    assert len(receiver.got) == 1
    assert told.read()["state"] == "disabled"


# ---- who may have which endpoints


def test_the_same_url_again_is_the_same_endpoint(shop, receiver, told):
    again = shop.post("webhooks", {"url": receiver.url, "kinds": ["bill.ready"]})
    one = again.get_json()
    assert (again.status_code, one["id"], one["kinds"]) == (201, told.id, ["bill.ready"])
    assert "secret" not in one
    shop.city.clock.move(seconds=1)
    first = shop.post("webhooks", {"url": "http://127.0.0.1:9/"}).get_json()
    second = shop.post("webhooks", {"url": "http://127.0.0.1:9/"}).get_json()
    assert first["id"] == second["id"]
    assert first["secret"] != second["secret"]
    listed = shop.get("webhooks").get_json()["items"]
    assert [one["id"] for one in listed] == [told.id, first["id"]]


def test_a_merchant_has_so_many_endpoints_that_are_not_disabled(shop):
    made = [
        shop.post("webhooks", {"url": f"https://pay{n}.shop.example/"}).get_json() for n in range(5)
    ]
    sixth = {"url": "https://pay6.shop.example/"}
    full = shop.post("webhooks", sixth)
    assert (full.status_code, full.get_json()["code"]) == (409, "WEBHOOKS_FULL")
    assert shop.post(f"webhooks/{made[0]['id']}/disable").get_json()["state"] == "disabled"
    assert shop.post("webhooks", sixth).status_code == 201
    back = shop.post(f"webhooks/{made[0]['id']}/enable")
    assert (back.status_code, back.get_json()["code"]) == (409, "WEBHOOKS_FULL")


def test_refusals_say_why(shop, open_shop, told):
    def code(answer):
        return answer.status_code, answer.get_json()["code"]

    for url in ("http://pay.shop.example/", "https://10.0.0.1/", "https://a:b@pay.shop.example/"):
        assert code(shop.post("webhooks", {"url": url})) == (422, "WEBHOOK_URL_REFUSED")
    kinds = {"url": "https://pay.shop.example/", "kinds": ["points.issued"]}
    assert code(shop.post("webhooks", kinds)) == (422, "VALIDATION_FAILED")
    applied, other = open_shop("later", approved=False), open_shop("tea")
    fine = {"url": "https://pay.shop.example/"}
    assert code(applied.post("webhooks", fine)) == (403, "MERCHANT_NOT_APPROVED")
    assert code(shop.key_of("t1").post("webhooks", fine)) == (403, "TILL_NOT_YOURS")
    told.say()
    event = told.last()["id"]
    for path in ("verify", "enable", "disable", "test"):
        assert code(other.post(f"webhooks/{told.id}/{path}")) == (404, "WEBHOOK_UNKNOWN")
        assert code(other.post(f"webhooks/nothing/{path}")) == (404, "WEBHOOK_UNKNOWN")
    assert code(other.get(f"webhooks/{told.id}")) == (404, "WEBHOOK_UNKNOWN")
    assert code(other.get(f"events/{event}")) == (404, "EVENT_UNKNOWN")
    assert code(other.post(f"events/{event}/replay", {})) == (404, "EVENT_UNKNOWN")
    since = {"since": "2026-11-01T00:00:00+08:00"}
    assert code(other.post(f"webhooks/{told.id}/replay", since)) == (404, "WEBHOOK_UNKNOWN")
    to = {"endpoint": shop.post("webhooks", fine).get_json()["id"]}
    assert code(shop.post(f"events/{event}/replay", to)) == (409, "WEBHOOK_STATE")
    assert code(shop.post(f"webhooks/{to['endpoint']}/test")) == (409, "WEBHOOK_STATE")
    assert other.get("webhooks").get_json()["items"] == []
    assert other.get("events").get_json()["items"] == []


# ---- what is told


def test_an_event_is_written_once_for_each_key_and_only_to_those_who_ask(
    shop, open_receiver, prove, told, courier
):
    bills_only = prove(shop, open_receiver(), kinds=["bill.ready"])
    for _ in range(2):
        told.say("one", day="2026-11-20")
        told.say("two", kind="merchant.state", state="suspended")
        courier.step()
    told_of = Counter(body["type"] for body in told.receiver.bodies())
    assert told_of == {"bill.ready": 1, "merchant.state": 1}
    assert len(bills_only.receiver.bodies("bill.ready")) == 1
    assert bills_only.receiver.bodies("merchant.state") == []
    with pytest.raises(ValueError, match="is not a kind"):
        told.say(kind="no.such")


def test_an_event_is_there_only_if_what_it_tells_is(told, courier, city):
    with city.engine.connect() as tx:
        emit(tx, city.vault, told.shop.id, "bill.ready", "undone", {}, city.clock())
        tx.rollback()
    assert courier.step() == 0


def charged(tx, city, shop, buyer, number, points):
    """A charge as a till makes it, in this transaction."""
    people.lock(tx, buyer.id)
    made = redeem.charge(tx, city.vault, buyer.id, points, shop.id, number, city.clock())
    line = (made.arrival, shop.id, "charge", number, "", made.entry.id, points, None, None)
    bills.add(tx, bills.Line(*line), city.clock())
    return made.entry.id


def test_what_the_ledger_holds_is_told_in_the_order_of_the_log_once_it_is_sealed(
    open_shop, open_receiver, prove, courier, city, buyer, shop
):
    tea, cake = (prove(open_shop(code), open_receiver()) for code in ("tea", "cake"))
    one, two = buyer(100), buyer(100)
    with city.engine.begin() as slow:  # its arrival is drawn first, and it commits last
        first = charged(slow, city, tea.shop, one, "slow-1", 30)
        with city.engine.begin() as tx:
            charged(tx, city, cake.shop, two, "fast-1", 10)
        courier.step()
        assert cake.receiver.bodies("charge.succeeded") == []
        city.sealer.seal(city.clock())
        courier.step()
        (told,) = cake.receiver.bodies("charge.succeeded")
        leaf = int(told["data"]["leaf"])
    with city.engine.begin() as tx:
        charged(tx, city, shop, one, "untold-1", 5)  # to a merchant without an endpoint
    courier.step()
    assert tea.receiver.bodies("charge.succeeded") == []
    city.sealer.seal(city.clock())
    courier.step()
    (late,) = tea.receiver.bodies("charge.succeeded")
    assert late["data"] == {
        "number": "slow-1",
        "origin": "",
        "points": "30",
        "entry_id": first,
        "leaf": late["data"]["leaf"],
        "store": None,
        "till": None,
        "bill_day": "2026-11-22",
    }
    assert int(late["data"]["leaf"]) > leaf
    assert tea.verified()["timestamp"] == "2026-11-22T12:00:00+08:00"
    with city.engine.connect() as tx:
        told_to, size = tx.execute(text("SELECT leaf, size FROM webhook_head, log_head")).one()
        assert told_to == size
        untold = text("SELECT count(*) FROM webhook_events WHERE merchant = :id")
        assert tx.execute(untold, {"id": bytes.fromhex(shop.id)}).scalar() == 0
    assert courier.step() == 0
    for receiver in (tea.receiver, cake.receiver):
        bodies = b"".join(body for _, _, body in receiver.got)
        assert one.id.encode() not in bodies
        assert two.id.encode() not in bodies


# ---- signatures


def rotated(told, key):
    path = f"/api/v1/merchant/webhooks/{told.id}/rotate-secret"
    headers = told.shop.headers("POST", path) | {"Idempotency-Key": key}
    return told.shop.client.post(path, headers=headers).get_json()["secret"]


def test_after_a_rotation_both_secrets_sign_for_a_day(told, courier, city):
    new = rotated(told, "rotate-key-1")
    assert rotated(told, "rotate-key-1") == new
    assert new != told.secret
    assert new.startswith("whsec_")
    told.say()
    courier.step()
    assert told.verified() == told.verified(secret=new)
    city.clock.move(hours=24)
    told.say()
    courier.step()
    told.verified(secret=new)
    with pytest.raises(WebhookVerificationError):
        told.verified()
    with city.engine.connect() as tx:
        kept = str(tx.execute(text("SELECT * FROM webhook_endpoints")).all())
    for secret in (told.secret, new):
        assert secret.removeprefix("whsec_") not in kept


# ---- attempts


def delivery(city):
    """State, attempts and next_at of the only delivery that is not a proof."""
    with city.engine.connect() as tx:
        return tx.execute(
            text(
                "SELECT d.state, d.attempts, d.next_at FROM webhook_deliveries d"
                " JOIN webhook_events v ON v.id = d.event WHERE v.kind = 'bill.ready'"
            )
        ).one()


def test_an_attempt_that_fails_climbs_the_ladder_and_is_dead_at_its_end(told, courier, city):
    told.receiver.answer = lambda *_: (500, {}, b"")
    told.say()
    for number, pause in enumerate(LADDER, 1):
        assert courier.step() == 1
        state, attempts, next_at = delivery(city)
        assert (state, attempts) == ("waiting", number)
        assert pause <= next_at - city.clock() <= pause * 1.2
        city.clock.now = next_at - timedelta(seconds=1)
        assert courier.step() == 0
        city.clock.now = next_at
    assert courier.step() == 1
    assert delivery(city)[:2] == ("dead", 10)
    city.clock.move(days=1)
    assert courier.step() == 0
    event = told.last()
    assert event["deliveries"] == [
        {"endpoint": told.id, "state": "dead", "attempts": 10, "next_at": None}
    ]
    assert [(one["attempt"], one["status"], one["error"]) for one in event["attempts"]] == [
        (number, 500, "HTTP_500") for number in range(1, 11)
    ]
    assert len({headers["webhook-id"] for _, headers, _ in told.receiver.got}) == 1
    assert told.read()["state"] == "active"
    told.receiver.answer = None
    replayed = told.shop.post(f"events/{event['id']}/replay", {})
    assert (replayed.status_code, replayed.get_json()) == (202, {"replayed": "1"})
    told.receiver.answer = lambda *_: (500, {}, b"")
    assert courier.step() == 1
    assert delivery(city)[0] == "waiting"  # on a ladder of its own
    told.receiver.answer = None
    city.clock.move(seconds=6)
    assert courier.step() == 1
    assert delivery(city)[:2] == ("delivered", 12)


def test_a_retry_after_is_heard_where_it_means_something(told, courier, city):
    for status, said, least, most in (
        (503, "3600", 3600, 3600),
        (429, "3600", 3600, 3600),
        (503, "1", 5, 6),
        (503, "999999999", 86_400, 86_400),
        (503, "soon", 5, 6),
        (500, "3600", 5, 6),
    ):
        told.receiver.answer = lambda *_, code=status, text=said: (code, {"Retry-After": text}, b"")
        told.say()
        courier.step()
        event = told.events(state="waiting")[0]
        at = datetime.fromisoformat(event["deliveries"][0]["next_at"])
        assert least - 1 <= (at - city.clock()).total_seconds() <= most
        told.receiver.answer = None
        told.shop.post(f"events/{event['id']}/replay", {})
        courier.step()


def test_a_retry_after_may_be_a_date(clock):
    later = format_datetime(clock() + timedelta(hours=2), usegmt=True)
    assert asked_pause(later, clock()) == timedelta(hours=2)
    assert asked_pause(format_datetime(clock() - timedelta(hours=2)), clock()) == timedelta(0)


def test_gone_disables_an_endpoint_and_the_others_hear_of_it(
    shop, open_receiver, prove, told, courier
):
    other = prove(shop, open_receiver(), kinds=["endpoint.disabled"])
    told.receiver.answer = lambda *_: (410, {}, b"")
    told.say()
    told.say()
    courier.step()
    read = told.read()
    assert (read["state"], read["reason"]) == ("disabled", "GONE")
    courier.step()
    (heard,) = other.receiver.bodies("endpoint.disabled")
    assert heard["data"] == {"endpoint": told.id, "url": told.receiver.url, "reason": "GONE"}
    assert len(told.receiver.got) == 1
    dead = told.events(state="dead")
    assert {one["kind"] for one in dead} == {"bill.ready"}
    assert len(dead) == 2


def test_five_days_of_failing_disable_an_endpoint(told, courier, city):
    told.receiver.answer = lambda *_: (500, {}, b"")
    told.say()
    courier.step()
    since = told.read()["failing_since"]
    assert since == "2026-11-22T12:00:00+08:00"
    city.clock.move(days=4, hours=23)
    courier.step()
    assert told.read()["state"] == "active"
    told.receiver.answer = None
    told.say()
    courier.step()  # one that succeeds, and the days are counted anew
    assert told.read()["failing_since"] is None
    told.receiver.answer = lambda *_: (500, {}, b"")
    told.say()
    courier.step()
    for _ in range(5):
        city.clock.move(days=1)
        told.say()
        courier.step()
    read = told.read()
    assert (read["state"], read["reason"]) == ("disabled", "FAILING")
    assert told.last("endpoint.disabled")["body"]["data"]["reason"] == "FAILING"


def test_what_a_disabled_endpoint_missed_is_replayed_once_it_is_proved_again(told, courier, city):
    told.shop.post(f"webhooks/{told.id}/disable")
    for number in range(3):
        city.clock.move(minutes=1)
        told.say(number=str(number))
    assert courier.step() == 0
    assert told.receiver.got == []
    since = {"since": (city.clock() - timedelta(minutes=1)).isoformat()}
    refused = told.shop.post(f"webhooks/{told.id}/replay", since)
    assert refused.get_json()["code"] == "WEBHOOK_STATE"
    told.shop.post(f"webhooks/{told.id}/enable")
    assert courier.step() == 1
    assert told.read()["state"] == "active"
    made = told.shop.post(f"webhooks/{told.id}/replay", since)
    assert (made.status_code, made.get_json()) == (202, {"replayed": "2"})
    courier.step()
    assert {one["data"]["number"] for one in told.receiver.bodies("bill.ready")} == {"1", "2"}


# ---- several workers, and what becomes of one that dies


def test_workers_share_the_work_and_never_send_one_twice(
    told, open_receiver, prove, shop, city, courier
):
    other = prove(shop, open_receiver())
    flying, most, lock = Counter(), Counter(), threading.Lock()

    def slow(one):
        def answer(*_):
            with lock:
                flying[one.id] += 1
                most[one.id] = max(most[one.id], flying[one.id])
            time.sleep(0.01)
            with lock:
                flying[one.id] -= 1
            return 204, {}, b""

        return answer

    for one in (told, other):
        one.receiver.answer = slow(one)
        one.receiver.got.clear()
    for _ in range(40):
        told.say()
    stop, threads = threading.Event(), []
    for _ in range(3):
        worker = Courier(city.engine, city.vault, city.clock, Poster(5), loopback=True)
        threads.append(threading.Thread(target=worker.run, args=(stop,)))
        threads[-1].start()
    deadline = time.monotonic() + 20
    while told.events(state="waiting") or not told.events(state="delivered"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    for one in (told, other):
        ids = [headers["webhook-id"] for _, headers, _ in one.receiver.got]
        assert len(ids) == len(set(ids)) == 40
    assert max(most.values()) <= deliveries.IN_FLIGHT


def test_an_endpoint_that_hangs_holds_up_nobody_else(told, open_receiver, prove, open_shop, city):
    other, released = prove(open_shop("tea"), open_receiver()), threading.Event()
    told.receiver.answer = lambda *_: released.wait(30) and None
    for _ in range(AT_ONCE + 4):
        told.say()
    other.say()
    stop = threading.Event()
    courier = Courier(city.engine, city.vault, city.clock, Poster(30), loopback=True)
    thread = threading.Thread(target=courier.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + 20
    while not other.receiver.bodies("bill.ready"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stop.set()
    released.set()
    thread.join()
    assert len(told.receiver.got) <= deliveries.IN_FLIGHT


def test_a_worker_killed_in_the_middle_loses_nothing(told, courier, city):
    arrived, released = threading.Event(), threading.Event()

    def hold(*_):
        arrived.set()
        released.wait(5)

    told.receiver.answer = hold
    told.say()
    child = os.fork()
    if child == 0:
        engine = create_engine(city.config.database_url)
        Courier(engine, city.vault, city.clock, Poster(30), loopback=True).step()
        os._exit(0)
    assert arrived.wait(10)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    released.set()
    told.receiver.answer = None
    assert courier.step() == 0  # nobody takes it while its claim stands
    city.clock.move(seconds=61)
    assert courier.step() == 1
    first, second = (headers["webhook-id"] for _, headers, _ in told.receiver.got)
    assert first == second
    (state,) = told.last()["deliveries"]
    assert (state["state"], state["attempts"]) == ("delivered", 2)


def test_the_worker_of_a_running_service_delivers(city, shop, receiver):
    city.clock.now = datetime.now(UTC)
    with running(city.config):
        one = shop.post("webhooks", {"url": receiver.url}).get_json()
        told = Told(shop, receiver, one["id"], one["secret"])
        deadline = time.monotonic() + 15
        shop.post(f"webhooks/{one['id']}/verify")
        while told.read()["state"] != "active":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        told.say(day="2026-11-21")
        while not receiver.bodies("bill.ready"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert told.verified()["data"] == {"day": "2026-11-21"}


def test_one_who_comes_back_after_its_claim_lapsed_changes_nothing(told, courier, city):
    told.say()
    courier._prepare()
    (late,) = courier._claim(10)
    city.clock.move(seconds=61)
    told.receiver.answer = lambda *_: (500, {}, b"")
    assert courier.step() == 1
    before = delivery(city)
    told.receiver.answer = None
    courier.deliver(late)
    assert delivery(city) == before
    assert {one["attempt"] for one in told.last()["attempts"]} == {1, 2}


# ---- the log


def test_the_log_is_read_in_pages_and_by_kind_and_state(told, courier, city):
    for number in range(5):
        city.clock.move(minutes=1)
        told.say(number=str(number))
    told.say(kind="merchant.state", state="approved")
    assert told.events(state="delivered", kind="bill.ready") == []
    courier.step()
    seen, cursor = [], ""
    while True:
        page = told.shop.get(f"events?limit=2&kind=bill.ready{cursor}").get_json()
        seen += [one["id"] for one in page["items"]]
        assert len(page["items"]) <= 2
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(seen) == len(set(seen)) == 5
    times = [told.shop.get(f"events/{one}").get_json()["body"]["data"]["number"] for one in seen]
    assert times == ["4", "3", "2", "1", "0"]
    assert len(told.events(state="delivered", kind="bill.ready")) == 5
    assert told.events(state="dead") == told.events(state="waiting") == []
    bad = told.shop.get("events?cursor=YWJj").get_json()
    assert bad["code"] == "CURSOR_INVALID"


def test_a_proof_is_in_the_log_and_is_not_replayed(told):
    (proof,) = told.events(kind="endpoint.verification")
    refused = told.shop.post(f"events/{proof['id']}/replay", {})
    assert refused.get_json()["code"] == "EVENT_UNKNOWN"
    since = {"since": "2020-01-01T00:00:00Z"}
    made = told.shop.post(f"webhooks/{told.id}/replay", since)
    assert made.get_json() == {"replayed": "0"}


def test_a_test_event_goes_to_one_endpoint_only(told, open_receiver, prove, shop, courier):
    other = prove(shop, open_receiver())
    sent = shop.post(f"webhooks/{told.id}/test")
    assert sent.status_code == 202
    courier.step()
    assert told.verified()["type"] == "endpoint.test"
    assert other.receiver.bodies("endpoint.test") == []
    assert told.last("endpoint.test")["id"] == sent.get_json()["event"]


def test_events_are_dropped_after_ninety_days_with_all_about_them(told, courier, city):
    told.say()
    courier.step()
    city.clock.move(days=89)
    forget(city.engine, city.clock())
    assert len(told.events(kind="bill.ready")) == 1
    city.clock.move(days=2)
    forget(city.engine, city.clock())
    assert told.events() == []
    with city.engine.connect() as tx:
        for table in ("webhook_deliveries", "webhook_attempts"):
            assert tx.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0


def test_what_waits_and_what_is_dead_can_be_watched(told, courier, city, client):
    def figures():
        lines = client.get("/metrics").get_data(as_text=True).splitlines()
        return {
            line.split()[0].removeprefix("puhui_webhook_"): float(line.split()[1])
            for line in lines
            if line.startswith("puhui_webhook_")
        }

    assert figures() == {"waiting": 0, "dead": 0, "oldest_s": 0}
    told.receiver.answer = lambda *_: (500, {}, b"")
    told.say()
    courier.step()
    city.clock.move(hours=1)
    assert figures() == {"waiting": 1, "dead": 0, "oldest_s": 3600}
    told.shop.post(f"webhooks/{told.id}/disable")
    assert figures() == {"waiting": 0, "dead": 1, "oldest_s": 0}


def test_times_in_answers_have_the_citys_offset(told):
    for name in ("made_at", "verified_at"):
        assert datetime.fromisoformat(told.read()[name]).utcoffset() == timedelta(hours=8)


# ---- for administrators


def test_administrators_see_whose_endpoints_fail_and_what_is_dead(
    told, open_shop, open_receiver, prove, courier, desk
):
    tea = prove(open_shop("tea"), open_receiver())
    tea.receiver.answer = lambda *_: (410, {}, b"")
    told.say()
    tea.say(secret="none of the operator's")
    while courier.step():
        pass
    olga = desk("operator")
    listed = olga.get("webhooks").get_json()
    assert WatchedEndpointsSchema().validate(listed) == {}
    assert [
        (one["merchant"], one["state"], one["waiting"], one["dead"]) for one in listed["items"]
    ] == [
        ("noodles", "active", 0, 0),
        ("tea", "disabled", 0, 1),
    ]
    for query, many in (
        ({"failing": "true"}, ["tea"]), ({"state": "active"}, ["noodles"]),
        ({"merchant": "tea"}, ["tea"]), ({"merchant": "tea", "state": "active"}, []),
    ):  # fmt: skip
        found = olga.get("webhooks", **query).get_json()["items"]
        assert [one["merchant"] for one in found] == many
    first = olga.get("webhooks", limit=1).get_json()
    second = olga.get("webhooks", limit=1, cursor=first["next_cursor"]).get_json()
    assert first["items"] + second["items"] == listed["items"]
    assert olga.get("webhooks", cursor="YWJj").get_json()["code"] == "CURSOR_INVALID"
    (letter,) = olga.get("merchants/tea/events", state="dead").get_json()["items"]
    assert letter == tea.events(state="dead")[0]
    whole = desk("auditor").get(f"merchants/tea/events/{letter['id']}").get_json()
    assert whole == tea.shop.get(f"events/{letter['id']}").get_json()
    assert [one["status"] for one in whole["attempts"]] == [410]
    for path in ("merchants/noodles/events/" + letter["id"], "merchants/tea/events/x"):
        assert olga.get(path).get_json()["code"] == "EVENT_UNKNOWN"
    assert olga.get("merchants/nobody/events").get_json()["code"] == "NOT_FOUND"


def test_what_an_url_asks_with_is_its_merchants(shop, receiver, desk):
    shop.post("webhooks", {"url": f"{receiver.url}?token=secret"})
    (one,) = desk("operator").get("webhooks").get_json()["items"]
    assert one["url"] == receiver.url
    assert "secret" not in one


def test_an_operator_sends_again_what_was_lost_and_leaves_a_record(told, courier, desk):
    told.receiver.answer = lambda *_: (500, {}, b"")
    told.say()
    courier.step()
    told.shop.post(f"webhooks/{told.id}/disable")
    (letter,) = told.events(state="dead")
    olga, replay = desk("operator", name="olga"), f"merchants/noodles/events/{letter['id']}/replay"
    refused = olga.post(replay, {"endpoint": told.id})
    assert (refused.status_code, refused.get_json()["code"]) == (409, "WEBHOOK_STATE")
    assert olga.post(replay, {}).get_json() == {"replayed": "0"}
    told.receiver.answer = None
    told.shop.post(f"webhooks/{told.id}/enable")
    courier.step()
    assert olga.post(replay, {}, key="replay-once").get_json() == {"replayed": "1"}
    assert olga.post(replay, {}, key="replay-once").get_json() == {"replayed": "1"}
    courier.step()
    assert told.verified()["type"] == "bill.ready"
    since = {"since": "2020-01-01T00:00:00Z"}
    path = f"merchants/noodles/webhooks/{told.id}/replay"
    many = int(olga.post(path, since).get_json()["replayed"])
    before = len(told.receiver.got)
    while courier.step():
        pass
    assert len(told.receiver.got) - before == many == 1
    for one, code in (("x", "WEBHOOK_UNKNOWN"), ("0" * 32, "WEBHOOK_UNKNOWN")):
        answer = olga.post(f"merchants/noodles/webhooks/{one}/replay", since)
        assert answer.get_json()["code"] == code
    acts = desk("auditor").get("trail", action="webhook.replayed").get_json()["items"]
    said = [(act["actor"], act["target"], act["detail"]) for act in acts]
    event = {"event": letter["id"]}
    assert said[1:] == [
        ("olga", "noodles", event | {"replayed": 1}),
        ("olga", "noodles", event | {"replayed": 0}),
    ]
    assert said[0][2]["endpoint"] == told.id
