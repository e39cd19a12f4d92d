"""Who sends a request: providers and merchants sign theirs, residents bear a token, and
administrators a session.

What is signed, and how, is `app.signature`'s.

Checks, in order: (1) a header is there, (2) it reads, (3) the timestamp is fresh, (4) the key is
known, (5) in force, and of the announced algorithm, (6) the signature holds over the raw bytes,
(7) the nonce is new. Only a signature that held may spend a nonce.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import wraps
from typing import Final, ParamSpec, Protocol, TypeVar
from urllib.parse import quote

from flask import g, request
from sqlalchemy import Connection, Engine
from werkzeug.exceptions import RequestEntityTooLarge

from app import limits
from app.flows import login, tokens
from app.flows.sign_in import Guest
from app.flows.tokens import Claims
from app.signature import (
    AuthError,
    Received,
    SignatureHeader,
    canonical_request,
    holds,
    parse_signature,
)
from app.store import admins, merchants, providers
from app.store.db import one_statement
from app.store.merchants import Key, Partner, Signed
from app.vault import Vault
from app.wiring import Wired, wired

MAX_SKEW_S: Final = 300

_TOKEN = re.compile(r"Bearer ([A-Za-z0-9._-]{1,2000})")

P = ParamSpec("P")
R = TypeVar("R")


class Verifier(Protocol):
    """A key as the checks need it; `public_key` is a SubjectPublicKeyInfo in DER."""

    @property
    def algorithm(self) -> str: ...
    @property
    def public_key(self) -> bytes: ...
    @property
    def revoked_at(self) -> datetime | None: ...


K = TypeVar("K", bound=Verifier)


Spend = Callable[[Connection, str, str, datetime], tuple[bool, K] | None]

_KEPT: Final = 4096
# Keys whose signatures held. An id is given out once, so that its public key never changes;
# whether it is in force still, and whose it is, is asked each time.
_kept: dict[str, Verifier] = {}


def verify_request(
    engine: Engine,
    now: datetime,
    header: str | None,
    received: Received,
    find: Callable[[Connection, str], K | None],
    spend: Spend[K] | None = None,
) -> K:
    """Run the seven checks; return the key that signed, which `find` finds by its id. Two
    statements, each its own transaction; only one if the signature holds under a key seen before,
    which `spend` then finds again while it takes the nonce. Raises AuthError."""
    given, message = _read(now, header, received)  # (1) (2) (3)
    kept = _kept.get(given.key_id) if spend is not None else None
    with one_statement(engine) as alone:
        if spend is not None and kept is not None and _is_signed(kept, given, message):
            is_new, found = spend(alone, given.key_id, given.nonce, now) or (False, None)
            key = _in_force(found, given.key_id, now)  # (4) (5)
            holds_still = key.public_key == kept.public_key  # (6)
        else:
            key = _in_force(find(alone, given.key_id), given.key_id, now)  # (4) (5)
            holds_still = _is_signed(key, given, message)  # (6)
            is_new = holds_still and providers.spend_nonce(alone, given.key_id, given.nonce, now)
    if not holds_still:
        raise AuthError(
            "SIGNATURE_INVALID",
            "the signature does not hold over the request as received; compare your lines with"
            " `puhui sign --explain` or POST /api/v1/echo-signature",
        )
    if not is_new:  # (7)
        raise AuthError("NONCE_REPLAYED", "this nonce was used before; make one per request")
    if spend is not None and (given.key_id in _kept or len(_kept) < _KEPT):
        _kept[given.key_id] = key
    return key


def _signed(now: datetime, header: str | None, received: Received) -> Signed | None:
    """That a key has signed a request which was an approved merchant's and in force when last seen,
    if that is so; nothing is asked of the database. Raises AuthError of the checks (1) to (3)."""
    given, message = _read(now, header, received)
    kept = _kept.get(given.key_id)
    if not isinstance(kept, Key) or kept.partner.state != "approved" or kept.revoked_at:
        return None
    return Signed(given.key_id, given.nonce, kept) if _is_signed(kept, given, message) else None


def _read(now: datetime, header: str | None, received: Received) -> tuple[SignatureHeader, bytes]:
    """The signature of a request that is fresh, and the message that it is of."""
    given = parse_signature(header)
    if abs(int(given.timestamp) - int(now.timestamp())) > MAX_SKEW_S:
        raise AuthError(
            "TIMESTAMP_SKEW", f"the timestamp is more than {MAX_SKEW_S} s from this server's clock"
        )
    parts = received.method, received.path_query, given.timestamp, given.nonce, received.body
    return given, canonical_request(*parts)


def _in_force(key: K | None, key_id: str, now: datetime) -> K:
    if key is None:  # (4)
        raise AuthError("KEY_UNKNOWN", "no key has this key_id")
    if key.revoked_at is not None and key.revoked_at <= now:  # (5)
        _kept.pop(key_id, None)  # nothing more is done on the word of it
        raise AuthError("KEY_REVOKED", "this key is no longer in force")
    return key


def _is_signed(key: Verifier, given: SignatureHeader, message: bytes) -> bool:
    return given.algorithm == key.algorithm and holds(key.public_key, given.signature, message)


def received() -> Received:
    """The current request's signed parts; the path as sent, percent-encoded."""
    path = quote(request.root_path + request.path, safe="/:@!$&'()*+,;=~-._")
    query = request.query_string.decode("ascii", "replace")
    body = request.get_data()
    if request.content_length is None and len(body) == request.max_content_length:
        raise RequestEntityTooLarge  # a body in chunks is cut at the limit without a word
    return Received(request.method, f"{path}?{query}" if query else path, body)


