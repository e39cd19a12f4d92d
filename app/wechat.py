"""What we ask of WeChat's servers, and what a mini-program brings from them sealed.

Addresses and codes are those of https://developers.weixin.qq.com/miniprogram/dev/server/API/
(code2Session, getStableAccessToken, getPhoneNumber, subscribeMessage.send, getUnlimitedQRCode).
An answer is JSON with an `errcode` that is 0 or absent when all went well. Neither the secret, nor
a code, a session key or an access token, is ever part of an error or a log line.
"""

from __future__ import annotations

import logging
import threading
import time
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from hashlib import sha256
from typing import Any, Final, NamedTuple

import httpx
import orjson
import redis
import structlog
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from app.config import Config

MAX_AGE_S: Final = 300  # of a watermark, and as much ahead of our clock
MAX_SEALED_CHARS: Final = 65_536  # 31 days of steps are about 2,000

_TIMEOUT = httpx.Timeout(5, connect=2)
_BACKOFF_S = 0.3
_AT_ONCE = 2  # of a process's threads: a WeChat that hangs must not hold them all
_TURN_S = 0.5
_AGAIN = frozenset({-1, 45011})  # busy; too often in this minute
_STALE = frozenset({40001, 40014, 42001})  # an access token that is no longer the newest
_WRONG_CODE = frozenset({40029, 40163})  # unknown, expired or another app's; used before
_BLOCKED = 40226
_WRONG_OPENID = 40003
_REFUSES = 43101
_RENEWED_EARLY_S = 300  # WeChat gives out the next token five minutes before this one ends
_ASKING_MS = 8_000  # how long others wait for the process that asks for a token
_BLOCK_BITS = 128

# httpx writes each address it asks to the log, and the login's has the secret in it
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class WeChatError(Exception):
    """WeChat did not do what was asked; `errcode` is its number, 0 if it gave none. Unless it did,
    or `reached` is False, it may have been done all the same."""

    code = "UNAVAILABLE"

    def __init__(self, detail: str, errcode: int = 0, *, reached: bool = True) -> None:
        super().__init__(detail)
        self.errcode = errcode
        self.reached = reached


class WeChatCodeError(WeChatError):
    """The code a mini-program sent is not one that WeChat takes from us, or no longer."""

    code = "WECHAT_CODE_INVALID"


class WeChatBlockedError(WeChatError):
    """WeChat holds this user for a risk and refuses the login (40226)."""

    code = "WECHAT_BLOCKED"


class WeChatDataError(Exception):
    """Sealed data does not open, is another app's, or is too old: always the same sentence."""

    code = "WECHAT_DATA_INVALID"


class Session(NamedTuple):
    """Who logged in: WeChat's name for the user within our app, and the key of this login."""

    openid: str
    session_key: str


class Delivery(StrEnum):
    """What became of a subscription message. A refusal is an answer: nobody tries again."""

    SENT = "sent"
    REFUSED = "refused"


