"""JSON on the wire and values inside: what routes are made of, the one writing of answers.

Ids and amounts are strings (JavaScript loses integers above 2^53); an instant is RFC 3339 with the
city's offset and has its business date beside it.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

import marshmallow as ma
import orjson
from flask import Request, Response, g, request
from flask_smorest import Blueprint as SmorestBlueprint
from sqlalchemy import Connection
from webargs.flaskparser import FlaskParser

from app import auth
from app.api.strict_json import read_body
from app.config import CITY_ZONE
from app.errors import Problem, field_errors
from app.flows.once import Answer, Repeat, once
from app.signature import canonical_request
from app.wiring import wired

MAX_PAGE = 50
FOREVER = "public, max-age=31536000, immutable"  # Cache-Control of what never changes


def answer(value: Any, status: int = 200) -> Response:
    """A JSON answer that nobody but the caller may keep."""
    made = Response(orjson.dumps(value), status, mimetype="application/json")
    made.headers["Cache-Control"] = "no-store"
    return made


def plain_text(text: str) -> Response:
    """A text answer that is asked for anew each time."""
    made = Response(text, content_type="text/plain; charset=utf-8")
    made.headers["Cache-Control"] = "no-cache"
    return made


def instant(at: datetime) -> str:
    """2026-01-02T08:00:00+08:00, without fractions of a second."""
    return at.astimezone(CITY_ZONE).isoformat(timespec="seconds")


def stamp(name: str, at: datetime) -> dict[str, str]:
    """An instant and the business date it falls on: {name}_at and {name}_date."""
    local = at.astimezone(CITY_ZONE)
    return {
        f"{name}_at": local.isoformat(timespec="seconds"),
        f"{name}_date": local.date().isoformat(),
    }


def calendar_day(number: int) -> str:
    """20261231 as 2026-12-31."""
    return f"{number // 10000:04d}-{number // 100 % 100:02d}-{number % 100:02d}"


def page(items: list[Any], next_cursor: str | None) -> dict[str, Any]:
    """A list's answer; `next_cursor` is None on its last page."""
    return {"items": items, "next_cursor": next_cursor, "has_more": next_cursor is not None}


def cursor_of(place: str) -> str:
    """An opaque cursor for the place after which the next page begins."""
    return urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(cursor: str | None) -> str | None:
    """The place a cursor of ours names; None for the first page. Raises Problem CURSOR_INVALID."""
    if cursor is None:
        return None
    try:
        place = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        place = ""
    if not place or not place.isprintable() or cursor_of(place) != cursor:
        raise bad_cursor()
    return place


def moment_of(cursor: str | None) -> tuple[datetime, str] | None:
    """The place of a cursor made of an instant and an id of 32 hex digits, joined by a space.

    Raises Problem CURSOR_INVALID.
    """
    place = place_of(cursor)
    if place is None:
        return None
    at, _, last = place.partition(" ")
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise bad_cursor() from None
    if moment.tzinfo is None or not re.fullmatch("[0-9a-f]{32}", last):
        raise bad_cursor()
    return moment, last


def bad_cursor() -> Problem:
    """The refusal of a cursor that this list never gave out."""
    return Problem("CURSOR_INVALID", "the cursor is not one that this list gave out")


class Pattern(ma.validate.Regexp):
    """All of a text matches. The expression stands in the OpenAPI document as it is, where it is
    read as ECMA-262: so it is anchored with ^ and $, and `\\Z` is not used."""

    def __call__(self, value: Any) -> Any:
        expression: re.Pattern[Any] = self.regex
        if not expression.fullmatch(value):  # unlike match, this lets no newline in before the $
            raise ma.ValidationError(self._format_error(value))
        return value


# Control characters, and what is not seen itself but turns or hides what stands beside it.
_UNSEEN = r"\u0000-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"


