"""The page's own JavaScript reads and judges receipts as the Python does: on the same vectors, on
thousands of changed receipts, in V8 and (where one is installed) in a real browser."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256, sha512
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from py_mini_racer import JSEvalException, MiniRacer

from app.api.receipts import qr_code
from ledger import note, proof
from ledger.checkpoint import Checkpoint
from ledger.encoding import commit
from ledger.entries import Entry, Kind
from ledger.errors import LedgerError
from ledger.merkle import inclusion_proof, leaf_hash, root, verify_inclusion
from ledger.note import COSIGNATURE, Signer, Verifier, cosign
from ledger.proof import Receipt
from ledger.tiles import Edge, TileNodes
from ledger.transfers import Rule, issue

PROJECT = Path(__file__).resolve().parents[2]
STATIC = PROJECT / "app/web/static"
VECTORS = PROJECT / "tests/vectors"
SCRIPTS = ("ed25519.js", "receipt.js")
ORDER = 2**252 + 27742317777372353535851937790883648493

LOG = Signer("log.example/puhui", bytes(range(32)))
WITNESS = Signer("witness.example/w", bytes(range(32, 64)), COSIGNATURE)
SALT, OPENING = bytes(range(32)), '{"activity":"r-1","quantities":{"distance_km":"2.5"}}'


def entry(number: int) -> bytes:
    """An issue as the ledger writes it."""
    return issue(
        id=f"{number:032x}",
        at="2026-11-22T01:02:03.004Z",
        resident="1" * 32,
        rule=Rule("travel.bike_shared", 1, "0" * 64),
        commitment=commit(SALT, OPENING.encode()),
        reduction_mg=625_000,
        vintage=2026,
        points=625,
        bucket=20361130,
        budget="b" * 32,
    ).payload()


PAYLOADS = [entry(number) for number in range(300)]
LEAVES = [leaf_hash(payload) for payload in PAYLOADS]
HEAD = Checkpoint(LOG.name, len(LEAVES), root(LEAVES))
_FULL, _EDGE = Edge().grow(b"".join(LEAVES))
_STORED = dict(_FULL + _EDGE.tiles())
KEYS = (LOG.verifier, WITNESS.verifier)


def receipt(index: int, extra: bool = True) -> str:
    path = inclusion_proof(index, HEAD.size, TileNodes(HEAD.size, _STORED.__getitem__).node)
    signed = cosign(note.sign(HEAD.text(), [LOG]), WITNESS, 1_795_000_000)
    return Receipt(index, tuple(path), signed, PAYLOADS[index] if extra else None).text()


class Page:
    """The scripts in V8. `ask` calls a function and gives its answer, or the refusal's code."""

    def __init__(self) -> None:
        self.engine = MiniRacer()
        for name in SCRIPTS:
            self.engine.eval((STATIC / name).read_text(encoding="utf-8") + "\n;0")
        self.engine.eval(
            "const plain = (_, v) => typeof v === 'bigint' ? String(v) : v instanceof Uint8Array ?"
            " base64(v) : v instanceof Set ? [...v] : v; const bytes = (t) => unbase64(t);"
            "const ask = (work) => { try { return JSON.stringify({ok: work() ?? null}, plain) }"
            " catch (e) { return JSON.stringify({code: e instanceof Refused ? e.code : `${e}`}) }"
            " };0"
        )

    def ask(self, call: str) -> Any:
        answer = json.loads(self.engine.eval(f"ask(() => {call})"))
        return answer["ok"] if "ok" in answer else answer["code"]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.engine.close()


def js(value: str) -> str:
    return json.dumps(value)


def raw(data: bytes) -> str:
    return f"bytes({js(b64encode(data).decode())})"


def keys_of(verifiers: Any) -> str:
    return f"readKeys({js(chr(10).join(one.vkey for one in verifiers))})"


def judge(text: str, verifiers: Any = KEYS) -> str:
    """What the Python makes of a receipt: its code, or OK."""
    try:
        read = Receipt.parse(text)
        proof.verify(read, read.extra or b"", verifiers)
        Entry.parse(read.extra or b"")
    except LedgerError as error:
        return error.code
    return "OK"


def judged(page: Page, text: str, verifiers: Any = KEYS) -> str:
    answer = page.ask(f"verify({js(text)}, {keys_of(verifiers)}).head.origin")
    return "OK" if answer == LOG.name else answer


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 111, 112, 127, 128, 1000])
def test_hashes_are_those_of_the_standard(page, size):
    data = bytes(n % 251 for n in range(size))
    for name, made in (("sha256", sha256(data)), ("sha512", sha512(data))):
        assert b64decode(page.ask(f"{name}({raw(data)})")) == made.digest()