@dataclass(frozen=True)
class WeChat:
    """One mini-program's line to WeChat. Safe to use from several threads.

    Every call raises WeChatError if WeChat is away, busy even when asked again, or refuses.
    """

    base: str
    app_id: str
    secret: str = field(repr=False)
    shared: redis.Redis | None = field(default=None, repr=False)
    _own: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False)
    _turns: threading.Semaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_AT_ONCE), repr=False
    )

    def session(self, code: str) -> Session:
        """What wx.login's code stands for. Raises WeChatCodeError, WeChatBlockedError too."""
        query = {
            "appid": self.app_id,
            "secret": self.secret,
            "js_code": code,
            "grant_type": "authorization_code",
        }
        found = _good(self._ask("GET", "/sns/jscode2session", query))
        openid, key = found.get("openid"), found.get("session_key")
        if not isinstance(openid, str) or not isinstance(key, str) or not openid or not key:
            raise WeChatError("WeChat's answer to a login is not one that we know")
        return Session(openid, key)

    def phone(self, code: str, openid: str) -> str:
        """The number behind the phone button's code, as +86138…, if the code is of this user.
        Raises WeChatCodeError too."""
        document = {"code": code, "openid": openid}
        try:
            found = _good(self._call("/wxa/business/getuserphonenumber", document))
            info = found["phone_info"]
            country, number = info["countryCode"], info["purePhoneNumber"]
            ours = info["watermark"]["appid"] == self.app_id
        except WeChatError as error:
            if error.errcode == _WRONG_OPENID:
                raise WeChatCodeError("this code is another user's", error.errcode) from None
            raise
        except (KeyError, TypeError):
            raise WeChatError("WeChat's answer about a phone is not one that we know") from None
        if not ours or not f"{country}{number}".isdecimal():
            raise WeChatCodeError("this code is of another app")
        return f"+{country}{number}"

    def send_subscription(
        self, openid: str, template: str, data: Mapping[str, str], page: str
    ) -> Delivery:
        """Send one subscription message; `data` maps the template's keywords to their texts."""
        document = {
            "touser": openid,
            "template_id": template,
            "page": page,
            "data": {name: {"value": value} for name, value in data.items()},
        }
        found = self._call("/cgi-bin/message/subscribe/send", document)
        if found.get("errcode") == _REFUSES:
            return Delivery.REFUSED
        _good(found)
        return Delivery.SENT

    def code_image(self, scene: str, page: str) -> bytes:
        """A mini-program code that opens `page` with `scene` (at most 32 characters), as PNG."""
        document = {"scene": scene, "page": page}
        found = self._call("/wxa/getwxacodeunlimit", document)
        image = found.get("image")
        if not isinstance(image, bytes):
            _good(found)
            raise WeChatError("WeChat's answer is not a picture")
        return image

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    @cached_property
    def _http(self) -> httpx.Client:
        secure = self.base.startswith("https:")  # else a stand-in next door: no proxy between
        return httpx.Client(
            base_url=self.base, timeout=_TIMEOUT, trust_env=secure, follow_redirects=False
        )

    def _call(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """POST with the access token; once more with a newer one if this one was stale."""
        token = self._token()
        found = self._ask("POST", path, {"access_token": token}, document)
        if found.get("errcode") in _STALE:
            self._drop(token)
            found = self._ask("POST", path, {"access_token": self._token()}, document)
        return found

    def _ask(
        self, method: str, path: str, query: Mapping[str, str], document: Any = None
    ) -> dict[str, Any]:
        found = self._once(method, path, query, document)
        if found.get("errcode") in _AGAIN:
            time.sleep(_BACKOFF_S)
            found = self._once(method, path, query, document)
        if found.get("errcode"):
            structlog.get_logger().warning("wechat refuses", path=path, errcode=found["errcode"])
        return found

    def _once(
        self, method: str, path: str, query: Mapping[str, str], document: Any
    ) -> dict[str, Any]:
        if not self.app_id:
            raise WeChatError("this city has no WeChat app id yet", reached=False)
        body = {} if document is None else {"content": orjson.dumps(document)}
        if not self._turns.acquire(timeout=_TURN_S):
            raise WeChatError("too many wait for WeChat; try again soon", reached=False)
        try:
            answer = self._http.request(method, path, params=query, **body)  # type: ignore[arg-type]
            content = answer.raise_for_status().content
            if content.startswith(b"\x89PNG") or answer.headers.get("Content-Type") == "image/jpeg":
                return {"image": content}
            found = orjson.loads(content)
        except (httpx.HTTPError, orjson.JSONDecodeError) as error:
            structlog.get_logger().warning("wechat away", path=path, error=type(error).__name__)
            reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            raise WeChatError(
                "WeChat does not answer at this moment; try again soon", reached=reached
            ) from None
        finally:
            self._turns.release()
        if not isinstance(found, dict):
            raise WeChatError("WeChat's answer is not one that we know")
        return found

    # The access token. In stable_token's normal mode whoever asks gets the same token, so that a
    # process that asks by itself takes nothing from the others: sharing only saves calls.

    def _token(self) -> str:
        if self.shared is not None:
            try:
                return self._shared_token(self.shared)
            except redis.RedisError:
                structlog.get_logger().warning("access token not shared")
        token, good_until = self._own.get(self.app_id, ("", 0.0))
        if time.monotonic() >= good_until:
            token, seconds = self._new_token()
            self._own[self.app_id] = token, time.monotonic() + seconds
        return token

    def _shared_token(self, shared: redis.Redis) -> str:
        deadline = time.monotonic() + _ASKING_MS / 1000
        while True:
            found = shared.get(self._key("token"))
            if isinstance(found, bytes):
                return found.decode()
            asking = shared.set(self._key("asking"), b"1", nx=True, px=_ASKING_MS)
            if asking or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        try:
            token, seconds = self._new_token()
            shared.set(self._key("token"), token, ex=seconds)
        finally:
            shared.delete(self._key("asking"))
        return token

    def _new_token(self) -> tuple[str, int]:
        """A token, and for how many seconds to use it."""
        document = {
            "grant_type": "client_credential",
            "appid": self.app_id,
            "secret": self.secret,
            "force_refresh": False,
        }
        found = _good(self._ask("POST", "/cgi-bin/stable_token", {}, document))
        token, seconds = found.get("access_token"), found.get("expires_in")
        if not isinstance(token, str) or not isinstance(seconds, int):
            raise WeChatError("WeChat's answer about an access token is not one that we know")
        return token, max(1, seconds - _RENEWED_EARLY_S)

    def _drop(self, token: str) -> None:
        """Forget a stale token, unless somebody has put a newer one in its place."""
        self._own.pop(self.app_id, None)
        if self.shared is not None:
            try:
                if self.shared.get(self._key("token")) == token.encode():
                    self.shared.delete(self._key("token"))
            except redis.RedisError:
                structlog.get_logger().warning("access token not shared")

    def _key(self, what: str) -> str:
        place = sha256(f"{self.base} {self.app_id} {self.secret}".encode()).hexdigest()[:16]
        return f"puhui/wechat/{place}/{what}"


def connect(config: Config, shared: redis.Redis | None) -> WeChat:
    """The line of these settings; nothing is sent before it is used. Without an app id every call
    raises WeChatError."""
    return WeChat(config.wechat_base, config.wechat_app_id, config.wechat_secret, shared)


def decrypt(
    app_id: str, session_key: str, encrypted: str, iv: str, now: datetime
) -> dict[str, Any]:
    """Open what wx.getWeRunData and the like bring: AES-128-CBC, PKCS#7, base64, JSON, with a
    watermark of our app that is at most five minutes off. Raises WeChatDataError, which never says
    what of it was wrong, so that nobody learns a key from the difference."""
    try:
        if len(encrypted) > MAX_SEALED_CHARS:
            raise ValueError("size")
        key, start = b64decode(session_key, validate=True), b64decode(iv, validate=True)
        cipher = Cipher(AES128(key), CBC(start)).decryptor()
        padded = cipher.update(b64decode(encrypted, validate=True)) + cipher.finalize()
        strip = PKCS7(_BLOCK_BITS).unpadder()
        found = orjson.loads(strip.update(padded) + strip.finalize())
        watermark = found["watermark"]
        at = watermark["timestamp"]
        if watermark["appid"] != app_id or type(at) is not int or not isinstance(found, dict):
            raise ValueError("watermark")
        if abs(now.timestamp() - at) > MAX_AGE_S:
            raise ValueError("age")
    except (ValueError, KeyError, TypeError, IndexError):
        raise WeChatDataError(
            "the data is not what WeChat sealed for this app and login just now;"
            " log in again and fetch it anew"
        ) from None
    return found


def _good(found: dict[str, Any]) -> dict[str, Any]:
    """The answer, if it is one of success."""
    errcode = found.get("errcode") or 0
    if not errcode:
        return found
    if errcode in _WRONG_CODE:
        raise WeChatCodeError("WeChat does not know this code, or it was used before", errcode)
    if errcode == _BLOCKED:
        raise WeChatBlockedError("WeChat refuses this login", errcode)
    if errcode in _AGAIN:
        raise WeChatError("WeChat is busy; try again in a moment", errcode)
    raise WeChatError(f"WeChat refused what we asked of it ({errcode})", errcode)
