"""Unified social credit codes (GB 32100-2015): 18 characters, the last of which checks the rest."""

from __future__ import annotations

from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"  # without I O S V Z, which are misread
_LENGTH: Final = 18


def is_licence(text: str) -> bool:
    """Whether a text is such a code."""
    if len(text) != _LENGTH or any(character not in _ALPHABET for character in text):
        return False
    return text[-1] == check_character(text[:-1])


def check_character(body: str) -> str:
    """The last character, out of the 17 before it: weights are the powers of 3 modulo 31."""
    total = sum(_ALPHABET.index(one) * pow(3, at, 31) for at, one in enumerate(body))
    return _ALPHABET[-total % 31]
