"""A stand-in for WeChat's servers, over real HTTP on this machine: for the demo and for tests.

It answers as https://developers.weixin.qq.com/miniprogram/dev/server/API/ and its users' reports
say: the code of a login or of the phone button works once, within five minutes, for its own app
(40029; a login's code used again: 40163); each user may log in 100 times a minute (45011); in
normal mode stable_token repeats the token until five minutes before its end, and a forced one ends
those before (40001); one tap on a subscription is one message (43101). Refusals are JSON with HTTP
200, also where a picture was asked for.

Beside these stands what a phone does in real life, at POST /stand-in/…: `codes` {user},
`phone-codes` {user, phone}, `steps` {user, steps: {"2026-11-22": 8000}}, `blobs` {user, data} and
`taps` {user, template}. Tests in the same process call the methods.
"""

from __future__ import annotations

import os
import threading
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from secrets import token_hex, token_urlsafe
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson
import segno
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from app.clock import city_clock, utc_now
from app.config import CITY_ZONE, Config

APP_ID: Final = "wxde40000000000000"
CODE_LIFE: Final = timedelta(minutes=5)
TOKEN_LIFE: Final = timedelta(hours=2)
LOGINS_A_MINUTE: Final = 100

_RENEWED_EARLY = timedelta(minutes=5)
_MINUTE = timedelta(minutes=1)
_MAX_SCENE = 32
_MESSAGES = {
    -1: "system error",
    40001: "invalid credential, access_token is invalid or not latest",
    40002: "invalid grant_type",
    40003: "invalid openid",
    40013: "invalid appid",
    40029: "invalid code",
    40037: "invalid template_id",
    40125: "invalid appsecret",
    40129: "invalid scene",
    40163: "code been used",
    40226: "code blocked",
    43101: "user refuse to accept the msg",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    47001: "data format error",
    47003: "argument invalid! data.thing1.value is empty",
}


class Refusal(Exception):  # noqa: N818 (an answer, not a fault)
    """An errcode."""

    def __init__(self, errcode: int) -> None:
        super().__init__(errcode)
        self.errcode = errcode


@dataclass(slots=True)
class Code:
    """What a mini-program was given by wx.login or by the phone button."""

    kind: str
    app_id: str
    user: str
    made_at: datetime
    phone: str = ""
    used: bool = False


