"""For merchants: their application, and their own house: stores, tills, staff and keys."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from typing import Any

import marshmallow as ma
from flask import Response, g, request
from sqlalchemy import Connection

from app import limits
from app.api.partner_forms import (
    LINE,
    OWN_CODE,
    ApplicationSchema,
    MerchantKeySchema,
    MerchantProfileSchema,
    RoleSchema,
    district,
    key,
    own_code,
    profile,
)
from app.api.wire import Blueprint, Pattern, answer, stamp
from app.auth import head_office, received, verify_request
from app.auth import merchant as any_key
from app.errors import Problem
from app.flows import public_key
from app.flows.partner import keys, staff, stores
from app.flows.partner.apply import Application, apply
from app.signature import AuthError, holds
from app.store import merchants, premises
from app.store.db import transact
from app.store.merchants import Key, Merchant, Partner
from app.store.premises import Employee, Store, TillFace
from app.wiring import wired

blp = Blueprint(
    "merchant",
    __name__,
    url_prefix="/api/v1/merchant",
    description="商户自管：入驻申请、门店、收银机、员工、密钥。A merchant's own house.",
)


class StoreBodySchema(ma.Schema):
    """A store as the merchant wants it kept."""

    name = ma.fields.String(required=True, validate=LINE)
    district = district(required=True)
    address = ma.fields.String(required=True, validate=LINE)
    open = ma.fields.Boolean(load_default=True, truthy={True}, falsy={False})


class MerchantStoreSchema(ma.Schema):
    """A store."""

    code = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    district = ma.fields.String(required=True)
    address = ma.fields.String(required=True)
    open = ma.fields.Boolean(required=True)


class MerchantStoresSchema(ma.Schema):
    """All stores, by code."""

    items = ma.fields.List(ma.fields.Nested(MerchantStoreSchema), required=True)


class TillBodySchema(ma.Schema):
    """A till as the merchant wants it kept; `store` is the code of one of its stores."""

    store = own_code(required=True)
    open = ma.fields.Boolean(load_default=True, truthy={True}, falsy={False})


class TillSchema(ma.Schema):
    """A till."""

    code = ma.fields.String(required=True)
    store = ma.fields.String(required=True)
    open = ma.fields.Boolean(required=True)


class TillsSchema(ma.Schema):
    """All tills, by code."""

    items = ma.fields.List(ma.fields.Nested(TillSchema), required=True)


class EmployeeSchema(ma.Schema):
    """An employee. `linked`: they said in the mini-program that they work here; which resident
    they are is told to nobody."""

    number = ma.fields.String(required=True)
    role = ma.fields.String(required=True)
    active = ma.fields.Boolean(required=True)
    linked = ma.fields.Boolean(required=True)
    link_expires_at = ma.fields.String()
    link_expires_date = ma.fields.String()


class StaffSchema(ma.Schema):
    """All who work or worked here, by number."""

    items = ma.fields.List(ma.fields.Nested(EmployeeSchema), required=True)


class NewStaffCodeSchema(ma.Schema):
    """A code for one employee, good once; shown this time only."""

    code = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True)
    expires_date = ma.fields.String(required=True)


class NewKeySchema(ma.Schema):
    """A further key, proved to be the sender's, for all the merchant does or for one till."""

    public_key = ma.fields.String(required=True, validate=ma.validate.Length(40, 2000))
    proof = ma.fields.String(
        required=True,
        validate=Pattern("^[A-Za-z0-9+/]{1,1400}={0,2}$", error="must be padded base64"),
        metadata={"description": "the new key's signature, in base64, over its key_id"},
    )
    till = own_code(load_default=None, allow_none=True)


class MerchantKeysSchema(ma.Schema):
    """All keys, the newest first."""

    items = ma.fields.List(ma.fields.Nested(MerchantKeySchema), required=True)


@blp.serve("POST", "/applications", gives=MerchantProfileSchema, status=201, body=ApplicationSchema)
def post_application(body: dict[str, Any]) -> Response:
    """入驻申请 · Apply to become a merchant; an operator decides.

    The request is signed by the very key it brings, under the `key_id` `{code}-{the first 16 hex
    digits of SHA-256 of the key's DER}`: so nobody registers another's key, and no secret travels.
    The same application again is answered how it stands.
    """
    limits.spend(limits.APPLICATION, request.remote_addr or "-")
    here = wired()
    brought = public_key.read_public(body.pop("public_key"))
    named = public_key.key_id(body["code"], brought.der)

    def own(_: Connection, key_id: str) -> Key:
        if key_id != named:
            raise AuthError("KEY_UNKNOWN", f"sign with the key you bring, under key_id {named}")
        return Key(Partner("", body["code"], "applied", None), *brought, None)

    now = here.clock()
    verify_request(here.engine, now, request.headers.get("Authorization"), received(), own)
    said = Application(**body)

    def work(tx: Connection) -> dict[str, Any]:
        return _profile(tx, apply(tx, here.vault, said, brought, now))

    return answer(transact(here.engine, work), 201)


@blp.serve("GET", "/profile", gives=MerchantProfileSchema, guard=any_key)
def get_profile() -> Response:
    """商户概况 · The merchant's state, terms, and the points it may still redeem."""
    with wired().engine.connect() as tx:
        one = merchants.by_id(tx, g.merchant.id)
        assert one is not None  # noqa: S101 (no merchant is ever deleted)
        made = _profile(tx, one)
    return answer(made)


@blp.serve("GET", "/stores", gives=MerchantStoresSchema, guard=any_key)
def list_stores() -> Response:
    """门店 · All stores."""
    with wired().engine.connect() as tx:
        found = premises.stores(tx, g.merchant.id)
    return answer({"items": [_store(one) for one in found]})


