"""A server that dies at any statement of a charge, a reversal or a refund: afterwards a query tells
the truth, and the same request again ends well."""

from __future__ import annotations

from datetime import UTC, datetime
from secrets import token_hex

import pytest

from app.flows.charge import charge as charging
from app.flows.charge import refund as refunding
from app.flows.charge.confirm import confirm
from app.flows.charge.query import ChargeError, query, query_refund
from app.flows.charge.reverse import reverse
from app.flows.charge.timeout import time_out
from app.flows.pay_code import new_code
from app.store import entries, merchants
from ledger.entries import instant
from ledger.transfers import fund_merchant

ALLOWED = 1_000_000


class Counter:
    """A till of an approved merchant, and one resident who pays there."""

    def __init__(self, town) -> None:
        self.town, self.codes = town, {}
        now = datetime(2026, 1, 1, tzinfo=UTC)
        shop = merchants.Merchant(
            token_hex(16), "tea", "茶馆", "", b"", "approved", "", 1, False, now, None, None
        )
        self.partner = merchants.Partner(shop.id, shop.code, shop.state, None)
        with town.engine.begin() as tx:
            merchants.add(tx, shop)
            known = {"id": token_hex(16), "at": instant(town.clock()), "merchant": shop.id}
            entries.append(tx, [fund_merchant(**known, points=ALLOWED, reference="1")])
        (self.resident,) = town.enroll("rider-0")
        town.send("b1", *(town.dated(n) for n in range(40)))
        self.had = town.points(self.resident)
        ids = (bytes.fromhex(shop.id), b"s" * 16, b"t" * 16)
        with town.admin() as admin:
            admin.execute(
                "INSERT INTO stores VALUES (%s, %s, 's1', '一店', '140403', '', true)", ids[1::-1]
            )
            admin.execute(
                "INSERT INTO tills VALUES (%s, %s, %s, 't1', true)", (ids[2], ids[0], ids[1])
            )

    def show(self, n):
        with self.town.engine.begin() as tx:
            parts = (self.town.vault, self.resident, None, self.town.clock())
            self.codes[n] = new_code(tx, *parts).code

    def charge(self, engine, n, points=10):
        asked = charging.Asked(self.partner, number(n), self.codes[n], points, "t1", None)
        return charging.charge(engine, self.town.vault, asked, self.town.clock()).charge

    def reverse(self, engine, n):
        parts = (self.partner, number(n), None, self.town.clock())
        return reverse(engine, self.town.vault, *parts).face.charge

    def refund(self, engine, n, points):
        parts = (self.partner, number(n), number(n), points, "a test", None)
        asked = refunding.Asked(*parts)
        return refunding.refund(engine, self.town.vault, asked, self.town.clock())[0]

    def state(self, n):
        """What a query by the number tells."""
        with self.town.engine.connect() as tx:
            try:
                return query(tx, self.partner.id, number(n)).charge.state
            except ChargeError as none:
                return none.code

    def spent(self):
        """What the wallet, the allowance and the bills each say was spent."""
        billed = self.town.value("SELECT coalesce(sum(points), 0)::bigint FROM bill_lines")
        with self.town.engine.connect() as tx:
            used = ALLOWED - merchants.allowance(tx, self.partner.id)
        held = self.town.points(self.resident, 2)
        assert used == billed == self.had - self.town.points(self.resident) - held
        return billed


def number(n):
    return f"number-{n:04d}"


@pytest.fixture
def counter(town):
    return Counter(town)


@pytest.mark.parametrize("way", ["at once", "the long way"])
def test_a_charge_is_paid_and_billed_or_nothing_of_it(
    way, town, counter, deaths, tmp_path, monkeypatch
):
    if way == "the long way":
        monkeypatch.setattr(charging, "at_once", lambda *_: None)
    spent, traces = 0, []
    for n, trace in deaths(counter.charge, counter.show, least=3):
        traces.append(trace)
        assert counter.state(n) == ("succeeded" if trace else "CHARGE_UNKNOWN")
        assert counter.spent() == spent + 10 * trace
        assert counter.charge(town.engine, n).state == "succeeded"
        spent += 10
        assert counter.spent() == spent
    assert set(traces) == {False, True}
    town.prove(tmp_path / "export")


def test_a_refusal_for_want_of_points_is_kept_or_asked_anew(town, counter, deaths, tmp_path):
    """Two transactions, of which the first is undone."""

    def work(engine, n):
        return counter.charge(engine, n, counter.had + 1)

    for n, trace in deaths(work, counter.show):
        assert counter.state(n) == ("failed" if trace else "CHARGE_UNKNOWN")
        assert work(town.engine, n).code == "INSUFFICIENT_POINTS"
    assert counter.spent() == 0
    town.prove(tmp_path / "export")


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_a_charge_that_waits_is_held_confirmed_or_timed_out(end, town, counter, deaths, tmp_path):
    def work(engine, n):
        one = counter.charge(engine, n, 600)
        if end == "succeeded":
            with engine.begin() as tx:
                confirm(tx, town.vault, counter.resident, one.id, town.clock())
        else:
            town.clock.move(seconds=61)
            time_out(engine, town.vault, town.clock())

    def prepare(n):
        town.clock.move(seconds=61)
        time_out(town.engine, town.vault, town.clock())
        counter.show(n)

    states = set()
    for n, _ in deaths(work, prepare):
        states.add(counter.state(n))
        held = town.points(counter.resident, 2)
        assert held == 600 * (counter.state(n) == "pending")
        counter.spent()
    assert states == {"CHARGE_UNKNOWN", "pending", end}
    town.prove(tmp_path / "export")


@pytest.mark.parametrize("came", [True, False])
def test_a_reversal_leaves_nothing_of_a_charge_or_all(town, counter, deaths, tmp_path, came):
    def prepare(n):
        counter.show(n)
        if came:
            counter.charge(town.engine, n)

    for n, trace in deaths(counter.reverse, prepare):
        before = "succeeded" if came else "CHARGE_UNKNOWN"
        assert counter.state(n) == ("reversed" if trace else before)
        assert counter.spent() == 10 * (came and not trace)
        assert counter.reverse(town.engine, n).state == counter.state(n) == "reversed"
        assert counter.spent() == 0
        with pytest.raises(ChargeError, match="reversed"):
            counter.charge(town.engine, n)
    town.prove(tmp_path / "export")


def test_a_refund_is_made_and_billed_or_nothing_of_it(town, counter, deaths, tmp_path):
    def prepare(n):
        counter.show(n)
        counter.charge(town.engine, n)

    def work(engine, n):
        counter.refund(engine, n, 4)

    for n, trace in deaths(work, prepare):
        assert counter.spent() == 6 * n + 4 * (not trace)
        with town.engine.connect() as tx:
            if trace:
                assert query_refund(tx, counter.partner.id, number(n))[0].state == "succeeded"
            else:
                with pytest.raises(ChargeError, match="no refund"):
                    query_refund(tx, counter.partner.id, number(n))
        assert counter.refund(town.engine, n, 4).state == "succeeded"
        assert counter.spent() == 6 * n
    town.prove(tmp_path / "export")
