"""Signed notes: text, a blank line, signature lines (c2sp.org/signed-note).

Two signature types: Ed25519 over the text (0x01), and the witness's timestamped Ed25519
cosignature over a checkpoint (0x04, c2sp.org/tlog-cosignature). A key is chosen by name and key
id; a signature by a key we do not hold is ignored, a bad one by a key we hold refuses the note.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.errors import Malformed, Unverified
from ledger.text import MAX_DECIMAL, base64, unbase64, utf8

ED25519 = 0x01
COSIGNATURE = 0x04
MAX_SIGNATURES = 100

_DASH = "\N{EM DASH} "
_TIME_BYTES = 8
_KEY_BYTES = 32


class Signature(NamedTuple):
    """One signature line: the key's name and id, and the bytes after the id."""

    name: str
    key_id: bytes
    value: bytes


class Note(NamedTuple):
    """An opened note: its text, and its signatures by keys we hold and by others."""

    text: str
    verified: tuple[Signature, ...]
    unverified: tuple[Signature, ...]


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under a name: ``<name>+<hex key id>+<base64(kind || 32 byte key)>``."""

    name: str
    public: bytes
    kind: int = ED25519

    def __post_init__(self) -> None:
        _require_key(self.name, self.kind, self.public)

    @classmethod
    def parse(cls, vkey: str) -> "Verifier":
        """Read a verifier key; Malformed if any part of it disagrees with another."""
        name, key_id, material = _cut_key(vkey)
        verifier = cls(name, material[1:], material[0])
        if verifier.key_id.hex() != key_id:
            raise Malformed("The verifier key's id does not belong to its name and key.")
        return verifier

    @property
    def key_id(self) -> bytes:
        """The four bytes that, with the name, choose this key."""
        return sha256(utf8(self.name).encode() + bytes((0x0A, self.kind)) + self.public).digest()[
            :4
        ]

    @property
    def vkey(self) -> str:
        """The text form."""
        return f"{self.name}+{self.key_id.hex()}+{base64(bytes((self.kind,)) + self.public)}"

    def verify(self, text: str, value: bytes) -> None:
        """Check the signature bytes over the note's text; Unverified if they do not hold."""
        message, signature = text.encode(), value
        if self.kind == COSIGNATURE:
            time, signature = int.from_bytes(value[:_TIME_BYTES]), value[_TIME_BYTES:]
            message = _cosigned(text, time)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            raise Unverified(f"The signature by {self.name} does not hold.") from None


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key under a name: ``PRIVATE+KEY+<name>+<hex key id>+<base64(kind || seed)>``."""

    name: str
    seed: bytes = field(repr=False)
    kind: int = ED25519

    def __post_init__(self) -> None:
        _require_key(self.name, self.kind, self.seed)

    @classmethod
    def generate(cls, name: str, kind: int = ED25519) -> "Signer":
        """Make a new key: the only randomness in this package."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw(), kind)

    @classmethod
    def parse(cls, skey: str) -> "Signer":
        """Read a private key; no error repeats any of its text."""
        prefix, key = skey[:12], skey[12:]
        if prefix != "PRIVATE+KEY+":
            raise Malformed("A private key begins with PRIVATE+KEY+.")
        try:
            name, key_id, material = _cut_key(key)
        except Malformed:
            raise Malformed("The private key is not of the signed-note form.") from None
        signer = cls(name, material[1:], material[0])
        if signer.verifier.key_id.hex() != key_id:
            raise Malformed("The private key's id does not belong to its name and key.")
        return signer

    @property
    def skey(self) -> str:
        """The text form: keep it secret."""
        material = base64(bytes((self.kind,)) + self.seed)
        return f"PRIVATE+KEY+{self.name}+{self.verifier.key_id.hex()}+{material}"

    @property
    def verifier(self) -> Verifier:
        """The public half."""
        return Verifier(self.name, self._private().public_key().public_bytes_raw(), self.kind)

    def sign(self, text: str) -> bytes:
        """Return the 64 signature bytes over the text; a cosigner must use ``cosign``."""
        if self.kind != ED25519:
            raise Malformed("A witness key signs only checkpoints, with a time.")
        return self._private().sign(text.encode())

    def cosign(self, text: str, time: int) -> bytes:
        """Return the timestamped signature over a checkpoint's text at POSIX ``time``."""
        if self.kind != COSIGNATURE:
            raise Malformed("A log key does not cosign.")
        message = _cosigned(text, time)
        return time.to_bytes(_TIME_BYTES) + self._private().sign(message)

    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def sign(text: str, signers: Sequence[Signer]) -> str:
    """Return the note: the text, which ends in a newline, and one line a signer."""
    _require_text(text)
    if not text.endswith("\n"):
        raise Malformed("A note's text ends with a newline.")
    if not signers:
        raise Malformed("A note has at least one signature.")
    return text + "\n" + "".join(_line(signer, signer.sign(text)) for signer in signers)


