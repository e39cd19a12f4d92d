"""For residents: their vouchers, and what to show at a till; and the keys of offline tokens."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import UTC, date, datetime, timedelta
from typing import Any

import marshmallow as ma
from flask import Response, g, request

from app import limits
from app.api.wire import (
    Blueprint,
    PageArgs,
    answer,
    calendar_day,
    cursor_of,
    instant,
    moment_of,
    page,
    stamp,
)
from app.auth import resident
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows.pay_code import REFRESH_S
from app.flows.setting import setting
from app.flows.voucher.issue import read_code
from app.flows.voucher.lapse import late
from app.flows.voucher.show import show
from app.flows.voucher.token import keys
from app.store import statements, vouchers
from app.store.db import transact
from app.store.vouchers import STATES, Shown
from app.wiring import wired
from ledger.buckets import day_number

_ID = re.compile("[0-9a-f]{32}")
_KEYS_KEPT_S = 300

blp = Blueprint(
    "vouchers",
    __name__,
    url_prefix="/api/v1",
    description="卡券：我的卡券、出示、离线公钥。One's own vouchers, to be shown at tills.",
)


class VouchersArgs(PageArgs):
    """Which vouchers."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))


class VoucherMerchantSchema(ma.Schema):
    """Who takes a voucher."""

    code = ma.fields.String(required=True)
    name = ma.fields.String(required=True)


class VoucherStoreSchema(VoucherMerchantSchema):
    """The one store where a voucher is used."""

    address = ma.fields.String(required=True)


class VoucherSchema(ma.Schema):
    """A voucher. Unused it lapses after `valid_until`: with `unused` refund its points come back on
    `returns_on`, with lapse they do not."""

    id = ma.fields.String(required=True)
    order = ma.fields.String(required=True)
    reward = ma.fields.String(required=True)
    kind = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    merchant = ma.fields.Nested(VoucherMerchantSchema, required=True)
    store = ma.fields.Nested(VoucherStoreSchema, required=True, allow_none=True)
    points = ma.fields.String(required=True)
    state = ma.fields.String(required=True, metadata={"enum": list(STATES)})
    valid_until = ma.fields.String(required=True, metadata={"format": "date"})
    unused = ma.fields.String(required=True, metadata={"enum": ["refund", "lapse"]})
    returns_on = ma.fields.String(required=True, allow_none=True, metadata={"format": "date"})
    issued_at = ma.fields.String(required=True)
    issued_date = ma.fields.String(required=True)
    changed_at = ma.fields.String(required=True)
    changed_date = ma.fields.String(required=True)


class WholeVoucherSchema(VoucherSchema):
    """A voucher with its code, which a till may also be told or shown in print, and its terms."""

    code = ma.fields.String(required=True)
    text_zh = ma.fields.String(required=True)