def test_signatures_hold_and_any_other_does_not(page):
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public, message = key.public_key().public_bytes_raw(), b"a message"
    good = key.sign(message)
    call = "ed25519({}, {}, {})"
    assert page.ask(call.format(raw(public), raw(message), raw(good))) is True
    scalar = (int.from_bytes(good[32:], "little") + ORDER).to_bytes(32, "little")
    bad = {
        "another message": (public, message + b"!", good),
        "another key": (bytes(32), message, good),
        "a scalar not reduced (RFC 8032, 5.1.7)": (public, message, good[:32] + scalar),
        "a short signature": (public, message, good[:63]),
        "a key that is no point": (b"\x02" + bytes(31), message, good),
        "a key in another spelling": ((2**255 - 18).to_bytes(32, "little"), message, good),
    }  # fmt: skip
    for name, parts in bad.items():
        assert page.ask(call.format(*map(raw, parts))) is False, name
    for at in range(0, 64, 5):
        bent = bytearray(good)
        bent[at] ^= 1
        assert page.ask(call.format(raw(public), raw(message), raw(bytes(bent)))) is False


def test_the_published_receipts_are_read_and_the_bad_ones_refused(page):
    cases = json.loads((VECTORS / "tlog-proof/tlog-proof-parse.json").read_text())
    for case in cases["ok"]:
        read = page.ask(f"readReceipt({js(case['text'])})")
        assert read == {
            "index": str(case["index"]), "hashes": case["hashes"],
            "checkpoint": case["checkpoint"], "extra": case["extra_b64"],
        }  # fmt: skip
    for case in cases["bad"]:
        assert page.ask(f"readReceipt({js(case['text'])})") == "MALFORMED"
    assert (len(cases["ok"]), len(cases["bad"])) == (3, 8)


def test_the_published_checkpoints_are_read_as_in_python(page):
    cases = json.loads((VECTORS / "signed-note/checkpoint-parse.json").read_text())
    texts = [text for text in strings([cases[name] for name in cases if name != "source"]) if text]
    assert len(texts) > 5
    for text in texts:
        try:
            read = Checkpoint.parse(text)
            expected: Any = [read.origin, str(read.size), b64encode(read.root).decode()]
        except LedgerError as error:
            expected = error.code
        call = f"((h) => [h.origin, h.size, h.root])(readCheckpoint({js(text)}))"
        assert page.ask(call) == expected, text


def test_the_published_notes_are_opened_as_in_python(page):
    cases = json.loads((VECTORS / "signed-note/golang-note.json").read_text())
    texts = sorted(
        {text for text in strings(cases) if "\n\n\N{EM DASH}" in text or text.count("\n") > 2}
    )
    keys = [text for text in strings(cases) if re.fullmatch(r"[^\s+]+\+[0-9a-f]{8}\+\S{44}", text)]
    held = []
    for key in dict.fromkeys(keys):
        name = page.ask(f"readKey({js(key)}).name")
        try:
            held.append(Verifier.parse(key))
        except LedgerError as error:
            expected_name = error.code
        else:
            expected_name = held[-1].name
        assert name == expected_name
    assert texts
    assert held
    for text in texts:
        try:
            expected: Any = note.open(text, held).text
        except LedgerError as error:
            expected = error.code
        assert page.ask(f"openNote({js(text)}, {keys_of(held)}).text") == expected, text


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in strings(one)]


def test_the_published_proofs_are_judged_as_in_python(page):
    files = sorted((VECTORS / "merkle/inclusion").rglob("*.json"))
    assert len(files) > 50
    for file in files:
        case = json.loads(file.read_text())
        hashes = [b64decode(one) for one in case["proof"] or []]
        leaf, top = b64decode(case["leafHash"] or ""), b64decode(case["root"] or "")
        index, size = case["leafIdx"], case["treeSize"]
        try:
            verify_inclusion(index, size, leaf, hashes, top)
            expected = None
        except LedgerError as error:
            expected = error.code
        listed = ",".join(map(raw, hashes))
        call = f"verifyInclusion({index}n, {size}n, {raw(leaf)}, [{listed}], {raw(top)})"
        assert page.ask(call) == expected, file
        assert (expected is not None) == case["wantErr"]


