"""What tills asked for under numbers of their merchant's own: charges, and refunds of them.

A charge's row is what decides: whoever inserts it first has the number, be it a charge or the
reversal of one that never came. Ids are 32 hex digits. What each charge costs is in the driver's
own SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from app.store import entries, fraud, people
from app.store.db import bytea_array, fetch, int_array
from app.store.merchants import Key, Partner, Signed
from app.store.pay_codes import PayCode
from ledger.entries import Entry


class Charge(NamedTuple):
    """A charge as it stands: pending, succeeded, failed (`code` and `detail` say why) or reversed.

    `digest` is that of the request, None if its reversal came first. `resident` and `device` are
    None once that person was erased, or if the code was nobody's. `refunded` of its `points` went
    back. `hold` and `entry` are the ledger's: points set aside, and the redemption.
    """

    merchant: str
    number: str
    id: str
    digest: bytes | None
    resident: str | None
    device: bytes | None
    store: bytes | None
    till: bytes | None
    staff: str | None
    points: int
    refunded: int
    state: str
    code: str
    detail: str
    hold: str | None
    entry: str | None
    at: datetime
    expires_at: datetime | None
    closed_at: datetime | None


class Face(NamedTuple):
    """A charge as people see it: with its merchant's name and its store's and till's codes."""

    charge: Charge
    merchant_name: str
    store_code: str | None
    till_code: str | None


class Scan(NamedTuple):
    """All that is known when a till sends a charge. `known`: its number was used before. `store`,
    `till`: the till it names, if it is open. `code`: what the resident shows; that resident is
    locked. `minor_until`: the day they turn fourteen. `confirm_points`: the setting, if it is
    set."""

    known: bool
    store: bytes | None
    store_code: str | None
    till: bytes | None
    merchant_name: str
    confirm_points: int | None
    code: PayCode | None
    minor_until: int | None


class Look(NamedTuple):
    """The same and more, with nobody locked: the key that signed as it is now (None if it is not
    the merchant's), what the rules against fraud count of the one who shows the code, and their
    points of each bucket; for `pay` to hold against what is so then."""

    scan: Scan
    key: Key | None
    seen: fraud.Seen
    wallet: dict[int, int]


class Refund(NamedTuple):
    """A refund asked for under a number of its own; `charge` is the number of what was paid,
    `entry` the ledger's refund if it succeeded."""

    merchant: str
    number: str
    digest: bytes
    charge: str
    points: int
    state: str
    code: str
    detail: str
    staff: str | None
    reason: str
    entry: str | None
    at: datetime


class Spending(NamedTuple):
    """What points were held or redeemed for: at whose till under which number of theirs, or which
    order of which reward (`title` is None for a charge)."""

    merchant_name: str
    number: str
    title: str | None


