"""Nicknames: any script within twelve characters as read, nothing hidden, nothing of ours."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.flows.nickname import NicknameError, read_nickname


@pytest.mark.parametrize(
    "name",
    [
        "骑行的阿伟",
        "一二三四五六七八九十甲乙",
        "Zoë Ångström",
        "नमस्ते",
        "สวัสดี",
        "مرحبا",
        "🚲🌱",
        "👨‍👩‍👧‍👦",  # a family is one character, joined by what is refused elsewhere
        "👍🏽",
        "🇨🇳",
        "e\u0301",
        "普惠小学生",
    ],
)
def test_a_name_of_any_script_is_kept(name):
    assert read_nickname(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "一二三四五六七八九十甲乙丙",
        "a\nb",
        "a\tb",
        "a\x00b",
        "\u202ereversed",  # right-to-left override
        "a\u2066b\u2069",
        "a\u200bb",  # zero-width space
        "a\u200db",  # a joiner that joins nothing
        "\ufeffa",
        "a\u2028b",
        "\ue000",  # private use
        "\u0301",  # a mark on nothing
        "a" + "\u0301\u0302\u0303\u0304\u0305\u0306",
        "🚲" + "\u200d🚲" * 30,
    ],
)
def test_what_is_hidden_piled_up_or_too_long_is_refused(name):
    with pytest.raises(NicknameError):
        read_nickname(name)


@pytest.mark.parametrize(
    "name",
    ["碳普惠客服", "官 方", "Ａｄｍｉｎ", "P-u-h-u-i", "puhui官网", "管理员01", "ＯＦＦＩＣＩＡＬ"],
)
def test_the_platforms_own_voice_is_refused_however_it_is_spaced(name):
    with pytest.raises(NicknameError, match="platform"):
        read_nickname(name)


def test_blanks_around_a_name_are_dropped():
    assert read_nickname("  阿伟 ") == "阿伟"


@given(st.text())
def test_whatever_is_kept_is_short_visible_and_stays_as_it_is(given_name):
    try:
        name = read_nickname(given_name)
    except NicknameError:
        return
    assert name
    assert len(name) <= 48
    assert not any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in name)
    assert read_nickname(name) == name
