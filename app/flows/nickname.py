"""Nicknames that may be shown to others: of any script, on one line, and not the platform's."""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_GRAPHEMES: Final = 12

_MAX_CHARACTERS: Final = 48
_MAX_MARKS: Final = 4  # on one letter: no script in use stacks more
_JOINER: Final = "\u200d"
_TONES: Final = frozenset(map(chr, range(0x1F3FB, 0x1F400)))  # skin tones, which modify an emoji
_FLAGS: Final = frozenset(map(chr, range(0x1F1E6, 0x1F200)))  # two of them make one flag
_MARKS: Final = frozenset({"Mn", "Me", "Mc"})
# Control, format (bidi and zero-width among them), surrogate, private, unassigned; line breaks.
_REFUSED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_OURS: Final = ("碳普惠", "官方", "管理员", "工作人员", "客服", "puhui", "admin", "official")


class NicknameError(Exception):
    """A nickname that cannot be shown; the sentence says why."""

    code = "NICKNAME_REFUSED"


def read_nickname(given: str) -> str:
    """The nickname in NFC, without blanks around it. Raises NicknameError.

    Words of the platform are found through case, width, and what stands between the letters;
    letters of other scripts that only look alike are not.
    """
    text = " ".join(unicodedata.normalize("NFC", given).split(" ")).strip()
    if len(text) > _MAX_CHARACTERS or not 1 <= _graphemes(text) <= MAX_GRAPHEMES:
        raise NicknameError(f"a nickname has 1 to {MAX_GRAPHEMES} characters")
    folded = "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
    if any(word in folded for word in _OURS):
        raise NicknameError("a nickname must not look like the platform's own voice")
    return text


def _graphemes(text: str) -> int:
    """How many characters a reader sees, nearly: marks, joiners and skin tones add none."""
    count = marks = flags = 0
    before = ""
    for letter in text:
        kind = unicodedata.category(letter)
        if kind in _REFUSED and not (letter == _JOINER and _is_emoji(before)):
            raise NicknameError("a nickname holds no control, bidi or invisible characters")
        flags = flags + 1 if letter in _FLAGS else 0
        marks = marks + 1 if kind in _MARKS else 0
        if marks > _MAX_MARKS or (marks and not before):
            raise NicknameError("a nickname holds no piled up or loose marks")
        hidden = marks or letter == _JOINER or before == _JOINER or letter in _TONES
        count += not (hidden or (flags and flags % 2 == 0))
        before = letter
    return count


def _is_emoji(letter: str) -> bool:
    return bool(letter) and (
        unicodedata.category(letter) == "So" or letter in _TONES or letter == "\ufe0f"
    )