_READ = """
SELECT EXISTS (
    SELECT FROM charges c WHERE c.merchant = %(merchant)s AND c.number = %(number)s),
  t.store, t.store_code, t.id, m.name, s.value::integer,
  p.code, p.resident, p.device, p.voucher, p.expires_at, p.used_at, p.minor_until {more}
FROM merchants m
LEFT JOIN (SELECT t.id, t.store, t.merchant, t.code, s.code AS store_code
           FROM tills t JOIN stores s ON s.id = t.store WHERE t.open AND s.open) t
  ON t.merchant = %(merchant)s AND t.code = %(till)s
LEFT JOIN settings s ON s.name = 'confirm_points'
LEFT JOIN LATERAL (
  SELECT c.code, c.resident, c.device, c.voucher, c.expires_at, c.used_at,
    to_char(r.minor_until, 'YYYYMMDD')::integer AS minor_until
  FROM pay_codes c JOIN residents r ON r.id = c.resident AND r.erased_at IS NULL
  WHERE c.code = %(code)s {lock}) p ON true {joined}
WHERE m.id = %(merchant)s"""
# The lock is taken within: what is read of the code may be older than it. `begin` looks again.
_SCAN = _READ.format(more="", lock="FOR NO KEY UPDATE OF r", joined="")
_LOOK = _READ.format(
    more=(
        ", k.key_id, encode(m.id, 'hex'), m.code, m.state, k.till, k.algorithm, k.public_key,"
        " k.revoked_at, m.sandbox, w.buckets, w.amounts, f.*"
    ),
    lock="",
    joined=f"""
LEFT JOIN merchant_keys k ON k.key_id = %(key_id)s AND k.merchant = m.id
CROSS JOIN LATERAL ({people.points_by_bucket("p.resident")}) w
CROSS JOIN LATERAL ({fraud.counting("p.resident", "p.device")}) f""",
)
_COLUMNS = (
    "c.merchant, c.number, c.id, c.digest, c.resident, c.device, c.store, c.till, c.staff,"
    " c.points, c.refunded, c.state, c.code, c.detail, c.hold, c.entry, c.at, c.expires_at,"
    " c.closed_at"
)
_NAMES = ", ".join(Charge._fields)
_WIDTH = len(Charge._fields)
_SCANNED = len(Scan._fields) - 1 + len(PayCode._fields)
_KEYED = _SCANNED + len(Partner._fields) + len(Key._fields)
_VALUES = ", ".join(["%s"] * _WIDTH)
_INSERT = f"""
INSERT INTO charges ({_NAMES}) VALUES ({_VALUES})
ON CONFLICT (merchant, number) DO NOTHING RETURNING true"""  # noqa: S608 (our own names)
_BEGIN = f"""
WITH made AS ({_INSERT}),
used AS (UPDATE pay_codes SET used_at = %s
         WHERE code = %s AND used_at IS NULL AND EXISTS (SELECT FROM made) RETURNING true)
SELECT EXISTS (SELECT FROM made), EXISTS (SELECT FROM used)"""  # noqa: S608
_PAY = f"""
SELECT pay_charge(ROW({_VALUES})::charges, %s, %s, %s, %s::integer[], %s::bigint[], %s::integer,
  {entries.ARGUMENTS})"""
_FACE = f"""
SELECT {_COLUMNS}, m.name, s.code, t.code
FROM charges c JOIN merchants m ON m.id = c.merchant
LEFT JOIN stores s ON s.id = c.store LEFT JOIN tills t ON t.id = c.till
"""  # noqa: S608
_CHANGE = """
UPDATE charges SET state = %s, points = %s, refunded = %s, code = %s, detail = %s, hold = %s,
  entry = %s, closed_at = %s WHERE id = %s RETURNING true"""
_PAGE = f"""{_FACE}
WHERE c.resident = %s
  AND (c.state = 'pending', c.at, c.id) < (%s, %s::timestamptz, %s::bytea)
ORDER BY c.state = 'pending' DESC, c.at DESC, c.id DESC LIMIT %s"""
_SPENT = """
SELECT coalesce(sum(points - refunded), 0)::bigint FROM charges
WHERE resident = %s AND at >= %s AND state IN ('pending', 'succeeded')"""
_REFUND = f"""
INSERT INTO refunds ({", ".join(Refund._fields)}) VALUES ({", ".join(["%s"] * len(Refund._fields))})
ON CONFLICT (merchant, number) DO NOTHING RETURNING true"""  # noqa: S608
_SPENDINGS = """
SELECT x.entry, m.name, x.number, x.title FROM (
  SELECT unnest(ARRAY[hold, entry]) AS entry, merchant, number, NULL AS title
  FROM charges WHERE resident = %(who)s AND at >= %(since)s::timestamptz
  UNION ALL
  SELECT unnest(ARRAY[o.hold, o.entry]), o.merchant, encode(o.id, 'hex'), r.title_zh
  FROM orders o JOIN rewards r ON r.id = o.reward
  WHERE o.resident = %(who)s AND o.placed_at >= %(since)s::timestamptz
) x JOIN merchants m ON m.id = x.merchant WHERE x.entry = ANY(%(ids)s::bytea[])"""


def scan(tx: Connection, merchant: str, number: str, till: str, code: bytes) -> Scan:
    """Look up all that a charge needs in one go, and lock the resident whose code this is."""
    given = {"number": number, "till": till, "code": code, "merchant": bytes.fromhex(merchant)}
    (row,) = fetch(tx, _SCAN, given)
    return _scan(row)


