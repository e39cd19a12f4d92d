import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ledger.encoding import MAX_BYTES, MAX_INT, commit, decode, encode
from ledger.errors import Malformed

VECTORS = Path(__file__).parents[1] / "vectors" / "jcs-rfc8785"
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXT | st.integers(-MAX_INT, MAX_INT),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)


@given(VALUES)
def test_the_bytes_are_those_of_the_rfc8785_package_and_come_back(value: Any) -> None:
    assert encode(value) == rfc8785.dumps(value)
    assert decode(encode(value)) == value


def test_the_rfc_vectors_without_fractions_or_null_are_ours_and_all_are_the_packages() -> None:
    ours = 0
    for path in sorted((VECTORS / "input").glob("*.json")):
        value = json.loads(path.read_text("utf-8"))
        wanted = (VECTORS / "output" / path.name).read_bytes().rstrip(b"\n")
        assert rfc8785.dumps(value) == wanted
        try:
            assert encode(value) == wanted
            ours += 1
        except Malformed:
            assert any(part in path.name for part in ("arrays", "structures", "values", "weird"))
    assert ours >= 2


@pytest.mark.parametrize(
    "value",
    [1.0, True, None, b"", {1: 2}, {"a": None}, [0, False], MAX_INT + 1, -MAX_INT - 1, "\ud800",
     {"\udfff": 1}, {"a"}],
)  # fmt: skip
def test_what_the_form_has_no_place_for_is_refused(value: Any) -> None:
    with pytest.raises(Malformed):
        encode(value)


def test_an_entry_fits_a_uint16_or_is_refused() -> None:
    assert len(encode("a" * (MAX_BYTES - 2))) == MAX_BYTES
    with pytest.raises(Malformed):
        encode("a" * (MAX_BYTES - 1))


@pytest.mark.parametrize(
    "data",
    [b'{"a":1,"a":1}', b'{"a": 1}', b'{"b":1,"a":1}', b"1.0", b"1e3", b"-0", b"01", b"NaN",
     b"null", b"true", b'"\\u0041"', b'"\\ud800"', b'"\xff"', b"1 ", b"\xef\xbb\xbf1", b"", b"[",
     b"[" * 60000, b"9" * 5000, b'"' + b"a" * MAX_BYTES],
)  # fmt: skip
def test_bytes_that_are_not_exactly_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_come_back(data: bytes) -> None:
    try:
        value = decode(data)
    except Malformed:
        return
    assert encode(value) == data


def test_a_commitment_is_the_hash_of_salt_and_opening() -> None:
    salt = bytes(range(32))
    assert commit(salt, b"opening") == sha256(salt + b"opening").hexdigest()
    with pytest.raises(Malformed):
        commit(salt[1:], b"\x1fopening")
