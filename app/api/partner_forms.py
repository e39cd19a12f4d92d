"""What merchants and operators send of partners and are answered, as the documents describe it."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from app.api.wire import PageArgs, Pattern, line, stamp
from app.flows.join import DISTRICTS
from app.flows.partner.licence import is_licence
from app.store.merchants import ROLES, STATES, Contract, KeyFace, Merchant

CODE = "^[a-z0-9][a-z0-9-]{1,30}$"
OWN_CODE = "^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
LINE = line(100)
_POINTS = Pattern("^(0|[1-9][0-9]{0,14})$", error="must be a whole number, as text")


def district(**more: Any) -> ma.fields.String:
    """A county of the city."""
    return ma.fields.String(
        validate=ma.validate.OneOf(DISTRICTS, error="must be one of the city's districts"),
        metadata={"description": "GB/T 2260", "example": "140403"},
        **more,
    )


def own_code(**more: Any) -> ma.fields.String:
    """A merchant's own code or number for something of its own."""
    error = "must be 1 to 32 of A-Z a-z 0-9 _ - and begin with a letter or digit"
    return ma.fields.String(validate=Pattern(OWN_CODE, error=error), **more)


def _licence(value: str) -> None:
    if not is_licence(value):
        raise ma.ValidationError("must be a unified social credit code (GB 32100-2015)")


class MerchantContactSchema(ma.Schema):
    """Whom operators may call; stored sealed."""

    person = ma.fields.String(required=True, validate=LINE)
    phone = ma.fields.String(
        required=True, validate=Pattern(r"^\+?[0-9][0-9 -]{5,19}$", error="must be a phone number")
    )
    email = ma.fields.String(validate=[ma.validate.Email(), ma.validate.Length(3, 100)])


class ApplicationSchema(ma.Schema):
    """An application to become a merchant, signed by the key it brings."""

    code = ma.fields.String(
        required=True,
        validate=Pattern(CODE, error="must be 2 to 31 of a-z 0-9 - and not begin with -"),
        metadata={"description": "what the merchant is called in addresses, for good"},
    )
    name = ma.fields.String(required=True, validate=LINE)
    licence = ma.fields.String(
        required=True,
        validate=_licence,
        metadata={"description": "unified social credit code", "example": "91350100M000100Y43"},
    )
    contact = ma.fields.Nested(MerchantContactSchema, required=True)
    public_key = ma.fields.String(
        required=True,
        validate=ma.validate.Length(40, 2000),
        metadata={"description": "PEM, or base64 of its SubjectPublicKeyInfo in DER"},
    )


class ContractTermsSchema(ma.Schema):
    """New terms: who pays the merchant for points, how the allowance comes about, and when the
    merchant is told that little is left of it."""

    payer = ma.fields.String(required=True, validate=ma.validate.OneOf(["city", "merchant"]))
    mode = ma.fields.String(required=True, validate=ma.validate.OneOf(["prepaid", "postpaid"]))
    fen_per_100_points = ma.fields.Integer(
        strict=True, required=True, validate=ma.validate.Range(0, 1_000_000)
    )
    limit_points = ma.fields.String(
        load_default="0",
        validate=_POINTS,
        metadata={"description": "of a postpaid one: the allowance until bills are paid"},
    )
    alert_points = ma.fields.String(load_default="0", validate=_POINTS)
    reference = ma.fields.String(required=True, validate=LINE)

    @ma.validates_schema
    def fitting(self, data: dict[str, Any], **_: Any) -> None:
        """A limit is a postpaid contract's; nobody is paid for what they bear themselves."""
        if (data.get("mode") == "postpaid") != (data.get("limit_points", "0") != "0"):
            raise ma.ValidationError("is needed if postpaid, and 0 if prepaid", "limit_points")
        if data.get("payer") == "merchant" and data.get("fen_per_100_points"):
            raise ma.ValidationError("is 0 if the merchant bears it itself", "fen_per_100_points")


