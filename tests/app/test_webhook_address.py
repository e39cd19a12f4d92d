"""Webhooks go to public addresses only, to exactly the one that was checked, and not for long."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from threading import Event, Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app.config import ConfigError, read_config
from app.flows.webhook.address import AddressError, Target, addresses, is_public, read_url
from app.flows.webhook.post import MAX_ANSWER, Poster

HOST = "pay.shop.example"  # RFC 2606: no resolver knows it


@pytest.mark.parametrize(
    "url",
    [
        "https://pay.shop.example/hook",
        "https://pay.shop.example:8443/hook?shop=1",
        "https://PAY.shop.example",
        "https://xn--fiqs8s.xn--fiqz9s/",
        "https://1.2.3.4.shop.example/",
    ],
)
def test_a_public_name_over_https_is_taken(url):
    assert read_url(url, loopback=False).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://pay.shop.example/hook",
        "ftp://pay.shop.example/",
        "https://",
        "//pay.shop.example/",
        "https:/pay.shop.example/",
        "https://user@pay.shop.example/",
        "https://user:word@pay.shop.example/",
        "https://pay.shop.example@10.0.0.1/",
        "https://pay.shop.example/#part",
        "https://pay.shop.example\\@10.0.0.1/",
        "https://pay.shop.example/a b",
        "https://pay.shop.example/\r\nX: y",
        "https://pay.shop.example\t/",
        "https://支付.例子/",
        "https://pay。shop。example/",
        "https://intranet/",
        "https://pay.shop.example./",
        "https://-a.example/",
        "https://93.184.216.34/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0x1/",
        "https://0177.0.0.1/",
        "https://10.0.0.0xa/",
        "https://[::ffff:10.0.0.1]/",
        "https://[2606:2800:220:1::1]/",
        "https://[fe80::1%25eth0]/",
        "https://pay.shop.example:22/",
        "https://pay.shop.example:80/",
        "https://pay.shop.example:0/",
        "https://pay.shop.example:65536/",
        "https://pay.shop.example:44a/",
        "https://pay.shop.example/" + "a" * 500,
        "https://" + "a." * 127 + "example/",
    ],
)
def test_any_other_url_is_refused_with_a_sentence(url):
    for loopback in (False, True):
        with pytest.raises(AddressError) as refused:
            read_url(url, loopback=loopback)
        assert len(str(refused.value)) > 20


def test_a_sandbox_may_send_to_its_own_machine_and_production_may_not():
    hosts = ("127.0.0.1", "localhost", "[::1]", "127.0.0.1:9000")
    for url in (f"{scheme}://{host}/x" for scheme in ("http", "https") for host in hosts):
        assert read_url(url, loopback=True).loopback
        with pytest.raises(AddressError):
            read_url(url, loopback=False)
    environ = {"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x", "PUHUI_KEYS": "/k"}
    environ |= {"PUHUI_LOG_ORIGIN": "log.example/x"}
    assert not read_config(environ).webhook_loopback
    assert read_config({"PUHUI_WEBHOOK_LOOPBACK": "1"}).webhook_loopback
    assert not read_config({"PUHUI_WEBHOOK_LOOPBACK": "0"}).webhook_loopback
    for wrong in (environ | {"PUHUI_WEBHOOK_LOOPBACK": "1"}, {"PUHUI_WEBHOOK_LOOPBACK": "yes"}):
        with pytest.raises(ConfigError, match="PUHUI_WEBHOOK_LOOPBACK"):
            read_config(wrong)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::10.0.0.1",
        "::93.184.216.34",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:8.8.8.8",
        "64:ff9b::10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::",
        "2002:7f00:1::1",
        "3fff::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "not an address",
    ],
)
def test_no_address_but_a_public_one_is_public(address):
    assert not is_public(address)
    with pytest.raises(AddressError):
        addresses(Target("", HOST, 443, False), lambda *_: ["8.8.8.8", address])


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8",
     "2002:808:808::1"],
)  # fmt: skip
def test_a_public_address_is_public(address):
    assert is_public(address)
    assert addresses(Target("", HOST, 443, False), lambda *_: [address]) == [address]


def local(receiver, path="/hook"):
    """The receiver under a name that only we resolve, as if it were a public one."""
    return Target(f"http://{HOST}:{receiver.port}{path}", HOST, receiver.port, True)


def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked(receiver):
    asked = []

    def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    answer = Poster(5, rebinding).post(local(receiver, "/a?b=c"), {"x-a": "b"}, b'{"type":"t"}')
    assert (answer.status, answer.error, asked) == (204, "", [HOST])
    ((path, headers, body),) = receiver.got
    assert (path, body) == ("/a?b=c", b'{"type":"t"}')
    assert headers["Host"] == f"{HOST}:{receiver.port}"
    assert headers["x-a"] == "b"


def test_a_name_that_leads_inside_is_not_connected_to(receiver):
    outside = Target(f"https://{HOST}:{receiver.port}/", HOST, receiver.port, False)
    for found in (["127.0.0.1"], ["8.8.8.8", "::1"], ["::ffff:127.0.0.1"]):
        answer = Poster(5, lambda *_, found=found: found).post(outside, {}, b"{}")
        assert (answer.status, answer.error) == (None, "ADDRESS_REFUSED")
    assert receiver.got == []


def test_no_proxy_of_the_environment_is_asked(receiver, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Poster(5, lambda *_: ["127.0.0.1"]).post(local(receiver), {}, b'{"type":"t"}').status


def test_no_redirect_is_followed(receiver, open_receiver):
    inside = open_receiver()
    receiver.answer = lambda *_: (302, {"Location": inside.url}, b"")
    answer = Poster(5, lambda *_: ["127.0.0.1"]).post(local(receiver), {}, b"{}")
    assert (answer.status, answer.error) == (302, "HTTP_302")
    assert len(receiver.got) == 1
    assert inside.got == []


def test_the_next_address_is_tried_if_one_refuses(receiver):
    found = ["127.0.0.2", "127.0.0.1"]  # the receiver listens at the second only
    answer = Poster(5, lambda *_: found).post(local(receiver), {}, b'{"type":"t"}')
    assert answer.status == 204


def test_what_can_go_wrong_is_an_answer(receiver):
    def nobody(*_):
        raise OSError("no such name")

    closed = Target("http://127.0.0.1:1/", "127.0.0.1", 1, True)
    assert Poster(5, nobody).post(local(receiver), {}, b"{}").error == "NAME_UNKNOWN"
    assert Poster(5).post(closed, {}, b"{}").error == "NO_CONNECTION"
    receiver.answer = lambda handler, _: handler.wfile.write(b"SMTP ready\r\n\r\n") and None
    assert Poster(5, lambda *_: ["127.0.0.1"]).post(local(receiver), {}, b"{}").error == (
        "BROKEN_ANSWER"
    )


def silent(_, left):
    left.wait(10)


def dripping(handler, left):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(200):
        handler.wfile.write(b"a")
        if left.wait(0.05):
            break


@pytest.mark.parametrize("slow", [silent, dripping])
def test_all_of_it_has_one_deadline(receiver, slow):
    left, ended = Event(), []

    def answer(handler, _):
        slow(handler, left)
        ended.append(left.is_set())

    receiver.answer = answer
    answered = Poster(0.3, lambda *_: ["127.0.0.1"]).post(local(receiver), {}, b"{}")
    assert answered.error == "TIMEOUT"
    assert ended == [], "it waited for the end"
    left.set()


def endless(handler, _):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in count():
        handler.wfile.write(b"a" * 65_536)


def hanging(handler, _):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na")
    time.sleep(3)


def test_a_body_is_read_no_further_than_it_may_be(receiver):
    receiver.answer = endless
    poster = Poster(5, lambda *_: ["127.0.0.1"])
    answer = poster.post(local(receiver), {}, b"{}", read=True)
    assert (answer.error, answer.body) == ("", b"a" * MAX_ANSWER)
    assert poster.post(local(receiver), {}, b"{}").body == b""
    receiver.answer = hanging
    assert poster.post(local(receiver), {}, b"{}").error == ""
    slow = Poster(1, poster.look_up).post(local(receiver), {}, b"{}", read=True)
    assert (slow.error, slow.body) == ("", b"a")


def certificate(folder, name):
    """A key with a certificate for this name, in one file, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    file = folder / f"{name}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


@pytest.fixture
def secure(tmp_path):
    """An https server for HOST on 127.0.0.1: its port, its certificate, the names asked for."""
    file, names = certificate(tmp_path, HOST), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            """Nobody reads it."""

    class Quiet(HTTPServer):
        def handle_error(self, *_):
            """A client that hangs up is what is tested."""

    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.server_address[1], file, names
    server.shutdown()
    server.server_close()


def test_tls_is_held_to_the_name_and_not_to_the_address(secure):
    port, file, names = secure
    trust = ssl.create_default_context(cafile=file)

    def post(host, **trusted):
        target = Target(f"https://{host}:{port}/", host, port, True)
        return Poster(5, lambda *_: ["127.0.0.1"], **trusted).post(target, {}, b"{}")

    assert post(HOST, trust=trust).status == 204
    assert names == [HOST]
    assert post("other.shop.example", trust=trust).error == "TLS_FAILED"
    assert post(HOST).error == "TLS_FAILED"
