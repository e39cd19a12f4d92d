"""The registry, for everybody: scenarios, their editions, what changed, what will change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import marshmallow as ma
from flask import Response, request

from app import limits
from app.api.wire import (
    FOREVER,
    Blueprint,
    Digits,
    PageArgs,
    answer,
    bad_cursor,
    cursor_of,
    page,
    place_of,
    stamp,
)
from app.config import CITY_ZONE
from app.errors import Problem
from app.flows import changeset, publish
from app.store import catalogue as rows
from app.store.catalogue import Event
from app.store.db import snapshot
from app.vault import Vault
from app.wiring import wired
from scenarios import AREAS, Catalogue, Version, grid
from scenarios.difference import differences, kind

_STATES = ("scheduled", "in_force", "superseded", "withdrawn")

blp = Blueprint(
    "registry",
    __name__,
    url_prefix="/api/v1",
    description="公开：方法学登记簿。Scenarios, editions, sources and changes, without login.",
)


@blp.before_request
def count() -> None:
    """Count the request against its sender's address."""
    limits.spend(limits.PUBLIC, request.remote_addr or "-")


class ScenariosArgs(ma.Schema):
    """Which scenarios; all without."""

    area = ma.fields.String(validate=ma.validate.OneOf(AREAS))
    enabled = ma.fields.String(validate=ma.validate.OneOf(["true", "false"]))


class TwoArgs(ma.Schema):
    """Two editions by number."""

    old = Digits(required=True, data_key="from")
    new = Digits(required=True, data_key="to")


class EditionSchema(ma.Schema):
    """One published edition of a scenario."""

    number = ma.fields.Integer(required=True)
    effective_from = ma.fields.String(required=True, metadata={"format": "date"})
    digest = ma.fields.String(required=True, metadata={"description": "SHA-256 of its bytes"})
    state = ma.fields.String(required=True, validate=ma.validate.OneOf(_STATES))


class ScenarioSchema(ma.Schema):
    """A scenario with all its editions, oldest first. What is said of it is said by the edition in
    force today, or else by the next."""

    id = ma.fields.String(required=True)
    code = ma.fields.String(required=True)
    area = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    title_en = ma.fields.String(required=True)
    enabled = ma.fields.Boolean(required=True)
    confidence = ma.fields.String(required=True, metadata={"description": "A, B, C or D"})
    sensitive = ma.fields.List(
        ma.fields.String(),
        required=True,
        metadata={
            "description": "sensitive personal data in its inputs: movement, finance, health"
        },
    )
    in_force = ma.fields.Integer(required=True, allow_none=True)
    next = ma.fields.Integer(required=True, allow_none=True)
    versions = ma.fields.List(ma.fields.Nested(EditionSchema), required=True)


class ScenariosSchema(ma.Schema):
    """The registry. A change is published at least `notice_days` whole days before its first."""

    notice_days = ma.fields.Integer(required=True)
    items = ma.fields.List(ma.fields.Nested(ScenarioSchema), required=True)


class DifferenceSchema(ma.Schema):
    """One field in which two editions differ."""

    field = ma.fields.String(required=True, metadata={"example": "coefficients.factor.value"})
    kind = ma.fields.String(required=True, metadata={"example": "coefficient"})
    old = ma.fields.String(required=True)
    new = ma.fields.String(required=True)


class DifferencesSchema(ma.Schema):
    """All fields in which two editions differ."""

    items = ma.fields.List(ma.fields.Nested(DifferenceSchema), required=True)


class ChangedSchema(ma.Schema):
    """One edition of a change, and the entry of the log that says so."""

    scenario = ma.fields.String(required=True)
    number = ma.fields.Integer(required=True)
    digest = ma.fields.String(required=True)
    entry_id = ma.fields.String(required=True)
    kinds = ma.fields.List(ma.fields.String(), required=True)


class ChangeSchema(ma.Schema):
    """Editions that were published together, or withdrawn together before their first day."""

    change = ma.fields.String(required=True, validate=ma.validate.OneOf(["published", "withdrawn"]))
    recorded_at = ma.fields.String(required=True, metadata={"format": "date-time"})
    recorded_date = ma.fields.String(required=True, metadata={"format": "date"})
    effective_from = ma.fields.String(required=True, metadata={"format": "date"})
    title = ma.fields.String(required=True, allow_none=True)
    reason = ma.fields.String(required=True, allow_none=True)
    areas = ma.fields.List(ma.fields.String(), required=True)
    kinds = ma.fields.List(
        ma.fields.String(),
        required=True,
        metadata={"description": "new, coefficient, cap, rule, input, text, eligibility, rate …"},
    )
    editions = ma.fields.List(ma.fields.Nested(ChangedSchema), required=True)


