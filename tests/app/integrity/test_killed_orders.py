"""A server that dies at any statement of an order: afterwards the order is whole or was never made,
and the same request again ends well."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from secrets import token_hex

import pytest

from app.flows.once import Answer, Repeat, once
from app.flows.order.at_once import Wanted, at_once
from app.flows.order.cancel import cancel
from app.flows.order.confirm import confirm
from app.flows.order.place import place
from app.flows.order.timeout import release_due
from app.store import entries, merchants, rewards, stock
from app.store.rewards import Reward
from ledger.entries import instant
from ledger.transfers import fund_merchant

ALLOWED = 1_000_000
PIECES = 200


class Counter:
    """A reward of an approved merchant, and one resident who orders it, as the API does."""

    def __init__(self, town) -> None:
        self.town = town
        now = datetime(2026, 1, 1, tzinfo=UTC)
        self.shop = merchants.Merchant(
            token_hex(16), "tea", "茶馆", "", b"", "approved", "", 1, False, now, None, None
        )
        self.reward = Reward(
            id=token_hex(16),
            merchant=self.shop.id,
            code="cup",
            kind="voucher",
            codes="generated",
            title_zh="茶一杯",
            title_en="A cup of tea",
            text_zh="一杯",
            project="",
            points=10,
            per_person=None,
            per_day=100,
            valid_days=30,
            unused="refund",
            opens_at=now,
            closes_at=now + timedelta(days=1000),
            districts=None,
            from_14=False,
            min_reduction_mg=0,
            store=None,
            state="draft",
            revision=1,
            made_at=now,
        )
        with town.engine.begin() as tx:
            merchants.add(tx, self.shop)
            known = {"id": token_hex(16), "at": instant(town.clock()), "merchant": self.shop.id}
            entries.append(tx, [fund_merchant(**known, points=ALLOWED, reference="1")])
            rewards.put(tx, self.reward)
            stock.start(tx, self.reward.id, PIECES)
            rewards.bring(tx, self.reward.id, "open")
        (self.resident,) = town.enroll("rider-0")
        town.send("b1", *(town.dated(n) for n in range(20)))
        self.had = town.points(self.resident)
        self.orders = {}

    def ask(self, engine, name, verb):
        """A request with a key of its own; the order's id and state as answered."""

        def work(tx):
            order = verb(tx)
            return Answer(200, json.dumps([order.id, order.state]).encode())

        repeat = Repeat(f"resident {self.resident}", f"request-{name}", b"\x01" * 32)
        return json.loads(once(engine, self.town.vault, repeat, self.town.clock(), work).body)

    def place(self, engine, n):
        town = self.town
        parts = (town.vault, self.resident, None, self.reward.id, 2, town.clock())
        self.orders[n] = self.ask(engine, f"place-{n}", lambda tx: place(tx, *parts))[0]

    def serve(self, engine, n):
        """The same as it is served: at once, if that is plain."""
        town, asked = self.town, (self.resident, None, self.reward.id, 2)

        def told(bought):
            return Answer(200, json.dumps([bought.order.id, bought.order.state]).encode())

        repeat = Repeat(f"resident {self.resident}", f"request-place-{n}", b"\x01" * 32)
        parts = (repeat, Wanted(*asked), town.clock(), told)
        made = at_once(engine, town.vault, *parts)
        if made is None:
            self.place(engine, n)
        else:
            self.orders[n] = json.loads(made.body)[0]
        return made

    def confirm(self, engine, n):
        parts = (self.town.vault, self.resident, self.orders[n], self.town.clock())
        return self.ask(engine, f"confirm-{n}", lambda tx: confirm(tx, *parts))[1]

    def cancel(self, engine, n):
        parts = (self.town.vault, self.resident, self.orders[n], self.town.clock())
        return self.ask(engine, f"cancel-{n}", lambda tx: cancel(tx, *parts))[1]

    def count(self):
        """(held, confirmed) orders, by which points, stock, bills and vouchers must all go."""
        value = self.town.value
        held, confirmed = (
            value("SELECT count(*) FROM orders WHERE state = :state", state=state)
            for state in ("held", "confirmed")
        )
        assert self.town.points(self.resident, 2) == 20 * held
        assert self.town.points(self.resident) == self.had - 20 * (held + confirmed)
        sold = 2 * (held + confirmed)
        assert self.town.rows("SELECT remaining, sold FROM reward_stock") == [(PIECES - sold, sold)]
        assert value("SELECT coalesce(sum(sold), 0) FROM reward_days") == sold
        assert value("SELECT coalesce(sum(points), 0) FROM bill_lines") == 20 * confirmed
        assert value("SELECT count(*) FROM vouchers") == 2 * confirmed
        with self.town.engine.connect() as tx:
            assert merchants.allowance(tx, self.shop.id) == ALLOWED - 20 * confirmed
        return held, confirmed


@pytest.fixture
def counter(town):
    return Counter(town)


def test_an_order_holds_points_and_stock_or_nothing(town, counter, deaths, tmp_path):
    for n, trace in deaths(counter.place):
        assert counter.count() == (n - 1 + trace, 0)
        counter.place(town.engine, n)
        assert counter.count() == (n, 0)
    town.prove(tmp_path / "export")


def test_an_order_at_once_is_whole_or_nothing_and_its_request_again_gets_its_answer(
    town, counter, deaths, tmp_path
):
    for n, trace in deaths(counter.serve, least=2):
        assert counter.count() == (n - 1 + trace, 0)
        assert (counter.serve(town.engine, n) is None) == trace, "what is there is only told again"
        assert counter.count() == (n, 0)
    town.prove(tmp_path / "export")


def test_a_confirmation_is_redeemed_billed_and_issued_or_none_of_it(
    town, counter, deaths, tmp_path
):
    for n, trace in deaths(counter.confirm, lambda n: counter.place(town.engine, n)):
        assert counter.count() == (1 - trace, n - 1 + trace)
        assert counter.confirm(town.engine, n) == "confirmed"
        assert counter.count() == (0, n)
    town.prove(tmp_path / "export")


def test_a_cancellation_gives_back_all_or_nothing(town, counter, deaths, tmp_path):
    for n, trace in deaths(counter.cancel, lambda n: counter.place(town.engine, n)):
        assert counter.count() == (1 - trace, 0)
        assert counter.cancel(town.engine, n) == "released"
        assert counter.count() == (0, 0)
    town.prove(tmp_path / "export")


def test_a_worker_that_dies_releases_an_order_or_leaves_it(town, counter, deaths, tmp_path):
    def prepare(n):
        counter.place(town.engine, n)
        town.clock.move(minutes=15)

    def job(engine, n):
        release_due(engine, town.vault, town.clock())

    for n, trace in deaths(job, prepare):
        assert counter.count() == (1 - trace, 0)
        job(town.engine, n)
        assert counter.count() == (0, 0)
    town.prove(tmp_path / "export")
