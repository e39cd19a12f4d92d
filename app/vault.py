"""The process's secrets, and the only code that uses them.

Five 32-byte secrets lie as hex beside the log keys in one folder, each for one purpose; they come
from files, never from the database and never from a default:

- `token.key` signs access tokens; beside a new one, the key before may lie as `token.old.key`:
  what it signed before the new file came is still good, which is over half an hour later;
- `ids.key` turns (scope, idempotency key) into an entry id, so that the ledger shows no request
  number of anybody's and the same request can only ever be one entry;
- `subjects.key` turns a rider's or customer's number into the keyed hash under which it is bound;
- `vault.key` wraps each resident's own key. Destroying the wrapped key erases the person. It also
  seals what is nobody's own but must not lie open in the database, each thing for its purpose;
- `voucher.key` is the Ed25519 key that signs vouchers for tills without network; the one before may
  lie as `voucher.old.key`, as with tokens, until tills have reported all it signed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.config import ConfigError
from ledger.keys import KeyRing
from ledger.note import Signer

SALT_BYTES = 32
NONCE_BYTES = 12
_NAMES = ("token", "ids", "subjects", "vault", "voucher")


_lasting = lru_cache(maxsize=4)(AESGCM)  # the process's own key, which stays in memory anyway


@lru_cache(maxsize=256)
def _begun(key: bytes, scope: str, size: int) -> blake2b:
    """A keyed hash, with a key of the process's own, that has read a scope and the NUL behind it.
    Whoever goes on with it takes a copy, for a third less than beginning anew costs."""
    return blake2b(f"{scope}\0".encode(), key=key, digest_size=size)


class VaultError(Exception):
    """A sealed value does not open with this key: wrong key, or changed bytes."""

    code = "VAULT"


@dataclass(frozen=True, slots=True)
class Vault:
    """Secrets of one process; see the module for what each is for."""

    ring: KeyRing
    token: bytes
    ids: bytes
    subjects: bytes
    vault: bytes
    voucher: bytes
    old_token: tuple[bytes, int] | None = None  # the key before, and when it signed its last
    old_voucher: tuple[bytes, int] | None = None

    def entry_id(self, scope: str, key: str) -> str:
        """32 hex digits: the id of the one entry that (scope, key) may ever become."""
        return self.entry_ids(scope)(key)

    def entry_ids(self, scope: str) -> Callable[[str], str]:
        """`entry_id` for many keys of one scope."""
        begun = _begun(self.ids, scope, 16).copy

        def entry_id(key: str) -> str:
            hashed = begun()
            hashed.update(key.encode())
            return hashed.hexdigest()

        return entry_id

    def subject(self, provider: str, value: str) -> bytes:
        """32 bytes: the keyed hash under which a provider's identifier of a person is stored."""
        hashed = _begun(self.subjects, provider, 32).copy()
        hashed.update(value.encode())
        return hashed.digest()

    def mark(self, what: str, size: int) -> bytes:
        """A keyed hash of `size` bytes by which a thing is known again and nothing is told."""
        return blake2b(what.encode(), key=self.ids, digest_size=size).digest()

    def new_subject_key(self, resident: str) -> bytes:
        """A fresh key for one resident, wrapped for storage and tied to that resident."""
        return seal(self.vault, os.urandom(32), resident.encode())

    def subject_key(self, resident: str, wrapped: bytes) -> bytes:
        """The resident's own key. Raises VaultError."""
        return _unsealed(_lasting(self.vault), wrapped, resident.encode())

    def close_opening(
        self, resident: str, wrapped: bytes, entry_id: str, nonce: bytes, salted: bytes
    ) -> bytes:
        """What `seal_opening` makes of 12 fresh random bytes and a salt with the opening behind it.
        The resident's key is ready for this entry alone: most have one in a batch, and to keep
        thousands of keys ready costs more than a second one saves."""
        cipher = AESGCM(self.subject_key(resident, wrapped))
        return nonce + cipher.encrypt(nonce, salted, entry_id.encode())

    def seal_for(self, purpose: str, plain: bytes) -> bytes:
        """Bytes to store that open for the same purpose only. A purpose is a phrase, with a space
        in it, and so is never a resident's token."""
        return seal(self.vault, plain, purpose.encode())

    def open_for(self, purpose: str, sealed: bytes) -> bytes:
        """Undo `seal_for`. Raises VaultError."""
        return unseal(self.vault, sealed, purpose.encode())


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """AES-256-GCM: 12-byte nonce, ciphertext, tag. `context` is authenticated, not stored."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Undo `seal`. Raises VaultError if key, context or bytes are not those that were sealed."""
    return _unsealed(AESGCM(key), sealed, context)


