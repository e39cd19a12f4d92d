"""A message reaches an inbox once, and only its owner's key opens it."""

from __future__ import annotations

import string

import pytest
from sqlalchemy import text

from app.flows.notify import WORDINGS, notify, read_letter
from app.store import messages, people
from app.vault import VaultError

_EVERYTHING = "𠀀 كلمة {0} {points} \u202e🚲"


def _params(kind):
    return {
        name: _EVERYTHING for _, name, *_ in string.Formatter().parse(WORDINGS[kind][1]) if name
    }


@pytest.fixture
def told(city):
    def tell(resident, kind="points.expiring", key="20261130:7", **params):
        with city.engine.begin() as tx:
            return notify(
                tx, city.vault, resident, kind, key, params or _params(kind), city.clock()
            )

    return tell


@pytest.fixture
def inbox(city):
    def read(resident):
        with city.engine.connect() as tx:
            return messages.page(tx, resident, 2**62, 50)

    return read


def _key(city, resident):
    with city.engine.begin() as tx:
        return city.vault.subject_key(resident, people.lock(tx, resident))


@pytest.mark.parametrize("kind", WORDINGS)
def test_a_message_of_every_kind_says_its_sentence_with_text_of_any_script(
    kind, city, rider, told, inbox
):
    assert told(rider, kind)
    (message,) = inbox(rider)
    letter = read_letter(_key(city, rider), message)
    assert letter.title == WORDINGS[kind].title
    assert letter.text.count(_EVERYTHING) == len(_params(kind))
    assert letter.params == _params(kind)


def test_the_same_message_is_put_once(rider, told, inbox):
    assert told(rider)
    assert not told(rider, points="1", date="2")
    assert told(rider, key="20261130:30")
    assert len(inbox(rider)) == 2


def test_what_it_says_lies_nowhere_in_the_open(city, rider, told):
    told(rider, points="31415926", date="2026-11-30")
    with city.engine.connect() as tx:
        row = str(tx.execute(text("SELECT m::text FROM messages m")).scalar_one())
    assert "31415926" not in row
    assert b"31415926".hex() not in row


def test_it_opens_with_its_owners_key_and_under_its_own_name_only(city, rider, told, inbox):
    told(rider)
    (message,) = inbox(rider)
    with pytest.raises(VaultError):
        read_letter(bytes(32), message)
    with pytest.raises(VaultError):
        read_letter(_key(city, rider), message._replace(key="20261231:7"))


def test_nobody_is_told_who_was_erased_and_nothing_is_left_of_what_they_were_told(
    city, rider, told, inbox
):
    told(rider)
    with city.engine.begin() as tx:
        people.forget(tx, rider, city.clock())
    assert inbox(rider) == []
    assert not told(rider, key="20261130:1")
    assert not told("0" * 32)


def test_reading_marks_up_to_a_message_and_no_later_one(city, rider, told, inbox):
    for day in range(3):
        told(rider, key=str(day))
    newest, middle, _ = inbox(rider)
    with city.engine.begin() as tx:
        messages.read_up_to(tx, rider, middle.id, city.clock())
        assert messages.unread(tx, rider) == 1
    assert [one.read_at is None for one in inbox(rider)] == [True, False, False]
    assert newest.read_at is None