@blp.serve(
    "PUT", "/stores/<store>", gives=MerchantStoreSchema, guard=head_office, body=StoreBodySchema
)
def put_store(body: dict[str, Any], store: str) -> Response:
    """设置门店 · Keep a store under your own code for it. A closed one is not shown to residents,
    and its tills charge nobody."""
    who, code = g.merchant.id, _own(store)
    made = transact(wired().engine, lambda tx: stores.put_store(tx, who, code, body))
    return answer(_store(made))


@blp.serve("GET", "/tills", gives=TillsSchema, guard=any_key)
def list_tills() -> Response:
    """收银机 · All tills."""
    with wired().engine.connect() as tx:
        found = premises.tills(tx, g.merchant.id)
    return answer({"items": [_till(one) for one in found]})


@blp.serve("PUT", "/tills/<till>", gives=TillSchema, guard=head_office, body=TillBodySchema)
def put_till(body: dict[str, Any], till: str) -> Response:
    """设置收银机 · Keep a till under your own code for it, in one of your stores."""
    who, code, store = g.merchant.id, _own(till), body["store"]
    made = transact(
        wired().engine,
        lambda tx: stores.put_till(tx, who, code, store, is_open=body["open"]),
    )
    return answer(_till(made))


@blp.serve("GET", "/staff", gives=StaffSchema, guard=head_office)
def list_staff() -> Response:
    """员工 · All who work or worked here."""
    here = wired()
    with here.engine.connect() as tx:
        found = premises.staff(tx, g.merchant.id, here.clock())
    return answer({"items": [_employee(one) for one in found]})


@blp.serve("PUT", "/staff/<number>", gives=EmployeeSchema, guard=head_office, body=RoleSchema)
def put_employee(body: dict[str, Any], number: str) -> Response:
    """设置员工 · Keep an employee under your own number for them.

    Once a merchant has named staff, refunds and voids need a manager or an owner.
    """
    who, code, now = g.merchant.id, _own(number), wired().clock()

    def work(tx: Connection) -> Employee:
        premises.put_employee(tx, who, code, body["role"], active=body["active"])
        return next(one for one in premises.staff(tx, who, now) if one.number == code)

    return answer(_employee(transact(wired().engine, work)))


@blp.serve("POST", "/staff/<number>/link-code", gives=NewStaffCodeSchema, guard=head_office)
def post_link_code(number: str) -> Response:
    """员工绑定码 · A code that the employee enters in the mini-program within 30 minutes, so that
    nobody redeems points where they work. A new one replaces the one before."""
    here, who, code = wired(), g.merchant.id, _own(number)
    now = here.clock()
    made, until = transact(
        here.engine, lambda tx: staff.new_link_code(tx, here.vault, who, code, now)
    )
    return answer({"code": made, **stamp("expires", until)})


@blp.serve("GET", "/keys", gives=MerchantKeysSchema, guard=head_office)
def list_keys() -> Response:
    """密钥 · All keys that ever signed for this merchant."""
    return answer({"items": _keys()})


@blp.serve(
    "POST", "/keys", gives=MerchantKeySchema, status=201, guard=head_office, body=NewKeySchema
)
def post_key(body: dict[str, Any]) -> Response:
    """登记密钥 · Register a further key. Two of the merchant, and two of each till, may be in force
    at once. The same again changes nothing."""
    here, code = wired(), g.merchant.code
    brought = public_key.read_public(body["public_key"])
    named = public_key.key_id(code, brought.der)
    try:
        proof = b64decode(body["proof"], validate=True)
    except Base64Error:
        proof = b""
    if not holds(brought.der, proof, named.encode()):
        message = f"must be the new key's signature over {named}"
        raise Problem(
            "VALIDATION_FAILED",
            "the proof does not hold",
            errors=[{"field": "proof", "message": message}],
        )
    now, till = here.clock(), body["till"]
    made = transact(here.engine, lambda tx: keys.add_key(tx, code, till, brought, now))
    return answer(next(one for one in _keys() if one["key_id"] == made), 201)


@blp.serve("POST", "/keys/<key_id>/revoke", gives=MerchantKeySchema, guard=head_office)
def post_revoke(key_id: str) -> Response:
    """停用密钥 · Refuse a key from now on. The last one of the merchant itself stays."""
    here, code = wired(), g.merchant.code
    now = here.clock()
    transact(here.engine, lambda tx: keys.revoke_key(tx, code, key_id, now))
    return answer(next(one for one in _keys() if one["key_id"] == key_id))


def _keys() -> list[dict[str, Any]]:
    with wired().engine.connect() as tx:
        return [key(one) for one in merchants.keys(tx, g.merchant.id)]


def _profile(tx: Connection, one: Merchant) -> dict[str, Any]:
    return profile(one, merchants.contract(tx, one.id), merchants.allowance(tx, one.id))


def _own(code: str) -> str:
    if not re.fullmatch(OWN_CODE, code):
        raise Problem(
            "VALIDATION_FAILED",
            "a code of your own is 1 to 32 of A-Z a-z 0-9 _ - and begins with a letter or digit",
        )
    return code


def _store(one: Store) -> dict[str, Any]:
    return {name: value for name, value in one._asdict().items() if name != "id"}


def _till(one: TillFace) -> dict[str, Any]:
    return one._asdict()


def _employee(one: Employee) -> dict[str, Any]:
    made = {name: value for name, value in one._asdict().items() if name != "link_expires_at"}
    until = one.link_expires_at
    return made | (stamp("link_expires", until) if until else {})
