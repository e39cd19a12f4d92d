"""The code that a resident shows: of its own shape, short-lived, used once, stored as a hash."""

from __future__ import annotations

from datetime import timedelta
from secrets import token_bytes

import pytest
from sqlalchemy import text

from app.flows import pay_code
from app.flows.erase import erase
from app.flows.pay_code import KEPT, LIVE, PayCodeError, find, new_code, reads, use
from app.flows.tokens import make
from app.flows.work import Worker


@pytest.fixture
def fresh(city, rider):
    """A new code of the rider's."""

    def code(**more):
        with city.engine.begin() as tx:
            return new_code(tx, city.vault, rider, None, city.clock(), **more).code

    return code


@pytest.fixture
def seek(city):
    """What a till finds of a code: its row, or the refusal's code."""

    def found(code):
        with city.engine.connect() as tx:
            try:
                return find(tx, city.vault, code, city.clock())
            except PayCodeError as refusal:
                return refusal.code

    return found


def test_tills_tell_it_from_other_payment_codes_and_from_a_misread_one(fresh):
    codes = [fresh() for _ in range(20)]
    assert len(set(codes)) == 20
    for code in codes:
        assert reads(code)
        assert len(code) == 20
        assert code.startswith("96")
    code = codes[0]
    for at, digit in enumerate(code):
        for other in set("0123456789") - {digit}:
            assert not reads(code[:at] + other + code[at + 1 :])
    for at in range(len(code) - 1):
        pair = code[at : at + 2]
        swapped = code[:at] + pair[::-1] + code[at + 2 :]
        if at >= 2 and len(set(pair)) == 2 and set(pair) != {"0", "9"}:  # which Luhn cannot tell
            assert not reads(swapped)
    assert not reads("134567890123456789")
    assert not reads("")


def test_luhns_own_example_has_its_check_digit():
    assert pay_code._check_digit("7992739871") == "3"


def test_it_lives_its_minute_and_a_half_and_is_used_once(city, fresh, seek, rider):
    code = fresh()
    city.clock.move(seconds=89)
    found = seek(code)
    assert (found.resident, found.voucher, found.used_at) == (rider, None, None)
    city.clock.move(seconds=1)
    assert seek(code) == "PAY_CODE_EXPIRED"
    again = fresh()
    with city.engine.begin() as tx:
        use(tx, seek(again), city.clock())
    assert seek(again) == "PAY_CODE_USED"
    with city.engine.begin() as tx, pytest.raises(PayCodeError, match="used"):
        use(tx, found._replace(digest=pay_code.digest_of(city.vault, again)), city.clock())


def test_a_code_of_a_voucher_says_which(fresh, seek):
    voucher = token_bytes(16)
    assert seek(fresh(voucher=voucher)).voucher == voucher


def test_only_the_newest_few_live(city, fresh, seek):
    codes = []
    for _ in range(LIVE + 2):
        codes.append(fresh())
        city.clock.move(seconds=1)
    assert [seek(code) for code in codes[:2]] == ["PAY_CODE_UNKNOWN"] * 2
    assert not any(isinstance(seek(code), str) for code in codes[2:])


def test_what_is_stored_shows_no_code_and_is_swept(city, fresh, seek):
    code = fresh()
    with city.engine.connect() as tx:
        row = tx.execute(text("SELECT p::text FROM pay_codes p")).scalar_one()
    assert code not in row
    worker = Worker(city.engine, city.vault, city.sealer, city.clock)
    city.clock.move(minutes=2)
    worker.step()
    assert seek(code) == "PAY_CODE_EXPIRED"
    city.clock.now += KEPT + timedelta(minutes=1)
    worker.step()
    assert seek(code) == "PAY_CODE_UNKNOWN"


def test_who_has_left_shows_none_and_has_none(city, fresh, seek, rider):
    code = fresh()
    erase(city.engine, city.vault, rider, city.clock())
    assert seek(code) == "PAY_CODE_UNKNOWN"
    with pytest.raises(PayCodeError, match="no such code"):
        fresh()
    with city.engine.connect() as tx:
        assert tx.execute(text("SELECT count(*) FROM pay_codes")).scalar_one() == 0


def test_a_phone_asks_for_the_next_one_each_minute(client, city, rider, seek):
    device = token_bytes(16)
    at = int(city.clock().timestamp())
    token = make(city.vault.token, "access", rider, at, device.hex())
    headers = {"Authorization": f"Bearer {token}"}
    answers = [client.post("/api/v1/me/pay-code", json={}, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    first, second = (answer.json for answer in answers)
    assert first["code"] != second["code"]
    assert (first["refresh_s"], first["expires_at"]) == (60, "2026-11-22T12:01:00+08:00")
    assert seek(second["code"]).device == device
    assert client.post("/api/v1/me/pay-code", json={}).status_code == 401
