"""Pages for people: static HTML and scripts of our own, which read the public API."""

from __future__ import annotations

from pathlib import Path

from flask import Blueprint, Response, current_app, render_template
from markupsafe import Markup

from app.flows.rotate import key_history
from app.store.db import snapshot
from app.wiring import wired

_SCRIPTS = ("ed25519.js", "receipt.js", "verify.js")

blp = Blueprint("pages", __name__)


@blp.get("/")
def landing() -> str:
    """The first page: what this is, and where everything stands."""
    return render_template("index.html", origin=wired().config.log_origin)


@blp.get("/registry")
def registry() -> str:
    """Every scenario with its number and source."""
    return render_template("registry.html")


@blp.get("/docs")
def docs() -> str:
    """The readable documents, drawn from /openapi.json in the browser."""
    return render_template("docs.html")


@blp.get("/verify")
def verify() -> str:
    """Check a receipt in the browser, which asks nobody else."""
    return render_template("verify.html", names=_SCRIPTS, keys=_keys())


@blp.get("/verify.html")
def verify_alone() -> Response:
    """The same page as one file that works from a disk, with the log's keys of today in it."""
    folder = Path(current_app.static_folder or "")
    made = render_template(
        "verify.html",
        alone=True,
        # our own files, in which nothing ends the element they are put into
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        scripts=[Markup((folder / name).read_text(encoding="utf-8")) for name in _SCRIPTS],  # noqa: S704
        keys=_keys(),
    )
    answer = Response(made, mimetype="text/html")
    answer.headers["Content-Disposition"] = 'attachment; filename="verify.html"'
    return answer


def _keys() -> str:
    """Every key that ever signed: old receipts are checked here too."""
    here = wired()
    with snapshot(here.engine) as tx:
        terms = key_history(tx, here.vault)
    return "".join(f"{term.key.vkey}\n" for term in terms)