class ChangesSchema(ma.Schema):
    """A page of changes, newest first."""

    items = ma.fields.List(ma.fields.Nested(ChangeSchema), required=True)
    next_cursor = ma.fields.String(required=True, allow_none=True)
    has_more = ma.fields.Boolean(required=True)


class ValueSchema(ma.Schema):
    """A published number in g/kWh."""

    value = ma.fields.String(required=True)
    source = ma.fields.String(required=True)
    url = ma.fields.String(required=True)
    tag = ma.fields.String(required=True)


class FactorSchema(ValueSchema):
    """The official average of an area in a year."""

    area = ma.fields.String(required=True)
    title_zh = ma.fields.String(required=True)
    title_en = ma.fields.String(required=True)
    year = ma.fields.Integer(required=True)
    confidence = ma.fields.String(required=True)


class UnusedSchema(ValueSchema):
    """A value that is often taken for a grid factor, and why it is not used."""

    title_zh = ma.fields.String(required=True)
    title_en = ma.fields.String(required=True)
    reason_zh = ma.fields.String(required=True)
    reason_en = ma.fields.String(required=True)


class GridSchema(ma.Schema):
    """Grid emission factors with the notices they stand in."""

    factors = ma.fields.List(ma.fields.Nested(FactorSchema), required=True)
    elsewhere = ma.fields.List(ma.fields.Nested(ValueSchema), required=True)
    unused = ma.fields.List(ma.fields.Nested(UnusedSchema), required=True)


@blp.serve("GET", "/scenarios", gives=ScenariosSchema, query=ScenariosArgs)
def get_scenarios(args: dict[str, Any]) -> Response:
    """方法学登记簿 · Every scenario with its editions, and how long before a change it is told."""
    here = wired()
    catalogue, today = _catalogue(), _today()
    items = [_scenario(catalogue, name, today) for name in catalogue.scenarios]
    if "area" in args:
        items = [one for one in items if one["area"] == args["area"]]
    if "enabled" in args:
        items = [one for one in items if one["enabled"] == (args["enabled"] == "true")]
    return answer({"notice_days": here.config.notice_days, "items": items})


@blp.serve("GET", "/scenarios/<scenario>", gives=ScenarioSchema)
def get_scenario(scenario: str) -> Response:
    """减排场景 · One scenario with all its editions."""
    catalogue = _catalogue()
    if scenario not in catalogue.scenarios:
        raise Problem("NOT_FOUND", "there is no such scenario")
    return answer(_scenario(catalogue, scenario, _today()))


@blp.serve("GET", "/scenarios/<scenario>/versions/<number>", gives={"type": "object"})
def get_version(scenario: str, number: str) -> Response:
    """方法学版本 · An edition's published bytes; their SHA-256 is the digest that entries name."""
    edition = _edition(_catalogue(), scenario, number)
    made = Response(edition.canonical(), mimetype="application/json")
    made.headers["Cache-Control"] = FOREVER
    return made


@blp.serve("GET", "/scenarios/<scenario>/differences", gives=DifferencesSchema, query=TwoArgs)
def get_differences(args: dict[str, Any], scenario: str) -> Response:
    """版本差异 · In which fields two editions of a scenario differ."""
    catalogue = _catalogue()
    old, new = (_edition(catalogue, scenario, str(args[name])) for name in ("old", "new"))
    found = [
        {"field": one.field, "kind": kind(one), "old": one.old, "new": one.new}
        for one in differences(old, new)
    ]
    return answer({"items": found})


@blp.serve("GET", "/scenarios/changes", gives=ChangesSchema, query=PageArgs)
def get_changes(args: dict[str, Any]) -> Response:
    """变更公告 · What was published and withdrawn, newest first, with the entries that say so."""
    here = wired()
    limit, before = args["limit"], _place(args.get("cursor"))
    with snapshot(here.engine) as tx:
        events = rows.events(tx, before, limit + 1)
        catalogue = here.registry.current(tx)
    items = [_change(here.vault, catalogue, event) for event in events[:limit]]
    more = None
    if len(events) > limit:
        at, change, first, draft = events[limit - 1].place
        more = cursor_of(f"{at.isoformat()} {change} {first} {draft or '-'}")
    return answer(page(items, more))


