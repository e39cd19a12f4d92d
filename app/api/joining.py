"""For those who join: privacy notices, joining with an age gate, guardians and their children."""

from __future__ import annotations

from datetime import date
from typing import Any

import marshmallow as ma
from flask import Response, g
from sqlalchemy import Connection

from app.api.consents import ConsentSchema, consent_shown
from app.api.login import TokensSchema, spoken
from app.api.wire import Blueprint, Pattern, answer, answer_once, instant, stamp
from app.auth import joiner, resident
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows import join, privacy
from app.flows.consent import withdraw_all
from app.store import consents, guardians, notices
from app.store.db import one_statement, transact
from app.wiring import wired

_OLDEST = 1900

blp = Blueprint(
    "joining",
    __name__,
    url_prefix="/api/v1",
    description="加入：隐私说明、年龄确认与监护人。Joining: notices, age, guardians.",
)

digest = Pattern("^[0-9a-f]{64}$", error="must be 64 lower-case hex digits")


class PrivacyNoticeSchema(ma.Schema):
    """A privacy notice."""

    number = ma.fields.Integer(required=True)
    digest = ma.fields.String(required=True, metadata={"description": "SHA-256 of the text"})
    text_zh = ma.fields.String(required=True, metadata={"description": "Markdown"})
    published_at = ma.fields.String(required=True)
    published_date = ma.fields.String(required=True)


class PrivacyNoticesSchema(ma.Schema):
    """Every notice, the newest first: that one is in force."""

    items = ma.fields.List(ma.fields.Nested(PrivacyNoticeSchema), required=True)


class AcceptNoticeSchema(ma.Schema):
    """A notice that was read."""

    number = ma.fields.Integer(strict=True, required=True, validate=ma.validate.Range(1, 9999))
    digest = ma.fields.String(required=True, validate=digest)


class JoinSchema(ma.Schema):
    """Who joins. The month of birth is only looked at, and not kept."""

    birth_month = ma.fields.String(
        required=True,
        validate=Pattern("^[0-9]{4}-(0[1-9]|1[0-2])$", error="must be a month YYYY-MM"),
    )
    district = ma.fields.String(
        required=True,
        validate=ma.validate.OneOf(sorted(join.DISTRICTS)),
        metadata={"description": "GB/T 2260 code of a county of the city"},
    )
    privacy_notice = ma.fields.Nested(AcceptNoticeSchema, required=True)
    guardian_code = ma.fields.String(validate=ma.validate.Length(8, 20))


class GuardianWordSchema(ma.Schema):
    """The guardian's word."""

    adult = ma.fields.Boolean(
        required=True,
        validate=ma.validate.Equal(True),
        metadata={"description": "true: I am an adult, and the guardian of who will use the code"},
    )


class GuardianCodeSchema(ma.Schema):
    """A code to pass on."""

    code = ma.fields.String(required=True)
    expires_at = ma.fields.String(required=True)


class ChildSchema(ma.Schema):
    """A child under 14, and what is consented to in its name."""

    child = ma.fields.String(required=True)
    until = ma.fields.String(required=True, metadata={"description": "from then on its own"})
    consents = ma.fields.List(ma.fields.Nested(ConsentSchema), required=True)


class ChildrenSchema(ma.Schema):
    """Those whom the resident answers for."""

    items = ma.fields.List(ma.fields.Nested(ChildSchema), required=True)


class WithdrawConsentsSchema(ma.Schema):
    """What to end: all consents, those to one provider, or one."""

    provider = ma.fields.String(validate=ma.validate.Length(1, 40))
    scenario = ma.fields.String(validate=ma.validate.Length(1, 60))


@blp.serve("GET", "/privacy-notices", gives=PrivacyNoticesSchema)
def get_notices() -> Response:
    """隐私说明 · Every privacy notice; the first is in force."""
    with one_statement(wired().engine) as tx:
        found = notices.published(tx)
    items = [
        {
            "number": one.number,
            "digest": one.digest,
            "text_zh": one.text_zh,
            **stamp("published", one.published_at),
        }
        for one in found
    ]
    return answer({"items": items})


