"""For operators: who becomes a merchant, on what terms, with what allowance, in which state."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson
from flask import Response, g
from sqlalchemy import Connection

from app.api.draft_forms import ReasonSchema
from app.api.oversight import FundedSchema, FundSchema
from app.api.partner_forms import (
    CODE,
    ContractTermsSchema,
    MerchantsArgs,
    MerchantSchema,
    MerchantsSchema,
    PartnerSchema,
    head,
    key,
    profile,
    terms,
)
from app.api.wire import (
    Blueprint,
    answer,
    answer_once,
    bad_cursor,
    cursor_of,
    page,
    place_of,
    tagged,
)
from app.auth import admin
from app.flows.partner import keys
from app.flows.partner.apply import contact
from app.flows.partner.contract import agree
from app.flows.partner.decide import decide
from app.flows.partner.fund import pay_in
from app.flows.partner.standing import known
from app.flows.trail import act
from app.store import merchants
from app.store.merchants import Contract
from app.wiring import wired

READ, OPERATE = admin("operator", "auditor"), admin("operator")

blp = Blueprint(
    "partners",
    __name__,
    url_prefix="/api/v1/admin/merchants",
    description="商户管理：审核、合同、额度、暂停与关闭。Who may be a merchant, how.",
)


@blp.serve("GET", "", gives=MerchantsSchema, guard=READ, query=MerchantsArgs)
def list_merchants(args: dict[str, Any]) -> Response:
    """商户列表 · Merchants by code. `low_at` marks those whose allowance runs short."""
    limit, after = args["limit"], place_of(args.get("cursor")) or ""
    if after and not re.fullmatch(CODE, after):
        raise bad_cursor()
    with wired().engine.connect() as tx:
        found = merchants.page(tx, args.get("state"), args.get("q"), after, limit + 1)
    more = cursor_of(found[limit - 1].code) if len(found) > limit else None
    return answer(page([head(one) for one in found[:limit]], more))


@blp.serve("GET", "/<merchant>", gives=PartnerSchema, guard=READ)
def get_merchant(merchant: str) -> Response:
    """读取商户 · One merchant with its terms, allowance and keys. Mind its ETag."""
    with wired().engine.connect() as tx:
        made = _whole(tx, merchant)
    return tagged(answer(made), str(made["revision"]))


@blp.serve(
    "POST",
    "/<merchant>/approve",
    gives=PartnerSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_approve(body: dict[str, Any], merchant: str) -> Response:
    """通过审核 · Let a merchant begin; a postpaid one has its limit from now on."""
    return _decide(merchant, "approve", body["reason"])


@blp.serve(
    "POST",
    "/<merchant>/suspend",
    gives=PartnerSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_suspend(body: dict[str, Any], merchant: str) -> Response:
    """暂停商户 · From its next request on it can query, reverse and refund, and charge nobody."""
    return _decide(merchant, "suspend", body["reason"])


@blp.serve(
    "POST",
    "/<merchant>/resume",
    gives=PartnerSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_resume(body: dict[str, Any], merchant: str) -> Response:
    """恢复商户 · Let a suspended merchant go on."""
    return _decide(merchant, "resume", body["reason"])


@blp.serve(
    "POST",
    "/<merchant>/close",
    gives=PartnerSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
    match=True,
)
def post_close(body: dict[str, Any], merchant: str) -> Response:
    """关闭商户 · For good; what is left of its allowance goes back. Also refuses an application."""
    return _decide(merchant, "close", body["reason"])


@blp.serve(
    "POST",
    "/<merchant>/contracts",
    gives=PartnerSchema,
    status=201,
    guard=OPERATE,
    body=ContractTermsSchema,
    repeat=True,
    match=True,
)
def post_contract(body: dict[str, Any], merchant: str) -> Response:
    """签订合同 · Put new terms in force; the ones before are kept, and bills name theirs."""
    here, who, seen = wired(), g.admin.name, g.revision
    points = {name: int(body[name]) for name in ("limit_points", "alert_points")}
    now = here.clock()
    wanted = Contract(**(body | points | {"number": 0, "made_at": now}))
    return _step(merchant, lambda tx: agree(tx, here.vault, who, merchant, seen, wanted, now), 201)


@blp.serve(
    "POST",
    "/<merchant>/funds",
    gives=FundedSchema,
    guard=OPERATE,
    body=FundSchema,
    repeat=True,
)
def post_funds(body: dict[str, Any], merchant: str) -> Response:
    """预付入账 · Add what a prepaid merchant paid for; the payment's reference counts once."""
    here, who = wired(), g.admin.name
    points, reference = int(body["points"]), body["reference"]

    def work(tx: Connection) -> dict[str, Any]:
        parts = (tx, here.vault, who, merchant, points, reference, here.clock())
        entry, new = pay_in(*parts)
        return {"entry_id": entry.id, "again": not new}

    return answer_once(work)


@blp.serve(
    "POST",
    "/<merchant>/keys/<key_id>/revoke",
    gives=MerchantSchema,
    guard=OPERATE,
    body=ReasonSchema,
    repeat=True,
)
def post_revoke(body: dict[str, Any], merchant: str, key_id: str) -> Response:
    """停用密钥 · Refuse a merchant's key from now on, such as one that was stolen."""
    here, who = wired(), g.admin.name

    def work(tx: Connection) -> dict[str, Any]:
        now = here.clock()
        keys.revoke_key(tx, merchant, key_id, now)
        detail = {"key_id": key_id, "reason": body["reason"]}
        act(tx, who, "merchant.key_revoked", merchant, detail, now)
        return head(known(tx, merchant))

    return answer_once(work)


def _decide(code: str, verb: str, reason: str) -> Response:
    here, who, seen = wired(), g.admin.name, g.revision
    now = here.clock()
    return _step(code, lambda tx: decide(tx, here.vault, who, code, seen, verb, reason, now))


def _step(code: str, take: Callable[[Connection], object], status: int = 200) -> Response:
    """Take a step with a merchant, once; answer how it then stands."""

    def work(tx: Connection) -> dict[str, Any]:
        take(tx)
        return _whole(tx, code)

    made = answer_once(work, status)
    return tagged(made, str(orjson.loads(made.data)["revision"]))


def _whole(tx: Connection, code: str) -> dict[str, Any]:
    one = known(tx, code)
    agreed = merchants.contracts(tx, one.id)
    left = merchants.allowance(tx, one.id)
    return profile(one, agreed[0] if agreed else None, left) | {
        "contact": contact(wired().vault, one),
        "contracts": [terms(each) for each in agreed],
        "keys": [key(each) for each in merchants.keys(tx, one.id)],
    }
