"""A merchant's stores, tills and staff, and where residents can spend."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Store(NamedTuple):
    """A store, by its merchant's own code for it; `district` is a GB/T 2260 code."""

    id: bytes
    code: str
    name: str
    district: str
    address: str
    open: bool


class TillFace(NamedTuple):
    """A till as its merchant names it; `store` is a store's code."""

    code: str
    store: str
    open: bool


class Employee(NamedTuple):
    """An employee, by the merchant's own number for them; `linked`: a resident said to be this one.
    `link_expires_at` is set while a code for that is in force."""

    number: str
    role: str
    active: bool
    linked: bool
    link_expires_at: datetime | None


class Post(NamedTuple):
    """Where a resident said to work: the merchant's code and name, their number and role there."""

    merchant: str
    name: str
    number: str
    role: str


class Place(NamedTuple):
    """A store where points can be spent now."""

    merchant: str
    merchant_name: str
    code: str
    name: str
    district: str
    address: str


def put_store(tx: Connection, merchant: str, one: Store) -> Store:
    """Keep a store as it now is, under its code; as it is kept, which may be by an older id."""
    row = tx.execute(
        text(
            "INSERT INTO stores AS s (id, merchant, code, name, district, address, open)"
            " VALUES (:id, :merchant, :code, :name, :district, :address, :open)"
            " ON CONFLICT (merchant, code) DO UPDATE SET name = excluded.name,"
            " district = excluded.district, address = excluded.address, open = excluded.open"
            " RETURNING s.id, s.code, s.name, s.district, s.address, s.open"
        ),
        one._asdict() | {"merchant": bytes.fromhex(merchant)},
    ).one()
    return Store(*row)


def stores(tx: Connection, merchant: str) -> list[Store]:
    """All stores of a merchant, by code."""
    rows = tx.execute(
        text(
            "SELECT id, code, name, district, address, open FROM stores"
            " WHERE merchant = :id ORDER BY code"
        ),
        {"id": bytes.fromhex(merchant)},
    )
    return [Store(*row) for row in rows]


def find_store(tx: Connection, merchant: str, code: str) -> Store | None:
    """A merchant's store of this code, open or not."""
    row = tx.execute(
        text(
            "SELECT id, code, name, district, address, open FROM stores"
            " WHERE merchant = :id AND code = :code"
        ),
        {"id": bytes.fromhex(merchant), "code": code},
    ).first()
    return Store(*row) if row else None


def put_till(
    tx: Connection, merchant: str, id: bytes, store: bytes, code: str, *, is_open: bool
) -> None:
    """Keep a till as it now is, under its code; the id counts if the code is new."""
    tx.execute(
        text(
            "INSERT INTO tills (id, merchant, store, code, open)"
            " VALUES (:id, :merchant, :store, :code, :open)"
            " ON CONFLICT (merchant, code) DO UPDATE"
            " SET store = excluded.store, open = excluded.open"
        ),
        {
            "id": id,
            "merchant": bytes.fromhex(merchant),
            "store": store,
            "code": code,
            "open": is_open,
        },
    )


def tills(tx: Connection, merchant: str) -> list[TillFace]:
    """All tills of a merchant, by code."""
    rows = tx.execute(
        text(
            "SELECT t.code, s.code, t.open FROM tills t JOIN stores s ON s.id = t.store"
            " WHERE t.merchant = :id ORDER BY t.code"
        ),
        {"id": bytes.fromhex(merchant)},
    )
    return [TillFace(*row) for row in rows]


def put_employee(tx: Connection, merchant: str, number: str, role: str, *, active: bool) -> None:
    """Keep an employee as they now are. Who left is linked to nobody any more."""
    tx.execute(
        text(
            "INSERT INTO staff AS s (merchant, number, role, active)"
            " VALUES (:merchant, :number, :role, :active)"
            " ON CONFLICT (merchant, number) DO UPDATE"
            " SET role = excluded.role, active = excluded.active,"
            "  resident = CASE WHEN excluded.active THEN s.resident END,"
            "  link_code = CASE WHEN excluded.active THEN s.link_code END,"
            "  link_expires_at = CASE WHEN excluded.active THEN s.link_expires_at END"
        ),
        {
            "merchant": bytes.fromhex(merchant),
            "number": number,
            "role": role,
            "active": active,
        },
    )


def staff(tx: Connection, merchant: str, now: datetime) -> list[Employee]:
    """All who work or worked for a merchant, by number."""
    rows = tx.execute(
        text(
            "SELECT number, role, active, resident IS NOT NULL,"
            " CASE WHEN link_expires_at > :now THEN link_expires_at END"
            " FROM staff WHERE merchant = :id ORDER BY number"
        ),
        {"id": bytes.fromhex(merchant), "now": now},
    )
    return [Employee(*row) for row in rows]


def put_link_code(tx: Connection, merchant: str, number: str, code: bytes, until: datetime) -> bool:
    """Keep the hash of an employee's code, the one before it being void; False if nobody who works
    there has this number."""
    statement = text(
        "UPDATE staff SET link_code = :code, link_expires_at = :until"
        " WHERE merchant = :merchant AND number = :number AND active"
    )
    given = {
        "merchant": bytes.fromhex(merchant),
        "number": number,
        "code": code,
        "until": until,
    }
    return tx.execute(statement, given).rowcount == 1


def take_link_code(tx: Connection, code: bytes, resident: str, now: datetime) -> bool:
    """Link whom this unused code was made for to a resident; False if it is not in force."""
    statement = text(
        "UPDATE staff SET resident = :resident, link_code = NULL, link_expires_at = NULL"
        " WHERE link_code = :code AND link_expires_at > :now AND active"
    )
    given = {"code": code, "resident": bytes.fromhex(resident), "now": now}
    return tx.execute(statement, given).rowcount == 1


def posts(tx: Connection, resident: str) -> list[Post]:
    """Where a resident said to work, and still does."""
    rows = tx.execute(
        text(
            "SELECT m.code, m.name, s.number, s.role FROM staff s JOIN merchants m"
            " ON m.id = s.merchant WHERE s.resident = :id AND s.active ORDER BY m.code, s.number"
        ),
        {"id": bytes.fromhex(resident)},
    )
    return [Post(*row) for row in rows]


def leave(tx: Connection, merchant: str, resident: str) -> None:
    """Link a resident to nobody of a merchant (by its code) any more."""
    tx.execute(
        text(
            "UPDATE staff s SET resident = NULL FROM merchants m"
            " WHERE m.id = s.merchant AND m.code = :code AND s.resident = :id"
        ),
        {"code": merchant, "id": bytes.fromhex(resident)},
    )


def places(
    tx: Connection, district: str | None, after: tuple[str, str] | None, limit: int
) -> list[Place]:
    """Open stores of approved merchants, by (merchant's code, store's code) and after such a
    place."""
    merchant, store = after or ("", "")
    rows = tx.execute(
        text(
            "SELECT m.code, m.name, s.code, s.name, s.district, s.address"
            " FROM merchants m JOIN stores s ON s.merchant = m.id"
            " WHERE m.state = 'approved' AND s.open"
            " AND (CAST(:district AS text) IS NULL OR s.district = :district)"
            " AND (m.code, s.code) > (:merchant, :store)"
            " ORDER BY m.code, s.code LIMIT :limit"
        ),
        {"district": district, "merchant": merchant, "store": store, "limit": limit},
    )
    return [Place(*row) for row in rows]