def _unsealed(cipher: AESGCM, sealed: bytes, context: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise VaultError("the sealed value does not open with this key") from None


def seal_opening(key: bytes, entry_id: str, salt: bytes, opening: bytes) -> bytes:
    """Salt and opening of one entry, under its resident's key and tied to the entry."""
    return seal(key, salt + opening, entry_id.encode())


def open_opening(key: bytes, entry_id: str, sealed: bytes) -> tuple[bytes, bytes]:
    """Undo `seal_opening`: salt and opening. Raises VaultError."""
    plain = unseal(key, sealed, entry_id.encode())
    return plain[:SALT_BYTES], plain[SALT_BYTES:]


def opener(key: bytes) -> Callable[[str, bytes], bytes]:
    """What `open_opening` reads, without the salt, for many entries of one person: their key is
    made ready once. Raises VaultError when it is called."""
    cipher = AESGCM(key)

    def opened(entry_id: str, sealed: bytes) -> bytes:
        return _unsealed(cipher, sealed, entry_id.encode())[SALT_BYTES:]

    return opened


def create_keys(folder: Path, origin: str) -> None:
    """Write fresh secrets and a first log key, each readable by the owner only.

    Raises ConfigError if the folder already holds any: keys are rotated, never overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; keys are never overwritten, name another folder")
    for name in _NAMES:
        _write(folder / f"{name}.key", token_hex(32))
    add_log_key(folder, origin)


def add_log_key(folder: Path, origin: str) -> str:
    """Write one more log signing key, named after the log, and return its verifier key."""
    numbers = [int(path.stem.removeprefix("log-")) for path in folder.glob("log-*.key")]
    signer = Signer.generate(origin)
    _write(folder / f"log-{max(numbers, default=0) + 1}.key", signer.skey)
    return signer.verifier.vkey


def renew_token_key(folder: Path) -> None:
    """Put a fresh token.key in the place of the one there, which is kept as token.old.key.

    At every moment there is a whole token.key. Raises ConfigError if there is none before.
    """
    _renew(folder, "token")


def renew_voucher_key(folder: Path) -> None:
    """The same with voucher.key; a folder from before there were vouchers gets its first."""
    if (folder / "voucher.key").exists():
        _renew(folder, "voucher")
    else:
        _write(folder / "voucher.key", token_hex(32))


def _renew(folder: Path, name: str) -> None:
    was, new = _read(folder / f"{name}.key"), folder / f"{name}.new"
    for path, text in ((folder / f"{name}.old.key", was.hex()), (new, token_hex(32))):
        path.unlink(missing_ok=True)
        _write(path, text)
    new.rename(folder / f"{name}.key")


def open_vault(folder: Path) -> Vault:
    """Read the secrets. Raises ConfigError naming the file that is missing or malformed."""
    found = sorted(folder.glob("log-*.key"), key=lambda p: int(p.stem.removeprefix("log-")))
    if not found:
        raise ConfigError(f"no log-*.key in {folder}; make keys with `puhui keys init`")
    return Vault(
        ring=KeyRing.parse(*(path.read_text().strip() for path in found)),
        **{name: _read(folder / f"{name}.key") for name in _NAMES},
        old_token=_before(folder, "token"),
        old_voucher=_before(folder, "voucher"),
    )


def _before(folder: Path, name: str) -> tuple[bytes, int] | None:
    old = folder / f"{name}.old.key"
    return (_read(old), int((folder / f"{name}.key").stat().st_mtime)) if old.exists() else None


def _read(path: Path) -> bytes:
    try:
        text = path.read_text().strip()
    except OSError:
        voucher = path.name == "voucher.key" and path.with_name("vault.key").exists()
        made = (
            "this one with `puhui keys renew-voucher`" if voucher else "keys with `puhui keys init`"
        )
        raise ConfigError(f"{path} cannot be read; make {made}") from None
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigError(f"{path} must hold 64 lower-case hex digits and nothing else")
    return bytes.fromhex(text)


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
