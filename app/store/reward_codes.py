"""Codes that merchants bring for their own vouchers: kept sealed until they go out with an order.

Whatever was ever here stays known by its keyed hash, so that no code goes out twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from app.store.db import bytea_array, copy_in

_COLUMNS = {"digest": "bytea", "reward": "bytea", "sealed": "bytea"}


class Code(NamedTuple):
    """A code by its keyed hash (32 bytes), and sealed."""

    digest: bytes
    sealed: bytes


def known(tx: Connection, digests: Sequence[bytes]) -> dict[bytes, str]:
    """Which of these hashes are known, each with the id of its reward."""
    rows = tx.execute(
        text(
            "SELECT digest, reward FROM reward_codes WHERE digest = ANY(CAST(:digests AS bytea[]))"
        ),
        {"digests": bytea_array(digests)},
    )
    return {row.digest: row.reward.hex() for row in rows}


def put(tx: Connection, reward: str, codes: Iterable[Code]) -> None:
    """Keep new codes of a reward. Raises IntegrityError if one is known."""
    rows = ((code.digest, bytes.fromhex(reward), code.sealed) for code in codes)
    copy_in(tx, "reward_codes", _COLUMNS, rows)


def left(tx: Connection, reward: str) -> int:
    """Codes of a reward that were not given out."""
    count = tx.execute(
        text("SELECT count(*) FROM reward_codes WHERE reward = :reward AND NOT taken"),
        {"reward": bytes.fromhex(reward)},
    ).scalar_one()
    return int(count)
