"""Trying things out, in demo and test mode only: a token for any resident, without a password."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response

from app.api.wire import Blueprint, Pattern, answer
from app.errors import Problem
from app.flows.tokens import ACCESS_S, issue_access_token
from app.store import statements
from app.wiring import wired

_SHOWN = 20

blp = Blueprint(
    "sandbox",
    __name__,
    url_prefix="/api/v1/sandbox",
    description="沙箱：仅演示与测试模式。Demo and test mode only; absent in production.",
)


class LoginSchema(ma.Schema):
    """Whom to be."""

    resident = ma.fields.String(
        required=True,
        validate=Pattern("^[0-9a-f]{32}$", error="must be 32 lower-case hex digits"),
    )


class TokenSchema(ma.Schema):
    """An access token."""

    access_token = ma.fields.String(required=True)
    token_type = ma.fields.String(required=True)
    expires_in = ma.fields.Integer(required=True, metadata={"description": "seconds"})


class ResidentsSchema(ma.Schema):
    """Residents to try."""

    items = ma.fields.List(ma.fields.String(), required=True)


class WeChatSchema(ma.Schema):
    """Whom this city takes for WeChat, and its mini-program there."""

    url = ma.fields.String(required=True)
    app_id = ma.fields.String(required=True)


@blp.serve("GET", "/residents", gives=ResidentsSchema)
def get_residents() -> Response:
    """可试用的居民 · A few residents to log in as, those who avoided most carbon first."""
    with wired().engine.connect() as tx:
        return answer({"items": statements.greatest_savers(tx, _SHOWN)})


@blp.serve("POST", "/login", gives=TokenSchema, body=LoginSchema)
def post_login(args: dict[str, Any]) -> Response:
    """沙箱登录 · An access token for a resident."""
    here = wired()
    with here.engine.connect() as tx:
        if statements.wrapped_key(tx, args["resident"]) is None:
            raise Problem("NOT_FOUND", "there is no such resident")
    token = issue_access_token(here.vault.token, args["resident"], here.clock())
    return answer({"access_token": token, "token_type": "Bearer", "expires_in": ACCESS_S})


@blp.serve("GET", "/wechat", gives=WeChatSchema)
def get_wechat() -> Response:
    """微信替身 · Where this city asks WeChat: in the demo, a stand-in next to it that hands out
    codes at POST /stand-in/codes."""
    config = wired().config
    return answer({"url": config.wechat_base, "app_id": config.wechat_app_id})
