"""Where a webhook may go: public names over https, and only addresses of the public Internet.

A merchant names the URL, so it could name our own network. An URL is held to a strict form before
it is kept, and at each delivery its host is resolved by us: every address it has must be a public
one, and the connection is made to one of these very addresses, with no second look-up in between
(what DNS rebinding needs). In a sandbox, and only there, loopback addresses may be allowed.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

MAX_URL: Final = 500
_HTTPS: Final = 443
_FIRST_FREE_PORT: Final = 1024  # below it lie the services of others: mail, DNS, ssh
# At least two labels; the last begins with a letter, so that nothing an inet_aton would take for
# an address (127.1, 0x7f.1, 2130706433) passes as a name.
_NAME = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]"
)
_VISIBLE = re.compile(r"[!-~]+")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_GLOBAL_V6 = IPv6Network("2000::/3")  # all that IANA has given out as global unicast
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# In the special-purpose registries (RFC 6890) and not, or not in all versions, in `is_global`:
# protocol assignments, relays of 6to4 (RFC 7526), and documentation (RFC 9637).
_SPECIAL_V4 = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))
_SPECIAL_V6 = (IPv6Network("2001::/23"), IPv6Network("3fff::/20"))

Resolve = Callable[[str, int], Sequence[str]]


class AddressError(Exception):
    """The URL, or an address that its host has, is not one that events are sent to."""

    code = "WEBHOOK_URL_REFUSED"


class Target(NamedTuple):
    """An URL that was held to the form; `loopback` if it may be on this machine."""

    url: str
    host: str
    port: int
    loopback: bool


def read_url(url: str, *, loopback: bool) -> Target:
    """The parts of an endpoint's URL. `loopback` also allows http and https to this machine.

    Raises AddressError with a sentence about what is wrong.
    """
    if len(url) > MAX_URL or not _VISIBLE.fullmatch(url):
        raise AddressError(f"the URL must be 1 to {MAX_URL} visible ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressError("the URL does not read as scheme://host:port/path?query") from None
    if "@" in parts.netloc or "#" in url or "\\" in url:
        raise AddressError("the URL must hold no user, no password, no fragment and no backslash")
    local = loopback and host in _LOOPBACK
    if parts.scheme != "https" and not (local and parts.scheme == "http"):
        raise AddressError("the URL must begin with https://")
    if not local and not _NAME.fullmatch(host):
        raise AddressError(
            "the host must be a full domain name of letters, digits and hyphens (an international"
            " one in its xn-- form), not an address in numbers"
        )
    port = port if port is not None else (_HTTPS if parts.scheme == "https" else 80)
    if not local and port != _HTTPS and port < _FIRST_FREE_PORT:
        raise AddressError(f"the port must be {_HTTPS}, or {_FIRST_FREE_PORT} to 65535")
    return Target(url, host, port, local)


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, in the system's order. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def addresses(target: Target, look_up: Resolve = resolve) -> list[str]:
    """Where to connect to: all addresses of the target's host, each of them a public one.

    Raises AddressError if a single one is not, and OSError if there is none.
    """
    found = list(look_up(target.host, target.port))
    if not found:
        raise OSError("the host has no address")
    for one in found:
        if not (_is_loopback(one) if target.loopback else is_public(one)):
            raise AddressError("the host has an address that is not on the public Internet")
    return found


def is_public(text: str) -> bool:
    """Whether an address is on the public Internet, also if it only wraps one that is not: mapped
    (RFC 4291), NAT64 (RFC 6052) and 6to4 (RFC 3056) addresses are judged by what they lead to."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return _public_v4(inner)
        special = any(address in network for network in _SPECIAL_V6)
        return address in _GLOBAL_V6 and address.is_global and not special
    return _public_v4(address)


def _public_v4(address: IPv4Address) -> bool:
    special = any(address in network for network in _SPECIAL_V4)
    return address.is_global and not address.is_multicast and not special


def _is_loopback(text: str) -> bool:
    return ip_address(text).is_loopback