def line(most: int) -> Pattern:
    """A check of a text that people are shown on one line, of at most so many characters."""
    return Pattern(
        rf"^[^\s{_UNSEEN}][^{_UNSEEN}]{{0,{most - 1}}}$",
        error=f"must be 1 to {most} characters on one line, the first of them no blank",
    )


class Arguments(FlaskParser):
    """webargs with our reading of bodies, unknown names refused everywhere, and our errors."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": ma.RAISE, "query": ma.RAISE}  # noqa: RUF012 (webargs' own form)

    def __init__(self) -> None:
        super().__init__()
        self._unasked: dict[ma.Schema, dict[str, Any]] = {}

    def parse(self, argmap: Any, req: Request | None = None, **where: Any) -> Any:
        """As webargs does, but an empty query is read once a schema: most of them are empty."""
        if where.get("location") != "query" or (req or request).query_string:
            return super().parse(argmap, req, **where)
        if argmap not in self._unasked:
            self._unasked[argmap] = super().parse(argmap, req, **where)
        return dict(self._unasked[argmap])

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        return read_body(req)

    def handle_error(
        self,
        error: ma.ValidationError,
        req: Request,
        schema: ma.Schema,
        *,
        error_status_code: int | None,
        error_headers: Mapping[str, str] | None,
    ) -> NoReturn:
        messages = error.messages
        if isinstance(messages, dict):  # webargs puts the location on top: {"json": {...}}
            messages = {k: v for inner in messages.values() for k, v in _fields(inner).items()}
        errors = list(field_errors(messages))[:100]
        raise Problem(
            "VALIDATION_FAILED", f"{len(errors)} field(s) are not as they must be", errors=errors
        )


def _fields(inner: Any) -> dict[str, Any]:
    return inner if isinstance(inner, dict) else {"_schema": inner}


View = Callable[..., Response]
_SCHEMES: dict[object, str] = {
    auth.signed: "provider",
    auth.resident: "resident",
    auth.joiner: "joiner",
}
_KEY = "[A-Za-z0-9._-]{8,64}"
_HEADERS = {
    "Idempotency-Key": {
        "description": "names this request, once; sent again it is answered, not done, again",
        "schema": {"type": "string", "pattern": f"^{_KEY}$"},
    },
    "If-Match": {
        "description": "the ETag of what is to be changed, as it was read",
        "schema": {"type": "string", "pattern": '^"[!#-~]{1,100}"$'},
    },
}


def repeatable(view: View) -> View:
    """Let only requests in that carry an Idempotency-Key; `answer_once` then goes by it."""

    @wraps(view)
    def named(*args: Any, **kwargs: Any) -> Response:
        key = request.headers.get("Idempotency-Key", "")
        if not re.fullmatch(_KEY, key):
            raise Problem(
                "IDEMPOTENCY_KEY_MISSING",
                "send an Idempotency-Key of 8 to 64 of A-Z a-z 0-9 . _ - that names this request",
            )
        asked = auth.received()
        whole = canonical_request(asked.method, asked.path_query, "", "", asked.body)
        # keyed: a plain hash of a short body tells what the body was
        g.repeat = Repeat(g.caller, key, hmac.digest(wired().vault.ids, whole, "sha256"))
        return view(*args, **kwargs)

    return named


def answer_once(work: Callable[[Connection], Any], status: int = 200) -> Response:
    """Run `work` in its transaction and answer what it returns as JSON; the same request again
    gets the same answer, with `Idempotency-Replayed: true`. For views served with `repeat`."""
    here = wired()
    return answered(
        once(
            here.engine,
            here.vault,
            g.repeat,
            here.clock(),
            lambda tx: Answer(status, orjson.dumps(work(tx))),
        )
    )


def answered(given: Answer) -> Response:
    """An answer that is kept for its request, as JSON."""
    made = Response(given.body, given.status, mimetype="application/json")
    made.headers["Cache-Control"] = "no-store"
    if given.again:
        made.headers["Idempotency-Replayed"] = "true"
    return made


def matching(view: View) -> View:
    """Let only requests in that say which revision they change; it is then `g.revision`."""

    @wraps(view)
    def aware(*args: Any, **kwargs: Any) -> Response:
        found = re.fullmatch(r'"([!#-~]{1,100})"', request.headers.get("If-Match", ""))
        if not found:
            raise Problem("IF_MATCH_MISSING", 'send If-Match: "..." with the ETag you have read')
        g.revision = found[1]
        return view(*args, **kwargs)

    return aware


def tagged(made: Response, revision: str) -> Response:
    """An answer with its revision as ETag, for a later If-Match."""
    made.headers["ETag"] = f'"{revision}"'
    return made


class Blueprint(SmorestBlueprint):
    """A documented blueprint whose arguments are read by `Arguments`."""

    ARGUMENTS_PARSER = Arguments()

    def serve(
        self,
        method: str,
        rule: str,
        *,
        gives: type[ma.Schema] | dict[str, Any],
        media: str = "application/json",
        status: int = 200,
        guard: Callable[[View], View] | None = None,
        query: type[ma.Schema] | None = None,
        body: type[ma.Schema] | None = None,
        raw: dict[str, Any] | None = None,
        repeat: bool = False,
        match: bool = False,
    ) -> Callable[[View], View]:
        """A route with its documents. Who asks is settled before a byte of the body is parsed;
        `gives` describes the answer, which the view writes itself. `raw` is the content (media
        type to schema) of a body that the view reads itself. `repeat` asks for an Idempotency-Key
        (the view answers with `answer_once`), `match` for an If-Match (`g.revision`)."""

        def register(view: View) -> View:
            made: View = view
            # instances: of a class, webargs would make one for each request
            if body is not None:
                made = self.arguments(body())(made)
            if query is not None:
                made = self.arguments(query(), location="query")(made)
            headers = []
            if match:
                headers, made = ["If-Match"], matching(made)
            if repeat:
                headers, made = [*headers, "Idempotency-Key"], repeatable(made)
            if headers:
                made = self.doc(parameters=[_header(name) for name in headers])(made)
            if guard is not None:
                made = self.doc(security=[{_scheme(guard): []}])(guard(made))
            if raw is not None:
                content = {kind: {"schema": schema} for kind, schema in raw.items()}
                made = self.doc(requestBody={"required": True, "content": content})(made)
            made = self.alt_response(status, schema=gives, content_type=media, success=True)(made)
            self.add_url_rule(rule, None, made, methods=[method])
            return made

        return register


def _scheme(guard: Callable[[View], View]) -> str:
    if isinstance(guard, auth.MerchantGuard):
        return "merchant"
    return "admin" if isinstance(guard, auth.AdminGuard) else _SCHEMES[guard]


def _header(name: str) -> dict[str, Any]:
    return {"in": "header", "name": name, "required": True, **_HEADERS[name]}


class Digits(ma.fields.Integer):
    """A whole number from a query: ASCII digits only, though int() takes more than that."""

    def _validated(self, value: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", str(value)):
            raise self.make_error("invalid", input=value)
        return int(value)


class Day(ma.fields.Date):
    """A day written YYYY-MM-DD and in no other way."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            raise ma.ValidationError("must be a day YYYY-MM-DD")
        return super()._deserialize(value, attr, data, **kwargs)


class NearDay(Day):
    """A day of the years 2000 to 2999: a moment of it is one in every zone, and so is the next."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        day = super()._deserialize(value, attr, data, **kwargs)
        if not 2000 <= day.year < 3000:
            raise ma.ValidationError("must be a day of the years 2000 to 2999")
        return day


class PageArgs(ma.Schema):
    """Where a page begins and how long it may be."""

    cursor = ma.fields.String(validate=ma.validate.Length(1, 400))
    limit = Digits(load_default=20, validate=ma.validate.Range(1, MAX_PAGE))
