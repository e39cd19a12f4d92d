"""For administrators: logging in and out, and the administrators themselves."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response, g, request

from app import limits
from app.api.wire import Blueprint, Pattern, answer, answer_once, stamp, tagged
from app.auth import admin, session_token
from app.errors import Problem
from app.flows import administer, login
from app.store import admins
from app.store.admins import ROLES, Account
from app.store.db import transact
from app.wiring import wired

blp = Blueprint(
    "admins",
    __name__,
    url_prefix="/api/v1/admin",
    description="管理员：登录、账号、角色。Administrators: sessions, accounts and roles.",
)

_NAME = Pattern(admins.NAME, error="must be 3 to 32 of a-z 0-9 . _ -, beginning with a letter")
_SHORT = ma.validate.Length(1, 200)


def _roles() -> ma.fields.List[Any]:
    return ma.fields.List(
        ma.fields.String(validate=ma.validate.OneOf(ROLES)),
        required=True,
        validate=ma.validate.Length(1, len(ROLES)),
    )


class AdminLoginSchema(ma.Schema):
    """Who logs in, and how they prove it."""

    name = ma.fields.String(required=True, validate=_SHORT)
    password = ma.fields.String(required=True, validate=_SHORT)
    code = ma.fields.String(
        required=True, validate=Pattern("^[0-9]{6}$", error="must be the six digits shown now")
    )


class AdminSessionSchema(ma.Schema):
    """An open session. The token is shown here only; it also ends when it is idle too long."""

    token = ma.fields.String(required=True)
    token_type = ma.fields.String(required=True, validate=ma.validate.OneOf(["Bearer"]))
    expires_at = ma.fields.String(required=True)
    expires_date = ma.fields.String(required=True)
    idle_minutes = ma.fields.Integer(required=True)
    name = ma.fields.String(required=True)
    roles = _roles()


class MeSchema(ma.Schema):
    """Who asks."""

    name = ma.fields.String(required=True)
    roles = _roles()


class DoneSchema(ma.Schema):
    """That it was done."""

    done = ma.fields.Boolean(required=True)


class PasswordSchema(ma.Schema):
    """One's password now, and the one to be."""

    current = ma.fields.String(required=True, validate=_SHORT)
    new = ma.fields.String(
        required=True,
        validate=_SHORT,
        metadata={"description": f"{login.MIN_PASSWORD} to {login.MAX_PASSWORD} characters"},
    )


class NewAdminSchema(ma.Schema):
    """An administrator to be."""

    name = ma.fields.String(required=True, validate=_NAME)
    roles = _roles()


class RolesSchema(ma.Schema):
    """The roles an administrator is to have."""

    roles = _roles()


class SetupSchema(ma.Schema):
    """What a new administrator logs in with. It is shown in this answer only."""

    name = ma.fields.String(required=True)
    roles = _roles()
    password = ma.fields.String(required=True)
    otpauth = ma.fields.String(
        required=True, metadata={"description": "address for an authenticator, or its QR code"}
    )


class AdminSchema(ma.Schema):
    """An administrator. `etag` is for If-Match when the roles are changed."""

    name = ma.fields.String(required=True)
    roles = _roles()
    etag = ma.fields.String(required=True)
    enabled = ma.fields.Boolean(required=True)
    locked = ma.fields.Boolean(required=True)
    created_at = ma.fields.String(required=True)
    created_date = ma.fields.String(required=True)


class AdminsSchema(ma.Schema):
    """All administrators, by name."""

    items = ma.fields.List(ma.fields.Nested(AdminSchema), required=True)


@blp.serve("POST", "/login", gives=AdminSessionSchema, body=AdminLoginSchema)
def post_login(args: dict[str, Any]) -> Response:
    """登录 · Open a session with name, password and one-time code.

    Whatever is wrong, the answer is the same LOGIN_FAILED. A code works once.
    """
    limits.spend(limits.LOGIN, request.remote_addr or "-")
    here = wired()
    made = login.log_in(
        here.engine, here.vault, args["name"], args["password"], args["code"], here.clock()
    )
    return answer(
        {
            "token": made.token,
            "token_type": "Bearer",
            **stamp("expires", made.expires_at),
            "idle_minutes": login.IDLE_MINUTES,
            "name": made.admin.name,
            "roles": made.admin.roles,
        }
    )


