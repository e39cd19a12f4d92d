"""Make: a merchant drafts a reward under a code of its own, and writes it anew until it is open.

The same draft again changes nothing, so it is safe to send again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from app.flows.reward.terms import RewardError
from app.store import reward_codes, rewards, stock
from app.store.rewards import Reward
from app.vault import Vault


def make(
    tx: Connection,
    vault: Vault,
    merchant: str,
    code: str,
    terms: Mapping[str, Any],
    pieces: int | None,
    now: datetime,
) -> str:
    """Keep a merchant's draft; its id. `terms` are Reward's fields from `kind` to
    `min_reduction_mg`, and `store`, a code or None. `pieces` is the stock, None for what has no
    end; of a pool, whose codes are its stock, it is not looked at.

    Raises RewardError REWARD_STATE if it is no draft any more and these are other terms,
    STORE_UNKNOWN.
    """
    made = vault.entry_id("reward", f"{merchant}\0{code}")
    store = terms["store"] and _store(tx, merchant, terms["store"])
    before = rewards.lock(tx, made)
    wanted = Reward(
        **{**terms, "store": store},
        id=made,
        merchant=merchant,
        code=code,
        state="draft" if before is None else before.state,
        revision=1 if before is None else before.revision,
        made_at=now if before is None else before.made_at,
    )
    if before is None or before.state == "draft":
        if wanted != before:
            rewards.put(tx, wanted._replace(revision=wanted.revision + (before is not None)))
        pool = wanted.codes == "pool"
        stock.start(tx, made, reward_codes.left(tx, made) if pool else pieces)
    elif wanted != before:
        raise RewardError(
            "REWARD_STATE",
            f"the reward is {before.state} and its terms are a promise; make another one,"
            " under a code of its own",
        )
    return made


def _store(tx: Connection, merchant: str, code: str) -> str:
    found = rewards.store_of(tx, merchant, code)
    if found is None:
        raise RewardError("STORE_UNKNOWN", "this merchant has no open store of this code")
    return found