@blp.serve("POST", "/join", gives=TokensSchema, guard=joiner, body=JoinSchema)
def post_join(args: dict[str, Any]) -> Response:
    """加入 · Become a resident, with the join token of a login. Again, it just signs in."""
    here = wired()
    now = here.clock()
    notice = args["privacy_notice"]
    said = join.Application(
        _month(args["birth_month"], now.astimezone(CITY_ZONE).date()),
        args["district"],
        notice["number"],
        notice["digest"],
        args.get("guardian_code"),
    )
    made = transact(here.engine, lambda tx: join.join(tx, here.vault, g.guest, said, now))
    return answer(spoken(made))


def _month(written: str, today: date) -> date:
    first = date(int(written[:4]) or 1, int(written[5:]), 1)
    if not first.year >= _OLDEST or first > today:
        error = {"field": "birth_month", "message": f"must lie between {_OLDEST} and today"}
        raise Problem("VALIDATION_FAILED", "1 field(s) are not as they must be", errors=[error])
    return first


@blp.serve(
    "PUT", "/me/privacy-notice", gives=PrivacyNoticeSchema, guard=resident, body=AcceptNoticeSchema
)
def put_notice(args: dict[str, Any]) -> Response:
    """同意隐私说明 · Accept the notice in force; new consents need it."""
    here = wired()
    with here.engine.begin() as tx:
        one = privacy.accept(tx, g.resident, args["number"], args["digest"], here.clock())
    shown = {"number": one.number, "digest": one.digest, "text_zh": one.text_zh}
    return answer(shown | stamp("published", one.published_at))


@blp.serve(
    "POST",
    "/me/guardian-codes",
    gives=GuardianCodeSchema,
    guard=resident,
    body=GuardianWordSchema,
    repeat=True,
)
def post_guardian_code(_args: dict[str, Any]) -> Response:
    """监护人确认码 · A code with which a child under 14 joins; good for 15 minutes."""
    here = wired()

    def work(tx: Connection) -> dict[str, str]:
        code, until = join.make_guardian_code(tx, here.vault, g.resident, here.clock())
        return {"code": code, "expires_at": instant(until)}

    return answer_once(work)


@blp.serve("GET", "/me/children", gives=ChildrenSchema, guard=resident)
def get_children() -> Response:
    """我的孩子 · Children I answer for, and their consents."""
    here = wired()
    today = here.clock().astimezone(CITY_ZONE).date()
    with here.engine.connect() as tx:
        items = [
            {
                "child": child,
                "until": until.isoformat(),
                "consents": [consent_shown(one) for one in consents.of(tx, bytes.fromhex(child))],
            }
            for child, until in guardians.children(tx, g.resident, today)
        ]
    return answer({"items": items})


@blp.serve(
    "POST",
    "/me/children/<child>/withdrawals",
    gives=ChildrenSchema,
    guard=resident,
    body=WithdrawConsentsSchema,
    repeat=True,
)
def post_withdrawal(args: dict[str, Any], child: str) -> Response:
    """代为撤回 · End a child's consents: all of them, a provider's, or one."""
    here = wired()
    today = here.clock().astimezone(CITY_ZONE).date()

    def work(tx: Connection) -> dict[str, Any]:
        own = dict(guardians.children(tx, g.resident, today))
        if child not in own:
            raise Problem("NOT_FOUND", "you answer for no child of this id")
        withdraw_all(tx, child, args.get("provider"), args.get("scenario"), here.clock())
        left = [consent_shown(one) for one in consents.of(tx, bytes.fromhex(child))]
        return {"items": [{"child": child, "until": own[child].isoformat(), "consents": left}]}

    return answer_once(work)
