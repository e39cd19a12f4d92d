"""Who shows themselves in rankings, under which sealed nickname, and who is whose friend."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array


class Named(NamedTuple):
    """What a nickname is opened with: its owner's wrapped key and the sealed name."""

    wrapped_key: bytes
    nickname: bytes


# Whoever restricts the processing of their data is in no ranking for as long as that lasts.
_SHOWN = """
FROM rankings k JOIN residents r ON r.id = k.resident
WHERE r.erased_at IS NULL AND r.restricted_at IS NULL"""
_DISTRICTS = text(f"""SELECT k.resident, coalesce(r.district, '') AS district {_SHOWN}
  AND k.resident = ANY(CAST(:residents AS bytea[]))""")
_EVERYBODY = text(f"""SELECT k.resident, coalesce(r.district, '') AS district {_SHOWN}""")
_COUNT = text(f"SELECT count(*) {_SHOWN}")
_NAMES = text(f"""SELECT k.resident, r.wrapped_key, k.nickname {_SHOWN}
  AND k.resident = ANY(CAST(:residents AS bytea[]))""")
_FRIENDS = text("""SELECT f.friend, f.since, r.wrapped_key, k.nickname
FROM friends f JOIN rankings k ON k.resident = f.friend JOIN residents r ON r.id = f.friend
WHERE f.resident = :resident AND r.erased_at IS NULL AND r.restricted_at IS NULL
ORDER BY f.since, f.friend""")


def show(tx: Connection, resident: str, nickname: bytes, now: datetime) -> None:
    """Let a resident be seen under this sealed nickname, or under another one than before."""
    tx.execute(
        text(
            "INSERT INTO rankings (resident, nickname, opted_at) VALUES (:id, :nickname, :now)"
            " ON CONFLICT (resident) DO UPDATE SET nickname = :nickname"
        ),
        {"id": bytes.fromhex(resident), "nickname": nickname, "now": now},
    )


def hide(tx: Connection, resident: str) -> None:
    """Let a resident be seen no more: nickname, codes and friendships go."""
    for statement in FORGET:
        tx.execute(text(statement), {"id": bytes.fromhex(resident)})


FORGET = (
    "DELETE FROM rankings WHERE resident = :id",
    "DELETE FROM friend_codes WHERE resident = :id",
    "DELETE FROM friends WHERE resident = :id OR friend = :id",
)


def districts(tx: Connection, residents: Iterable[str]) -> dict[str, str]:
    """The district of those of these people who are to be seen; "" if they gave none."""
    rows = tx.execute(_DISTRICTS, {"residents": bytea_array(map(bytes.fromhex, residents))})
    return {row.resident.hex(): row.district for row in rows}


def everybody(tx: Connection) -> dict[str, str]:
    """The same of everybody who is to be seen."""
    return {row.resident.hex(): row.district for row in tx.execute(_EVERYBODY)}


def count(tx: Connection) -> int:
    """How many are to be seen."""
    return int(tx.execute(_COUNT).scalar_one())


def names(tx: Connection, residents: Iterable[str]) -> dict[str, Named]:
    """The nicknames of those of these people who are to be seen."""
    rows = tx.execute(_NAMES, {"residents": bytea_array(map(bytes.fromhex, residents))})
    return {row.resident.hex(): Named(row.wrapped_key, row.nickname) for row in rows}


def put_code(tx: Connection, code: bytes, resident: str, expires_at: datetime) -> None:
    """Give a resident a code, by its keyed hash, in place of any before."""
    who = bytes.fromhex(resident)
    tx.execute(text("DELETE FROM friend_codes WHERE resident = :id"), {"id": who})
    tx.execute(
        text("INSERT INTO friend_codes (code, resident, expires_at) VALUES (:code, :id, :at)"),
        {"code": code, "id": who, "at": expires_at},
    )


def take_code(tx: Connection, code: bytes, now: datetime) -> str | None:
    """Whose code this is, if it still holds; it is then used up."""
    row = tx.execute(
        text(
            "DELETE FROM friend_codes WHERE code = :code AND expires_at > :now RETURNING resident"
        ),
        {"code": code, "now": now},
    ).scalar()
    return row.hex() if row else None


def forget_codes(tx: Connection, now: datetime) -> None:
    """Let go of codes that hold no more."""
    tx.execute(text("DELETE FROM friend_codes WHERE expires_at <= :now"), {"now": now})


def befriend(tx: Connection, one: str, other: str, now: datetime) -> None:
    """Make two residents friends, each of the other."""
    tx.execute(
        text(
            "INSERT INTO friends (resident, friend, since)"
            " VALUES (:one, :other, :now), (:other, :one, :now) ON CONFLICT DO NOTHING"
        ),
        {"one": bytes.fromhex(one), "other": bytes.fromhex(other), "now": now},
    )


def part(tx: Connection, one: str, other: str) -> None:
    """Make two residents friends no more."""
    tx.execute(
        text(
            "DELETE FROM friends"
            " WHERE (resident = :one AND friend = :other) OR (resident = :other AND friend = :one)"
        ),
        {"one": bytes.fromhex(one), "other": bytes.fromhex(other)},
    )


def friends(tx: Connection, resident: str) -> list[tuple[str, datetime, Named]]:
    """A resident's friends who are to be seen: (resident, since, nickname)."""
    rows = tx.execute(_FRIENDS, {"resident": bytes.fromhex(resident)})
    return [(row.friend.hex(), row.since, Named(row.wrapped_key, row.nickname)) for row in rows]