class ContractSchema(ma.Schema):
    """Terms; those with the highest number are in force."""

    number = ma.fields.Integer(required=True)
    payer = ma.fields.String(required=True)
    mode = ma.fields.String(required=True)
    fen_per_100_points = ma.fields.Integer(required=True)
    limit_points = ma.fields.String(required=True)
    alert_points = ma.fields.String(required=True)
    reference = ma.fields.String(required=True)
    made_at = ma.fields.String(required=True)
    made_date = ma.fields.String(required=True)


class MerchantSchema(ma.Schema):
    """A merchant in short. `low_at`: since when its allowance is below the contract's alert level,
    noted within a minute."""

    code = ma.fields.String(required=True)
    name = ma.fields.String(required=True)
    licence = ma.fields.String(required=True)
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(STATES))
    reason = ma.fields.String(required=True)
    revision = ma.fields.Integer(required=True)
    sandbox = ma.fields.Boolean(required=True)
    applied_at = ma.fields.String(required=True)
    applied_date = ma.fields.String(required=True)
    decided_at = ma.fields.String()
    decided_date = ma.fields.String()
    low_at = ma.fields.String()
    low_date = ma.fields.String()


class MerchantProfileSchema(MerchantSchema):
    """A merchant with the terms in force and the points it may still redeem."""

    id = ma.fields.String(
        required=True, metadata={"description": "its account in the ledger; vouchers name it"}
    )
    contract = ma.fields.Nested(ContractSchema, required=True, allow_none=True)
    allowance_points = ma.fields.String(required=True)


class MerchantKeySchema(ma.Schema):
    """A key; `till` is the one till it acts for, or null."""

    key_id = ma.fields.String(required=True)
    till = ma.fields.String(required=True, allow_none=True)
    algorithm = ma.fields.String(required=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)
    revoked_at = ma.fields.String()
    revoked_date = ma.fields.String()


class PartnerSchema(MerchantProfileSchema):
    """A merchant whole, as operators see it."""

    contact = ma.fields.Nested(MerchantContactSchema, required=True)
    contracts = ma.fields.List(ma.fields.Nested(ContractSchema), required=True)
    keys = ma.fields.List(ma.fields.Nested(MerchantKeySchema), required=True)


class MerchantsSchema(ma.Schema):
    """A page of merchants, by code."""

    items = ma.fields.List(ma.fields.Nested(MerchantSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class MerchantsArgs(PageArgs):
    """Which merchants: in a state, or with this in code, name or licence."""

    state = ma.fields.String(validate=ma.validate.OneOf(STATES))
    q = ma.fields.String(validate=ma.validate.Length(1, 50))


class RoleSchema(ma.Schema):
    """An employee as the merchant wants them kept."""

    role = ma.fields.String(required=True, validate=ma.validate.OneOf(ROLES))
    active = ma.fields.Boolean(load_default=True, truthy={True}, falsy={False})


def head(one: Merchant) -> dict[str, Any]:
    """A merchant as MerchantSchema describes it."""
    return {
        "code": one.code,
        "name": one.name,
        "licence": one.licence,
        "state": one.state,
        "reason": one.reason,
        "revision": one.revision,
        "sandbox": one.sandbox,
        **stamp("applied", one.applied_at),
        **(stamp("decided", one.decided_at) if one.decided_at else {}),
        **(stamp("low", one.low_at) if one.low_at else {}),
    }


def terms(one: Contract) -> dict[str, Any]:
    """A contract as ContractSchema describes it."""
    points = {"limit_points": str(one.limit_points), "alert_points": str(one.alert_points)}
    return one._asdict() | points | stamp("made", one.made_at)


def profile(one: Merchant, contract: Contract | None, allowance: int) -> dict[str, Any]:
    """A merchant as MerchantProfileSchema describes it."""
    return head(one) | {
        "id": one.id,
        "contract": terms(contract) if contract else None,
        "allowance_points": str(allowance),
    }


def key(one: KeyFace) -> dict[str, Any]:
    """A key as MerchantKeySchema describes it."""
    made = {"key_id": one.key_id, "till": one.till, "algorithm": one.algorithm}
    made |= stamp("created", one.created_at)
    return made | (stamp("revoked", one.revoked_at) if one.revoked_at else {})
