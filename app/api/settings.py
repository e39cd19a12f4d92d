"""For operators: what is set while the program runs."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response, g

from app.api.wire import Blueprint, answer, stamp, tagged
from app.auth import admin
from app.flows.setting import SETTINGS, Stands, change, everything, stands
from app.store.db import transact
from app.wiring import wired

blp = Blueprint(
    "settings",
    __name__,
    url_prefix="/api/v1/admin/settings",
    description="设置：运行中可更改的参数。Settings: numbers and templates changed while it runs.",
)


class SettingValueSchema(ma.Schema):
    """What a setting is to be; which values it takes stands in its meaning and in the documents."""

    value = ma.fields.Raw(required=True, allow_none=True)


class SettingSchema(ma.Schema):
    """A setting. `etag` is for If-Match when it is changed; changed_at is null if it never was."""

    name = ma.fields.String(required=True)
    value = ma.fields.Raw(required=True, allow_none=True)
    default = ma.fields.Raw(required=True, allow_none=True)
    meaning = ma.fields.String(required=True)
    etag = ma.fields.String(required=True)
    changed_at = ma.fields.String(required=True, allow_none=True)
    changed_date = ma.fields.String(required=True, allow_none=True)


class SettingsSchema(ma.Schema):
    """All settings."""

    items = ma.fields.List(ma.fields.Nested(SettingSchema), required=True)


@blp.serve("GET", "", gives=SettingsSchema, guard=admin("operator", "auditor"))
def list_settings() -> Response:
    """全部设置 · Every setting as it stands."""
    with wired().engine.connect() as tx:
        found = everything(tx)
    return answer({"items": [_shown(one) for one in found]})


@blp.serve("GET", "/<setting>", gives=SettingSchema, guard=admin("operator", "auditor"))
def get_setting(setting: str) -> Response:
    """读取设置 · One setting as it stands. Mind its ETag."""
    with wired().engine.connect() as tx:
        found = stands(tx, setting)
    return tagged(answer(_shown(found)), str(found.revision))


@blp.serve(
    "PUT",
    "/<setting>",
    gives=SettingSchema,
    guard=admin("operator"),
    body=SettingValueSchema,
    match=True,
)
def put_setting(args: dict[str, Any], setting: str) -> Response:
    """更改设置 · Give a setting another value; it counts from this moment on."""
    here, who, seen = wired(), g.admin.name, g.revision
    made = transact(
        here.engine, lambda tx: change(tx, who, setting, args["value"], seen, here.clock())
    )
    return tagged(answer(_shown(made)), str(made.revision))


def _shown(one: Stands) -> dict[str, Any]:
    never = {"changed_at": None, "changed_date": None}
    return {
        "name": one.name,
        "value": one.value,
        "default": SETTINGS[one.name].default,
        "meaning": SETTINGS[one.name].meaning,
        "etag": f'"{one.revision}"',
        **(stamp("changed", one.changed_at) if one.changed_at else never),
    }