@pytest.mark.parametrize("index", [0, 1, 127, 255, 256, 299])
def test_a_receipt_holds_with_its_entry_and_its_opening(page, index):
    text = receipt(index)
    found = page.ask(f"verify({js(text)}, {keys_of([LOG.verifier])})")
    assert found["index"] == str(index)
    assert found["entry"] == json.loads(PAYLOADS[index])
    opening = json.dumps({"salt": SALT.hex(), "opening": OPENING, "entry_id": "more"})
    call = "checkOpening(verify({}, {}).entry, {})"
    keys = keys_of(KEYS)
    assert page.ask(call.format(js(text), keys, js(opening))) == OPENING
    assert page.ask(
        call.format(js(text), keys, js(opening.replace(SALT.hex(), SALT.hex().upper())))
    )
    moved = {"salt": SALT.hex() + OPENING[:1].encode().hex(), "opening": OPENING[1:]}
    shorter = {"salt": SALT.hex()[:-2], "opening": "\x1f" + OPENING}
    for bad in (opening.replace("2.5", "2.6"), opening.replace("00", "01", 1), "{}", "[1",
                json.dumps(moved), json.dumps(shorter)):  # fmt: skip
        assert page.ask(call.format(js(text), keys, js(bad))) in ("MALFORMED", "UNVERIFIED")


def test_a_receipt_without_its_entry_holds_with_the_entry_beside_it(page):
    bare, keys = js(receipt(7, extra=False)), keys_of(KEYS)
    assert page.ask(f"verify({bare}, {keys})") == "MALFORMED"
    other, own = js(PAYLOADS[8].decode()), js(PAYLOADS[7].decode())
    assert page.ask(f"verify({bare}, {keys}, {other})") == "UNVERIFIED"
    assert page.ask(f"verify({bare}, {keys}, {own}).entry.id") == f"{7:032x}"
    assert page.ask(f"verify({js(receipt(7))}, {keys}, {other})") == "UNVERIFIED"


def mutants(count: int) -> list[str]:
    """Receipts changed in one or two places: characters, lines, numbers, spaces."""
    draw = random.Random(7)
    whole = receipt(299)
    made = []
    for _ in range(count):
        text = whole
        for _ in range(draw.choice((1, 1, 2))):
            at = draw.randrange(len(text))
            kind = draw.randrange(5)
            if kind == 0:
                text = (
                    text[:at]
                    + chr(draw.choice((10, 13, 32, 43, 61, 65, 48, 0x2014, 0x85, 0)))
                    + text[at + 1 :]
                )
            elif kind == 1:
                text = text[:at] + text[at + 1 :]
            elif kind == 2:
                text = text[:at] + draw.choice("=\n A0+/\u00a0") + text[at:]
            elif kind == 3:
                lines = text.split("\n")
                lines.insert(draw.randrange(len(lines)), draw.choice(lines))
                text = "\n".join(lines)
            else:
                text = text[:at] if draw.random() < 0.3 else text + draw.choice("\n x")
        made.append(text)
    return made


def test_both_judge_every_changed_receipt_alike(page):
    verdicts = set()
    for text in mutants(1500):
        expected = judge(text)
        assert judged(page, text) == expected, text
        verdicts.add(expected)
    assert verdicts >= {"MALFORMED", "UNVERIFIED"}


UNSOUND = {
    "not canonical": (b'"v":1', b'"v": 1'),
    "another version": (b'"v":1', b'"v":2'),
    "an unknown kind": (b'"kind":"issue"', b'"kind":"gift"'),
    "unbalanced": (b'"POINT",0,-625', b'"POINT",0,-624'),
    "a field more": (b'"v":1', b'"v":1,"w":1'),
    "no id": (b'"id":"0', b'"id":"z'),
    "not JSON": (b"{", b""),
}


@pytest.mark.parametrize("change", UNSOUND.values(), ids=UNSOUND)
def test_an_entry_that_is_none_is_refused_though_the_log_signed_it(page, change):
    payload = PAYLOADS[0].replace(*change, 1)
    assert payload != PAYLOADS[0]
    head = Checkpoint(LOG.name, 1, leaf_hash(payload))
    text = Receipt(0, (), note.sign(head.text(), [LOG]), payload).text()
    assert judge(text) == judged(page, text)
    assert judge(text) in ("MALFORMED", "UNBALANCED")


def test_the_page_knows_every_kind_of_entry(page):
    assert page.ask("ENTRY_KINDS.slice().sort()") == sorted(Kind)


@pytest.mark.parametrize("bad", ["", "name", "a+b+c", "log.example/puhui+00000000+" + "A" * 44])
def test_a_key_that_is_none_is_refused(page, bad):
    assert page.ask(f"readKey({js(bad)})") == "MALFORMED"


def test_two_keys_of_one_name_and_number_are_refused(page):
    own = keys_of([LOG.verifier])
    twins = f"[...{own}, {{...{own}[0], key: {raw(bytes(32))}}}]"
    assert page.ask(f"verify({js(receipt(1))}, {twins})") == "MALFORMED"


