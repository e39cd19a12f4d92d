"""A light HTTP load: raw keep-alive connections, so that the client takes little of the machine."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from itertools import cycle
from threading import Thread
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def get(url: str, **headers: str) -> bytes:
    """The bytes of one GET request."""
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"GET {path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(url: str, body: bytes, **headers: str) -> bytes:
    """The bytes of one POST request with a JSON body; in names of headers _ stands for -."""
    parts = urlsplit(url)
    lines = [
        f"POST {parts.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def rate(url: str, requests: Sequence[bytes], seconds: float, connections: int) -> float:
    """Requests a second, each connection sending the next as soon as it is answered."""
    return len(times(url, requests, seconds, connections)) / seconds


def times(url: str, requests: Sequence[bytes], seconds: float, connections: int) -> list[float]:
    """The seconds each request took, sent like this for so long."""
    taken: list[list[float]] = [[] for _ in range(connections)]
    deadline = time.perf_counter() + seconds

    def ask(n: int) -> None:
        with connected(url) as link:
            for request in cycle(requests[n::connections]):
                began = time.perf_counter()
                if began >= deadline:
                    return
                exchange(link, request)
                taken[n].append(time.perf_counter() - began)

    threads = [Thread(target=ask, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for some in taken for one in some]


def connected(url: str) -> socket.socket:
    """A connection to the server of this URL, to be closed by who asked for it."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port))


def exchange(link: socket.socket, request: bytes) -> bytes:
    """Send a request; the body of its answer. Raises RuntimeError if it is no success."""
    link.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += _part(link, 65536)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 20"):
        raise RuntimeError(data.decode(errors="replace"))
    length = _LENGTH.search(head)
    parts, missing = [body], (int(length[1]) if length else 0) - len(body)
    while missing > 0:
        parts.append(_part(link, min(missing, 1 << 20)))
        missing -= len(parts[-1])
    return b"".join(parts)


def _part(link: socket.socket, most: int) -> bytes:
    part = link.recv(most)
    if not part:
        raise RuntimeError("the server closed the connection")
    return part
