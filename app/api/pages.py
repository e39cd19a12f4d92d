"""Pages for people: static HTML and scripts of our own, which read the public API."""

from __future__ import annotations

from flask import Blueprint, render_template

from app.wiring import wired

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
