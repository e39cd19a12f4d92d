"""Stock: how many pieces of a reward are left, and how many a day were sold.

These are the rows that all buyers of one reward meet at: each change is one conditional statement,
and comes last in its transaction.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import fetch


class Taken(NamedTuple):
    """Whether there was enough stock, and enough left of the day's."""

    stock: bool
    day: bool


_GIVE_BACK = text("""
WITH piece AS (
  UPDATE reward_stock SET remaining = remaining + :n, sold = sold - :n WHERE reward = :reward)
UPDATE reward_days SET sold = sold - :n WHERE reward = :reward AND day = :day AND sold >= :n""")


def start(tx: Connection, reward: str, remaining: int | None) -> None:
    """Give a draft its stock; None: there is no end to it."""
    tx.execute(
        text(
            "INSERT INTO reward_stock (reward, remaining) VALUES (:reward, :n)"
            " ON CONFLICT (reward) DO UPDATE SET remaining = :n"
        ),
        {"reward": bytes.fromhex(reward), "n": remaining},
    )


def take(tx: Connection, reward: str, n: int, per_day: int | None, day: int) -> Taken:
    """Take pieces for an order of a business day YYYYMMDD. If it was not enough, the caller's
    transaction is to be rolled back."""
    asked = (bytes.fromhex(reward), n, per_day, day)
    ((missing,),) = fetch(tx, "SELECT take_pieces(%s, %s::integer, %s, %s)", asked)
    return Taken(missing != "stock", missing != "day")


def give_back(tx: Connection, reward: str, n: int, day: int) -> None:
    """Put back the pieces of an order that was placed on that day."""
    tx.execute(_GIVE_BACK, {"reward": bytes.fromhex(reward), "n": n, "day": day})


def add(tx: Connection, reward: str, n: int) -> None:
    """Add pieces, such as new codes of the merchant's own."""
    tx.execute(
        text("UPDATE reward_stock SET remaining = remaining + :n WHERE reward = :reward"),
        {"reward": bytes.fromhex(reward), "n": n},
    )


def raise_to(tx: Connection, reward: str, total: int) -> bool:
    """Let there be so many pieces in all, sold ones too; False if that were fewer than there are,
    or if there is no end to them."""
    done = tx.execute(
        text(
            "UPDATE reward_stock SET remaining = :total - sold"
            " WHERE reward = :reward AND remaining + sold <= :total"
        ),
        {"reward": bytes.fromhex(reward), "total": total},
    )
    return done.rowcount == 1
