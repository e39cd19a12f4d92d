"""Push: send what is due as WeChat subscription messages, each at most once.

A message is marked as sent, its quota taken and that committed before WeChat is asked: whoever
dies in between sends nothing twice, and the message still lies in the inbox. Only what WeChat
certainly did not send is tried again. A refusal (43101) is an answer: quiet from then on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Connection, Engine

from app.config import CITY_ZONE
from app.flows import sign_in
from app.flows.notify import Letter, read_letter
from app.flows.setting import FIELD, SETTINGS, setting
from app.store import messages, statements, subscriptions
from app.store.messages import Due
from app.vault import Vault, VaultError
from app.wechat import Delivery, WeChat, WeChatError

ATTEMPTS: Final = 4
_FIRST_PAUSE: Final = timedelta(minutes=1)  # before the second attempt; five times it the next
STALE: Final = timedelta(days=1)  # what was worth a push yesterday is not any more
_PAGE: Final = 100
_PAUSE_S: Final = 2.0
_AWAY_S: Final = 30.0
# Our template, page or data are wrong, or the user is none: the same again is as wrong.
_FOR_GOOD: Final = frozenset({40003, 40037, 41030, 43101, 47003})
_LONGEST: Final = {"thing": 20, "short_thing": 10, "phrase": 5, "character_string": 32}
_log = structlog.get_logger("push")


class Parcel(NamedTuple):
    """A message that is marked as sent, and what to send."""

    due: Due
    openid: str
    template: str
    data: dict[str, str]
    page: str


@dataclass(frozen=True, slots=True)
class Pusher:
    """Sends what is due; one or many may run."""

    engine: Engine
    vault: Vault
    wechat: WeChat
    clock: Callable[[], datetime]

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop. Beside the worker's loop, which waits for no other server."""
        while not stop.is_set():
            pause = _PAUSE_S
            try:
                if not self.step():
                    pause = _AWAY_S
            except Exception as error:  # nobody would see the end of a thread
                _log.error("nothing is pushed for now", exc_info=error)
                pause = _AWAY_S
            stop.wait(pause)

    def step(self) -> bool:
        """Send what is due now; False if WeChat is away and better left alone for a while."""
        for _ in range(_PAGE):
            with self.engine.begin() as tx:
                due = messages.take_due(tx, self.clock())
                parcel = self._pack(tx, due) if due else None
            if due is None:
                return True
            if parcel is not None and not self._send(parcel):
                return False
        return True

    def _pack(self, tx: Connection, due: Due) -> Parcel | None:
        """Mark a message as sent and take its quota, if it may be sent at all."""
        message, resident = due.message, due.resident
        parcel = None
        if not due.restricted and self.clock() - message.created_at < STALE:
            parcel = self._parcel(tx, due)
        if parcel and subscriptions.spend(tx, resident, parcel.template):
            messages.push(tx, message.id, "sent", None, due.attempts + 1)
            return parcel
        messages.push(tx, message.id, "none", None, due.attempts)
        return None

    def _parcel(self, tx: Connection, due: Due) -> Parcel | None:
        name = f"template.{due.message.kind}"
        template: dict[str, Any] | None = setting(tx, name) if name in SETTINGS else None
        try:
            openid = sign_in.openid(tx, self.vault, due.resident)
            wrapped = statements.wrapped_key(tx, due.resident)
            if template is None or openid is None or wrapped is None:
                return None
            letter = read_letter(self.vault.subject_key(due.resident, wrapped), due.message)
        except VaultError:
            _log.error("a message does not open", kind=due.message.kind)
            return None
        at = due.message.created_at.astimezone(CITY_ZONE)
        data = {
            field: fitted(field, written(source, letter, at))
            for field, source in template["fields"].items()
        }
        return Parcel(due, openid, template["id"], data, template.get("page", ""))

    def _send(self, parcel: Parcel) -> bool:
        due, resident, template = parcel.due, parcel.due.resident, parcel.template
        try:
            sent = self.wechat.send_subscription(parcel.openid, template, parcel.data, parcel.page)
        except WeChatError as error:
            with self.engine.begin() as tx:
                self._failed(tx, parcel, error)
            return error.errcode != 0
        if sent is Delivery.REFUSED:
            with self.engine.begin() as tx:
                messages.push(tx, due.message.id, "refused", None, due.attempts + 1)
                subscriptions.refuse(tx, resident, template, self.clock())
        return True

    def _failed(self, tx: Connection, parcel: Parcel, error: WeChatError) -> None:
        due, attempts = parcel.due, parcel.due.attempts + 1
        unsent = error.errcode != 0 or not error.reached
        if unsent:
            subscriptions.give_back(tx, due.resident, parcel.template)
        if unsent and attempts < ATTEMPTS and error.errcode not in _FOR_GOOD:
            again = self.clock() + _FIRST_PAUSE * 5**due.attempts
            messages.push(tx, due.message.id, "due", again, attempts)
        else:
            messages.push(tx, due.message.id, "failed", None, attempts)
            _log.warning("push failed", kind=due.message.kind, errcode=error.errcode)


def written(source: str, letter: Letter, at: datetime) -> str:
    """What a template's field is filled with."""
    if source == "title":
        return letter.title
    if source == "text":
        return letter.text
    if source == "at":
        return f"{at.year}年{at.month}月{at.day}日 {at:%H:%M}"
    return letter.params.get(source, "")


def fitted(field: str, value: str) -> str:
    """A value as WeChat takes it in such a field: on one line, not empty, not too long.

    The bounds are those that the template's fields are documented with; a character outside of
    the basic plane counts twice.
    """
    found = FIELD.fullmatch(field)
    most = _LONGEST.get(found[1], 32) if found else 32
    line = " ".join("".join(c if c.isprintable() else " " for c in value).split()) or "-"
    if _width(line) <= most:
        return line
    while _width(line) > most - 1:
        line = line[:-1]
    return line + "…"


def _width(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
