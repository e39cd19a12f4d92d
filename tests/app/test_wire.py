"""Strict JSON in, strings out."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime

import marshmallow as ma
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.strict_json import read_json
from app.api.wire import cursor_of, instant, line, place_of, stamp
from app.errors import Problem


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'{"x":{"b":1,"c":2,"b":3}}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"\\udc00":1}',
        b'{"a":"\x01"}',
        b"[1,]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        "﻿{}".encode(),
        b"{}{}",
    ],
)
def test_what_is_not_one_strict_json_value_is_refused(raw):
    with pytest.raises(Problem) as refusal:
        read_json(raw)
    assert refusal.value.code == "JSON_MALFORMED"


def test_a_sound_surrogate_pair_and_an_escaped_nul_are_read():
    assert read_json(b'["\\ud83d\\ude00","\\u0000","\\\\ud800"]') == ["😀", "\0", "\\ud800"]


def test_a_number_that_cannot_be_one_comes_through_as_a_float_for_its_field_to_refuse():
    nan, huge, fine = read_json(b"[NaN," + b"9" * 10_000 + b",9007199254740993]")
    assert math.isnan(nan)
    assert huge == math.inf
    assert fine == 9007199254740993


def test_an_instant_is_told_in_the_citys_time_with_its_business_date():
    late = datetime(2026, 1, 1, 16, 30, tzinfo=UTC)
    assert instant(late) == "2026-01-02T00:30:00+08:00"
    assert stamp("x", late) == {"x_at": "2026-01-02T00:30:00+08:00", "x_date": "2026-01-02"}


@given(st.from_regex(r"[ -~]{1,60}", fullmatch=True))
def test_a_cursor_gives_its_place_back(place):
    assert place_of(cursor_of(place)) == place


@given(st.text(max_size=40))
def test_no_other_text_is_taken_for_a_cursor(text):
    with suppress(Problem):
        assert cursor_of(place_of(text)) == text


@pytest.mark.parametrize("text", ["面馆", "A pastry", "x", "十" * 9 + "!", "a b", "👨‍👩‍👧"])
def test_a_line_is_what_people_can_read(text):
    assert line(10)(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u3000",
        " a",
        "a\n",
        "a\nb",
        "a\x85b",
        "\u202ecba",
        "a\u2066b",
        "\u200b",
        "\ufeffa",
        "x" * 11,
    ],
)
def test_a_line_hides_nothing_and_is_not_empty(text):
    with pytest.raises(ma.ValidationError, match="on one line"):
        line(10)(text)