@dataclass
class StandIn:
    """WeChat as far as we need it: who its users are and what they tapped.

    Tests may set `busy` (so many calls are answered -1), `limited` (45011) and `blocked` (users
    whose login is refused).
    """

    app_id: str = APP_ID
    secret: str = "stand-in-secret"  # noqa: S105 (of nobody but the stand-in)
    clock: Callable[[], datetime] = utc_now
    templates: set[str] = field(default_factory=lambda: {"template-1"})
    busy: int = 0
    limited: int = 0
    blocked: set[str] = field(default_factory=set)
    sent: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)  # path: how often
    _codes: dict[str, Code] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _taps: Counter[tuple[str, str]] = field(default_factory=Counter)
    _logins: dict[str, list[datetime]] = field(default_factory=dict)
    _tokens: list[tuple[str, datetime]] = field(default_factory=list)
    _turn: threading.RLock = field(default_factory=threading.RLock)

    # what happens on a phone

    def openid(self, user: str) -> str:
        """The 28 characters by which our app knows a user."""
        digest = sha256(f"{self.app_id} {user}".encode()).digest()
        return "o" + urlsafe_b64encode(digest).decode()[:27]

    def login_code(self, user: str, app_id: str = "") -> str:
        """wx.login; with another `app_id`, in another mini-program."""
        return self._code(Code("login", app_id or self.app_id, user, self.clock()))

    def phone_code(self, user: str, phone: str = "13800138000") -> str:
        """A tap on the phone button."""
        return self._code(Code("phone", self.app_id, user, self.clock(), phone))

    def session_key(self, user: str) -> str:
        """The key of the user's newest login; a new one for who never logged in."""
        return self._keys.setdefault(user, b64encode(os.urandom(16)).decode())

    def blob(
        self, user: str, data: Mapping[str, Any], *, app_id: str = "", age_s: int = 0, key: str = ""
    ) -> dict[str, str]:
        """Sealed data as wx.getWeRunData gives it: `encrypted_data` and `iv`.

        With another app's watermark, an older one, or under another session key if so asked.
        """
        at = int(self.clock().timestamp()) - age_s
        mark = {"timestamp": at, "appid": app_id or self.app_id}
        pad, iv = PKCS7(128).padder(), os.urandom(16)
        plain = pad.update(orjson.dumps({**data, "watermark": mark})) + pad.finalize()
        cipher = Cipher(AES128(b64decode(key or self.session_key(user))), CBC(iv)).encryptor()
        sealed = cipher.update(plain) + cipher.finalize()
        return {"encrypted_data": b64encode(sealed).decode(), "iv": b64encode(iv).decode()}

    def steps(self, user: str, steps: Mapping[date, int], **changes: Any) -> dict[str, str]:
        """The steps of some days, sealed as `blob` does."""
        days = [
            {"timestamp": int(datetime.combine(day, time(), CITY_ZONE).timestamp()), "step": count}
            for day, count in sorted(steps.items())
        ]
        return self.blob(user, {"stepInfoList": days}, **changes)

    def tap(self, user: str, template: str) -> None:
        """Accept one message of a template."""
        self._taps[self.openid(user), template] += 1

    # what WeChat's servers answer

    def answer(self, path: str, query: Mapping[str, str], body: bytes) -> bytes:
        """The body of an answer; JSON unless it is a picture."""
        with self._turn:
            self.asked[path] += 1
            try:
                if not path.startswith("/stand-in/"):
                    self._mood()
                return _ANSWERS[path](self, query, _document(body))
            except (KeyError, TypeError, AttributeError):
                return _dump({"errcode": 47001, "errmsg": _MESSAGES[47001]})
            except Refusal as refusal:
                said = f"{_MESSAGES[refusal.errcode]}, rid: {token_hex(4)}-{token_hex(4)}"
                return _dump({"errcode": refusal.errcode, "errmsg": said})

    def _mood(self) -> None:
        if self.busy > 0:
            self.busy -= 1
            raise Refusal(-1)
        if self.limited > 0:
            self.limited -= 1
            raise Refusal(45011)

    def _code(self, code: Code) -> str:
        text = "0" + token_urlsafe(24)[:31]
        self._codes[text] = code
        return text

    def _spend(self, kind: str, text: str, used_again: int) -> Code:
        code = self._codes.get(text)
        if (
            code is None
            or (code.kind, code.app_id) != (kind, self.app_id)
            or self.clock() - code.made_at > CODE_LIFE
        ):
            raise Refusal(40029)
        if code.used:
            raise Refusal(used_again)
        code.used = True
        return code

    def _check_app(self, app_id: Any, secret: Any) -> None:
        if app_id != self.app_id:
            raise Refusal(40013)
        if secret != self.secret:
            raise Refusal(40125)

    def _check_token(self, query: Mapping[str, str]) -> None:
        now = self.clock()
        if not any(query.get("access_token") == token and now < end for token, end in self._tokens):
            raise Refusal(40001)

    def _session(self, query: Mapping[str, str], _: Any) -> bytes:
        self._check_app(query.get("appid"), query.get("secret"))
        if query.get("grant_type") != "authorization_code":
            raise Refusal(40002)
        code = self._spend("login", query.get("js_code", ""), 40163)
        if code.user in self.blocked:
            raise Refusal(40226)
        now = self.clock()
        lately = [at for at in self._logins.get(code.user, []) if now - at < _MINUTE]
        if len(lately) >= LOGINS_A_MINUTE:
            raise Refusal(45011)
        self._logins[code.user] = [*lately, now]
        key = self._keys[code.user] = b64encode(os.urandom(16)).decode()
        return _dump({"session_key": key, "openid": self.openid(code.user)})

    def _token(self, _: Any, document: Any) -> bytes:
        self._check_app(document["appid"], document["secret"])
        if document["grant_type"] != "client_credential":
            raise Refusal(40002)
        now = self.clock()
        if document.get("force_refresh"):
            self._tokens.clear()
        if not self._tokens or self._tokens[-1][1] - now <= _RENEWED_EARLY:
            self._tokens.append((f"99_{token_urlsafe(90)}", now + TOKEN_LIFE))
        token, end = self._tokens[-1]
        return _dump({"access_token": token, "expires_in": int((end - now).total_seconds())})

    def _phone(self, query: Mapping[str, str], document: Any) -> bytes:
        self._check_token(query)
        given = self._codes.get(document["code"])
        openid = document.get("openid")
        if given and openid and openid != self.openid(given.user):
            raise Refusal(40003)
        code = self._spend("phone", document["code"], 40029)
        info = {
            "phoneNumber": code.phone,
            "purePhoneNumber": code.phone,
            "countryCode": "86",
            "watermark": {"timestamp": int(self.clock().timestamp()), "appid": self.app_id},
        }
        return _dump({"errcode": 0, "errmsg": "ok", "phone_info": info})

    def _send(self, query: Mapping[str, str], document: Any) -> bytes:
        self._check_token(query)
        key = document["touser"], document["template_id"]
        if not str(key[0]).startswith("o"):
            raise Refusal(40003)
        if key[1] not in self.templates:
            raise Refusal(40037)
        if not all(isinstance(one, dict) and one.get("value") for one in document["data"].values()):
            raise Refusal(47003)
        if not self._taps[key]:
            raise Refusal(43101)
        self._taps[key] -= 1
        self.sent.append(document)
        return _dump({"errcode": 0, "errmsg": "ok", "msgid": len(self.sent)})

    def _picture(self, query: Mapping[str, str], document: Any) -> bytes:
        self._check_token(query)
        scene = document["scene"]
        if not 0 < len(scene) <= _MAX_SCENE or not scene.isascii() or "%" in scene:
            raise Refusal(40129)
        file = BytesIO()
        segno.make_qr(scene).save(file, kind="png")
        return file.getvalue()

    # the same as the first methods, over HTTP

    def _make_code(self, _: Any, document: Any) -> bytes:
        return _dump({"code": self.login_code(document["user"])})

    def _make_phone_code(self, _: Any, document: Any) -> bytes:
        return _dump({"code": self.phone_code(document["user"], document["phone"])})

    def _make_steps(self, _: Any, document: Any) -> bytes:
        days = {date.fromisoformat(day): count for day, count in document["steps"].items()}
        return _dump(self.steps(document["user"], days))

    def _make_blob(self, _: Any, document: Any) -> bytes:
        return _dump(self.blob(document["user"], document["data"]))

    def _make_tap(self, _: Any, document: Any) -> bytes:
        self.tap(document["user"], document["template"])
        return _dump({})


