"""Friends: one hands out a code, the other enters it, and both see each other's month.

Only who shows themselves in rankings can have friends. A friend is known to the other by a keyed
mark of the two, never by the account's token, which stands in the ledger.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from secrets import choice
from typing import Final

from sqlalchemy import Connection

from app.flows.ranking import RankingError
from app.store import friends as store
from app.vault import Vault

CODE_LIFE: Final = timedelta(minutes=15)
CODE_LETTERS: Final = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # none that is easily taken for another
CODE_LENGTH: Final = 10
MOST: Final = 200


def hand_out(tx: Connection, vault: Vault, resident: str, now: datetime) -> tuple[str, datetime]:
    """A code that makes one other resident a friend, in place of any before; and until when.

    Raises RankingError RANKING_NOT_JOINED.
    """
    _require_shown(tx, resident)
    code = "".join(choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
    store.forget_codes(tx, now)
    store.put_code(tx, _mark(vault, code), resident, now + CODE_LIFE)
    return code, now + CODE_LIFE


def enter(tx: Connection, vault: Vault, resident: str, code: str, now: datetime) -> None:
    """Become friends with whoever handed this code out; it is then used up.

    Raises RankingError RANKING_NOT_JOINED, FRIEND_CODE_UNKNOWN, FRIEND_CODE_OWN, FRIENDS_FULL.
    """
    _require_shown(tx, resident)
    other = store.take_code(tx, _mark(vault, code.upper()), now)
    if other is None or not store.districts(tx, [other]):
        raise RankingError("FRIEND_CODE_UNKNOWN", "this code was never given out, used, or is old")
    if other == resident:
        raise RankingError("FRIEND_CODE_OWN", "this is your own code; give it to a friend")
    if max(len(store.friends(tx, one)) for one in (resident, other)) >= MOST:
        raise RankingError("FRIENDS_FULL", f"one of you has {MOST} friends already")
    store.befriend(tx, resident, other, now)


def remove(tx: Connection, vault: Vault, resident: str, id: str) -> None:
    """End a friendship, for both. Raises RankingError NOT_FOUND."""
    for friend, _, _ in store.friends(tx, resident):
        if friend_id(vault, resident, friend) == id:
            store.part(tx, resident, friend)
            return
    raise RankingError("NOT_FOUND", "you have no friend of this id")


def friend_id(vault: Vault, resident: str, friend: str) -> str:
    """32 hex digits by which one resident calls another."""
    return vault.mark(f"friend\0{resident}\0{friend}", 16).hex()


def _require_shown(tx: Connection, resident: str) -> None:
    if not store.districts(tx, [resident]):
        raise RankingError("RANKING_NOT_JOINED", "choose a nickname first: PUT /me/ranking")


def _mark(vault: Vault, code: str) -> bytes:
    return vault.mark(f"friend code\0{code}", 32)