def look(
    tx: Connection,
    merchant: str,
    number: str,
    till: str,
    code: bytes,
    key_id: str | None,
    day: datetime,
    hour: datetime,
) -> Look:
    """Look up all that a plain charge needs in one go, and lock nothing; the rules against fraud
    count since `day` and since `hour`."""
    named = {"number": number, "till": till, "code": code, "key_id": key_id}
    (row,) = fetch(tx, _LOOK, fraud.given(merchant, day, hour) | named)
    found, *signs = row[_SCANNED:_KEYED]
    buckets, amounts, *seen = row[_KEYED:]
    wallet = dict(zip(buckets or (), amounts or (), strict=True))
    key = None if found is None else Key(Partner(*signs[:4]), *signs[4:])
    return Look(_scan(row[:_SCANNED]), key, fraud.Seen(*seen), wallet)


def pay(
    tx: Connection,
    one: Charge,
    code: bytes,
    signed: Signed | None,
    wallet: Mapping[int, int],
    entry: Entry,
    day: int,
) -> None:
    """Do a plain charge in one go: take its number and the nonce of the request, if that is still
    to be taken, use up its code, append its entry and put it on the bill of `day` (or the first day
    not cut yet).

    Raises DBAPIError serialization_failure if the code was taken meanwhile or the wallet is not as
    it was looked up, unique_violation if the number or the nonce was, and else as `entries.append`
    does.
    """
    taken = (signed.key_id, signed.nonce) if signed else (None, None)
    had = int_array(wallet), int_array(wallet.values())
    entries.call(tx, _PAY, [*_row(one), code, *taken, *had, day, *entries.arguments([entry])])


def _scan(row: Sequence[Any]) -> Scan:
    known, store, store_code, at, name, confirm, *shown, minor_until = row
    found = None
    if shown[0] is not None:
        found = PayCode(shown[0], shown[1].hex(), *shown[2:])
    return Scan(known, store, store_code, at, name, confirm, found, minor_until)


def begin(tx: Connection, one: Charge, code: bytes) -> tuple[bool, bool]:
    """Take a number for a charge and use up the code for it, whose resident the caller has locked.
    Whether the number was free, and whether the code was: if not the first, nothing was done."""
    made, used = fetch(tx, _BEGIN, [*_row(one), one.at, code])[0]
    return made, used


def put(tx: Connection, one: Charge) -> bool:
    """Take a number for a charge that failed, or for the reversal of one that never came; False if
    it was taken, by a transaction that has ended now."""
    return bool(fetch(tx, _INSERT, _row(one)))


def find(tx: Connection, merchant: str, number: str) -> Face | None:
    """The charge of this number."""
    return _face(tx, "WHERE c.merchant = %s AND c.number = %s", [bytes.fromhex(merchant), number])


def lock(tx: Connection, merchant: str, number: str) -> Face | None:
    """The same, and nobody else changes it until `tx` ends. Its resident is locked before."""
    where = "WHERE c.merchant = %s AND c.number = %s FOR NO KEY UPDATE OF c"
    return _face(tx, where, [bytes.fromhex(merchant), number])


def lock_own(tx: Connection, resident: str, id: str) -> Face | None:
    """A resident's own charge by its id, locked as by `lock`."""
    where = "WHERE c.id = %s AND c.resident = %s FOR NO KEY UPDATE OF c"
    return _face(tx, where, [bytes.fromhex(id), bytes.fromhex(resident)])


def change(tx: Connection, one: Charge) -> None:
    """Keep what became of a charge that is locked."""
    fetch(
        tx,
        _CHANGE,
        [
            *(one.state, one.points, one.refunded, one.code, one.detail),
            *(_bytes(one.hold), _bytes(one.entry), one.closed_at, bytes.fromhex(one.id)),
        ],
    )


def overdue(tx: Connection, now: datetime, limit: int) -> list[tuple[str, str]]:
    """Charges that wait for their resident in vain: (merchant, number), the oldest first."""
    query = (
        "SELECT merchant, number FROM charges"
        " WHERE state = 'pending' AND expires_at <= %s ORDER BY expires_at LIMIT %s"
    )
    return [(merchant.hex(), number) for merchant, number in fetch(tx, query, [now, limit])]


