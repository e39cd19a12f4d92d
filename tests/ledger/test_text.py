import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Malformed
from ledger.text import MAX_DECIMAL, base64, decimal, unbase64, utf8


@given(st.integers(0, MAX_DECIMAL))
def test_a_decimal_has_one_spelling(value: int) -> None:
    assert decimal(str(value)) == value
    for other in (f"0{value}", f"+{value}", f" {value}", f"{value}\n", f"-{value}", f"{value}.0"):
        with pytest.raises(Malformed):
            decimal(other)


@pytest.mark.parametrize("digits", ["", "1_0", "٣", "²", str(2**63), "9" * 5000, "0x10", "1e3"])
def test_what_python_would_take_for_a_number_is_refused(digits: str) -> None:
    with pytest.raises(Malformed):
        decimal(digits)


@given(st.binary(max_size=80))
def test_base64_comes_back_as_it_went(data: bytes) -> None:
    assert unbase64(base64(data), len(data)) == data
    with pytest.raises(Malformed):
        unbase64(base64(data), len(data) + 1)


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ=", "QQ==\n", "Q Q=", "QQ===", "-_8=", "ＱＱ=="])
def test_a_second_spelling_of_base64_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        unbase64(text)


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", "\ud800"])
def test_text_that_is_not_utf8_is_refused(data: bytes | str) -> None:
    assert utf8("碳普惠".encode()) == utf8("碳普惠") == "碳普惠"
    with pytest.raises(Malformed):
        utf8(data)