_PROVIDERS: Final = (providers.find_key, providers.spend_key)
_MERCHANTS: Final = (merchants.find_key, merchants.spend_key)


def signed(view: Callable[P, R]) -> Callable[P, R]:
    """Let only verified providers in; `g.provider` is then the code of the one who signed.

    Behind every guard `g.caller` says who asks, as one text.
    """

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        here = wired()
        header = request.headers.get("Authorization")
        key = verify_request(here.engine, here.clock(), header, received(), *_PROVIDERS)
        g.provider = key.provider
        g.caller = f"provider {g.provider}"
        limits.spend(limits.PROVIDER, g.provider)
        return view(*args, **kwargs)

    return guarded


@dataclass(frozen=True, slots=True)
class MerchantGuard:
    """Lets verified merchants in: by any of their keys, or only by one that is no till's own.
    `early`: before the database was asked, whose answer the view sees to."""

    tills: bool
    early: bool = False

    def __call__(self, view: Callable[P, R]) -> Callable[P, R]:
        """Guard a view; `g.merchant` is then the Partner who asks, in the state of this moment. A
        closed one may only read; what a suspended one may, each flow says.

        Of a guard that lets in early, `g.signed` may be set. The checks (4), (5) and (7) are then
        still to be done, by what acts on the request or by `settled`.
        """

        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            g.signed, here = None, wired()
            if self.early:
                header = request.headers.get("Authorization")
                g.signed = _signed(here.clock(), header, received())
            key = g.signed.key if g.signed else _verified(here)
            limits.spend(limits.MERCHANT, key.partner.code)
            self._admit(key)
            return view(*args, **kwargs)

        return guarded

    def _admit(self, key: Key) -> None:
        asks = key.partner
        if key.sandbox and not wired().config.sandbox:
            raise AuthError("KEY_REVOKED", "a sandbox merchant's key is everybody's; not here")
        g.merchant, g.caller = asks, f"merchant {asks.id}"
        if asks.state == "closed" and request.method != "GET":
            raise AuthError("MERCHANT_CLOSED", f"{asks.code} is closed and may only read")
        if asks.till is not None and not self.tills:
            raise AuthError(
                "TILL_NOT_YOURS", "this key is a till's own; sign with a key of the merchant"
            )

    def settled(self) -> Partner:
        """Who asks, after all checks; those that were left to the view are done now."""
        if g.signed is not None:
            self._admit(_verified(wired()))
            g.signed = None
        asks: Partner = g.merchant
        return asks


def _verified(here: Wired) -> Key:
    header = request.headers.get("Authorization")
    return verify_request(here.engine, here.clock(), header, received(), *_MERCHANTS)


merchant = MerchantGuard(tills=True)
"""The guard for what tills do: charge, refund, use; `g.merchant.till` binds what a till's key may
name."""

