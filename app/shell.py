"""What every application of ours stands in: settings, frame, refusals, the parts; no routes yet."""

from __future__ import annotations

from typing import Any

from flask import Flask
from flask_smorest import Api
from prometheus_client import CollectorRegistry
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter

from app import errors, limits
from app.api import frame
from app.clock import Clock
from app.config import Config
from app.wiring import wire

MAX_BODY_BYTES = 8 * 1024 * 1024

_DESCRIPTION = """\
碳普惠平台的接口。Providers send signed batches of activities; residents read their points, carbon
and receipts; anyone reads the log, the scenarios and the budgets.

Ids and amounts are strings. Times are RFC 3339 with an offset, and the business date
(Asia/Shanghai) stands beside each instant. Every refusal is `application/problem+json` with a
stable `code`.
"""
_SECURITY = {
    "resident": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "joiner": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "the join_token of a login",
    },
    "admin": {"type": "http", "scheme": "bearer", "description": "a session's token"},
    **{
        who: {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": (
                'PUHUI-ED25519 key_id="...",timestamp="...",nonce="...",signature="..." over the'
                " five lines METHOD, path?query, timestamp, nonce, body, each ended by a newline"
            ),
        }
        for who in ("provider", "merchant")
    },
}


class _Printable(BaseConverter):
    """A part of a path that takes all characters an activity's id may have, slashes too."""

    part_isolating = False
    regex = "[!-~]+"


class _Api(Api):
    """flask-smorest's documents, with our problem details as the one form of refusal."""

    ERROR_SCHEMA = errors.ProblemSchema

    def _register_responses(self) -> None:
        names = ("DEFAULT_ERROR", "UNPROCESSABLE_ENTITY")
        for name in names:
            content = {"application/problem+json": {"schema": errors.ProblemSchema}}
            answer = {"description": "A refusal, as RFC 9457 problem details", "content": content}
            self.spec.components.response(name, answer, lazy=True)

    def _register_error_handlers(self) -> None:
        """None of its own: app.errors answers for everything."""


def shell(config: Config, clock: Clock | None = None) -> tuple[Flask, Api]:
    """An application of these settings, and what its routes are registered with.

    Raises ConfigError.
    """
    app = Flask(__name__, static_folder="web/static", template_folder="web")
    app.config.update(_settings())
    app.url_map.merge_slashes = False  # an address is right or unknown; none is redirected
    app.url_map.converters["printable"] = _Printable
    app.json.ensure_ascii = False  # type: ignore[attr-defined] # DefaultJSONProvider has it
    frame.configure_logs()
    limits.install(app, wire(app, config, clock).redis)
    metrics = app.extensions[frame.REGISTRY] = CollectorRegistry()
    frame.install(app, metrics)
    errors.install(app)
    api = _Api(app)
    for name, scheme in _SECURITY.items():
        api.spec.components.security_scheme(name, scheme)
    if config.proxies:  # only the sender's address: no address of ours is ever made from a header
        behind = ProxyFix(app.wsgi_app, x_for=config.proxies, x_proto=0)
        app.wsgi_app = behind  # type: ignore[method-assign]
    return app, api


def _settings() -> dict[str, Any]:
    return {
        "MAX_CONTENT_LENGTH": MAX_BODY_BYTES,
        "API_TITLE": "Puhui 碳普惠",
        "API_VERSION": "1",
        "OPENAPI_VERSION": "3.1.0",
        "OPENAPI_URL_PREFIX": "/",
        "API_SPEC_OPTIONS": {"info": {"description": _DESCRIPTION}},
    }