@blp.serve("GET", "/grid-factors", gives=GridSchema)
def get_grid_factors() -> Response:
    """电网排放因子 · By area and year, in g CO2 per kWh, with the notice each stands in."""
    held = grid()
    factors = [
        {**_value(one), "area": one.area, "year": one.year, "confidence": one.confidence}
        | {"title_zh": one.title.zh, "title_en": one.title.en}
        for one in held.factors
    ]
    unused = [
        {**_value(one), "title_zh": one.title.zh, "title_en": one.title.en}
        | {"reason_zh": one.reason.zh, "reason_en": one.reason.en}
        for one in held.unused
    ]
    elsewhere = [_value(one) for one in held.elsewhere]
    return answer({"factors": factors, "elsewhere": elsewhere, "unused": unused})


def _catalogue() -> Catalogue:
    here = wired()
    with here.engine.connect() as tx:
        return here.registry.current(tx)


def _today() -> date:
    return wired().clock().astimezone(CITY_ZONE).date()


def _edition(catalogue: Catalogue, scenario: str, number: str) -> Version:
    editions = catalogue.versions(scenario) if scenario in catalogue.scenarios else ()
    for one in editions:
        if str(one.number) == number:
            return one
    raise Problem("NOT_FOUND", "there is no such edition")


def _scenario(catalogue: Catalogue, name: str, today: date) -> dict[str, Any]:
    standing = changeset.standing(catalogue, name)
    begun = [one for one in standing if one.effective_from <= today]
    ahead = [one for one in standing if one.effective_from > today]
    every = catalogue.versions(name)
    shown = (begun[-1:] or ahead[:1] or every[-1:])[0]
    states = {one.number: "superseded" for one in begun[:-1]}
    states |= {one.number: "in_force" for one in begun[-1:]}
    states |= {one.number: "scheduled" for one in ahead}
    return {
        "id": name,
        "code": shown.code,
        "area": shown.area,
        "title_zh": shown.title.zh,
        "title_en": shown.title.en,
        "enabled": bool(begun) and shown.enabled,
        "confidence": shown.confidence,
        "sensitive": list(shown.sensitive),
        "in_force": begun[-1].number if begun else None,
        "next": ahead[0].number if ahead else None,
        "versions": [
            {
                "number": one.number,
                "effective_from": one.effective_from.isoformat(),
                "digest": one.digest,
                "state": states.get(one.number, "withdrawn"),
            }
            for one in every
        ],
    }


def _change(vault: Vault, catalogue: Catalogue, event: Event) -> dict[str, Any]:
    identify = publish.published_id if event.kind == "published" else publish.withdrawn_id
    editions: list[dict[str, Any]] = [
        {
            "scenario": scenario,
            "number": number,
            "digest": digest,
            "entry_id": identify(vault, scenario, number),
            "kinds": _kinds(catalogue, catalogue.versions(scenario)[number - 1]),
        }
        for scenario, number, digest in event.editions
    ]
    areas = {scenario.partition(".")[0] for scenario, _, _ in event.editions}
    kinds: set[str] = set().union(*(one["kinds"] for one in editions))
    return {
        "change": event.kind,
        **stamp("recorded", event.at),
        "effective_from": event.effective_from.isoformat(),
        "title": event.title,
        "reason": event.reason,
        "areas": [area for area in AREAS if area in areas],
        "kinds": sorted(kinds),
        "editions": editions,
    }


def _kinds(catalogue: Catalogue, version: Version) -> Sequence[str]:
    replaces, changes = changeset.compare(catalogue, version)
    return sorted({kind(one) for one in changes}) if replaces else ["new"]


def _place(cursor: str | None) -> tuple[datetime, str, date, str] | None:
    place = place_of(cursor)
    if place is None:
        return None
    try:
        at, change, first, draft = place.split(" ")
        moment, day = datetime.fromisoformat(at), date.fromisoformat(first)
    except ValueError:
        raise bad_cursor() from None
    if moment.tzinfo is None:
        raise bad_cursor()
    return moment, change, day, "" if draft == "-" else draft


def _value(one: Any) -> dict[str, str]:
    return {"value": one.value, "source": one.source, "url": one.url, "tag": one.tag}