def waiting(tx: Connection, resident: str) -> list[Charge]:
    """A resident's charges that wait for them; the resident is locked by the caller."""
    where = "WHERE c.resident = %s AND c.state = 'pending' ORDER BY c.id FOR NO KEY UPDATE OF c"
    rows = fetch(tx, f"SELECT {_COLUMNS} FROM charges c {where}", [bytes.fromhex(resident)])  # noqa: S608
    return [_read(row) for row in rows]


def of_resident(
    tx: Connection, resident: str, before: tuple[bool, datetime, bytes], limit: int
) -> list[Face]:
    """A resident's charges: those that wait for them, then the newest, from a place (pending, at,
    id) on."""
    return [_whole(row) for row in fetch(tx, _PAGE, [bytes.fromhex(resident), *before, limit])]


def spent_since(tx: Connection, resident: str, since: datetime) -> int:
    """Points that a resident's charges took since then and did not give back."""
    return int(fetch(tx, _SPENT, [bytes.fromhex(resident), since])[0][0])


def put_refund(tx: Connection, one: Refund) -> bool:
    """Take a number for a refund; False if it was taken, by a transaction that has ended now."""
    values = (bytes.fromhex(one.merchant), *one[1:10], _bytes(one.entry), one.at)
    return bool(fetch(tx, _REFUND, values))


def find_refund(tx: Connection, merchant: str, number: str) -> Refund | None:
    """The refund of this number."""
    query = f"SELECT {', '.join(Refund._fields)} FROM refunds WHERE merchant = %s AND number = %s"  # noqa: S608
    rows = fetch(tx, query, [bytes.fromhex(merchant), number])
    return _refund(rows[0]) if rows else None


def refunded_by_number(tx: Connection, merchant: str, charge: str) -> int:
    """Points of a charge that went back by refunds, and not by its reversal."""
    query = (
        "SELECT coalesce(sum(points), 0)::bigint FROM refunds"
        " WHERE merchant = %s AND charge = %s AND state = 'succeeded'"
    )
    return int(fetch(tx, query, [bytes.fromhex(merchant), charge])[0][0])


def spendings(
    tx: Connection, resident: str, ids: Iterable[str], since: str = "-infinity"
) -> dict[str, Spending]:
    """What these holds and redemptions of a resident's were for, of those that tills or the
    resident's orders asked for, at `since` (RFC 3339) or later."""
    given = {
        "who": bytes.fromhex(resident),
        "ids": bytea_array(map(bytes.fromhex, ids)),
        "since": since,
    }
    rows = fetch(tx, _SPENDINGS, given)
    return {entry.hex(): Spending(*rest) for entry, *rest in rows}


def _face(tx: Connection, where: str, values: Sequence[Any]) -> Face | None:
    rows = fetch(tx, _FACE + where, values)
    return _whole(rows[0]) if rows else None


def _whole(row: Sequence[Any]) -> Face:
    return Face(_read(row[:_WIDTH]), *row[_WIDTH:])


def _read(row: Sequence[Any]) -> Charge:
    one = Charge(*row)
    return one._replace(
        merchant=row[0].hex(),
        id=row[2].hex(),
        resident=_hex(row[4]),
        hold=_hex(row[14]),
        entry=_hex(row[15]),
    )


def _row(one: Charge) -> tuple[Any, ...]:
    return (
        *(bytes.fromhex(one.merchant), one.number, bytes.fromhex(one.id), one.digest),
        *(_bytes(one.resident), *one[5:14], _bytes(one.hold), _bytes(one.entry), *one[16:]),
    )


def _refund(row: Sequence[Any]) -> Refund:
    return Refund(*row)._replace(merchant=row[0].hex(), entry=_hex(row[10]))


def _bytes(id: str | None) -> bytes | None:
    return None if id is None else bytes.fromhex(id)


def _hex(id: bytes | None) -> str | None:
    return None if id is None else id.hex()
