"""A request in the words of PEP 3333, and what a WSGI application answers to it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import chain
from typing import Any, Final
from wsgiref.types import WSGIApplication

from granian.rsgi import Scope

Headers = list[tuple[str, str]]

_BASE: Final[dict[str, Any]] = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "SCRIPT_NAME": "",
    "SERVER_SOFTWARE": "granian",
    "wsgi.version": (1, 0),
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
}


def environ_of(scope: Scope) -> dict[str, Any]:
    """What granian says of a request, body apart: texts, numbers and truths alone. Headers with _
    in their names are dropped: behind a proxy X_Forwarded_For would else be taken for what the
    proxy says."""
    server, _, port = scope.server.rpartition(":")
    environ = _BASE | {
        "REQUEST_METHOD": scope.method,
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "SERVER_NAME": server.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "wsgi.url_scheme": scope.scheme,
    }
    if scope.authority:
        environ["HTTP_HOST"] = scope.authority
    for name, value in scope.headers.items():
        if "_" in name:
            continue
        key = f"HTTP_{name.upper().replace('-', '_')}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if (value := environ.pop(f"HTTP_{key}", None)) is not None:
            environ[key] = value
    return environ


@contextmanager
def answering(
    wsgi: WSGIApplication, environ: dict[str, Any], body: bytes
) -> Iterator[tuple[int, Headers, Iterator[bytes]]]:
    """Run the application for one request: status, headers, and the body piece by piece."""
    begun: list[Any] = []

    def start(status: str, headers: Headers, _: Any = None) -> Any:
        begun[:] = int(status[:3]), headers

    given = environ | {"wsgi.input": BytesIO(body), "wsgi.errors": sys.stderr}
    pieces: Iterable[bytes] = wsgi(given, start)
    try:
        rest = iter(pieces)
        first = next(rest, b"")  # only now must the application have said how it answers
        status, headers = begun
        yield status, headers, chain((first,), rest)
    finally:
        if close := getattr(pieces, "close", None):
            close()
