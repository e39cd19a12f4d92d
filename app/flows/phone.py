"""A resident's phone number, as WeChat's phone button vouches for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from app.flows.sign_in import once_per_code, openid
from app.store import logins
from app.vault import Vault, seal
from app.wechat import WeChat, WeChatCodeError


def verify_phone(
    engine: Engine,
    vault: Vault,
    wechat: WeChat,
    resident: str,
    code: str,
    clock: Callable[[], datetime],
) -> str:
    """Keep the number behind the button's code; all of it but seven digits hidden, 138****8000.

    The code must have been given to the WeChat user who is this resident. Raises WeChatError,
    CodeRunningError.
    """

    def ask() -> Callable[[Connection, bytes], dict[str, Any]]:
        with engine.connect() as tx:
            name = openid(tx, vault, resident)
        if name is None:
            raise WeChatCodeError("log in by WeChat first; the code must be of the same user")
        number = wechat.phone(code, name)

        def settle(tx: Connection, _: bytes) -> dict[str, Any]:
            login = logins.newest(tx, resident)
            if login is None:
                raise WeChatCodeError("this account was erased meanwhile")
            key = vault.subject_key(resident, login.wrapped_key)
            sealed = seal(key, number.encode(), _context(resident))
            logins.set_phone(tx, resident, _digest(vault, number), sealed, clock())
            return {"phone": _hidden(number)}

        return settle

    found = once_per_code(engine, vault, f"phone {resident} {code}", clock, ask)
    return str(found["phone"])


def _hidden(number: str) -> str:
    own = number.removeprefix("+86")
    return f"{own[:3]}****{own[-4:]}"


def _digest(vault: Vault, number: str) -> bytes:
    return vault.subject("phone number", number)


def _context(resident: str) -> bytes:
    return f"phone {resident}".encode()