@blp.serve("POST", "/logout", gives=DoneSchema, guard=admin())
def post_logout() -> Response:
    """退出 · End this session."""
    here = wired()
    login.log_out(here.engine, session_token(), g.admin, here.clock())
    return answer({"done": True})


@blp.serve("GET", "/me", gives=MeSchema, guard=admin())
def get_me() -> Response:
    """我是谁 · The name and roles of this session."""
    return answer({"name": g.admin.name, "roles": g.admin.roles})


@blp.serve("POST", "/password", gives=DoneSchema, guard=admin(), body=PasswordSchema)
def post_password(args: dict[str, Any]) -> Response:
    """修改密码 · Change one's own password; one's other sessions end.

    It takes no Idempotency-Key: once it is done, `current` is wrong.
    """
    here = wired()
    login.change_password(
        here.engine, session_token(), g.admin, args["current"], args["new"], here.clock()
    )
    return answer({"done": True})


@blp.serve("GET", "/admins", gives=AdminsSchema, guard=admin("operator", "auditor"))
def get_admins() -> Response:
    """全部管理员 · Everybody, the disabled too."""
    with wired().engine.connect() as tx:
        found = admins.everyone(tx)
    return answer({"items": [_shown(one) for one in found]})


@blp.serve("GET", "/admins/<name>", gives=AdminSchema, guard=admin("operator", "auditor"))
def get_admin(name: str) -> Response:
    """一位管理员 · One administrator; the ETag is that of the roles."""
    with wired().engine.connect() as tx:
        found = admins.find(tx, name)
    if found is None:
        raise Problem("ADMIN_UNKNOWN", "there is no administrator of this name")
    return _answer(found)


@blp.serve(
    "POST",
    "/admins",
    gives=SetupSchema,
    guard=admin("operator"),
    body=NewAdminSchema,
    repeat=True,
)
def post_admin(args: dict[str, Any]) -> Response:
    """新增管理员 · Add an administrator; the answer holds what they log in with."""
    here, who = wired(), g.admin.name
    return answer_once(
        lambda tx: administer.create(
            tx, here.vault, who, args["name"], args["roles"], here.clock()
        )._asdict()
    )


@blp.serve(
    "PUT",
    "/admins/<name>/roles",
    gives=AdminSchema,
    guard=admin("operator"),
    body=RolesSchema,
    match=True,
)
def put_roles(args: dict[str, Any], name: str) -> Response:
    """更改角色 · Give somebody else these roles instead of those they have."""
    here, who, seen = wired(), g.admin.name, g.revision
    return _answer(
        transact(
            here.engine,
            lambda tx: administer.assign(tx, who, name, args["roles"], seen, here.clock()),
        )
    )


@blp.serve(
    "POST", "/admins/<name>/disable", gives=AdminSchema, guard=admin("operator"), repeat=True
)
def post_disable(name: str) -> Response:
    """停用管理员 · Let somebody else in no more; their sessions end at once."""
    here, who = wired(), g.admin.name
    return answer_once(lambda tx: _shown(administer.disable(tx, who, name, here.clock())))


@blp.serve("POST", "/admins/<name>/reset", gives=SetupSchema, guard=admin("operator"), repeat=True)
def post_reset(name: str) -> Response:
    """重置登录 · Give somebody else another password and code; unlocks and enables them."""
    here, who = wired(), g.admin.name
    return answer_once(
        lambda tx: administer.reset(tx, here.vault, who, name, here.clock())._asdict()
    )


def _answer(found: Account) -> Response:
    return tagged(answer(_shown(found)), administer.roles_revision(found.roles))


def _shown(found: Account) -> dict[str, Any]:
    return {
        "name": found.name,
        "roles": found.roles,
        "etag": f'"{administer.roles_revision(found.roles)}"',
        "enabled": found.disabled_at is None,
        "locked": found.locked_until is not None and found.locked_until > wired().clock(),
        **stamp("created", found.created_at),
    }
