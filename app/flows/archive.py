"""Archive: all that is held about one person, as files of theirs, signed by the log's key.

A ZIP with `data.json` (every row of every table, opened), `data.xlsx` (the same as sheets), the
receipt of every sealed entry, the pictures they sent, and a manifest (`ledger.archive`). It is made
by the worker, kept under the person's own key, and dropped after a week.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from secrets import token_hex
from typing import Any, Final, NamedTuple
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import orjson
import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from app.config import CITY_ZONE
from app.flows.prove import checkpoint_size
from app.flows.sheets import workbook
from app.store import archives, log, statements
from app.store.archives import Archive, Fact
from app.store.catalogue import Registry
from app.store.db import snapshot
from app.vault import Vault, open_opening, seal, unseal
from ledger import archive as form
from ledger.entries import Entry, instant
from ledger.merkle import inclusion_proof
from ledger.proof import Receipt
from ledger.tiles import TileNodes
from scenarios import Catalogue

KEPT: Final = timedelta(days=7)
AGAIN: Final = timedelta(hours=1)
"""Asked for again within this time, it is the same archive."""

LEFT_OUT: Final = {
    "wrapped_key": "the key itself, by which only we could open what is opened here",
    "session_key": "WeChat's secret with us",
    "successor": "a secret of the sign-in's",
    "decided_by": "the name of somebody who works for the city",
    "closed_by": "the name of somebody who works for the city",
}
"""Columns that are in no archive, and why. Keyed hashes are left out too: they say nothing."""

OTHERS: Final = frozenset({"claimant", "holder", "friend", "guardian"})
"""Columns that may name another resident: all that is said is whether it is this one."""

SEALED: Final = {
    ("logins", "openid"): "login {resident}",
    ("phones", "sealed"): "phone {resident}",
    ("messages", "sealed"): "message {kind} {key}",
    ("appeals", "sealed"): "appeal {id}",
    ("reports", "sealed"): "report {id}",
    ("evidence", "sealed"): "picture {report}",
    ("rankings", "nickname"): "nickname {resident}",
    ("vouchers", "sealed"): "voucher {id}",
}
"""Columns sealed under the resident's own key, and what each was sealed for, in its row's words."""

_ID = 16
_TILES, _NODES = 256, 100_000
_log = structlog.get_logger("archive")
_README = """\
普惠 · 您的个人数据副本

本压缩包包含平台保存的、与您有关的全部数据：
  data.json    全部记录（机器可读）
  data.xlsx    同样的内容，可用表格软件打开
  receipts/    每一笔已封存入日志的记录的凭证，可离线验证
  pictures/    您提交过的照片
  manifest.txt 各文件的 SHA-256 校验值，由日志密钥签名

离线验证（不需要网络）：
  python -m ledger archive 本文件.zip --vkey log.vkey
其中 log.vkey 是日志公钥，请从可信的公开渠道获取。

本文件未加密，请妥善保管。未包含的内容：密钥与登录凭据本身、他人的账号、不可逆的散列值。
"""


class ArchiveError(Exception):
    """There is no such archive, or it is not made yet; `code` says which."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Section(NamedTuple):
    """A table's rows of one person, opened, as JSON has them."""

    table: str
    rows: list[dict[str, Any]]


def ask(tx: Connection, resident: str, now: datetime) -> Archive:
    """Ask for an archive; the last one stands if it was asked for within the hour."""
    last = archives.newest(tx, resident)
    if last and last.state != "failed" and last.asked_at > now - AGAIN:
        return last
    made = token_hex(_ID)
    archives.put(tx, made, resident, now)
    return Archive(made, resident, "queued", now, None)


def read(tx: Connection, vault: Vault, id: str, resident: str) -> bytes:
    """The ZIP of an archive. Raises ArchiveError NOT_FOUND, ARCHIVE_NOT_READY."""
    found = archives.find(tx, id, resident)
    wrapped = statements.wrapped_key(tx, resident)
    if found is None or wrapped is None:
        raise ArchiveError("NOT_FOUND", "you have no archive of this id; it is kept for 7 days")
    sealed = archives.sealed(tx, id)
    if sealed is None:
        raise ArchiveError("ARCHIVE_NOT_READY", f"the archive is {found.state}; ask again shortly")
    return unseal(vault.subject_key(resident, wrapped), sealed, _context(id))


def make_next(engine: Engine, vault: Vault, registry: Registry, now: datetime) -> bool:
    """Make the archive that was asked for first; whether there was one."""
    with engine.begin() as tx:
        archives.forget(tx, now - KEPT)
        asked = archives.take(tx)
        if asked is None:
            return False
        wrapped = statements.wrapped_key(tx, asked.resident)
        sealed = None
        try:
            key = vault.subject_key(asked.resident, wrapped or b"")
            with snapshot(engine) as seen:
                catalogue = registry.current(seen)
                packed = _pack(collect(seen, vault, catalogue, key, asked.resident, now), now)
            sealed = seal(key, packed, _context(asked.id))
        except DBAPIError:
            raise  # made when the database is back
        except Exception as error:  # one odd row must not end the worker, and would next time too
            _log.error("archive failed", archive=asked.id, error=type(error).__name__)
        archives.finish(tx, asked.id, sealed, now)
    return True


