"""Privacy notices: each a file with its number, published once and never edited."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from importlib.resources import files

from sqlalchemy import Connection, Engine

from app.store import notices
from app.store.notices import Notice


class NoticeEditedError(Exception):
    """A published notice has another text now; a new text is a new number."""

    code = "PRIVACY_NOTICE_EDITED"


class NoticeNotInForceError(Exception):
    """It is not the newest notice that was accepted."""

    code = "PRIVACY_NOTICE_CHANGED"


def publish_notices(engine: Engine, now: datetime) -> None:
    """Publish the notices that are not published yet. Raises NoticeEditedError."""
    folder = files("app") / "web" / "privacy"
    with engine.begin() as tx:
        for file in sorted(folder.iterdir(), key=lambda one: one.name):
            number, text = int(file.name.partition(".")[0]), file.read_text(encoding="utf-8")
            digest = sha256(text.encode()).hexdigest()
            if notices.put(tx, Notice(number, digest, text, now)) != digest:
                raise NoticeEditedError(
                    f"privacy notice {number} is published with another text; give the new text"
                    " the next number"
                )


def accept(tx: Connection, resident: str, number: int, digest: str, now: datetime) -> Notice:
    """Note that a resident accepts the newest notice. Raises NoticeNotInForceError."""
    newest = next(iter(notices.published(tx)), None)
    if newest is None or (newest.number, newest.digest) != (number, digest):
        raise NoticeNotInForceError(
            "that is not the privacy notice in force; read it and accept it"
        )
    notices.accept(tx, resident, number, now)
    return newest


def must_have_accepted(tx: Connection, resident: str) -> None:
    """Raise NoticeNotInForceError unless the resident accepts the notice in force."""
    if not notices.accepted_newest(tx, resident):
        raise NoticeNotInForceError(
            "a new privacy notice is in force; accept it before consenting to anything new"
        )
