"""A provider's client against a server that fails as real ones do; signing by hand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from app.cli import puhui
from app.cli.client import ATTEMPTS, ProviderClient, ProviderError
from app.signature import canonical_request, parse_signature

KEY = Ed25519PrivateKey.generate()
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
RECEIPT = {"batch_id": "b-1", "outcomes": []}
DROP = None  # the connection is closed without an answer


class Flaky(ThreadingHTTPServer):
    """Answers each request with the next of `script`: (status, headers, document) or DROP."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), FlakyHandler)
        self.script, self.taken = [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/behind/a-path/"


class FlakyHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, self.headers["Authorization"], body))
        step = self.server.script.pop(0)
        if step is DROP:
            self.close_connection = True
            return
        status, headers, document = step
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Flaky()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def client(server, waits):
    with ProviderClient(server.url, "bikes-1", PEM, sleep=waits.append) as made:
        yield made


def problem(status, code, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, names, {"code": code, "detail": "a sentence"}


def test_the_same_body_is_sent_until_it_is_answered_each_time_signed_anew(server, client, waits):
    server.script = [DROP, problem(503, "UNAVAILABLE"), (502, {}, b"<html>"), (200, {}, RECEIPT)]
    assert client.send_batch("b-1", [{"id": "a"}]) == RECEIPT
    assert len(waits) == 3
    paths, headers, bodies = zip(*server.taken, strict=True)
    assert set(bodies) == {b'{"batch_id":"b-1","activities":[{"id":"a"}]}'}
    signatures = [parse_signature(header) for header in headers]
    assert len({signature.nonce for signature in signatures}) == 4
    for path, given, body in zip(paths, signatures, bodies, strict=True):
        assert path == "/behind/a-path/api/v1/batches"
        message = canonical_request("POST", path, given.timestamp, given.nonce, body)
        KEY.public_key().verify(given.signature, message)


def test_it_waits_as_long_as_it_is_told(server, client, waits):
    server.script = [problem(429, "TOO_MANY_REQUESTS", Retry_After="17"), (200, {}, RECEIPT)]
    client.send_batch("b-1", [{}])
    assert waits == [17]


def test_but_not_for_ever(server, client, waits):
    server.script = [problem(503, "UNAVAILABLE", Retry_After="86400")]
    with pytest.raises(ProviderError, match="UNAVAILABLE"):
        client.send_batch("b-1", [{}])
    assert waits == []


@pytest.mark.parametrize("status", [400, 401, 409, 422, 500])
def test_a_refusal_is_final_and_keeps_its_code(server, client, waits, status):
    server.script = [problem(status, "SOME_CODE")]
    with pytest.raises(ProviderError) as refused:
        client.send_batch("b-1", [{}])
    assert refused.value.code == "SOME_CODE"
    assert len(server.taken) == 1


@pytest.mark.parametrize("answer", [b"<html>hello</html>", b'"yes"', b"{}"])
def test_an_answer_that_is_not_a_receipt_is_not_taken_for_one(server, client, answer):
    server.script = [(200, {}, answer)]
    with pytest.raises(ProviderError) as refused:
        client.send_batch("b-1", [{}])
    assert refused.value.code == "ANSWER_UNKNOWN"


def test_it_gives_up_at_last_and_waits_longer_each_time(server, client, waits):
    server.script = [DROP] * ATTEMPTS
    with pytest.raises(ProviderError) as lost:
        client.send_batch("b-1", [{}])
    assert lost.value.code == "NO_ANSWER"
    assert len(server.taken) == ATTEMPTS
    assert waits == sorted(set(waits))


@pytest.mark.parametrize("url", ["ftp://x", "nonsense", "http://[::"])
def test_an_address_that_is_none_is_refused_at_once(url, waits):
    with (
        pytest.raises(ProviderError),
        ProviderClient(url, "bikes-1", KEY, sleep=waits.append) as client,
    ):
        client.send_batch("b-1", [{}])
    assert waits == []


def test_a_key_that_is_none_is_refused():
    with pytest.raises(ProviderError) as refused:
        ProviderClient("http://x", "bikes-1", b"-----BEGIN")
    assert refused.value.code == "KEY_MALFORMED"


@pytest.fixture
def signing(tmp_path):
    (tmp_path / "key.pem").write_bytes(PEM)
    (tmp_path / "body.json").write_bytes('{"城": 1}\n'.encode())

    def run(method, path_query, *options):
        files = ["--key", str(tmp_path / "key.pem"), "--key-id", "bikes-1"]
        command = ["sign", method, path_query, *files, *options]
        return CliRunner().invoke(puhui, command, env={"PUHUI_MODE": "test"})

    return run


def test_signing_by_hand_shows_what_the_server_will_see(signing, tmp_path, app):
    body = tmp_path / "body.json"
    at = "/api/v1/echo-signature?a=%E5%9F%8E"
    made = signing("post", at, "--body", str(body), "--explain")
    assert made.exit_code == 0
    header = made.stdout.strip()
    answer = app.test_client().post(
        at, data=body.read_bytes(), headers={"Authorization": header}
    ).get_json()  # fmt: skip
    for said in (
        "POST",
        at,
        answer["timestamp"],
        answer["nonce"],
        f"{answer['body_bytes']} bytes, SHA-256 {answer['body_sha256']}",
        f"bytes, SHA-256 {answer['canonical_sha256']}",
    ):
        assert said in made.stderr
    assert answer["path_query"] == at


def test_the_same_moment_and_nonce_give_the_same_header(signing):
    fixed = ("--timestamp", "1700000000", "--nonce", "0123456789abcdef")
    one = signing("GET", "/api/v1/batches/b-1", *fixed)
    given = parse_signature(one.stdout.strip())
    message = b"GET\n/api/v1/batches/b-1\n1700000000\n0123456789abcdef\n\n"
    KEY.public_key().verify(given.signature, message)
    assert one.stderr == ""


@pytest.mark.parametrize(
    ("path_query", "options"),
    [
        ("http://x/api", ()),
        ("/城", ()),
        ("/a b", ()),
        ("/api", ("--nonce", "short")),
        ("/api", ("--timestamp", "-1")),
    ],
)
def test_what_cannot_be_signed_as_sent_is_refused(signing, path_query, options):
    assert signing("GET", path_query, *options).exit_code == 2
