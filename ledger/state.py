"""An audit's state: all it has to remember of a log to go on where it stopped.

The file begins with a line that names the form and one with the SHA-256 of what follows: a line
of JSON, a line of JSON for each balance, and the ids. It is the auditor's own: whoever can write
it can write its digest too, so it is kept like a key, or its digest is kept elsewhere.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any, NamedTuple

from ledger.accounts import ASSETS, account_of
from ledger.book import Book
from ledger.checkpoint import Checkpoint
from ledger.errors import LedgerError, Malformed, Unverified
from ledger.export import Fault
from ledger.ids import Ids
from ledger.note import Verifier
from ledger.tiles import Edge

_FORM = b"puhui audit state v2\n"
_AT = len(_FORM)  # where the digest stands
_DIGEST_CHARS = 64
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class State(NamedTuple):
    """A log as far as it was audited."""

    head: Checkpoint
    book: Book
    ids: Ids
    upper: Edge  # of the tree above level 0, whose leaves are the full tiles' hashes
    kinds: Counter[str]
    rotations: list[tuple[Verifier, Verifier]]


def save(path: Path, state: State) -> str:
    """Write the file, all of it or nothing; its digest. Raises ``Fault`` if it cannot be written.

    What it replaces may be the file that the state's ids still lie in.
    """
    fresh = path.with_name(f"{path.name}.new")
    digest = sha256()
    try:
        with fresh.open("wb") as file:
            file.write(_FORM + b"0" * _DIGEST_CHARS + b"\n")
            for part in _parts(state):
                digest.update(part)
                file.write(part)
            file.seek(_AT)
            file.write(digest.hexdigest().encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise Fault(None, str(path), f"It cannot be written: {error.strerror}.") from error
    return digest.hexdigest()


def load(path: Path) -> State:
    """The state of a file; raises ``Fault`` if it cannot be read or is not what was written.

    Its ids stay in the file: close them.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            if file.read(_AT) != _FORM:
                raise Malformed("It is not the state of an audit.")
            said, start = file.read(_DIGEST_CHARS + 1), file.tell()
            if file_digest(file, "sha256").hexdigest().encode() + b"\n" != said:
                raise Unverified("It was changed: its digest differs. Audit in full.")
            file.seek(start)
            state = _read(file)
            stack.pop_all()  # the ids lie in it
        except OSError as error:
            raise Fault(None, str(path), f"It cannot be read: {error.strerror}.") from error
        except LedgerError as error:
            raise Fault(None, str(path), str(error)) from error
        except (ValueError, TypeError, KeyError) as error:
            raise Fault(None, str(path), "It is of another version. Audit in full.") from error
    return state


def _parts(state: State) -> Iterator[bytes]:
    head, book = state.head, state.book
    facts = {
        "origin": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "upper": [level.hex() for level in state.upper.levels],
        "kinds": state.kinds,
        "rotations": [[old.vkey, new.vkey] for old, new in state.rotations],
        "published": [[*version, digest] for version, digest in book.published.items()],
        "withdrawn": [[*version, digest] for version, digest in book.withdrawn.items()],
        "effective": [[*version, day] for version, day in book.effective.items()],
        "held": sorted(book.held),
        "settled": book.settled,
        "reversed": sorted(book.reversed),
        "refunded": book.refunded,
        "redeemed": book.redeemed,
        "erased": sorted(book.erased),
        "closed": book.closed,
        "balances": sum(1 for _ in book.balances()),
    }
    yield _line(facts)
    for (account, asset), buckets in book.balances():
        yield _line([account.name, asset, *buckets.items()])
    yield from state.ids.write()


def _line(value: Any) -> bytes:
    return f"{_write(value)}\n".encode()


def _read(file: IO[bytes]) -> State:
    facts = json.loads(file.readline())
    book = Book()
    for _ in range(facts["balances"]):
        name, asset, *buckets = json.loads(file.readline())
        for bucket, amount in buckets:
            book.carry(account_of(name), ASSETS[asset], bucket, amount)
    book.size, book.closed = facts["size"], facts["closed"]
    for versions in ("published", "withdrawn", "effective"):
        getattr(book, versions).update({(s, n): value for s, n, value in facts[versions]})
    book.held.update(dict.fromkeys(facts["held"]))
    for known in ("settled", "reversed", "refunded", "redeemed", "erased"):
        getattr(book, known).update(facts[known])
    head = Checkpoint(facts["origin"], facts["size"], bytes.fromhex(facts["root"]))
    rotations = [(Verifier.parse(old), Verifier.parse(new)) for old, new in facts["rotations"]]
    upper = Edge(tuple(map(bytes.fromhex, facts["upper"])))
    return State(head, book, Ids.read(file), upper, Counter(facts["kinds"]), rotations)
