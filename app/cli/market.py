"""A made-up market for the sample city: where its residents spend, and the integrators' sandbox.

Four merchants with published keys. Prices are in points, 100 of which the city pays a yuan for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import Connection, Engine

from app.flows.administer import CLI
from app.flows.partner.apply import Application, apply
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.fund import pay_in
from app.flows.partner.sandbox import CODE, private_key, public_key
from app.flows.partner.stores import put_store, put_till
from app.flows.public_key import key_id
from app.flows.reward.change import bring
from app.flows.reward.codes import upload
from app.flows.reward.make import make
from app.store import merchants, rewards
from app.store.db import transact
from app.store.merchants import Contract, Merchant
from app.vault import Vault

STORE, TILL = "s1", "t1"
_LIMIT, _ALERT = 1_000_000, 1_000
_YEARS: Final = timedelta(days=3650)
_TERMS: Final[dict[str, Any]] = {
    "codes": "generated", "project": "", "per_person": None, "per_day": None, "valid_days": 90,
    "unused": "refund", "districts": None, "from_14": False, "min_reduction_mg": 0, "store": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stall:
    """A merchant of the sample city. `rewards` are by code: what differs from `_TERMS`."""

    code: str
    name: str
    licence: str
    district: str
    address: str
    mode: str
    rewards: dict[str, dict[str, Any]]


def _reward(kind: str, zh: str, en: str, points: int, **more: Any) -> dict[str, Any]:
    text = f"{zh}。示例奖励，用于演示与联调。"
    return {"kind": kind, "title_zh": zh, "title_en": en, "text_zh": text, "points": points} | more


MARKET: Final = (
    Stall(
        CODE, "沙箱商户", "91140400MA05ANDB01", "140403", "潞州区示范街1号", "postpaid",
        {
            "tea": _reward("voucher", "一杯热茶", "A cup of tea", 20),
            "film": _reward("voucher", "电影票", "A film ticket", 60, codes="pool"),
            "short": _reward("voucher", "当日点心券", "A pastry, today", 10, valid_days=1),
            "ride": _reward("ride", "公交乘车券", "A bus ride", 15),
            "bag": _reward("goods", "环保布袋", "A cotton bag", 80, store=STORE, per_person=20),
            "trees": _reward("donation", "捐种一棵树", "Plant a tree", 50, codes="none",
                             project="太行山绿化"),
            "loan": _reward("rate_coupon", "绿色贷款利率券", "A green loan coupon", 200,
                            per_person=1),
        },
    ),
    Stall(
        "bus", "长治公交", "91140400MA0BU50004", "140403", "潞州区英雄中路88号", "postpaid",
        {"ride": _reward("ride", "公交乘车券", "A bus ride", 15, per_day=5000)},
    ),
    Stall(
        "shangdang-market", "上党市集", "91140404MA0MKT000H", "140404", "上党区光明路12号",
        "prepaid",
        {
            "rice": _reward("goods", "沁州黄小米一斤", "Millet, 500 g", 120, store=STORE),
            "off5": _reward("voucher", "五元代金券", "Five yuan off", 50, per_person=10),
        },
    ),
    Stall(
        "green-fund", "太行绿色基金", "91140400MA0FUND003", "140429", "武乡县迎宾街6号", "postpaid",
        {"trees": _reward("donation", "捐种一棵树", "Plant a tree", 50, codes="none",
                          project="太行山绿化")},
    ),
)  # fmt: skip


def write_keys(folder: Path) -> None:
    """Lay the market's keys into a folder as integrators keep theirs: CODE.pem, CODE.key-id."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for stall in MARKET:
        key, own = private_key(stall.code), key_id(stall.code, public_key(stall.code).der)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{stall.code}.pem").write_bytes(pem)
        (folder / f"{stall.code}.key-id").write_text(own)


def open_market(engine: Engine, vault: Vault, now: datetime) -> int:
    """Open each merchant of the market that is not there yet; how many were opened."""
    return sum(transact(engine, partial(_open, vault, one, now)) for one in MARKET)


def _open(vault: Vault, stall: Stall, now: datetime, tx: Connection) -> bool:
    if merchants.find(tx, stall.code) is not None:
        return False
    contact = {"person": "示例", "phone": "0355-0000000"}
    said = Application(stall.code, stall.name, stall.licence, contact)
    made = apply(tx, vault, said, public_key(stall.code), now, sandbox=True)
    place = {"district": stall.district, "address": stall.address, "open": True}
    put_store(tx, made.id, STORE, {"name": f"{stall.name}总店"} | place)
    put_till(tx, made.id, TILL, STORE, is_open=True)
    limit = _LIMIT if stall.mode == "postpaid" else 0
    terms = Contract(0, "city", stall.mode, 100, limit, _ALERT, "sample terms", now)
    agree(tx, vault, CLI, stall.code, None, terms, now)
    decide(tx, vault, CLI, stall.code, None, "approve", "a merchant of the sample city", now)
    if stall.mode == "prepaid":
        pay_in(tx, vault, CLI, stall.code, _LIMIT, "sample payment", now)
    for code, terms_of_reward in stall.rewards.items():
        _offer(tx, vault, made, code, _TERMS | terms_of_reward, now)
    return True


def _offer(
    tx: Connection, vault: Vault, one: Merchant, code: str, terms: dict[str, Any], now: datetime
) -> None:
    opens = {"opens_at": now, "closes_at": now + _YEARS}
    pieces = None if terms["codes"] in ("pool", "none") else 100_000
    made = make(tx, vault, one.id, code, terms | opens, pieces, now)
    if terms["codes"] == "pool":
        upload(tx, vault, one.id, code, "\n".join(_pool(code)).encode())
    found = rewards.lock(tx, made)
    if found is not None:
        bring(tx, CLI, made, "open", str(found.revision), "", now)


def _pool(code: str) -> Iterator[str]:
    for number in range(200):
        yield f"{code.upper()}-{number:06d}"