class VouchersSchema(ma.Schema):
    """A page of vouchers, newest first."""

    items = ma.fields.List(ma.fields.Nested(VoucherSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class VoucherCodeArgs(ma.Schema):
    """Nothing is asked but which voucher."""


class VoucherCodeSchema(ma.Schema):
    """What to draw as QR codes: the digits, until they expire or are used; and `offline`, for a
    till without network, or null if this voucher is taken online only."""

    code = ma.fields.String(required=True, metadata={"pattern": "^96[0-9]{18}$"})
    expires_at = ma.fields.String(required=True)
    refresh_s = ma.fields.Integer(required=True)
    offline = ma.fields.String(
        required=True, allow_none=True, metadata={"pattern": "^PV1:[A-Z2-7]{208}$"}
    )


class VoucherKeySchema(ma.Schema):
    """A key: its id, the 32 raw bytes in base64, and until when it signed (null: it still does)."""

    id = ma.fields.String(required=True)
    public_key = ma.fields.String(required=True)
    until = ma.fields.String(required=True, allow_none=True)


class VoucherKeysSchema(ma.Schema):
    """What a till needs to take vouchers without network, fetched while it has some."""

    keys = ma.fields.List(ma.fields.Nested(VoucherKeySchema), required=True)
    minutes = ma.fields.Integer(required=True)
    points = ma.fields.String(required=True)
    per_till_day = ma.fields.Integer(required=True)
    report_days = ma.fields.Integer(required=True)


@blp.serve("GET", "/me/vouchers", gives=VouchersSchema, guard=resident, query=VouchersArgs)
def list_vouchers(args: dict[str, Any]) -> Response:
    """我的卡券 · One's vouchers, newest first."""
    limit, before = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = vouchers.newest(tx, g.resident, args.get("state"), before, limit + 1, _today())
        wait = late(tx)
    last = found[limit - 1].voucher if len(found) > limit else None
    more = last and cursor_of(f"{last.issued_at.isoformat()} {last.id}")
    return answer(page([_shown(one, wait) for one in found[:limit]], more))


@blp.serve("GET", "/me/vouchers/<voucher>", gives=WholeVoucherSchema, guard=resident)
def get_voucher(voucher: str) -> Response:
    """卡券详情 · A voucher with its code and its terms."""
    here, known = wired(), _known(voucher)
    with here.engine.connect() as tx:
        found = vouchers.shown(tx, known, g.resident, _today())
        wrapped = statements.wrapped_key(tx, g.resident)
        wait = late(tx)
    if found is None or wrapped is None:
        raise _unknown()
    code = read_code(here.vault.subject_key(g.resident, wrapped), found.voucher)
    return answer({**_shown(found, wait), "code": code, "text_zh": found.text})


@blp.serve(
    "POST",
    "/me/vouchers/<voucher>/code",
    gives=VoucherCodeSchema,
    guard=resident,
    body=VoucherCodeArgs,
)
def post_voucher_code(args: dict[str, Any], voucher: str) -> Response:
    """出示卡券 · A fresh code to show at a till, good for one use; show the next one after
    `refresh_s`."""
    here, known, now = wired(), _known(voucher), wired().clock()
    device = bytes.fromhex(g.sign_in) if g.sign_in else None
    parts = (here.vault, g.resident, known, device, now)
    made = transact(here.engine, lambda tx: show(tx, *parts))
    return answer(
        {
            "code": made.code.code,
            "expires_at": instant(made.code.expires_at),
            "refresh_s": REFRESH_S,
            "offline": made.offline,
        }
    )


@blp.serve("GET", "/voucher-keys", gives=VoucherKeysSchema)
def get_voucher_keys() -> Response:
    """离线卡券公钥 · The keys that vouchers for tills without network are signed with, and the
    limits. Fetch it daily."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")
    here = wired()
    with here.engine.connect() as tx:
        made = {
            "keys": [
                {
                    "id": one.id,
                    "public_key": b64encode(one.public.public_bytes_raw()).decode(),
                    "until": one.until and instant(datetime.fromtimestamp(one.until, UTC)),
                }
                for one in keys(here.vault).values()
            ],
            "minutes": setting(tx, "offline_minutes"),
            "points": str(setting(tx, "offline_points")),
            "per_till_day": setting(tx, "offline_per_till_day"),
            "report_days": setting(tx, "offline_days"),
        }
    given = answer(made)
    given.headers["Cache-Control"] = f"public, max-age={_KEYS_KEPT_S}"
    return given


def _shown(one: Shown, wait: timedelta) -> dict[str, Any]:
    found = one.voucher
    returns = one.unused == "refund" and found.state in ("issued", "lapsed")
    last = date.fromisoformat(str(found.valid_until))
    place = {"code": one.store_code, "name": one.store_name, "address": one.address}
    return {
        "id": found.id,
        "order": found.order,
        "reward": found.reward,
        "kind": one.kind,
        "title_zh": one.title,
        "merchant": {"code": one.merchant_code, "name": one.merchant_name},
        "store": place if one.store_code is not None else None,
        "points": str(found.points),
        "state": found.state,
        "valid_until": calendar_day(found.valid_until),
        "unused": one.unused,
        "returns_on": (last + wait + timedelta(days=1)).isoformat() if returns else None,
        **stamp("issued", found.issued_at),
        **stamp("changed", found.changed_at),
    }


def _today() -> int:
    return day_number(wired().clock().astimezone(CITY_ZONE).date())


def _known(id: str) -> str:
    if not _ID.fullmatch(id):
        raise _unknown()
    return id


def _unknown() -> Problem:
    return Problem("NOT_FOUND", "you have no voucher of this id")
