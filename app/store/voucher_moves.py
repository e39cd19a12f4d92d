"""What tills did with vouchers: uses, returns and voids, each under a number of the merchant's."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text


class Move(NamedTuple):
    """One request as it was answered. `merchant` and `voucher` are hex; `use` is the number of the
    use that a return undoes; a failed one has `code` and `detail`; `digest` is of what was asked;
    `at` is when it happened, for an offline use before it was reported."""

    merchant: str
    number: str
    kind: str
    digest: bytes
    at: datetime
    voucher: str | None = None
    use: str | None = None
    state: str = "succeeded"
    code: str = ""
    detail: str = ""
    store: bytes | None = None
    till: bytes | None = None
    staff: str | None = None
    reason: str = ""
    offline: bool = False


class Seen(NamedTuple):
    """A move as its merchant reads it, with the codes of store and till, the voucher's reward, its
    points and state, and whether a use was returned since."""

    move: Move
    store: str | None
    till: str | None
    reward: str | None
    title: str | None
    points: int | None
    voucher_state: str | None
    returned: bool


class Place(NamedTuple):
    """When and where a voucher was used last: codes of store and till."""

    at: datetime
    store: str
    till: str


_NAMES = ", ".join(Move._fields)
_WIDTH = len(Move._fields)
_FIND = text(f"SELECT {_NAMES} FROM voucher_moves WHERE merchant = :merchant AND number = :number")  # noqa: S608 (our own names)
_ADD = text(
    f"INSERT INTO voucher_moves ({_NAMES}) VALUES ({', '.join(f':{it}' for it in Move._fields)})"  # noqa: S608
)
_RETURNED = (
    "EXISTS (SELECT FROM voucher_moves b WHERE b.voucher = a.voucher AND b.use = a.number"
    " AND b.kind = 'return' AND b.state = 'succeeded')"
)
_IS_RETURNED = text(
    f"SELECT {_RETURNED} FROM (SELECT CAST(:voucher AS bytea), :number) a (voucher, number)"  # noqa: S608
)
_SEEN = text(f"""
SELECT {", ".join(f"a.{it}" for it in Move._fields)}, s.code, t.code, r.code, r.title_zh, v.points,
  v.state, {_RETURNED}
FROM voucher_moves a LEFT JOIN stores s ON s.id = a.store LEFT JOIN tills t ON t.id = a.till
LEFT JOIN vouchers v ON v.id = a.voucher AND v.merchant = a.merchant
LEFT JOIN rewards r ON r.id = v.reward
WHERE a.merchant = :merchant AND a.number = :number AND a.kind = :kind""")  # noqa: S608
_LAST_USE = text("""
SELECT a.at, s.code, t.code FROM voucher_moves a
JOIN stores s ON s.id = a.store JOIN tills t ON t.id = a.till
WHERE a.voucher = :voucher AND a.kind = 'use' AND a.state = 'succeeded'
ORDER BY a.at DESC LIMIT 1""")


def find(tx: Connection, merchant: str, number: str) -> Move | None:
    """What a merchant asked under a number of its own."""
    row = tx.execute(_FIND, {"merchant": bytes.fromhex(merchant), "number": number}).first()
    return _read(row) if row else None


def add(tx: Connection, move: Move) -> None:
    """Keep a request with its answer. Raises IntegrityError if the number was taken meanwhile."""
    ids = {"merchant": bytes.fromhex(move.merchant), "voucher": _bytes(move.voucher)}
    tx.execute(_ADD, move._asdict() | ids)


def seen(tx: Connection, merchant: str, number: str, kind: str) -> Seen | None:
    """A merchant's move of this kind."""
    given = {"merchant": bytes.fromhex(merchant), "number": number, "kind": kind}
    row = tx.execute(_SEEN, given).first()
    return Seen(_read(row), *row[_WIDTH:]) if row else None


def returned(tx: Connection, use: Move) -> bool:
    """Whether a use was undone by a return."""
    given = {"voucher": _bytes(use.voucher), "number": use.number}
    return bool(tx.execute(_IS_RETURNED, given).scalar())


_OFFLINE = text("""
SELECT count(*) FROM voucher_moves
WHERE till = :till AND at >= :begins AND at < :ends AND offline AND state = 'succeeded'""")


def offline_uses(tx: Connection, till: bytes, begins: datetime, ends: datetime) -> int:
    """How many uses a till has reported that it took without network from a moment to another."""
    given = {"till": till, "begins": begins, "ends": ends}
    return int(tx.execute(_OFFLINE, given).scalar_one())


def last_use(tx: Connection, voucher: str) -> Place | None:
    """When and where a voucher was used last."""
    row = tx.execute(_LAST_USE, {"voucher": bytes.fromhex(voucher)}).first()
    return Place(*row) if row else None


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)


def _read(row: Any) -> Move:
    move = Move(*row[:_WIDTH])
    whose = move.voucher and bytes(row[5]).hex()
    return move._replace(merchant=bytes(row[0]).hex(), voucher=whose)
