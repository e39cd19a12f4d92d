"""For editors and reviewers: drafts of scenario changes, from the first line to the registry."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import marshmallow as ma
import orjson
from flask import Response, g
from sqlalchemy import Connection

from app.api.draft_forms import (
    ChoiceSchema,
    ContentSchema,
    DraftsArgs,
    DraftSchema,
    DraftsSchema,
    HeadSchema,
    OpenSchema,
    ReasonSchema,
    UndoSchema,
)
from app.api.wire import (
    Blueprint,
    answer,
    answer_once,
    cursor_of,
    moment_of,
    page,
    stamp,
    tagged,
)
from app.auth import AdminGuard, admin
from app.flows import changeset, publish, tune
from app.flows.changeset import ChangeSet, Finding, Wanted
from app.flows.tune import Desk
from app.store import catalogue as registry
from app.store import drafts
from app.store.db import snapshot, transact
from app.store.drafts import Draft
from app.wiring import wired
from scenarios.difference import kind

_ID = re.compile("[0-9a-f]{32}")

EDIT, REVIEW, BOTH = admin("editor"), admin("reviewer"), admin("editor", "reviewer")

blp = Blueprint(
    "drafts",
    __name__,
    url_prefix="/api/v1/admin/drafts",
    description=(
        "方法学草案：起草、测算、送审、批准、撤回。Drafts of scenario changes: written, backtested,"
        " submitted, approved by another person, withdrawn before their effect, undone."
    ),
)


def _desk() -> Desk:
    here = wired()
    days = here.config.notice_days
    return Desk(here.vault, here.registry, days, g.admin.id, g.admin.name, here.clock())


def _known(id: str) -> str:
    if not _ID.fullmatch(id):
        raise tune.DraftUnknownError("there is no draft of this id")
    return id


def _change(body: dict[str, Any]) -> ChangeSet:
    return ChangeSet(
        body["title"], body["reason"], body["effective_from"], body["editions"], body["rate"]
    )


def _head(draft: Draft) -> dict[str, Any]:
    held = ChangeSet.of(draft.title, draft.reason, draft.body)
    made = {
        "id": draft.id,
        "revision": draft.revision,
        "state": draft.state,
        "title": draft.title,
        "reason": draft.reason,
        "effective_from": held.effective_from.isoformat(),
        "scenarios": [one["scenario"] for one in held.editions],
        "author": draft.author,
        "reviewer": draft.reviewer,
        "decision": draft.decision,
        **stamp("created", draft.created_at),
        **stamp("changed", draft.changed_at),
    }
    for name, at in (("submitted", draft.submitted_at), ("decided", draft.decided_at)):
        made |= stamp(name, at) if at else {}
    return made


def _whole(tx: Connection, draft: Draft) -> dict[str, Any]:
    """A draft in full: what was published out of it, or what would be and what forbids that."""
    here = wired()
    catalogue = here.registry.current(tx)
    held = ChangeSet.of(draft.title, draft.reason, draft.body)
    published = registry.of_draft(tx, draft.id)
    if published:
        versions = [catalogue.versions(name)[number - 1] for name, number in published]
        findings: list[Finding] = []
    else:
        versions, findings = changeset.examine(
            held, catalogue, here.clock(), here.config.notice_days
        )
    compared = []
    for one in versions:
        replaces, changes = changeset.compare(catalogue, one)
        entry = publish.published_id(here.vault, one.scenario, one.number)
        compared.append(
            {
                "scenario": one.scenario,
                "number": one.number,
                "replaces": replaces,
                "digest": one.digest,
                "entry_id": entry if published else None,
                "changes": [
                    {"field": it.field, "kind": kind(it), "old": it.old, "new": it.new}
                    for it in changes
                ],
            }
        )
    backtest = drafts.backtest(tx, draft.id, draft.revision)
    return {
        **_head(draft),
        "rate": held.rate,
        "editions": held.editions,
        "compared": compared,
        "findings": [one._asdict() for one in findings],
        "backtest": {"id": backtest[0], "state": backtest[1]} if backtest else None,
    }


def _found(tx: Connection, id: str) -> Draft:
    draft = drafts.find(tx, _known(id))
    if draft is None:
        raise tune.DraftUnknownError("there is no draft of this id")
    return draft


def _put(change: Callable[[Connection], None], id: str) -> Response:
    """Change a draft under its If-Match; answer how it then stands."""

    def work(tx: Connection) -> dict[str, Any]:
        change(tx)
        return _head(_found(tx, id))

    made = transact(wired().engine, work)
    return tagged(answer(made), str(made["revision"]))


def _post(change: Callable[[Connection], str], status: int = 200) -> Response:
    """Do something to a draft, once; answer how the draft whose id comes back then stands."""
    made = answer_once(lambda tx: _head(_found(tx, change(tx))), status)
    return tagged(made, str(orjson.loads(made.data)["revision"]))


@blp.serve("GET", "", gives=DraftsSchema, guard=admin(), query=DraftsArgs)
def list_drafts(args: dict[str, Any]) -> Response:
    """草案列表 · Drafts, last changed first."""
    limit, after = args["limit"], moment_of(args.get("cursor"))
    with wired().engine.connect() as tx:
        found = drafts.page(tx, args.get("state"), after, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    more = cursor_of(f"{last.changed_at.isoformat()} {last.id}") if last else None
    return answer(page([_head(one) for one in found[:limit]], more))


@blp.serve("POST", "", gives=HeadSchema, status=201, guard=EDIT, body=OpenSchema, repeat=True)
def post_draft(body: dict[str, Any]) -> Response:
    """起草 · Begin a draft with copies of the editions that it is to change."""
    desk, change = _desk(), _change(body)
    return _post(lambda tx: tune.open_draft(tx, desk, change, body["scenarios"]), 201)


@blp.serve("GET", "/<draft>", gives=DraftSchema, guard=admin())
def get_draft(draft: str) -> Response:
    """读取草案 · A draft with all it changes, and what forbids it today. Mind its ETag."""
    with snapshot(wired().engine) as tx:
        found = _found(tx, draft)
        made = _whole(tx, found)
    return tagged(answer(made), str(found.revision))


@blp.serve("PUT", "/<draft>", gives=HeadSchema, guard=EDIT, body=ContentSchema, match=True)
def put_draft(body: dict[str, Any], draft: str) -> Response:
    """修改草案 · Put another content in its place; what does not hold is refused field by field."""
    desk, change = _desk(), _change(body)
    return _put(lambda tx: tune.edit(tx, desk, _known(draft), g.revision, change), draft)


@blp.serve(
    "PUT",
    "/<draft>/coefficients/<scenario>/<name>",
    gives=HeadSchema,
    guard=EDIT,
    body=ChoiceSchema,
    match=True,
)
def put_coefficient(body: dict[str, Any], draft: str, scenario: str, name: str) -> Response:
    """修改系数 · Choose another value of one coefficient, within its bounds."""
    desk, place = _desk(), (scenario, name)
    wanted = Wanted(body["value"], {key: it for key, it in body.items() if key != "value"})
    return _put(
        lambda tx: tune.set_coefficient(tx, desk, _known(draft), g.revision, place, wanted), draft
    )


def _step(rule: str, guard: AdminGuard, body: type[ma.Schema] | None = None) -> Any:
    """A step of a draft that is there: over the revision that was read, and once."""
    return blp.serve(
        "POST",
        f"/<draft>/{rule}",
        gives=HeadSchema,
        guard=guard,
        body=body,
        repeat=True,
        match=True,
    )


def _take(draft: str, verb: Callable[..., None], *reason: str) -> Response:
    desk, revision = _desk(), g.revision

    def work(tx: Connection) -> str:
        verb(tx, desk, _known(draft), revision, *reason)
        return draft

    return _post(work)


@_step("submit", EDIT)
def post_submit(draft: str) -> Response:
    """送审 · Hand it over for review; needs a finished backtest of this revision."""
    return _take(draft, tune.submit)


@_step("approve", REVIEW)
def post_approve(draft: str) -> Response:
    """批准 · Publish its editions, by a reviewer who did not write it."""
    return _take(draft, tune.approve)


@_step("reject", REVIEW, ReasonSchema)
def post_reject(body: dict[str, Any], draft: str) -> Response:
    """退回 · Give it back to its editors."""
    return _take(draft, tune.reject, body["reason"])


@_step("discard", EDIT, ReasonSchema)
def post_discard(body: dict[str, Any], draft: str) -> Response:
    """废弃 · Put it away unpublished."""
    return _take(draft, tune.discard, body["reason"])


@_step("withdraw", BOTH, ReasonSchema)
def post_withdraw(body: dict[str, Any], draft: str) -> Response:
    """撤回 · Take back all it published, at least an hour before the first day."""
    return _take(draft, tune.withdraw, body["reason"])


@blp.serve(
    "POST",
    "/<draft>/undo",
    gives=HeadSchema,
    status=201,
    guard=EDIT,
    body=UndoSchema,
    repeat=True,
)
def post_undo(body: dict[str, Any], draft: str) -> Response:
    """撤销 · Begin a draft that brings back what was in force before this one."""
    desk, first = _desk(), body["effective_from"]
    return _post(lambda tx: tune.undo(tx, desk, _known(draft), body["reason"], first), 201)
