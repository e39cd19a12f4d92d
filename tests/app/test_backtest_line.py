"""A budget's line in a backtest is a plain queue: in order, paid as soon as there is money."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.flows.backtest import line as module
from app.flows.backtest.line import Line, Step, pay, steps_of, write

AMOUNT = st.integers(0, 50)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), AMOUNT),
        st.tuples(st.just("undo"), st.integers(0, 20)),
        st.tuples(st.just("fund"), st.integers(-20, 80)),
    ),
    max_size=40,
)


def plainly(left, events):
    """The same with lists: what is left, and what waits by arrival."""
    asked, waiting = {}, {}
    for arrival, (name, value) in enumerate(events, 1):
        if name == "claim":
            asked[arrival] = value
            waiting[arrival] = value
        elif name == "undo" and waiting.pop(value, None) is None:
            left += asked.pop(value, 0)
        elif name == "undo":
            asked.pop(value)
        else:
            left += value
        for first in list(waiting):
            if waiting[first] > left and waiting[first]:
                break
            left -= waiting.pop(first)
    return left, sum(waiting.values())


def steps(events):
    asked = {}
    for arrival, (name, value) in enumerate(events, 1):
        if name == "claim":
            asked[arrival] = value
            yield Step(arrival, arrival, 3, (value, 0))
        elif name == "fund":
            yield Step(arrival, 0, 3, (value, value))
        elif value in asked:
            yield Step(arrival, value, 3, (asked.pop(value), 0))


@given(st.integers(-30, 60), EVENTS, st.sampled_from([0, 4096]))
def test_a_line_pays_as_a_plain_queue_does(left, events, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PAID", kept)
        line, idle = pay(steps(events), {3: left})[3]
    assert (line.left, line.waiting) == plainly(left, events)
    funded = sum(value for name, value in events if name == "fund")
    assert (idle.left, idle.waiting) == (left + funded, 0)


def test_budgets_that_are_not_asked_about_are_passed_over():
    assert pay([Step(1, 1, 9, (5, 5))], {}) == {}


@settings(deadline=None)  # it writes files
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 99), AMOUNT), max_size=9), max_size=7),
    st.sampled_from([2, 256]),
)
def test_any_number_of_files_is_read_back_in_the_order_of_arrival(tmp_path_factory, parts, least):
    folder = tmp_path_factory.mktemp("steps")
    every = []
    for number, part in enumerate(parts):
        made = [Step(arrival, 0, 1, (amount, -amount)) for arrival, amount in part]
        every += made
        write(folder / f"{number}", sorted(made))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_OPEN", least)
        assert list(steps_of(folder)) == sorted(every)


def test_who_is_undone_while_waiting_gives_nothing_back():
    line = Line(10)
    line.claim(1, 8)
    line.claim(2, 5)
    line.give(2, 5)
    assert (line.left, line.waiting) == (2, 0)
    line.claim(3, 2)
    assert (line.left, line.waiting) == (0, 0)