paying = MerchantGuard(tills=True, early=True)
"""The same for charges, of which most are plain: one statement looks up all that they need."""

head_office = MerchantGuard(tills=False)
"""The guard for what a merchant decides: stores, keys, staff, rewards, bills."""


def read_access_token(vault: Vault, header: str | None, now: datetime) -> Claims:
    """What a bearer's access token says; its subject is the resident (32 hex digits), who may have
    signed out since. Raises AuthError."""
    claims = _read_token(vault, "access", header)
    if not claims.issued - MAX_SKEW_S <= now.timestamp() < claims.expires:
        raise AuthError("TOKEN_EXPIRED", "the access token is past its 30 minutes")
    return claims


def _read_token(vault: Vault, kind: str, header: str | None) -> Claims:
    if not header:
        raise AuthError("TOKEN_MISSING", f"this address needs a bearer token ({kind})")
    found = _TOKEN.fullmatch(header)
    if not found:
        raise AuthError("TOKEN_INVALID", f"Authorization must read: Bearer <{kind} token>")
    claims = tokens.read(vault.token, kind, found[1])
    if claims is None and vault.old_token is not None:
        key, ended = vault.old_token
        claims = tokens.read(key, kind, found[1])
        if claims is not None and claims.issued > ended:
            claims = None  # by somebody who has the old key and no business with it
    if claims is None:
        raise AuthError("TOKEN_INVALID", f"the {kind} token is not one of ours")
    return claims


def resident(view: Callable[P, R]) -> Callable[P, R]:
    """Let only residents in; `g.resident` is then the account of the one who asks, and `g.sign_in`
    names the sign-in (empty for a token of the sandbox)."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        here = wired()
        header = request.headers.get("Authorization")
        claims = read_access_token(here.vault, header, here.clock())
        if here.sign_outs.ended(here.engine, claims.subject, claims.sid, claims.issued):
            raise AuthError("TOKEN_REVOKED", "this sign-in has ended; log in again")
        g.resident, g.sign_in = claims.subject, claims.sid
        g.caller = f"resident {g.resident}"
        limits.spend(limits.RESIDENT, g.resident)
        return view(*args, **kwargs)

    return guarded


def joiner(view: Callable[P, R]) -> Callable[P, R]:
    """Let only those in whom WeChat vouched for and who may join; `g.guest` is then who asks."""

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        here = wired()
        claims = _read_token(here.vault, "join", request.headers.get("Authorization"))
        if not claims.issued - MAX_SKEW_S <= here.clock().timestamp() < claims.expires:
            raise AuthError("TOKEN_EXPIRED", "the join token is past its 15 minutes; log in again")
        g.guest = Guest(bytes.fromhex(claims.subject), bytes.fromhex(claims.sid))
        g.caller = f"guest {claims.subject}"
        limits.spend(limits.RESIDENT, claims.subject)
        return view(*args, **kwargs)

    return guarded


def session_token() -> str:
    """The session token the current request bears. Raises AuthError SESSION_MISSING."""
    found = _TOKEN.fullmatch(request.headers.get("Authorization", ""))
    if not found:
        raise AuthError("SESSION_MISSING", "log in and send Authorization: Bearer <session token>")
    return found[1]


@dataclass(frozen=True, slots=True)
class AdminGuard:
    """Lets administrators in who hold one of the roles; all of them if none is named."""

    roles: tuple[str, ...]

    def __call__(self, view: Callable[P, R]) -> Callable[P, R]:
        """Guard a view; `g.admin` is then the one who asks."""

        @wraps(view)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            here = wired()
            asks = login.resume(here.engine, session_token(), here.clock())
            limits.spend(limits.ADMIN, asks.name)
            if self.roles and not set(self.roles) & set(asks.roles):
                raise AuthError(
                    "ROLE_MISSING",
                    f"this needs the role {' or '.join(self.roles)};"
                    f" {asks.name} has {', '.join(asks.roles)}",
                )
            g.admin, g.caller = asks, f"admin {asks.id.hex()}"
            return view(*args, **kwargs)

        return guarded


def admin(*roles: str) -> AdminGuard:
    """The guard for administrators who hold one of these roles."""
    if not set(roles) <= set(admins.ROLES):
        raise ValueError(f"{roles} are not all roles")
    return AdminGuard(roles)
