"""`puhui sign`: sign a request by hand, and see the bytes that are signed."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe
from typing import BinaryIO

import click

from app.cli.client import ProviderError, read_private_key
from app.cli.clock import now
from app.signature import AuthError, Received, canonical_request, parse_signature
from app.signature import sign as sign_request

_SHOWN = 40  # bytes of the body


@click.command()
@click.argument("method")
@click.argument("path_query", metavar="URL-PATH")
@click.option("--body", type=click.File("rb"), help="the exact bytes to be sent; - for stdin")
@click.option("--key", required=True, type=click.Path(exists=True, path_type=Path), help="PEM file")
@click.option("--key-id", required=True, help="1 to 64 of A-Z a-z 0-9 . _ -")
@click.option("--timestamp", type=click.IntRange(0), help="seconds since 1970; default: now")
@click.option("--nonce", help="16 to 64 of A-Z a-z 0-9 _ -; default: random")
@click.option("--explain", is_flag=True, help="also show what is signed, on standard error")
def sign(
    method: str,
    path_query: str,
    body: BinaryIO | None,
    key: Path,
    key_id: str,
    timestamp: int | None,
    nonce: str | None,
    explain: bool,
) -> None:
    """Print the Authorization header of one request, such as POST /api/v1/batches."""
    if not re.fullmatch(r"/[!-~]*", path_query):
        raise click.UsageError(
            "URL-PATH is the path and query as sent: it begins with / and is percent-encoded"
        )
    at = int(now().timestamp()) if timestamp is None else timestamp
    once = nonce or token_urlsafe(24)
    request = Received(method.upper(), path_query, body.read() if body else b"")
    try:
        private = read_private_key(key.read_bytes())
    except ProviderError as error:
        raise click.ClickException(str(error)) from None
    header = sign_request(private, key_id, request, at, once)
    try:
        parse_signature(header)
    except AuthError:
        raise click.UsageError("--key-id or --nonce is not as it must be; see --help") from None
    if explain:
        click.echo(explanation(request, at, once), err=True)
    click.echo(header)


def explanation(request: Received, timestamp: int, nonce: str) -> str:
    """The five signed lines one by one; compare with the answer of POST /api/v1/echo-signature."""
    method, path_query, body = request.method, request.path_query, request.body
    message = canonical_request(method, path_query, str(timestamp), nonce, body)
    begins = f", begins {body[:_SHOWN]!r}" if body else ""
    return "\n".join(
        [
            f"1 method      {method}",
            f"2 path_query  {path_query}",
            f"3 timestamp   {timestamp}",
            f"4 nonce       {nonce}",
            f"5 body        {len(body)} bytes, SHA-256 {sha256(body).hexdigest()}{begins}",
            "each line ends with one newline (0x0a), the body's too",
            f"signed: {len(message)} bytes, SHA-256 {sha256(message).hexdigest()}",
        ]
    )


COMMANDS = (sign,)