def cosign(note: str, signer: Signer, time: int) -> str:
    """Return the signed checkpoint with a witness's cosignature line added."""
    text, _ = _cut(note)
    return note + _line(signer, signer.cosign(text, time))


def open(note: bytes | str, verifiers: Iterable[Verifier]) -> Note:  # noqa: A001  (note.open)
    """Return the note if at least one of the keys signed it.

    Malformed if the bytes are not a note; Unverified if a key we hold signed badly or none did.
    """
    text, signatures = _cut(utf8(note))
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise Malformed(f"Two different keys share the name {verifier.name} and one key id.")
    verified: dict[tuple[str, bytes], Signature] = {}
    unverified: dict[Signature, None] = {}
    for signature in signatures:
        chosen = known.get(signature[:2])
        if chosen is None:
            unverified[signature] = None
        else:
            chosen.verify(text, signature.value)
            verified.setdefault(signature[:2], signature)
    if not verified:
        raise Unverified("No key we hold signed the note.")
    return Note(text, tuple(verified.values()), tuple(unverified))


def _cut(note: str) -> tuple[str, list[Signature]]:
    """Split a note at its last blank line; any other form is Malformed."""
    _require_text(note)
    text, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise Malformed("A note is text, a blank line and signature lines.")
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"A note has at most {MAX_SIGNATURES} signatures.")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> Signature:
    name, space, value = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not _is_name(name):
        raise Malformed("A signature line is a dash, a key name and base64.")
    data = unbase64(value)
    if len(data) <= 4:
        raise Malformed("A signature is longer than its key id of 4 bytes.")
    return Signature(name, data[:4], data[4:])


def _line(signer: Signer, value: bytes) -> str:
    return f"{_DASH}{signer.name} {base64(signer.verifier.key_id + value)}\n"


def _cosigned(text: str, time: int) -> bytes:
    if not 0 <= time <= MAX_DECIMAL:
        raise Malformed("A cosignature's time is 0 to 2**63 - 1 seconds.")
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _cut_key(key: str) -> tuple[str, str, bytes]:
    name, _, rest = key.partition("+")
    key_id, plus, material = rest.partition("+")
    data = unbase64(material) if plus else b""
    if len(data) != 1 + _KEY_BYTES:
        raise Malformed("A key is a name, a key id and 33 bytes in base64, joined by plus signs.")
    return name, key_id, data


def _require_key(name: str, kind: int, material: bytes) -> None:
    if not _is_name(name):
        raise Malformed(
            "A key name is not empty and has no spaces, plus signs or control characters."
        )
    if kind not in (ED25519, COSIGNATURE):
        raise Malformed(f"Signature type {kind} is not one we know.")
    if len(material) != _KEY_BYTES:
        raise Malformed(f"An Ed25519 key is {_KEY_BYTES} bytes.")


def _is_name(name: str) -> bool:
    utf8(name)
    return bool(name) and not any(c == "+" or c.isspace() or c < " " for c in name)


def _require_text(text: str) -> None:
    utf8(text)
    if any(c < " " and c != "\n" for c in text):
        raise Malformed("A note has no control characters but newlines.")