def test_text_that_is_no_utf8_is_refused(page):
    assert page.ask(f"decode({raw(b'a' + bytes([0xC0, 0x80]))})") == "MALFORMED"
    assert page.ask(f"decode({raw('凭证'.encode())})") == "凭证"
    assert page.ask('encode("\\ud800")') == "MALFORMED"
    with pytest.raises(JSEvalException):
        page.engine.eval("undefined.nothing")


# --- in a real browser


def browser() -> str | None:
    named = os.environ.get("PUHUI_CHROMIUM")
    return (
        named
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )


@pytest.fixture
def opened(app, tmp_path):
    """Open the page as saved to a disk, filled in and checked, in a browser without a network."""
    program = browser()
    if program is None:
        pytest.skip("no Chromium here: install one, or name it in PUHUI_CHROMIUM")
    saved = app.test_client().get("/verify.html")
    assert saved.status_code == 200

    def check(text: str, keys: str, opening: str = "") -> str:
        fill = "".join(
            f"field({js(name)}).value = {js(value)};"
            for name, value in (("receipt", text), ("keys", keys), ("opening", opening))
        )
        file = tmp_path / "verify.html"
        script = f"<script>{fill} field('check').click();</script>"
        file.write_text(saved.text.replace("</body>", f"{script}</body>"), encoding="utf-8")
        done = subprocess.run(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
             "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
             file.as_uri()],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        shown = re.search(r'<section id="result"[^>]*>(.*?)</section>', done.stdout, re.DOTALL)
        assert shown, done.stderr[-2000:]
        return shown[1]

    return check


def test_the_saved_page_checks_a_receipt_in_a_browser_without_a_network(opened):
    opening = json.dumps({"salt": SALT.hex(), "opening": OPENING})
    good = opened(receipt(42), LOG.verifier.vkey, opening)
    assert "凭证成立" in good
    assert "log.example/puhui" in good
    assert "625.000 g" in good
    assert "distance_km" in good


def test_the_saved_page_says_in_a_browser_what_does_not_hold(opened):
    bent = receipt(42).replace("index 42", "index 43")
    assert "证明到不了账本的根" in opened(bent, LOG.verifier.vkey)


def test_vectors_hold_in_a_browser_too(opened):
    cases = json.loads((VECTORS / "tlog-proof/tlog-proof-parse.json").read_text())
    for case in cases["bad"][:2]:
        assert "MALFORMED" in opened(case["text"], LOG.verifier.vkey)


def test_the_page_of_the_server_carries_the_logs_keys_and_lets_no_network(app, city):
    shown = app.test_client().get("/verify")
    for key in city.vault.ring.verifiers:
        assert key.vkey.replace("+", "&#43;") in shown.text or key.vkey in shown.text
    assert "connect-src 'none'" in shown.text
    alone = app.test_client().get("/verify.html").text
    assert "src=" not in alone
    assert not re.findall(r"https?://", alone)


# --- on paper


def test_a_receipt_fits_a_qr_code_and_a_huge_entry_leaves_its_proof(page):
    small, text = qr_code(Receipt.parse(receipt(299))), receipt(299)
    assert small.version <= 40
    assert small.error == "L"
    huge = replace(Receipt.parse(text), extra=b"x" * 60_000)
    assert qr_code(huge).version <= 40
    assert qr_code(huge).version == qr_code(replace(huge, extra=None)).version
    longest = Receipt.parse(text)  # of a log of 2^40 entries, with two witnesses
    longest = replace(longest, hashes=longest.hashes[:1] * 40, extra=PAYLOADS[0])
    assert qr_code(longest).version <= 40


def test_the_code_of_an_entry_is_its_owners(client, provider, rider, ride, city, me):
    entry_id = provider.batch("b1", ride(1)).json["outcomes"][0]["entry_id"]
    assert me(f"entries/{entry_id}/receipt.svg").json["code"] == "NOT_SEALED_YET"
    city.sealer.seal(city.clock())
    drawn = me(f"entries/{entry_id}/receipt.svg")
    assert drawn.mimetype == "image/svg+xml"
    assert drawn.data.startswith(b"<?xml")
    picture = Image.open(BytesIO(me(f"entries/{entry_id}/receipt.png").data))
    text = me(f"entries/{entry_id}/receipt").text
    code = qr_code(Receipt.parse(text))
    assert picture.size == code.symbol_size(scale=4, border=4)
    shown = [
        [picture.convert("1").getpixel((4 * x + 17, 4 * y + 17)) for x in range(21)]
        for y in range(21)
    ]
    assert [[pixel == 0 for pixel in row] for row in shown] == [
        [bool(module) for module in row[:21]] for row in list(code.matrix)[:21]
    ]
    assert me(f"entries/{'0' * 32}/receipt.png").status_code == 404
    assert client.get(f"/api/v1/me/entries/{entry_id}/receipt.png").status_code == 401
