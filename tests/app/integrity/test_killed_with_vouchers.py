"""A server that dies at any statement of a use, a return, a void, a lapse or an offline report:
afterwards a query tells the truth, and the same request again ends well."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_hex

import pytest

from app.flows.order.confirm import confirm
from app.flows.order.place import place
from app.flows.voucher import offline
from app.flows.voucher.give_back import give_back
from app.flows.voucher.lapse import lapse
from app.flows.voucher.show import show
from app.flows.voucher.use import Scan, use
from app.flows.voucher.void import Ask, void
from app.store import entries, merchants, voucher_moves, vouchers
from app.store.db import transact
from ledger.entries import instant
from ledger.transfers import fund_merchant

ALLOWED, PRICE = 1_000_000, 10


class Stall:
    """A till of an approved merchant, and one resident with a voucher for each n."""

    def __init__(self, town) -> None:
        self.town, self.vouchers, self.shown = town, {}, {}
        now = datetime(2026, 1, 1, tzinfo=UTC)
        shop = merchants.Merchant(
            token_hex(16), "tea", "茶馆", "", b"", "approved", "", 1, False, now, None, None
        )
        self.partner = merchants.Partner(shop.id, shop.code, shop.state, None)
        self.till = merchants.Till(b"t" * 16, b"s" * 16, "t1")
        self.reward = token_hex(16)
        with town.engine.begin() as tx:
            merchants.add(tx, shop)
            known = {"id": token_hex(16), "at": instant(town.clock()), "merchant": shop.id}
            entries.append(tx, [fund_merchant(**known, points=ALLOWED, reference="1")])
        (self.resident,) = town.enroll("rider-0")
        town.send("b1", *(town.dated(n) for n in range(40)))
        self.had = town.points(self.resident)
        ids = (bytes.fromhex(shop.id), self.till.store, self.till.id)
        with town.admin() as admin:
            admin.execute(
                "INSERT INTO stores VALUES (%s, %s, 's1', '一店', '140403', '', true)", ids[1::-1]
            )
            admin.execute(
                "INSERT INTO tills VALUES (%s, %s, %s, 't1', true)", (ids[2], ids[0], ids[1])
            )
            admin.execute(
                "INSERT INTO rewards (id, merchant, code, kind, codes, title_zh, title_en, text_zh,"
                " points, valid_days, unused, opens_at, closes_at, state, made_at) VALUES"
                " (%s, %s, 'tea', 'voucher', 'generated', '茶', 'Tea', '', %s, 5, 'refund',"
                " '2026-01-01Z', '2027-01-01Z', 'open', '2026-01-01Z')",
                (bytes.fromhex(self.reward), ids[0], PRICE),
            )
            admin.execute(
                "INSERT INTO reward_stock VALUES (%s, 1000, 0)", (bytes.fromhex(self.reward),)
            )

    def buy(self, n):
        now, vault = self.town.clock(), self.town.vault
        with self.town.engine.begin() as tx:
            order = place(tx, vault, self.resident, None, self.reward, 1, now).id
            confirm(tx, vault, self.resident, order, now)
            (self.vouchers[n],) = vouchers.of_order(tx, order)
            parts = (vault, self.resident, self.vouchers[n], None, now)
            self.shown[n] = show(tx, *parts)

    def buy_and_use(self, n):
        self.buy(n)
        assert self.use(self.town.engine, n)[0].state == "succeeded"

    def use(self, engine, n):
        scan = Scan(self.partner.id, f"use-{n:04d}", self.shown[n].code.code, self.till)
        return use(engine, self.town.vault, scan, self.town.clock())

    def give_back(self, engine, n):
        numbers = (f"use-{n:04d}", f"return-{n:04d}")
        return give_back(engine, self.town.vault, self.partner, *numbers, self.town.clock())

    def void(self, engine, n):
        ask = Ask(self.partner.id, f"void-{n:04d}", self.vouchers[n], None, "a test", None)
        return void(engine, self.town.vault, ask, self.town.clock())

    def report(self, engine, n):
        parts = (self.shown[n].offline, self.till, self.town.clock())
        taken = offline.Taken(self.partner.id, f"offline-{n:04d}", *parts)
        return offline.report(engine, self.town.vault, taken, self.town.clock())

    def lapse(self, engine, n):
        now = self.town.clock() + timedelta(days=9)
        transact(engine, partial(lapse, vault=self.town.vault, id=self.vouchers[n], now=now))

    def told(self, kind, n):
        """What a query by the number tells: what became of it, or None."""
        with self.town.engine.connect() as tx:
            move = voucher_moves.find(tx, self.partner.id, f"{kind}-{n:04d}")
        return move.state if move else None

    def state(self, n):
        with self.town.engine.connect() as tx:
            return vouchers.find(tx, self.vouchers[n]).state

    def spent(self):
        """What the wallet, the allowance and the bills each say was spent."""
        billed = self.town.value("SELECT coalesce(sum(points), 0)::bigint FROM bill_lines")
        with self.town.engine.connect() as tx:
            used = ALLOWED - merchants.allowance(tx, self.partner.id)
        assert used == billed == self.had - self.town.points(self.resident)
        return billed


@pytest.fixture
def stall(town):
    return Stall(town)


@pytest.mark.parametrize(
    ("verb", "number", "prepare", "before", "after"),
    [
        ("use", "use", "buy", "issued", "used"),
        ("give_back", "return", "buy_and_use", "used", "issued"),
        ("report", "offline", "buy", "issued", "used"),
    ],
)
def test_a_voucher_and_its_number_change_together_or_not_at_all(
    stall, deaths, verb, number, prepare, before, after
):
    act = getattr(stall, verb)
    for n, trace in deaths(act, getattr(stall, prepare)):
        assert stall.told(number, n) == ("succeeded" if trace else None)
        assert stall.state(n) == (after if trace else before)
        made, again = act(stall.town.engine, n)
        assert (made.state, again) == ("succeeded", trace)
        assert act(stall.town.engine, n) == (made, True)
        assert stall.state(n) == after


def test_a_void_gives_everything_back_or_nothing(town, stall, deaths, tmp_path):
    def pieces():
        return town.value("SELECT remaining FROM reward_stock")

    for n, trace in deaths(stall.void, stall.buy):
        assert stall.told("void", n) == ("succeeded" if trace else None)
        assert stall.state(n) == ("voided" if trace else "issued")
        assert (stall.spent(), pieces()) == (PRICE * (not trace), 1000 - (not trace))
        assert stall.void(town.engine, n)[0].state == "succeeded"
        assert (stall.spent(), pieces()) == (0, 1000)
    town.prove(tmp_path / "export")


def test_a_lapse_ends_a_voucher_and_returns_its_points_or_neither(town, stall, deaths, tmp_path):
    for n, trace in deaths(stall.lapse, stall.buy):
        assert stall.state(n) == ("lapsed" if trace else "issued")
        assert stall.spent() == PRICE * (not trace)
        stall.lapse(town.engine, n)
        assert stall.spent() == 0
        assert town.value("SELECT count(*) FROM bill_lines WHERE kind = 'lapse'") == n
        assert town.value("SELECT count(*) FROM messages") == n
    town.clock.move(days=9)
    town.prove(tmp_path / "export")
