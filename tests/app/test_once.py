"""The same request twice is one act and one answer."""

from __future__ import annotations

import threading
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import text

from app.flows.once import (
    KEPT,
    Answer,
    KeyReusedError,
    Repeat,
    RequestRunningError,
    StaleError,
    must_match,
    once,
)
from app.flows.seal import Sealer
from app.flows.trail import act
from app.flows.work import Worker

REQUEST = Repeat("admin 1", "request-1", b"\x01" * 32)


@pytest.fixture
def ask(empty):
    """Sends a request whose work counts itself in the trail; the answer tells the count."""

    def run(repeat=REQUEST, before_commit=lambda: None, **failure):
        def work(tx):
            act(tx, "ann", "counted", "a test", {}, empty.clock())
            done = tx.execute(text("SELECT count(*) FROM trail")).scalar_one()
            before_commit()
            if failure:
                raise failure["error"]
            return Answer(201, orjson.dumps({"done": done}))

        return once(empty.engine, empty.vault, repeat, empty.clock(), work)

    return run


@pytest.fixture
def acts(empty):
    def count():
        with empty.engine.connect() as tx:
            return tx.execute(text("SELECT count(*) FROM trail")).scalar_one()

    return count


def test_the_same_request_again_is_answered_and_not_done_again(ask, acts):
    assert ask() == (201, b'{"done":1}', False)
    assert ask() == (201, b'{"done":1}', True)
    assert acts() == 1


def test_another_key_or_another_caller_is_another_request(ask, acts):
    ask()
    assert ask(REQUEST._replace(key="request-2")).body == b'{"done":2}'
    assert ask(REQUEST._replace(scope="admin 2")).body == b'{"done":3}'


def test_a_key_does_not_name_two_requests(ask, acts):
    ask()
    with pytest.raises(KeyReusedError):
        ask(REQUEST._replace(digest=b"\x02" * 32))
    assert acts() == 1


def test_a_refusal_is_not_kept_and_leaves_nothing(ask, acts):
    with pytest.raises(StaleError):
        ask(error=StaleError("no"))
    assert acts() == 0
    assert ask() == (201, b'{"done":1}', False)


def test_the_same_request_at_the_same_time_is_told_to_wait(ask, acts):
    inside, leave = threading.Event(), threading.Event()

    def dawdle():
        inside.set()
        assert leave.wait(10)

    first = threading.Thread(target=ask, kwargs={"before_commit": dawdle})
    first.start()
    assert inside.wait(10)
    with pytest.raises(RequestRunningError):
        ask()
    assert ask(REQUEST._replace(key="request-2")).again is False
    leave.set()
    first.join()
    assert ask().again is True
    assert acts() == 2


def test_a_kept_answer_does_not_lie_open(ask, empty):
    ask()
    with empty.engine.connect() as tx:
        (body,) = tx.execute(text("SELECT body FROM answers")).scalars()
    assert b"done" not in body


def test_the_worker_forgets_answers_after_thirty_days(ask, empty, acts):
    ask()
    worker = Worker(
        empty.engine,
        empty.vault,
        Sealer(empty.engine, empty.vault, empty.config.head_file),
        empty.clock,
    )
    for days, again in ((KEPT.days - 1, True), (2, False)):
        empty.clock.now += timedelta(days=days)
        worker.step()
        assert ask().again is again
    assert acts() == 2


def test_a_change_is_made_over_what_was_read_only():
    must_match("7", "7")
    with pytest.raises(StaleError, match='"8"'):
        must_match("7", "8")