def collect(
    tx: Connection, vault: Vault, catalogue: Catalogue, key: bytes, resident: str, now: datetime
) -> Iterator[tuple[str, bytes]]:
    """Every file of a person's archive, one after the other and the manifest last, so that they
    need not be held together. Raises VaultError."""
    digests = {}
    for name, data in _files(tx, vault, catalogue, key, resident, now):
        digests[name] = sha256(data).hexdigest()
        yield name, data
    signed = form.sign(resident, instant(now), digests, vault.ring.signers)
    yield form.MANIFEST, signed.encode()


def _files(
    tx: Connection, vault: Vault, catalogue: Catalogue, key: bytes, resident: str, now: datetime
) -> Iterator[tuple[str, bytes]]:
    yield "README.txt", _README.encode()
    yield from _receipts(tx, archives.facts(tx, resident))
    sections = []
    for table in archives.SECTIONS:
        rows = []
        for row in archives.rows(tx, table, resident):
            opened, picture = _open(vault, key, resident, table, row)
            rows.append(opened)
            yield from picture.items()
        sections.append(Section(table, rows))
    entries = [_entry(key, fact) for fact in archives.facts(tx, resident)]
    data = {
        "resident": resident,
        "made_at": _json(now),
        "entries": entries,
        "tables": {section.table: section.rows for section in sections},
    }
    yield "data.json", orjson.dumps(data, option=orjson.OPT_INDENT_2)
    yield "data.xlsx", workbook(entries, sections, catalogue, now)


def _entry(key: bytes, fact: Fact) -> dict[str, Any]:
    made = {"leaf": fact.leaf, "entry": orjson.loads(fact.payload)}
    if fact.opening is not None:
        salt, opening = open_opening(key, fact.id, fact.opening)
        made["opening"] = {"salt": salt.hex(), "opening": opening.decode()}
    return made


def _open(
    vault: Vault, key: bytes, resident: str, table: str, row: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A row as JSON has it, and the picture that was in it, as a file."""
    words = {name: _json(value) for name, value in row.items()} | {"resident": resident}
    made: dict[str, Any] = {}
    picture = {}
    for name, value in row.items():
        context = SEALED.get((table, name))
        if name in LEFT_OUT:
            continue
        if name in OTHERS:
            made[name] = value == bytes.fromhex(resident)
        elif table == "unclaimed" and name == "sealed":
            made[name] = orjson.loads(unseal(vault.vault, value, row["subject"]))
        elif context and value is not None:
            plain = unseal(key, value, context.format_map(words).encode())
            if table == "evidence":
                made[name] = f"pictures/{words['report']}.jpg"
                picture[made[name]] = plain
            else:
                made[name] = _said(plain)
        elif not isinstance(value, bytes) or len(value) == _ID:
            made[name] = words[name]
    return made, picture


def _said(plain: bytes) -> Any:
    """What was sealed: JSON where it is an object or a list, else the text."""
    return orjson.loads(plain) if plain[:1] in (b"{", b"[") else plain.decode()


def _json(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return value.astimezone(CITY_ZONE).isoformat(timespec="seconds")
    return value.isoformat() if isinstance(value, date) else value


def _receipts(tx: Connection, facts: Iterable[Fact]) -> Iterator[tuple[str, bytes]]:
    note = log.latest_checkpoint(tx)
    if note is None:
        return
    size = checkpoint_size(note)
    read_tile = lru_cache(_TILES)(lambda tile: log.read_tile(tx, tile))
    # nodes, not tiles, are kept: in years a person's entries come to lie in thousands of tiles
    node = lru_cache(_NODES)(lambda level, index: TileNodes(size, read_tile).node(level, index))
    for fact in facts:
        if fact.leaf is not None and fact.leaf < size:
            proof = inclusion_proof(fact.leaf, size, node)
            receipt = Receipt(fact.leaf, tuple(proof), note, Entry.parse(fact.payload).payload())
            yield f"{form.RECEIPTS}{fact.id}{form.RECEIPT}", receipt.text().encode()


def _pack(files: Iterable[tuple[str, bytes]], now: datetime) -> bytes:
    packed = BytesIO()
    at = now.astimezone(CITY_ZONE).timetuple()[:6]
    with ZipFile(packed, "w") as archive:
        for name, data in files:
            archive.writestr(ZipInfo(name, at), data, ZIP_DEFLATED)
    return packed.getvalue()


def _context(id: str) -> bytes:
    return f"archive {id}".encode()