_ANSWERS: Final[dict[str, Callable[[StandIn, Any, Any], bytes]]] = {
    "/sns/jscode2session": StandIn._session,
    "/cgi-bin/stable_token": StandIn._token,
    "/wxa/business/getuserphonenumber": StandIn._phone,
    "/cgi-bin/message/subscribe/send": StandIn._send,
    "/wxa/getwxacodeunlimit": StandIn._picture,
    "/stand-in/codes": StandIn._make_code,
    "/stand-in/phone-codes": StandIn._make_phone_code,
    "/stand-in/steps": StandIn._make_steps,
    "/stand-in/blobs": StandIn._make_blob,
    "/stand-in/taps": StandIn._make_tap,
}


class Server(ThreadingHTTPServer):
    """Serves the stand-in it holds, which tests replace."""

    daemon_threads = True

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stand_in = stand_in

    def handle_error(self, *_: object) -> None:
        """Nothing: who asked has hung up."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        address = urlsplit(self.path)
        known = address.path in _ANSWERS
        server: Any = self.server
        made = server.stand_in.answer(address.path, dict(parse_qsl(address.query)), body)
        kind = "image/png" if made.startswith(b"\x89PNG") else "text/plain"  # as WeChat has it
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(made)))
        self.end_headers()
        self.wfile.write(made)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: an address has secrets in it."""


@contextmanager
def standing(stand_in: StandIn) -> Iterator[Server]:
    """Serve a stand-in from a thread of this process."""
    with Server(stand_in) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def beside(config: Config) -> Iterator[Config]:
    """The settings with a stand-in running beside them, if they name no mini-program of WeChat's;
    never in production."""
    if config.wechat_app_id or not config.sandbox:
        yield config
        return
    stand_in = StandIn(secret=token_hex(16), clock=city_clock(config))
    with standing(stand_in) as server:
        yield replace(
            config,
            wechat_base=server.url,
            wechat_app_id=stand_in.app_id,
            wechat_secret=stand_in.secret,
        )


def _document(body: bytes) -> Any:
    try:
        return orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise Refusal(47001) from None


def _dump(value: Any) -> bytes:
    return orjson.dumps(value)
