"""For residents: in by WeChat's code, on by a refresh token, out here or everywhere; the phone."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response, g, request

from app import limits
from app.api.wire import Blueprint, Pattern, answer
from app.auth import resident
from app.flows import sign_in
from app.flows.phone import verify_phone
from app.flows.sign_in import REFRESH_LIFE, Tokens
from app.flows.tokens import ACCESS_S, JOIN_S
from app.store import logins
from app.store.db import transact
from app.wiring import wired

blp = Blueprint(
    "login",
    __name__,
    url_prefix="/api/v1",
    description="登录：微信登录、续期、退出、手机号。Residents sign in and out.",
)

_CODE = Pattern("^[A-Za-z0-9_-]{1,128}$", error="must be the code as WeChat gave it")


class CodeArgsSchema(ma.Schema):
    """A code that WeChat gave the mini-program."""

    code = ma.fields.String(required=True, validate=_CODE)


class RefreshArgsSchema(ma.Schema):
    """The refresh token that was given last."""

    refresh_token = ma.fields.String(
        required=True,
        validate=Pattern("^[A-Za-z0-9_-]{43}$", error="must be the refresh token as it was given"),
    )


class TokensSchema(ma.Schema):
    """What to go on with: the access token for every request, the refresh token once."""

    access_token = ma.fields.String(required=True)
    token_type = ma.fields.String(required=True)
    expires_in = ma.fields.Integer(required=True, metadata={"description": "seconds"})
    refresh_token = ma.fields.String(required=True)
    refresh_expires_in = ma.fields.Integer(required=True, metadata={"description": "seconds"})


class LoginAnswerSchema(ma.Schema):
    """Tokens for who has joined; for who has not, a join_token for POST /api/v1/join."""

    joined = ma.fields.Boolean(required=True)
    access_token = ma.fields.String()
    token_type = ma.fields.String()
    expires_in = ma.fields.Integer(required=True, metadata={"description": "seconds"})
    refresh_token = ma.fields.String()
    refresh_expires_in = ma.fields.Integer()
    join_token = ma.fields.String()


class SignedOutSchema(ma.Schema):
    """That it was done."""

    done = ma.fields.Boolean(required=True)


class PhoneSchema(ma.Schema):
    """The number that was verified, most of it hidden; null if there is none."""

    phone = ma.fields.String(required=True, allow_none=True, metadata={"example": "138****8000"})


@blp.serve("POST", "/login", gives=LoginAnswerSchema, body=CodeArgsSchema)
def post_login(args: dict[str, Any]) -> Response:
    """微信登录 · Sign in with the code of wx.login.

    The same code within a minute gets the same answer, so a double tap or a lost answer is safe
    without an Idempotency-Key.
    """
    limits.spend(limits.SIGN_IN, request.remote_addr or "-")
    here = wired()
    found = sign_in.log_in(here.engine, here.vault, here.wechat, args["code"], here.clock)
    if "join_token" in found:
        return answer({"joined": False, "join_token": found["join_token"], "expires_in": JOIN_S})
    return answer({"joined": True, **spoken(Tokens(**found))})


@blp.serve("POST", "/login/refresh", gives=TokensSchema, body=RefreshArgsSchema)
def post_refresh(args: dict[str, Any]) -> Response:
    """续期 · New tokens for the refresh token given last.

    It works once. Sent again within a minute, for an answer that got lost, it gets the same
    successor; sent later, it ends the sign-in, since two must have it.
    """
    limits.spend(limits.SIGN_IN, request.remote_addr or "-")
    here = wired()
    made = sign_in.refresh(here.engine, here.vault, args["refresh_token"], here.clock())
    return answer(spoken(made))


@blp.serve("POST", "/me/sign-out", gives=SignedOutSchema, guard=resident)
def post_sign_out() -> Response:
    """退出登录 · End the sign-in this token is of."""
    here = wired()
    sign_in.sign_out(here.engine, g.sign_in, here.clock())
    here.sign_outs.look_again()
    return answer({"done": True})


@blp.serve("POST", "/me/sign-out-everywhere", gives=SignedOutSchema, guard=resident)
def post_sign_out_everywhere() -> Response:
    """在所有设备退出 · End every sign-in; all tokens of this account are dead in two seconds."""
    here, who = wired(), g.resident
    transact(here.engine, lambda tx: sign_in.sign_out_everywhere(tx, who, here.clock()))
    here.sign_outs.look_again()
    return answer({"done": True})


@blp.serve("PUT", "/me/phone", gives=PhoneSchema, guard=resident, body=CodeArgsSchema)
def put_phone(args: dict[str, Any]) -> Response:
    """绑定手机号 · Keep the number behind the phone button's own code (not that of wx.login)."""
    here = wired()
    number = verify_phone(
        here.engine, here.vault, here.wechat, g.resident, args["code"], here.clock
    )
    return answer({"phone": number})


@blp.serve("POST", "/me/phone/forget", gives=PhoneSchema, guard=resident)
def post_phone_forget() -> Response:
    """删除手机号 · Drop the number."""
    who = g.resident
    transact(wired().engine, lambda tx: logins.forget_phone(tx, who))
    return answer({"phone": None})


def spoken(made: Tokens) -> dict[str, Any]:
    """Tokens as an answer has them."""
    return {
        "access_token": made.access_token,
        "token_type": "Bearer",
        "expires_in": ACCESS_S,
        "refresh_token": made.refresh_token,
        "refresh_expires_in": int(REFRESH_LIFE.total_seconds()),
    }
